"""Scores of a predictive against targets, each with a bootstrap interval, and their differences."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap, calibration, detection, intervals, scores
from mcbn.evaluation.bootstrap import Columns
from mcbn.evaluation.glossary import BETTER, Direction
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive

PREDICTIVES = (CategoricalPredictive, GaussianPredictive)
NONE = torch.zeros(0, dtype=torch.float64)  # replicates where nothing was resampled


@dataclass(frozen=True, eq=False)
class Score:
    """One figure with its interval.

    Attributes:
        value: the score on the data as they are.
        low: lower end of the bootstrap interval; NaN without resamples.
        high: upper end.
        better: whether lower or higher is better.
        replicates: the score on each resample, NaN where a resample does not define it; of a
            calibration error, what the true one is by that resample, in one row or two that its
            interval spans (see docs/method.md).
    """

    value: float
    low: float
    high: float
    better: Direction
    replicates: Float64[Tensor, "*shapes resamples"]

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Score]):
    """Scores by name, each with a bootstrap interval.

    Attributes:
        scores: the scores.
        examples: how many examples (and positions) were scored.
        draw_count: T of the predictive.
        level: the intervals' level.
        seed: chooses the resamples; evaluations of one seed and size are paired.
    """

    scores: Mapping[str, Score]
    examples: int
    draw_count: int
    level: float
    seed: int

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "examples": self.examples,
            "draws": self.draw_count,
            "level": self.level,
            "scores": {
                name: {
                    "value": score.value,
                    "low": score.low,
                    "high": score.high,
                    "better": score.better,
                }
                for name, score in self.items()
            },
        }

    def to_metrics(self) -> dict[str, float]:
        """Numbers by name, as trackers log them; `nll_low` to `nll_high` is the interval of `nll`.

        What is not defined is left out.
        """
        return {
            name + end: value
            for name, score in self.items()
            for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
            if not math.isnan(value)
        }

    def minus(self, other: "Evaluation") -> dict[str, Score]:
        """This evaluation's scores less the other's, with intervals of the paired differences.

        Both must be of the same examples in the same order, under one seed: then each resample
        drew the same examples for both.

        Raises:
            ValueError: the evaluations are not paired.
        """
        mine, theirs = self._pairing(), other._pairing()
        if mine != theirs:
            raise ValueError(
                "expected evaluations of the same examples, seed, level and resamples, got "
                f"{mine} and {theirs}; evaluate both alike"
            )
        return {
            name: score_of(
                name,
                score.value - other[name].value,
                intervals.difference(score.replicates, other[name].replicates, self.level),
                self.level,
            )
            for name, score in self.items()
            if name in other
        }

    def _pairing(self) -> tuple[int, int, float, int]:
        """What must be one for both of a pair; the last is the number of resamples."""
        resamples = next((score.replicates.shape[-1] for score in self.values()), 0)
        return self.examples, self.seed, self.level, resamples


def evaluate(
    predictive: CategoricalPredictive | GaussianPredictive,
    targets: Tensor,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score predictions against targets.

    Classes: accuracy, negative log-likelihood (nats), Brier score (0 to 2), calibration errors,
    and how well uncertainty (one minus confidence) tells errors apart. Real targets: RMSE,
    predictive log-likelihood (nats), CRPS, coverage and width of the central 90 % interval, PIT.
    Positions of a dense prediction count as examples; resampling is by whole example.

    Args:
        predictive: from `predict`.
        targets: class indices, or real targets in the units of the predictions.
        resamples: bootstrap resamples of the examples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: predictions or targets of the wrong kind.
        ValueError: targets that do not fit, are out of range or not finite.
    """
    _require(predictive, PREDICTIVES)
    validation.fraction(level, "level")
    columns: Columns
    kind: intervals.Kind
    if isinstance(predictive, CategoricalPredictive):
        columns = class_columns(predictive, targets)
        values, measure = class_scores(columns), class_other_scores
        kind = intervals.class_gaps
    else:
        columns = real_columns(predictive, targets)
        values, measure = real_scores(columns), real_scores
        kind = intervals.pit_gaps
    replicates = intervals.replicates(
        columns, measure, kind=kind, resamples=resamples, seed=seed, progress=progress
    )
    return Evaluation(
        {
            name: score_of(name, value, replicates.get(name, NONE), level)
            for name, value in values.items()
        },
        examples=int(targets.numel()),
        draw_count=predictive.draw_count,
        level=level,
        seed=seed,
    )


