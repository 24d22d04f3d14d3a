"""Isotonic recalibration of several labels an example: one rising function for each label."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import logsigmoid

from mcbn.evaluation.clusters import Groups
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.isotonic import isotonic_function, require_function
from mcbn.recalibration.known_answers import KnownAnswers
from mcbn.recalibration.shares import averaged_labels


@dataclass(frozen=True, repr=False)
class IsotonicByLabel(Displayed):
    """A rising function of probability for each of several labels.

    `q = (n g(p) + p) / (n + 1)`: g is the isotonic regression of "is the label there" on its mean
    probability over n known answers, linear between its knots and constant outside them. The share
    1 / (n + 1) of p itself makes q strictly increasing, as in `Isotonic`: the order of the examples
    by each label stays, and no log score becomes infinite. A label without known answers stays as
    it is. Entropy and its parts are as in `TemperatureScaling`.

    Attributes:
        knots: probabilities, rising, of each label.
        values: g at the knots.
        examples: n of each label.

    Reference:
        Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates"; the share of p as in Zhang, Kailkhura and Han 2020.
    """

    knots: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    examples: tuple[int, ...]
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        lengths = [len(each) for each in (self.knots, self.values, self.examples)]
        if len(set(lengths)) > 1:
            raise ValueError(
                "expected knots, values and a number of examples of each label, got "
                f"{lengths} of them; fit them with .fit"
            )
        for knots, values, examples in zip(self.knots, self.values, self.examples, strict=True):
            if knots or values or examples:
                require_function(knots, values, examples)

    def display(self) -> Display:
        """How much is known of each label."""
        heading = f"IsotonicByLabel of {len(self.knots)} labels"
        rows = [
            (str(number), str(len(knots)), f"{examples:,}")
            for number, (knots, examples) in enumerate(zip(self.knots, self.examples, strict=True))
        ]
        return Display(heading, ("label", "knots", "known answers"), rows)

    @classmethod
    def fit(
        cls,
        predictive: BernoulliPredictive,
        targets: Targets,
        *,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "IsotonicByLabel":
        """Fit the functions by least squares on held-out targets; positions count as examples.

        Equal probabilities are one point with their mean, as in scikit-learn.

        Args:
            predictive: predictions of held-out examples.
            targets: 1 for each label that is there, and 0 for the others.
            ignore_index: the target of labels of which the truth is not known; they are left out.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit.
        """
        held_out.require_of_labels(predictive, "Isotonic")
        answers = KnownAnswers.by_label(predictive, targets, ignore_index)
        functions = [
            isotonic_function(_probabilities(each.log_odds), each.present.cpu().numpy())
            if len(each) else ((), ())
            for each in answers
        ]  # fmt: skip
        knots, values = zip(*functions, strict=True)
        return cls(knots, values, tuple(map(len, answers)), HeldOut.of(predictive, group))

    def __call__(
        self, predictive: BernoulliPredictive, *, group: Groups | None = None
    ) -> BernoulliPredictive:
        """Return the predictions recalibrated label by label; draws are not kept.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of several labels.
            ValueError: they are the ones fitted on, or of groups fitted on, or have another number
                of labels.
        """
        held_out.require_of_labels(predictive, "Isotonic")
        self.held_out.require_other(predictive, group)
        held_out.require_of_as_many_labels(predictive, len(self.knots))
        columns = zip(predictive.log_odds.unbind(1), self.knots, self.values, self.examples,
                      strict=True)  # fmt: skip
        return averaged_labels(predictive, torch.stack([_risen(*each) for each in columns], dim=1))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "IsotonicByLabel":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def _risen(
    odds: Float64[Tensor, "batch *positions"],
    knots: tuple[float, ...],
    values: tuple[float, ...],
    examples: int,
) -> Float64[Tensor, "batch *positions"]:
    """The log-odds of `(n g(p) + p) / (n + 1)`, exact also where p is nearly 0 or 1."""
    if examples == 0:
        return odds
    g = torch.from_numpy(np.interp(_probabilities(odds), knots, values)).to(odds.device)
    present = torch.logaddexp((examples * g).log(), logsigmoid(odds))
    return present - torch.logaddexp((examples * (1 - g)).log(), logsigmoid(-odds))


def _probabilities(odds: Float64[Tensor, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Probabilities, equal where the log-odds are: torch rounds by the place in a vector."""
    probabilities: Float64[np.ndarray, "*shape"] = expit(odds.cpu().numpy())
    return probabilities
