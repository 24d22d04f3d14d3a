"""Split conformal prediction: sets and intervals that contain the target at a given level.

The guarantee: if held-out and new examples are exchangeable, a new target is in its set with a
probability of at least `level`, over the draw of both. It holds for any network and any number of
draws, on average over examples, not for each kind of example and not after a shift.

Scans of one patient are not exchangeable with those of another one. With `group=` the guarantee is
for an example of a new group, if groups are exchangeable and so are the examples within each: every
group counts as one, however many examples it has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mcbn import validation
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.conformal_scores import (
    ClassScore,
    Frame,
    RealScore,
    class_scores,
    conformal_threshold,
    require_class_score,
    require_real_score,
)
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
    score: ClassScore = "probability"
    seed: int | None = None
    groups: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        require_class_score(self.score, self.seed)

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        level: float = 0.9,
        score: ClassScore = "probability",
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
        scores = class_scores(predictive, score, seed=seed, stream="held out")
        index = validation.labels(as_targets(targets), scores.shape[1], (len(scores),)).long()
        own = scores.gather(1, index.to(scores.device)[:, None])
        return replace(
            unfitted,
            threshold=conformal_threshold(own, level, clusters),
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
        scores = class_scores(predictive, self.score, seed=self.seed, stream="new")
        return PredictionSets(scores <= self.threshold)

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
    score: RealScore = "residual"
    groups: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        require_real_score(self.score)

    @classmethod
    def fit(
        cls,
        predictive: GaussianPredictive,
        targets: Targets,
        *,
        level: float = 0.9,
        score: RealScore = "residual",
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
        scores = Frame.of(predictive, score, level).scores(predictive.aligned(targets))
        return replace(
            unfitted,
            threshold=conformal_threshold(scores, level, clusters),
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
        return Frame.of(predictive, self.score, self.level).interval(self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalIntervals":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)
