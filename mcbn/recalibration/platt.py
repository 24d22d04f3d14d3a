"""Platt scaling: a scale and a bias for each of several labels, fitted on held-out data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from mcbn.evaluation.clusters import Groups
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut, require_prior
from mcbn.recalibration.known_answers import KnownAnswers
from mcbn.recalibration.shares import averaged_labels
from mcbn.recalibration.vector import require_numbers


@dataclass(frozen=True, repr=False)
class PlattScaling(Displayed):
    """A scale and a bias for each label: `sigmoid(w log(p / (1 - p)) + b)`, p the mean probability.

    The bias corrects what a weighted loss, or a network trained where a label was more frequent,
    adds to all logits of a label. Without biases `1 / w` is a temperature for each label. Entropy
    and its parts are as in `TemperatureScaling`.

    Attributes:
        scales: w of each label.
        biases: b of each label.

    Reference:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines", with a Gaussian prior in
        place of smoothed targets.
    """

    scales: tuple[float, ...]
    biases: tuple[float, ...]
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_numbers(self.scales, self.biases, "label")

    def display(self) -> Display:
        """The scale and the bias of each label."""
        rows = [
            (str(number), f"{scale:.4g}", f"{bias:+.4g}")
            for number, (scale, bias) in enumerate(zip(self.scales, self.biases, strict=True))
        ]
        return Display(f"PlattScaling of {len(rows)} labels", ("label", "scale", "bias"), rows)

    @classmethod
    def fit(
        cls,
        predictive: BernoulliPredictive,
        targets: Targets,
        *,
        biases: bool = True,
        prior: float = 1.0,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "PlattScaling":
        """Fit the scale and bias of each label of the highest posterior density.

        The loss of a label is the sum of its negative log-likelihoods plus
        `prior / 2 ((w - 1)^2 + b^2)`: convex, solved by L-BFGS with exact gradients in float64.
        Positions count as examples. With the prior a label of which nothing is known stays as it
        is.

        Args:
            predictive: predictions of held-out examples.
            targets: 1 for each label that is there, and 0 for the others.
            biases: False leaves all biases at 0: one temperature for each label.
            prior: precision of a Gaussian prior around the identity. 0 is maximum likelihood, for
                which every label must be there in some examples and not in others.
            ignore_index: the target of labels of which the truth is not known; they are left out.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, a prior below 0, or without a prior a
                label that is always there or never.
        """
        held_out.require_of_labels(predictive, "VectorScaling")
        require_prior(prior)
        answers = KnownAnswers.by_label(predictive, targets, ignore_index)
        if prior == 0:
            _require_both(answers)
        fits = [_fit_of(each, prior, biases) for each in answers]
        scales, offsets = zip(*fits, strict=True)
        return cls(scales, offsets, HeldOut.of(predictive, group))

    def __call__(
        self, predictive: BernoulliPredictive, *, group: Groups | None = None
    ) -> BernoulliPredictive:
        """Return the predictions scaled label by label; draws are not kept.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of several labels.
            ValueError: they are the ones fitted on, or of groups fitted on, or have another number
                of labels.
        """
        held_out.require_of_labels(predictive, "VectorScaling")
        self.held_out.require_other(predictive, group)
        held_out.require_of_as_many_labels(predictive, len(self.scales))
        odds = predictive.log_odds
        scales, biases = (
            torch.tensor(numbers, dtype=torch.float64, device=odds.device).reshape(
                -1, *[1] * (odds.ndim - 2)
            )
            for numbers in (self.scales, self.biases)
        )
        return averaged_labels(predictive, odds * scales + biases)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlattScaling":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def _fit_of(answers: KnownAnswers, prior: float, biases: bool) -> tuple[float, float]:
    """The scale and the bias of one label."""
    odds, present = answers.log_odds.cpu().numpy(), answers.present.cpu().numpy()
    if len(answers) == 0:
        return 1.0, 0.0
    best = minimize(
        lambda weights: _loss(weights, odds, present, prior), np.array([1.0, 0.0]), jac=True,
        method="L-BFGS-B", bounds=[(None, None), (None, None) if biases else (0.0, 0.0)],
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 2000},
    ).x  # fmt: skip
    return float(best[0]), float(best[1])


def _loss(
    weights: Float64[np.ndarray, " 2"],
    odds: Float64[np.ndarray, " answers"],
    present: Bool[np.ndarray, " answers"],
    prior: float,
) -> tuple[float, Float64[np.ndarray, " 2"]]:
    """The loss per answer, and its gradient in the scale and the bias."""
    logits = weights[0] * odds + weights[1]
    from_identity = weights - [1.0, 0.0]
    excess = expit(logits) - present
    loss = (
        prior / 2 * from_identity @ from_identity
        - log_expit(np.where(present, logits, -logits)).sum()
    )
    gradient = np.array([excess @ odds, excess.sum()]) + prior * from_identity
    return float(loss / len(odds)), gradient / len(odds)


def _require_both(answers: list[KnownAnswers]) -> None:
    one_sided = [
        number for number, each in enumerate(answers)
        if not 0 < int(each.present.sum()) < len(each)
    ]  # fmt: skip
    if one_sided:
        raise ValueError(
            "expected every label in some examples and not in others where prior=0, got "
            f"{len(one_sided)} of {len(answers)} that are not, such as label {one_sided[0]}; leave "
            "prior at 1, or hold out more examples"
        )
