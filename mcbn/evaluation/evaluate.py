"""Scores of a predictive against targets, each with a bootstrap interval."""

from dataclasses import dataclass
from typing import Any, get_args

from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.calibrated import calibrated_nll
from mcbn.evaluation.class_scores import class_columns, class_replicates, class_scores
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.evaluation import Evaluation, with_intervals
from mcbn.evaluation.finite_draws import extrapolated_nll, target_logs
from mcbn.evaluation.images import ScoredImages, require_no_void
from mcbn.evaluation.label_scores import label_columns, label_scores
from mcbn.evaluation.real_scores import real_columns, real_replicates, real_scores
from mcbn.evaluation.uncertain_images import UncertainImages
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.labelled import labelled_positions
from mcbn.predictive.positions import is_large
from mcbn.uncertainty.score import UncertaintyScore

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
    position: an interval from resampled pixels would be far too narrow. Of more than 131,072
    positions of classes or real values, memory does not grow with their number, and those whose
    values agree to 1/8192 count as equal where they are ranked; see `evaluate_batches`.

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
    require_predictive(predictive, *get_args(ScoredPredictive))
    scored = what_is_scored(predictive, targets, ignore_index=ignore_index, group=group)
    return evaluate_scored(scored, resamples=resamples, level=level, seed=seed, progress=progress)


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """What is scored: every example, or every labelled position where some are not.

    Attributes:
        predictive: of these rows.
        targets: of these rows; of several labels, as `BernoulliPredictive.aligned` gives them.
        clusters: the rows that are resampled together; None where each is drawn by itself.
        example: the example of each row; None where they are the examples.
        target_logs: log-probability of the targets of classes by every draw, where draws are known
            and rows are examples.
    """

    predictive: Any
    targets: Tensor
    clusters: Clusters | None = None
    example: Tensor | None = None
    target_logs: Float64[Tensor, "draws batch"] | None = None

    @property
    def has_positions(self) -> bool:
        """Whether an example has several rows, or positions."""
        several = self.example is not None and bool((self.example.diff() == 0).any())
        return several or self.targets.ndim > 1

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
        logs = target_logs_of(predictive, labels, ignore_index)
        if ignore_index is None:
            return cls(predictive, labels, clusters, target_logs=logs)
        if not isinstance(predictive, CategoricalPredictive):
            require_no_void(ignore_index)
        examples = len(predictive)
        rows, labels, example = labelled_positions(predictive, labels, ignore_index)  # type: ignore[arg-type]
        if example is not None:
            clusters = (clusters or Clusters.alone(examples)).spread(example)
        return cls(rows, labels, clusters, example, logs)


def target_logs_of(
    predictive: ScoredPredictive, targets: Tensor, ignore_index: int | None
) -> Float64[Tensor, "draws batch"] | None:
    """Log-probability of the targets of examples by every draw; None where that is not known."""
    if not isinstance(predictive, CategoricalPredictive) or predictive.draws is None:
        return None
    draws = predictive.draws
    if draws.ndim > 3 or targets.shape != draws.shape[1:2] or targets.is_floating_point():
        return None  # what does not fit is refused where it is scored
    rows = slice(None) if ignore_index is None else targets != ignore_index
    known = targets[rows]
    if not bool(((known >= 0) & (known < draws.shape[2])).all()):
        return None
    return target_logs(draws[:, rows], known).cpu()


def what_is_scored(
    predictive: ScoredPredictive,
    targets: Targets,
    *,
    ignore_index: int | None = None,
    group: Groups | None = None,
    uncertainties: tuple[UncertaintyScore, ...] = (),
) -> ScoredRows | ScoredImages:
    """The rows that are scored, or of very many positions the sums of each image.

    The arguments are those of `evaluate`, and `uncertainties` are the scores of `UncertainImages`.
    """
    if not is_large(predictive):
        return ScoredRows.of(predictive, targets, ignore_index=ignore_index, group=group)
    images = ScoredImages(ignore_index, group, uncertain=UncertainImages(uncertainties))
    images.add(predictive, as_targets(targets))  # type: ignore[arg-type]
    return images


def evaluate_scored(
    scored: ScoredRows | ScoredImages,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score rows or images; the other arguments are those of `evaluate`."""
    validation.fraction(level, "level")
    options: Any = {"resamples": resamples, "seed": seed, "progress": progress}
    if isinstance(scored, ScoredImages):
        return scored.evaluation(level=level, **options)
    predictive, targets, clusters = scored.predictive, scored.targets, scored.clusters
    if isinstance(predictive, BernoulliPredictive):
        values, replicates = label_scores(
            label_columns(predictive, targets), clusters, *targets.shape[:2], **options
        )
    elif not isinstance(predictive, CategoricalPredictive):
        columns = real_columns(predictive, targets)
        values = real_scores(columns)
        replicates = real_replicates(columns, clusters, **options)
    else:
        columns = {**class_columns(predictive, targets), **_corrected_losses(scored, seed)}
        values = class_scores(columns)
        replicates = class_replicates(columns, clusters, **options)
    return Evaluation(
        with_intervals(values, replicates, level),
        examples=_examples(predictive, targets),
        draw_count=predictive.draw_count,
        level=level,
        seed=seed,
        clusters=None if clusters is None else len(clusters),
    )


def _corrected_losses(scored: ScoredRows, seed: int) -> dict[str, Tensor]:
    """The loss of each example after a temperature, and with infinitely many draws if known.

    Of positions there are none, as of images of which only sums are kept.
    """
    if scored.has_positions:
        return {}
    logs, targets = scored.predictive.log_probabilities.cpu(), scored.targets.cpu()
    found = {"nll_calibrated": calibrated_nll(logs, targets, clusters=scored.clusters, seed=seed)}
    if scored.target_logs is not None:
        found["nll_extrapolated"] = extrapolated_nll(scored.target_logs)
    return found


def _examples(predictive: Any, targets: Tensor) -> int:
    """How many examples (and positions) are scored; of several labels, those with a known one."""
    if isinstance(predictive, BernoulliPredictive):
        return int((targets != UNKNOWN).any(1).sum())
    return int(targets.numel())


def require_predictive(predictive: object, *kinds: type) -> None:
    """Check that a predictive is of one of several kinds.

    Raises:
        TypeError: it is not.
    """
    *others, last = (kind.__name__ for kind in kinds)
    names = f"{', '.join(others)} or {last}" if others else last
    validation.require_type(predictive, kinds, f"a {names}", "give what mcbn.predict returns")