def out_of_distribution(
    inside: CategoricalPredictive,
    outside: CategoricalPredictive,
    *,
    uncertainty: Literal["mutual_information", "entropy"] = "mutual_information",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """How well uncertainty tells another data set from the training distribution.

    The data from outside are the positive class. Inside and outside are resampled apart.

    Raises:
        TypeError: predictions of the wrong kind.
        ValueError: another kind of uncertainty.
    """
    for predictive in (inside, outside):
        _require(predictive, (CategoricalPredictive,))
    if uncertainty not in ("mutual_information", "entropy"):
        raise ValueError(
            f"expected the uncertainty 'mutual_information' or 'entropy', got {uncertainty!r}"
        )
    groups = [
        {"inside": getattr(inside, uncertainty).cpu()},
        {"outside": getattr(outside, uncertainty).cpu()},
    ]

    def measure(chosen: Columns) -> dict[str, float]:
        found = detection.out_of_distribution(
            chosen["inside"].flatten(), chosen["outside"].flatten()
        )
        return {
            "auroc_out_of_distribution": found.auroc,
            "aupr_out_of_distribution": found.aupr,
            "fpr95_out_of_distribution": found.fpr95,
        }

    values = measure({**groups[0], **groups[1]})
    replicates = bootstrap.replicates(
        groups, measure, resamples=resamples, seed=seed, progress=False
    )
    return {
        name: score_of(name, value, replicates.get(name, NONE), level)
        for name, value in values.items()
    }


def _require(predictive: object, kinds: tuple[type, ...]) -> None:
    names = " or ".join(kind.__name__ for kind in kinds)
    validation.kind(predictive, kinds, f"a {names}", "give what mcbn.predict returns")


def score_of(name: str, value: float, replicates: Tensor, level: float) -> Score:
    """A figure with the interval from its replicates."""
    ends = bootstrap.percentile_interval(replicates, level)
    better = BETTER.get(name, "lower")  # of mutual information neither way is, and nothing asks
    return Score(value, *ends, better, replicates)


def class_columns(predictive: CategoricalPredictive, targets: Tensor) -> Columns:
    """What the scores of classes are made from, one row an example."""
    device = predictive.log_probabilities.device
    targets = validation.tensor(targets, "targets").to(device)
    found = {
        "nll": scores.negative_log_likelihood(predictive.log_probabilities, targets),
        "brier": scores.brier(predictive.probabilities, targets),
        "correct": scores.correct(predictive.probabilities, targets),
        "confidence": predictive.confidence,
        "probabilities": predictive.probabilities,
        "targets": targets,
    }
    return {name: values.cpu() for name, values in found.items()}


def class_scores(columns: Columns) -> dict[str, float]:
    """All scores of classes."""
    others = class_other_scores(columns)
    first = {name: others.pop(name) for name in ("accuracy", "nll", "brier")}
    return {**first, **_calibration_errors(columns), **others}


def class_other_scores(columns: Columns) -> dict[str, float]:
    """The scores of classes that are resampled as they are: all but calibration errors."""
    correct, confidence = columns["correct"].flatten(), columns["confidence"].flatten()
    selective = detection.risk_coverage(1 - confidence, ~correct)
    # Without a single error, or a single success, there is nothing to tell apart.
    mixed = bool(correct.any()) and not bool(correct.all())
    return {
        "accuracy": float(correct.double().mean()),
        "nll": float(columns["nll"].mean()),
        "brier": float(columns["brier"].mean()),
        "aurc": selective.area,
        "e_aurc": selective.excess_area,
        "augrc": selective.generalized_area,
        "auroc_of_errors": detection.auroc(1 - confidence, ~correct) if mixed else math.nan,
    }


def _calibration_errors(columns: Columns) -> dict[str, float]:
    flags = columns["confidence"].flatten(), columns["correct"].flatten()
    reliability = calibration.Reliability.from_predictions(*flags)
    return {
        "ece": reliability.expected_error,
        "ece_equal_mass": calibration.expected_calibration_error(*flags, binning="mass"),
        "ece_debiased": calibration.debiased_calibration_error(*flags),
        "ece_classwise": calibration.classwise_calibration_error(
            columns["probabilities"], columns["targets"]
        ),
        "ece_smooth": calibration.smooth_calibration_error(*flags),
        "mce": reliability.maximum_error,
    }


def real_columns(predictive: GaussianPredictive, targets: Tensor) -> Columns:
    """What the scores of real targets are made from, one row an example."""
    aligned = predictive.aligned(targets)
    low, high = predictive.interval(0.9)
    found = {
        "error": scores.squared_error(predictive.mean, aligned),
        "log_prob": predictive.log_prob(aligned),
        "crps": predictive.crps(aligned),
        "crps_moment_matched": predictive.crps_moment_matched(aligned),
        "inside": ((aligned >= low) & (aligned <= high)).double(),
        "width": high - low,
        "pit": predictive.cdf(aligned),
    }
    return {name: values.cpu() for name, values in found.items()}


def real_scores(columns: Columns) -> dict[str, float]:
    """All scores of real targets."""
    return {
        "rmse": float(columns["error"].mean().sqrt()),
        "pll": float(columns["log_prob"].mean()),
        "crps": float(columns["crps"].mean()),
        "crps_moment_matched": float(columns["crps_moment_matched"].mean()),
        "coverage_90": float(columns["inside"].mean()),
        "width_90": float(columns["width"].mean()),
        "pit_error": calibration.quantile_calibration_error(columns["pit"].flatten()),
    }
