"""Scores of split conformal prediction, and the threshold that held-out ones give."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from mcbn.evaluation.clusters import Clusters
from mcbn.network.isolation import derived_seed
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.recalibration.prediction_sets import PredictionIntervals

ClassScore = Literal["probability", "adaptive"]
RealScore = Literal["residual", "quantile"]


def require_class_score(score: str, seed: int | None) -> None:
    """Check the name of a score of classes, and that only a random one has a seed.

    Raises:
        ValueError: it is unknown, or has a seed and is not adaptive.
    """
    if score not in ("probability", "adaptive"):
        raise ValueError(
            f"expected the score 'probability' or 'adaptive', got {score!r}; choose one"
        )
    if score == "probability" and seed is not None:
        raise ValueError(
            f"expected a seed with the score 'adaptive' only, got {seed}; leave it out"
        )


def require_real_score(score: str) -> None:
    """Check the name of a score of real values.

    Raises:
        ValueError: it is unknown.
    """
    if score not in ("residual", "quantile"):
        raise ValueError(f"expected the score 'residual' or 'quantile', got {score!r}; choose one")


def class_scores(
    predictive: CategoricalPredictive, score: ClassScore, *, seed: int | None, stream: str
) -> Float64[Tensor, "batch classes"]:
    """The score of every class of each example.

    Args:
        predictive: of examples of one label.
        score: see `ConformalSets`.
        seed: of a randomised adaptive score.
        stream: what the examples are for: with another one they have other random numbers.

    Raises:
        ValueError: they have positions.
    """
    logs = predictive.log_probabilities
    if logs.ndim > 2:
        raise ValueError(
            f"expected one label per example, got positions {tuple(logs.shape[2:])}, which are "
            "not exchangeable: those of one image are alike; predict one label per image"
        )
    if score == "probability":
        return -logs
    ordered, order = logs.exp().sort(dim=1, descending=True, stable=True)
    reached = ordered.cumsum(1)
    if seed is not None:
        generator = torch.Generator().manual_seed(derived_seed(seed, stream))
        part = torch.rand((len(logs), 1), generator=generator, dtype=torch.float64)
        reached -= ordered * part.to(logs.device)
    return torch.empty_like(reached).scatter_(1, order, reached)


@dataclass(frozen=True, eq=False)
class Frame:
    """What conformal intervals start from: their ends at threshold 0, and its unit.

    Attributes:
        low: lower ends.
        high: upper ends.
        unit: by how much a threshold of 1 moves both ends outwards.
    """

    low: Float64[Tensor, " batch"]
    high: Float64[Tensor, " batch"]
    unit: Float64[Tensor, " batch"]

    @classmethod
    def of(cls, predictive: GaussianPredictive, score: RealScore, level: float) -> "Frame":
        """That of each example, by a score of `ConformalIntervals`.

        Raises:
            ValueError: predictions have several outputs, or a predictive variance is 0.
        """
        if predictive.mean.numel() != len(predictive):
            raise ValueError(
                f"expected one output, got predictions of shape {tuple(predictive.mean.shape)}, "
                "for which coverage would have several meanings; fit each output separately"
            )
        if score == "quantile":
            low, high = (end.reshape(-1) for end in predictive.interval(level))
            return cls(low, high, torch.ones_like(low))
        mean, deviation = predictive.mean.reshape(-1), predictive.variance.sqrt().reshape(-1)
        if not bool((deviation > 0).all()):
            raise ValueError(
                "expected predictive variances above 0, got one of 0, by which a residual cannot "
                "be divided; add the noise variance 1/tau, or take score='quantile'"
            )
        return cls(mean, mean, deviation)

    def scores(self, targets: Tensor) -> Float64[Tensor, " batch"]:
        """The threshold at which an interval just contains its target."""
        values = targets.reshape(-1)
        return torch.maximum(self.low - values, values - self.high) / self.unit

    def interval(self, threshold: float | Float64[Tensor, " batch"]) -> PredictionIntervals:
        """The intervals at a threshold, one for all or one for each."""
        return PredictionIntervals(
            self.low - threshold * self.unit, self.high + threshold * self.unit
        )


def conformal_threshold(scores: Tensor, level: float, clusters: Clusters | None) -> float:
    """The score of rank `ceil((n + 1) level)`; infinite where there are fewer scores.

    Args:
        scores: of held-out targets.
        level: coverage to guarantee.
        clusters: whose shares are summed; None where every score is by itself.
    """
    if clusters is not None:
        return shared_threshold(scores, level, clusters.sizes[clusters.of_row], len(clusters))
    ordered = scores.flatten().sort().values
    rank = math.ceil((len(ordered) + 1) * _as_written(level))
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def shared_threshold(
    scores: Tensor, level: float, sizes: Int[Tensor, " scores"], clusters: int
) -> float:
    """The first score up to which the shares of all K clusters sum to `(K + 1) level`.

    It is the quantile of scores of which each cluster has the mass 1 / (K + 1), and infinity has
    the rest.

    Args:
        scores: of all rows.
        level: share of the mass.
        sizes: what one is divided by for the share of each row in its cluster.
        clusters: K.
    """
    ordered, order = scores.flatten().sort()
    sizes = sizes[order.cpu()]
    needed = (clusters + 1) * _as_written(level)
    rank = bisect_left(range(len(ordered) + 1), needed, key=lambda n: _shares(sizes[:n]))
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def _as_written(level: float) -> Fraction:
    """The level as the decimal number that was written: in floating point 0.07 * 100 is above 7."""
    return Fraction(str(level))


def _shares(sizes: Int[Tensor, " chosen"]) -> Fraction:
    """The sum of one over each size; exact."""
    counts = sizes.bincount().tolist()
    return sum((Fraction(count, size) for size, count in enumerate(counts) if count), Fraction(0))
