"""Scores of a predictive against targets, each with a bootstrap interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap, detection, formulas, intervals, scores
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.evaluation import NO_REPLICATES, Evaluation, Score
from mcbn.evaluation.label_scores import label_columns, label_scores
from mcbn.evaluation.reliability import equal_mass, equal_width
from mcbn.evaluation.weighted import WeightedClassScores
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive import mixture
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.labelled import labelled_positions

# What is scored.
ScoredPredictive = CategoricalPredictive | BernoulliPredictive | GaussianPredictive


def evaluate(
    predictive: ScoredPredictive,
    targets: Targets,
    *,
    ignore_index: int | None = None,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score predictions against targets.

    Classes: accuracy, negative log-likelihood (nats), Brier score (0 to 2), calibration errors,
    and how well uncertainty (one minus confidence) detects errors. Several labels an example: the
    same of all labels together, with calibration errors of the probability that a label is there,
    the share of examples with every label right, and F1, AUROC and average precision of all labels
    together (micro) and as means of the labels for which they are defined (macro); `class_scores`
    has those of each label. Real targets: RMSE, predictive log-likelihood (nats), CRPS, coverage
    and width of the central 90% interval, PIT error.
    Positions of a dense prediction count as examples; resampling is by whole example, never by
    position: an interval from resampled pixels would be far too narrow.

    Args:
        predictive: from `predict`.
        targets: class indices; of several labels, 1 for each that is there and 0 for the others; or
            real targets in the units of the predictions: a tensor, an array, a column of a data
            frame, or the data set or loader that was predicted.
        ignore_index: the target of positions, or labels, of which the truth is not known; they are
            left out.
        group: what examples that hang together share, one value per example, such as the patient
            of a scan or the video of a frame: resampling is by whole group.
        resamples: bootstrap resamples of the examples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: predictions or targets of the wrong kind.
        ValueError: targets that do not fit, are out of range or not finite; groups of another
            number of examples.
    """
    _require(predictive, get_args(ScoredPredictive))
    rows = ScoredRows.of(predictive, targets, ignore_index=ignore_index, group=group)
    return evaluate_rows(rows, resamples=resamples, level=level, seed=seed, progress=progress)


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """What is scored: every example, or every labelled position where some are not.

    Attributes:
        predictive: of these rows.
        targets: of these rows; of several labels, as `BernoulliPredictive.aligned` gives them.
        clusters: the rows that are resampled together; None where each is drawn by itself.
        example: the example of each row; None where they are the examples.
    """

    predictive: Any
    targets: Tensor
    clusters: Clusters | None = None
    example: Tensor | None = None

    @classmethod
    def of(
        cls,
        predictive: ScoredPredictive,
        targets: Targets,
        *,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "ScoredRows":
        """Leave out what is not labelled, and find what is resampled whole.

        The arguments are those of `evaluate`.
        """
        clusters = clusters_of(group, len(predictive))
        if isinstance(predictive, BernoulliPredictive):
            aligned = predictive.aligned(targets, ignore_index=ignore_index)
            return cls(predictive, aligned, clusters)
        labels = as_targets(targets)
        if ignore_index is None:
            return cls(predictive, labels, clusters)
        if not isinstance(predictive, CategoricalPredictive):
            raise ValueError(
                f"expected ignore_index with predictions of classes or labels only, got "
                f"{ignore_index} with those of real values; leave it out"
            )
        examples = len(predictive)
        rows, labels, example = labelled_positions(predictive, labels, ignore_index)
        if example is not None:
            clusters = (clusters or Clusters.alone(examples)).spread(example)
        return cls(rows, labels, clusters, example)


def evaluate_rows(
    rows: ScoredRows,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score rows; the other arguments are those of `evaluate`."""
    predictive, targets, clusters = rows.predictive, rows.targets, rows.clusters
    validation.fraction(level, "level")
    options: Any = {"resamples": resamples, "seed": seed, "progress": progress}
    if isinstance(predictive, BernoulliPredictive):
        values, replicates = label_scores(
            label_columns(predictive, targets), clusters, *targets.shape[:2], **options
        )
    elif not isinstance(predictive, CategoricalPredictive):
        columns = real_columns(predictive, targets)
        values = real_scores(columns)
        replicates = intervals.score_replicates(
            columns, _plain_real_scores, kind=intervals.pit_gaps, clusters=clusters, **options
        )
    else:
        columns = class_columns(predictive, targets)
        values = class_scores(columns)
        replicates = _class_replicates(columns, clusters, **options)
    return Evaluation(
        with_intervals(values, replicates, level),
        examples=_examples(predictive, targets),
        draw_count=predictive.draw_count,
        level=level,
        seed=seed,
        clusters=None if clusters is None else len(clusters),
    )


def _examples(predictive: Any, targets: Tensor) -> int:
    """How many examples (and positions) are scored; of several labels, those with a known one."""
    if isinstance(predictive, BernoulliPredictive):
        return int((targets != UNKNOWN).any(1).sum())
    return int(targets.numel())


def _class_replicates(
    columns: ScoreColumns, clusters: Clusters | None, **options: Any
) -> dict[str, Tensor]:
    """Replicates of all scores of classes; positions are rows of the cluster of their example."""
    cases = columns["nll"]
    if clusters is None and cases.ndim == 1:
        return intervals.score_replicates(
            columns, plain_class_scores, kind=intervals.class_gaps, **options
        )
    whole = clusters or Clusters.alone(len(cases))
    if cases.ndim > 1:
        whole = whole.spread(torch.arange(len(cases)).repeat_interleave(cases[0].numel()))
        columns = rows_of_positions(columns)
    measure = WeightedClassScores.of(columns, whole)
    return intervals.weighted_replicates(
        columns, whole, measure, kind=intervals.class_gaps, **options
    )


def out_of_distribution(
    inside: CategoricalPredictive | BernoulliPredictive,
    outside: CategoricalPredictive | BernoulliPredictive,
    *,
    uncertainty: Literal["mutual_information", "entropy"] = "mutual_information",
    inside_group: Groups | None = None,
    outside_group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """Score how well uncertainty detects examples that are out of distribution (OOD).

    They are the positive class. The two sets are resampled independently, by whole group where
    groups are given.

    Args:
        inside: predictions of examples from the training distribution.
        outside: predictions of examples that are out of distribution.
        uncertainty: what examples are ranked by; of several labels, its mean over the labels.
        inside_group: what examples of the first set that hang together share; see `evaluate`.
        outside_group: the same of the second set.
        resamples: bootstrap resamples of each set; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.

    Raises:
        TypeError: predictions of the wrong kind.
        ValueError: another kind of uncertainty, or groups of another number of examples.
    """
    for predictive in (inside, outside):
        _require(predictive, (CategoricalPredictive, BernoulliPredictive))
    return separation_scores(
        (inside, clusters_of(inside_group, len(inside))),
        (outside, clusters_of(outside_group, len(outside))),
        uncertainty=uncertainty,
        resamples=resamples,
        level=level,
        seed=seed,
    )


# Predictions, and their rows that are resampled together; None where each is drawn by itself.
Clustered = tuple[CategoricalPredictive | BernoulliPredictive, Clusters | None]


def separation_scores(
    inside: Clustered,
    outside: Clustered,
    *,
    uncertainty: Literal["mutual_information", "entropy"],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """The scores of `out_of_distribution`, of rows whose clusters are known."""
    validation.fraction(level, "level")
    if uncertainty not in ("mutual_information", "entropy"):
        raise ValueError(
            "expected the uncertainty 'mutual_information' or 'entropy', got "
            f"{uncertainty!r}; choose one"
        )
    both = [uncertainties(predictive, uncertainty) for predictive, _ in (inside, outside)]
    separation = detection.out_of_distribution(*(values.flatten() for values in both))

    def measure(chosen: ScoreColumns) -> dict[str, float]:
        return _separation_scores(
            *formulas.out_of_distribution(chosen["inside"].flatten(), chosen["outside"].flatten())
        )

    replicates = bootstrap.replicates(
        [{"inside": both[0]}, {"outside": both[1]}],
        measure,
        resamples=resamples,
        seed=seed,
        progress=False,
        clusters=[inside[1], outside[1]],
    )
    values = _separation_scores(separation.auroc, separation.aupr, separation.fpr95)
    return with_intervals(values, replicates, level)


def uncertainties(
    predictive: CategoricalPredictive | BernoulliPredictive, uncertainty: str
) -> Float64[Tensor, "batch *positions"]:
    """The uncertainty of each example (and position); of several labels, the mean over them."""
    values: Tensor = getattr(predictive, uncertainty).cpu()
    return values.mean(1) if isinstance(predictive, BernoulliPredictive) else values


def _separation_scores(auroc: float, aupr: float, fpr95: float) -> dict[str, float]:
    return {
        "auroc_out_of_distribution": auroc,
        "aupr_out_of_distribution": aupr,
        "fpr95_out_of_distribution": fpr95,
    }


def _require(predictive: object, kinds: tuple[type, ...]) -> None:
    *others, last = (kind.__name__ for kind in kinds)
    names = f"{', '.join(others)} or {last}" if others else last
    validation.require_type(predictive, kinds, f"a {names}", "give what mcbn.predict returns")


def with_intervals(
    values: Mapping[str, float], replicates: Mapping[str, Tensor], level: float
) -> dict[str, Score]:
    """Return each score with the interval of its replicates, if there are any."""
    return {
        name: Score.from_replicates(name, value, replicates.get(name, NO_REPLICATES), level)
        for name, value in values.items()
    }


def class_columns(predictive: CategoricalPredictive, targets: Targets) -> ScoreColumns:
    """Check predictions and class indices, and return what their scores are computed from.

    Each column has one row per example.

    Raises:
        TypeError: targets of the wrong kind.
        ValueError: probabilities that are none, or targets that do not fit.
    """
    targets = as_targets(targets).to(predictive.log_probabilities.device)
    # This checks the probabilities and the targets; what follows trusts them.
    nll = scores.negative_log_likelihood(predictive.log_probabilities, targets)
    probabilities, confidence = predictive.probabilities, predictive.confidence
    validation.unit_interval(confidence.flatten(), "confidence")
    columns = {
        "nll": nll,
        "brier": formulas.brier(probabilities, targets),
        "correct": formulas.correct(probabilities, targets),
        "confidence": confidence,
        "probabilities": probabilities,
        "targets": targets,
    }
    return {name: values.cpu() for name, values in columns.items()}


def rows_of_positions(columns: ScoreColumns) -> ScoreColumns:
    """What the scores of classes are computed from, with a row for each position."""
    return {
        name: values.movedim(1, -1).flatten(0, -2) if name == "probabilities" else values.flatten()
        for name, values in columns.items()
    }


def class_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return all scores of classes."""
    plain = plain_class_scores(columns)
    first = {name: plain.pop(name) for name in ("accuracy", "nll", "brier")}
    return {**first, **_calibration_errors(columns), **plain}


def plain_class_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return the scores whose replicates are those of resamples: all but calibration errors."""
    correct, confidence = columns["correct"].flatten(), columns["confidence"].flatten()
    _, _, area, excess, generalized = formulas.risk_coverage(1 - confidence, ~correct)
    # Without a single error, or a single success, there is nothing to detect.
    mixed = bool(correct.any()) and not bool(correct.all())
    return {
        "accuracy": float(correct.double().mean()),
        "nll": float(columns["nll"].mean()),
        "brier": float(columns["brier"].mean()),
        "aurc": area,
        "e_aurc": excess,
        "augrc": generalized,
        "auroc_of_errors": formulas.auroc(1 - confidence, ~correct) if mixed else math.nan,
    }


def _calibration_errors(columns: ScoreColumns) -> dict[str, float]:
    # Rounding may lift a confidence over 1.
    flags = columns["confidence"].flatten().clamp(max=1), columns["correct"].flatten()
    width, mass = equal_width(*flags), equal_mass(*flags)
    return {
        "ece": width.expected_error,
        "ece_equal_mass": mass.expected_error,
        "ece_debiased": mass.debiased_error,
        "ece_classwise": formulas.classwise_calibration_error(
            columns["probabilities"], columns["targets"]
        ),
        "ece_smooth": formulas.smooth_calibration_error(*flags),
        "mce": width.maximum_error,
    }


def real_columns(predictive: GaussianPredictive, targets: Targets) -> ScoreColumns:
    """Check real targets, and return what their scores are computed from, one row per example.

    Raises:
        ValueError: targets that do not fit or are not finite.
    """
    aligned = predictive.aligned(targets)
    mean = predictive.mean
    columns = mixture.forecast_scores(
        predictive.means, predictive.variances, aligned,
        mean=mean, variance=predictive.variance, level=0.9,
    )  # fmt: skip
    low, high = columns.pop("low"), columns.pop("high")
    columns |= {
        "error": formulas.squared_error(mean, aligned),
        "inside": ((aligned >= low) & (aligned <= high)).double(),
        "width": high - low,
    }
    return {name: values.cpu() for name, values in columns.items()}


def real_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return all scores of real targets."""
    pit = validation.unit_interval(columns["pit"].flatten(), "pit")
    return {
        **_plain_real_scores(columns),
        "pit_error": formulas.quantile_calibration_error(pit),
    }


def _plain_real_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return the scores whose replicates are those of resamples: all but the PIT error."""
    return {
        "rmse": float(columns["error"].mean().sqrt()),
        "pll": float(columns["log_prob"].mean()),
        "crps": float(columns["crps"].mean()),
        "crps_moment_matched": float(columns["crps_moment_matched"].mean()),
        "coverage_90": float(columns["inside"].mean()),
        "width_90": float(columns["width"].mean()),
    }
