"""Split conformal prediction: sets and intervals that contain the target at a given level.

The guarantee: if held-out and new examples are exchangeable, a new target is in its set with a
probability of at least `level`, over the draw of both. It holds for any network and any number of
draws, on average over examples, not for each kind of example and not after a shift.

Scans of one patient are not exchangeable with those of another one. With `group=` the guarantee is
for an example of a new group, if groups are exchangeable and so are the examples within each: every
group counts as one, however many examples it has.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.network.isolation import derived_seed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.prediction_sets import PredictionIntervals, PredictionSets


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes: those whose score is at most a threshold fitted on held-out examples.

    The score "probability" is `-log p_c`: a class is in the set if it is probable enough. It is
    the `1 - p_c` of LAC on a scale on which small probabilities do not tie; its sets are small,
    and may be empty. "adaptive" (APS) is the probability of all classes from the most probable
    down to c: its sets are larger, and adapt more to the difficulty of an example. With a `seed`
    it is randomised: only a random part of the probability of c itself is counted, which removes
    the excess coverage.

    Attributes:
        level: guaranteed coverage.
        threshold: the k-th smallest held-out score, k = ceil((n + 1) level); ties cover more. It
            is infinite where k > n, that is for n < level / (1 - level): every set is then whole.
            With groups it is the smallest score up to which the shares of all groups sum to
            (K + 1) level, and infinite for K < level / (1 - level).
        examples: n, the examples fitted on.
        score: "probability" or "adaptive".
        seed: of a randomised adaptive score; None for none. The part depends on it and on the
            place of the example among those predicted.
        groups: K, the groups fitted on; None where every example is by itself.

    Reference:
        Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers with Bounded
        Error Levels" (LAC); Romano, Sesia and Candes 2020, "Classification with Valid and
        Adaptive Coverage" (APS); Lee, Barber and Willett 2023, "Distribution-Free Inference with
        Hierarchical Data" (HCP), for groups.
    """

    level: float
    threshold: float
    examples: int
    score: Literal["probability", "adaptive"] = "probability"
    seed: int | None = None
    groups: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        if self.score not in ("probability", "adaptive"):
            raise ValueError(
                f"expected the score 'probability' or 'adaptive', got {self.score!r}; choose one"
            )
        if self.score == "probability" and self.seed is not None:
            raise ValueError(
                f"expected a seed with the score 'adaptive' only, got {self.seed}; leave it out"
            )

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        level: float = 0.9,
        score: Literal["probability", "adaptive"] = "probability",
        seed: int | None = None,
        group: Groups | None = None,
    ) -> "ConformalSets":
        """Fit the threshold on held-out examples that nothing else was fitted on.

        Args:
            predictive: predictions of held-out examples.
            targets: their class indices.
            level: coverage to guarantee.
            score: "probability" or "adaptive".
            seed: of a randomised adaptive score.
            group: what examples that hang together share, one value per example, such as the
                patient of a scan: the guarantee is then for an example of a new group.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: an option is unknown, targets or groups do not fit, or predictions have
                positions.
        """
        held_out.require_of_classes(predictive, "ConformalLabels")
        clusters = clusters_of(group, len(predictive))
        groups = None if clusters is None else len(clusters)
        unfitted = cls(level, math.inf, len(predictive), score, seed, groups)
        scores = unfitted._scores(predictive, "held out")
        index = validation.labels(as_targets(targets), scores.shape[1], (len(scores),)).long()
        own = scores.gather(1, index.to(scores.device)[:, None])
        return replace(
            unfitted,
            threshold=_threshold(own, level, clusters),
            held_out=HeldOut.of(predictive, group),
        )

    def __call__(
        self, predictive: CategoricalPredictive, *, group: Groups | None = None
    ) -> PredictionSets:
        """Return the set of each example.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of classes.
            ValueError: they are the ones fitted on, or of groups fitted on, or have positions.
        """
        held_out.require_of_classes(predictive, "ConformalLabels")
        self.held_out.require_other(predictive, group)
        return PredictionSets(self._scores(predictive, "new") <= self.threshold)

    def _scores(
        self, predictive: CategoricalPredictive, stream: str
    ) -> Float64[Tensor, "batch classes"]:
        """The score of every class of each example."""
        logs = predictive.log_probabilities
        if logs.ndim > 2:
            raise ValueError(
                f"expected one label per example, got positions {tuple(logs.shape[2:])}, which are "
                "not exchangeable: those of one image are alike; predict one label per image"
            )
        if self.score == "probability":
            return -logs
        ordered, order = logs.exp().sort(dim=1, descending=True, stable=True)
        reached = ordered.cumsum(1)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, stream))
            part = torch.rand((len(logs), 1), generator=generator, dtype=torch.float64)
            reached -= ordered * part.to(logs.device)
        return torch.empty_like(reached).scatter_(1, order, reached)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalSets":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


