"""Conformal sets with a threshold for each class, which cover a rare class as often as others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcbn import validation
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.conformal_parts import Fits, display_parts, fit_parts, require_as_many
from mcbn.recalibration.conformal_scores import ClassScore, class_scores, require_class_score
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.prediction_sets import PredictionSets


@dataclass(frozen=True, repr=False)
class ConformalSetsByClass(Displayed):
    """Sets of classes that contain each class as often as promised, also a rare one.

    A class is in the set of an example if its score is at most the threshold of that class. The
    guarantee: if held-out and new examples of class c are exchangeable, the set of a new one
    contains c with a probability of at least `level`, for every c, over the draw of both. So it
    holds also where classes become more or less frequent than they were, but not where the examples
    of a class change. Sets may be larger than those of `ConformalSets`, or empty.

    Attributes:
        level: guaranteed coverage of each class.
        thresholds: of each class, the k-th smallest score of its n held-out examples,
            k = ceil((n + 1) level). It is infinite for n < level / (1 - level): the class is then
            in every set. With groups it is as in `ConformalSets`, of the groups that have examples
            of the class.
        examples: n of each class.
        score: "probability" or "adaptive", see `ConformalSets`.
        seed: of a randomised adaptive score.
        groups: of each class, the number of groups that have examples of it; None where every
            example is by itself.

    Reference:
        Vovk 2012, "Conditional Validity of Inductive Conformal Predictors" (Mondrian); Sadinle,
        Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels",
        on coverage of each class.
    """

    level: float
    thresholds: tuple[float, ...]
    examples: tuple[int, ...]
    score: ClassScore = "probability"
    seed: int | None = None
    groups: tuple[int, ...] | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")
        require_class_score(self.score, self.seed)
        require_as_many(self.thresholds, self.examples, self.groups)

    def display(self) -> Display:
        """The threshold of each class."""
        heading = f"ConformalSetsByClass of {len(self.thresholds)} classes at level {self.level:g}"
        names = tuple(map(str, range(len(self.thresholds))))
        fits = Fits(self.thresholds, self.examples, self.groups)
        return display_parts(heading, "class", names, fits)

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
    ) -> "ConformalSetsByClass":
        """Fit the threshold of each class on held-out examples that nothing else was fitted on.

        Args:
            predictive: predictions of held-out examples.
            targets: their class indices.
            level: coverage to guarantee.
            score: "probability" or "adaptive".
            seed: of a randomised adaptive score.
            group: what examples that hang together share; see `ConformalSets.fit`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: an option is unknown, targets or groups do not fit, or predictions have
                positions.
        """
        held_out.require_of_classes(predictive, "ConformalLabels")
        validation.fraction(level, "level")
        require_class_score(score, seed)
        scores = class_scores(predictive, score, seed=seed, stream="held out")
        classes = scores.shape[1]
        index = validation.labels(as_targets(targets), classes, (len(scores),)).long()
        own = scores.gather(1, index.to(scores.device)[:, None])[:, 0].cpu()
        parts = [index.cpu() == number for number in range(classes)]
        fits = fit_parts(own, parts, level, clusters_of(group, len(predictive)))
        return cls(
            level, fits.thresholds, fits.examples, score, seed, fits.groups,
            HeldOut.of(predictive, group),
        )  # fmt: skip

    def __call__(
        self, predictive: CategoricalPredictive, *, group: Groups | None = None
    ) -> PredictionSets:
        """Return the set of each example.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of classes.
            ValueError: they are the ones fitted on, or of groups fitted on, have positions, or
                another number of classes.
        """
        held_out.require_of_classes(predictive, "ConformalLabels")
        self.held_out.require_other(predictive, group)
        scores = class_scores(predictive, self.score, seed=self.seed, stream="new")
        if scores.shape[1] != len(self.thresholds):
            raise ValueError(
                f"expected predictions of {len(self.thresholds)} classes, got {scores.shape[1]}; "
                "fit on predictions of the same classes"
            )
        return PredictionSets(scores <= scores.new_tensor(self.thresholds))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalSetsByClass":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)
