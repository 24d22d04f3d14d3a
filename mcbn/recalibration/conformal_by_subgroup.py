"""Conformal sets and intervals with a threshold for each subgroup of examples.

Subgroups are those of `mcbn.evaluation.subgroups`: values such as the hospital of a scan, which are
known of every example, also of new ones. `group=` is something else, as everywhere: what examples
that hang together share, such as the patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcbn import validation
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.conformal_parts import (
    Fits,
    display_parts,
    fit_parts,
    of_examples,
    parts_of,
    require_as_many,
    require_names,
)
from mcbn.recalibration.conformal_scores import (
    ClassScore,
    Frame,
    RealScore,
    class_scores,
    require_class_score,
    require_real_score,
)
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.prediction_sets import PredictionIntervals, PredictionSets


@dataclass(frozen=True, repr=False)
class ConformalSetsBySubgroup(Displayed):
    """Sets of classes that contain the class as often as promised in each subgroup of examples.

    A class is in the set of an example if its score is at most the threshold of the example's
    subgroup. The guarantee: if held-out and new examples of a subgroup are exchangeable, the set of
    a new one contains its class with a probability of at least `level`, for every subgroup, over
    the draw of both; so also where subgroups become more or less frequent.

    Attributes:
        level: guaranteed coverage of each subgroup.
        names: of the subgroups fitted on. Sets of examples of any other hold everything.
        thresholds: of each subgroup, as in `ConformalSetsByClass`. It is infinite for
            n < level / (1 - level): sets in the subgroup are then whole.
        examples: n of each subgroup.
        score: "probability" or "adaptive", see `ConformalSets`.
        seed: of a randomised adaptive score.
        groups: of each subgroup, the number of groups in it; None where every example is by itself.

    Reference:
        Vovk 2012, "Conditional Validity of Inductive Conformal Predictors" (Mondrian);
        Romano, Barber, Sabatti and Candes 2020, "With Malice Toward None: Assessing Uncertainty
        via Equalized Coverage".
    """

    level: float
    names: tuple[str, ...]
    thresholds: tuple[float, ...]
    examples: tuple[int, ...]
    score: ClassScore = "probability"
    seed: int | None = None
    groups: tuple[int, ...] | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        require_class_score(self.score, self.seed)
        require_names(self.names)
        require_as_many(self.thresholds, self.names, self.examples, self.groups)

    def display(self) -> Display:
        """The threshold of each subgroup."""
        heading = f"{type(self).__name__} of {len(self.names)} subgroups at level {self.level:g}"
        fits = Fits(self.thresholds, self.examples, self.groups)
        return display_parts(heading, "subgroup", self.names, fits)

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        by: Groups,
        level: float = 0.9,
        score: ClassScore = "probability",
        seed: int | None = None,
        group: Groups | None = None,
    ) -> "ConformalSetsBySubgroup":
        """Fit the threshold of each subgroup on held-out examples that nothing was fitted on.

        Args:
            predictive: predictions of held-out examples.
            targets: their class indices.
            by: the subgroup of each example, which must be known of new ones as well: a sequence,
                an array, a tensor or a column of a data frame.
            level: coverage to guarantee.
            score: "probability" or "adaptive".
            seed: of a randomised adaptive score.
            group: what examples that hang together share; see `ConformalSets.fit`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: an option is unknown, targets, subgroups or groups do not fit, or
                predictions have positions.
        """
        held_out.require_of_classes(predictive, "ConformalLabels")
        validation.fraction(level, "level")
        require_class_score(score, seed)
        scores = class_scores(predictive, score, seed=seed, stream="held out")
        index = validation.labels(as_targets(targets), scores.shape[1], (len(scores),)).long()
        own = scores.gather(1, index.to(scores.device)[:, None])[:, 0].cpu()
        names, parts = parts_of(by, len(predictive))
        fits = fit_parts(own, parts, level, clusters_of(group, len(predictive)))
        return cls(
            level, names, fits.thresholds, fits.examples, score, seed, fits.groups,
            HeldOut.of(predictive, group),
        )  # fmt: skip

    def __call__(
        self, predictive: CategoricalPredictive, *, by: Groups, group: Groups | None = None
    ) -> PredictionSets:
        """Return the set of each example.

        Args:
            predictive: of other examples than those fitted on.
            by: the subgroup of each example.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of classes.
            ValueError: they are the ones fitted on, or of groups fitted on, have positions, or
                subgroups that do not fit.
        """
        held_out.require_of_classes(predictive, "ConformalLabels")
        self.held_out.require_other(predictive, group)
        scores = class_scores(predictive, self.score, seed=self.seed, stream="new")
        thresholds = of_examples(self.names, self.thresholds, by, like=scores[:, 0])
        return PredictionSets(scores <= thresholds[:, None])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalSetsBySubgroup":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


@dataclass(frozen=True, repr=False)
class ConformalIntervalsBySubgroup(Displayed):
    """Intervals of real values that contain them as often as promised in each subgroup.

    The guarantee is that of `ConformalSetsBySubgroup`, and the intervals are those of
    `ConformalIntervals` with the threshold of the example's subgroup.

    Attributes:
        level: guaranteed coverage of each subgroup.
        names: of the subgroups fitted on. Intervals of examples of any other are the whole line.
        thresholds: of each subgroup, as in `ConformalSetsByClass`. It is infinite for
            n < level / (1 - level): intervals in the subgroup are then the whole line.
        examples: n of each subgroup.
        score: "residual" or "quantile", see `ConformalIntervals`.
        groups: of each subgroup, the number of groups in it; None where every example is by itself.

    Reference:
        Romano, Barber, Sabatti and Candes 2020, as for `ConformalSetsBySubgroup`.
    """

    level: float
    names: tuple[str, ...]
    thresholds: tuple[float, ...]
    examples: tuple[int, ...]
    score: RealScore = "residual"
    groups: tuple[int, ...] | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        require_real_score(self.score)
        require_names(self.names)
        require_as_many(self.thresholds, self.names, self.examples, self.groups)

    def display(self) -> Display:
        """The threshold of each subgroup."""
        heading = f"{type(self).__name__} of {len(self.names)} subgroups at level {self.level:g}"
        fits = Fits(self.thresholds, self.examples, self.groups)
        return display_parts(heading, "subgroup", self.names, fits)

    @classmethod
    def fit(
        cls,
        predictive: GaussianPredictive,
        targets: Targets,
        *,
        by: Groups,
        level: float = 0.9,
        score: RealScore = "residual",
        group: Groups | None = None,
    ) -> "ConformalIntervalsBySubgroup":
        """Fit the threshold of each subgroup on held-out examples that nothing was fitted on.

        Args:
            predictive: predictions of held-out examples.
            targets: what was observed, in the units of the predictions.
            by: the subgroup of each example, which must be known of new ones as well.
            level: coverage to guarantee.
            score: "residual" or "quantile".
            group: what examples that hang together share; see `ConformalSets.fit`.

        Raises:
            TypeError: predictions of the wrong kind.
            ValueError: an option is unknown, targets, subgroups or groups do not fit, predictions
                have several outputs, or a predictive variance is 0.
        """
        held_out.require_of_real_values(predictive)
        validation.fraction(level, "level")
        require_real_score(score)
        own = Frame.of(predictive, score, level).scores(predictive.aligned(targets)).cpu()
        names, parts = parts_of(by, len(predictive))
        fits = fit_parts(own, parts, level, clusters_of(group, len(predictive)))
        return cls(
            level, names, fits.thresholds, fits.examples, score, fits.groups,
            HeldOut.of(predictive, group),
        )  # fmt: skip

    def __call__(
        self, predictive: GaussianPredictive, *, by: Groups, group: Groups | None = None
    ) -> PredictionIntervals:
        """Return the interval of each example.

        Args:
            predictive: of other examples than those fitted on.
            by: the subgroup of each example.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            ValueError: they are the ones fitted on, or of groups fitted on, or as for `fit`.
        """
        self.held_out.require_other(predictive, group)
        frame = Frame.of(predictive, self.score, self.level)
        thresholds = of_examples(self.names, self.thresholds, by, like=frame.low)
        return frame.interval(thresholds)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalIntervalsBySubgroup":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)