@dataclass(frozen=True)
class ConformalIntervals:
    """Intervals of real values, as wide as held-out examples require.

    The score "residual" is `|y - mean| / sd` with the total predictive deviation, and the
    interval `mean +- threshold sd`. "quantile" starts from the central predictive interval
    `(a, b)` of the same level; the score is `max(a - y, y - b)`, and both ends move outwards by
    the threshold, inwards if it is negative, which may leave an interval empty. The first
    multiplies the width, the second adds to it.

    Attributes:
        level: guaranteed coverage.
        threshold: the k-th smallest held-out score, k = ceil((n + 1) level). It is infinite where
            k > n, that is for n < level / (1 - level): every interval is then the whole line. With
            groups it is as in `ConformalSets`.
        examples: n, the examples fitted on.
        score: "residual" or "quantile".
        groups: K, the groups fitted on; None where every example is by itself.

    Reference:
        Lei, G'Sell, Rinaldo, Tibshirani and Wasserman 2018, "Distribution-Free Predictive
        Inference for Regression", section 5.2; Romano, Patterson and Candes 2019, "Conformalized
        Quantile Regression"; Lee, Barber and Willett 2023, as for `ConformalSets`.
    """

    level: float
    threshold: float
    examples: int
    score: Literal["residual", "quantile"] = "residual"
    groups: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        if self.score not in ("residual", "quantile"):
            raise ValueError(
                f"expected the score 'residual' or 'quantile', got {self.score!r}; choose one"
            )

    @classmethod
    def fit(
        cls,
        predictive: GaussianPredictive,
        targets: Targets,
        *,
        level: float = 0.9,
        score: Literal["residual", "quantile"] = "residual",
        group: Groups | None = None,
    ) -> "ConformalIntervals":
        """Fit the threshold on held-out examples that nothing else was fitted on.

        Args:
            predictive: predictions of held-out examples.
            targets: what was observed, in the units of the predictions.
            level: coverage to guarantee.
            score: "residual" or "quantile".
            group: what examples that hang together share; see `ConformalSets.fit`.

        Raises:
            TypeError: predictions of the wrong kind.
            ValueError: an option is unknown, targets or groups do not fit, predictions have
                several outputs, or a predictive variance is 0.
        """
        held_out.require_of_real_values(predictive)
        clusters = clusters_of(group, len(predictive))
        groups = None if clusters is None else len(clusters)
        unfitted = cls(level, math.inf, len(predictive), score, groups)
        values = predictive.aligned(targets).reshape(-1)
        low, high, unit = unfitted._frame(predictive)
        scores = torch.maximum(low - values, values - high) / unit
        return replace(
            unfitted,
            threshold=_threshold(scores, level, clusters),
            held_out=HeldOut.of(predictive, group),
        )

    def __call__(
        self, predictive: GaussianPredictive, *, group: Groups | None = None
    ) -> PredictionIntervals:
        """Return the interval of each example.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            ValueError: they are the ones fitted on, or of groups fitted on, or as for `fit`.
        """
        self.held_out.require_other(predictive, group)
        low, high, unit = self._frame(predictive)
        return PredictionIntervals(low - self.threshold * unit, high + self.threshold * unit)

    def _frame(self, predictive: GaussianPredictive) -> tuple[Tensor, Tensor, Tensor]:
        """Ends of the interval at threshold 0, and the unit of the threshold."""
        if predictive.mean.numel() != len(predictive):
            raise ValueError(
                f"expected one output, got predictions of shape {tuple(predictive.mean.shape)}, "
                "for which coverage would have several meanings; fit each output separately"
            )
        if self.score == "quantile":
            low, high = (end.reshape(-1) for end in predictive.interval(self.level))
            return low, high, torch.ones_like(low)
        mean, deviation = predictive.mean.reshape(-1), predictive.variance.sqrt().reshape(-1)
        if not bool((deviation > 0).all()):
            raise ValueError(
                "expected predictive variances above 0, got one of 0, by which a residual cannot "
                "be divided; add the noise variance 1/tau, or take score='quantile'"
            )
        return mean, mean, deviation

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalIntervals":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def _threshold(scores: Tensor, level: float, clusters: Clusters | None) -> float:
    """The score of rank `ceil((n + 1) level)`; infinite where there are fewer scores."""
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
