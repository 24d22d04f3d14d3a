"""Recalibration of class probabilities: temperatures and vector scaling, fitted on held-out data.

Each method is fitted by `fit` and called with predictions of other examples; the answer is a
predictive of the same kind. Which to use when: docs/recalibration.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import minimize
from torch import Tensor

from mcbn.evaluation import scores
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.minimum import end_of
from mcbn.recalibration.temperature import (
    BOUNDS,
    MASKED,
    best_temperature,
    checked_logs,
    require_temperature,
)


@dataclass(frozen=True)
class TemperatureScaling:
    """One temperature for the average over draws: `softmax(log p / T)`, p the mean probability.

    Above 1 it softens, below 1 it sharpens; the order of the classes stays. Entropy is that of the
    new probabilities; the shares of its parts are as before, see `averaged`.

    Attributes:
        temperature: T.

    Reference:
        Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks"; the
        average over draws stands for their one network.
    """

    temperature: float
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    @classmethod
    def fit(cls, predictive: CategoricalPredictive, targets: Tensor) -> "TemperatureScaling":
        """The temperature of the lowest mean negative log-likelihood of held-out targets.

        It is convex in 1/T, and solved by its exact slope. Positions count as examples.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets that do not fit, or one of probability 0.
        """
        rows = checked_logs(predictive, targets)[None]
        return cls(best_temperature(rows, targets), HeldOut.of(predictive))

    @property
    def at_bound(self) -> str | None:
        """The end of the search, 0.01 to 100, that T lies at, if it does: no T is best."""
        return end_of(self.temperature, BOUNDS)

    def __call__(self, predictive: CategoricalPredictive) -> CategoricalPredictive:
        """Predictions at this temperature; draws are not kept.

        Raises:
            ValueError: they are the ones fitted on.
        """
        self.held_out.require_other(predictive)
        return averaged(predictive, predictive.log_probabilities / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TemperatureScaling":
        """What `to_dict` filed."""
        return held_out.from_dict(cls, values)


@dataclass(frozen=True)
class VectorScaling:
    """A scale and a bias for each class: `softmax(w_c log p_c + b_c)`, p the mean probability.

    Entropy and its parts are as in `TemperatureScaling`; the most probable class may change.

    Attributes:
        scales: w.
        biases: b; only their differences matter, and they sum to 0.

    Reference:
        Guo et al. 2017, section 4.2.
    """

    scales: tuple[float, ...]
    biases: tuple[float, ...]
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = (*self.scales, *self.biases)
        if len(self.scales) != len(self.biases) or not all(map(math.isfinite, numbers)):
            raise ValueError(
                "expected one finite scale and bias a class, got "
                f"{len(self.scales)} scales and {len(self.biases)} biases; fit them with .fit"
            )

    @classmethod
    def fit(
        cls, predictive: CategoricalPredictive, targets: Tensor, *, prior: float = 1.0
    ) -> "VectorScaling":
        """The scales and biases of the highest posterior of held-out targets.

        The sum of negative log-likelihoods plus `prior / 2 sum_c ((w_c - 1)^2 + b_c^2)`: convex,
        solved by L-BFGS with exact gradients in float64. Positions count as examples.

        Args:
            predictive: predictions of held-out examples.
            targets: the classes that happened.
            prior: precision of a Gaussian prior about the identity. 0 is maximum likelihood, for
                which every class must have happened.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets that do not fit, a prior below 0, or without a prior a class that
                did not happen, whose bias would be minus infinity.
        """
        logs = checked_logs(predictive, targets)
        classes = logs.shape[1]
        rows, labels = logs.movedim(1, -1).reshape(-1, classes), targets.reshape(-1).to(logs.device)
        _require_prior(prior, labels, classes)
        start = np.concatenate([np.ones(classes), np.zeros(classes)])
        found = minimize(
            lambda weights: _vector_loss(weights, rows, labels.long(), prior), start, jac=True,
            method="L-BFGS-B", options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 2000, "maxcor": 30},
        ).x  # fmt: skip
        scales, biases = found[:classes], found[classes:]
        centred = biases - biases.mean()
        return cls(tuple(scales.tolist()), tuple(centred.tolist()), HeldOut.of(predictive))

    def __call__(self, predictive: CategoricalPredictive) -> CategoricalPredictive:
        """Predictions scaled class by class; draws are not kept.

        Raises:
            ValueError: they are the ones fitted on, or have another number of classes.
        """
        self.held_out.require_other(predictive)
        logs = predictive.log_probabilities.clamp_min(MASKED)
        if logs.shape[1] != len(self.scales):
            raise ValueError(
                f"expected predictions of {len(self.scales)} classes, got {logs.shape[1]}; "
                "fit on predictions of the same classes"
            )
        scales, biases = (
            torch.tensor(numbers, dtype=torch.float64, device=logs.device).reshape(
                -1, *[1] * (logs.ndim - 2)
            )
            for numbers in (self.scales, self.biases)
        )
        return averaged(predictive, logs * scales + biases)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VectorScaling":
        """What `to_dict` filed."""
        return held_out.from_dict(cls, values)


def averaged(
    predictive: CategoricalPredictive, logits: Float64[Tensor, "batch classes *positions"]
) -> CategoricalPredictive:
    """The predictive with `softmax(logits)` for its mean probability; draws are not kept.

    A change of the average says nothing of the draws. So each part of an uncertainty keeps its
    share of the whole: expected entropy and mutual information of the entropy H, and the variance
    over draws of `p (1 - p)`, which is the variance of "is it this class". No part is ever below
    0 or above the whole. Votes are left as they were.
    """
    log_probabilities = logits.log_softmax(1)
    entropy, before = scores.entropy(log_probabilities.exp()), predictive.entropy
    aleatoric = torch.where(before > 0, predictive.expected_entropy / before, 1.0).clamp(0, 1)
    spread, spread_before = _spread(log_probabilities), _spread(predictive.log_probabilities)
    epistemic = torch.where(spread_before > 0, predictive.variance / spread_before, 0.0)
    return CategoricalPredictive(
        log_probabilities,
        entropy * aleatoric,
        spread * epistemic.clamp(0, 1),
        predictive.variation_ratio,
        predictive.draw_count,
    )


def _spread(log_probabilities: Tensor) -> Tensor:
    """`p (1 - p)`, with all digits where p is nearly 1."""
    return log_probabilities.exp() * -torch.expm1(log_probabilities)


def _vector_loss(
    weights: np.ndarray, rows: Tensor, labels: Tensor, prior: float
) -> tuple[float, np.ndarray]:
    """The mean loss an example and its gradient, for the scales and then the biases."""
    count, classes = rows.shape
    free = torch.from_numpy(weights).to(rows.device)
    scales, biases = free[:classes], free[classes:]
    logs = (rows * scales + biases).log_softmax(1)
    excess = logs.exp()
    excess[torch.arange(count, device=rows.device), labels] -= 1
    away = torch.cat([scales - 1, biases])
    loss = prior / 2 * away.square().sum() - logs.gather(1, labels[:, None]).sum()
    gradient = torch.cat([(excess * rows).sum(0), excess.sum(0)]) + prior * away
    return float(loss / count), (gradient / count).cpu().numpy()


def _require_prior(prior: float, labels: Tensor, classes: int) -> None:
    if not (prior >= 0 and math.isfinite(prior)):
        raise ValueError(f"expected a prior of at least 0, got {prior}; 1 is usual")
    missing = int((labels.long().bincount(minlength=classes) == 0).sum())
    if prior == 0 and missing:
        raise ValueError(
            f"expected every class among the targets without a prior, got {missing} of {classes} "
            "that did not happen; leave prior at 1, or hold out more examples"
        )
