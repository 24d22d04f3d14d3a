"""Vector scaling: a scale and a bias for each class, fitted on held-out data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.temperature_search import MASKED
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut, require_prior
from mcbn.recalibration.shares import averaged
from mcbn.recalibration.temperature import checked_logs


@dataclass(frozen=True, repr=False)
class VectorScaling(Displayed):
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
        require_numbers(self.scales, self.biases, "class")

    def display(self) -> Display:
        """The scale and the bias of each class."""
        rows = [
            (str(number), f"{scale:.4g}", f"{bias:+.4g}")
            for number, (scale, bias) in enumerate(zip(self.scales, self.biases, strict=True))
        ]
        heading = f"VectorScaling of {len(rows)} classes"
        return Display(heading, ("class", "scale", "bias"), rows)

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        prior: float = 1.0,
        group: Groups | None = None,
    ) -> "VectorScaling":
        """Fit the scales and biases of the highest posterior density given held-out targets.

        The loss is the sum of negative log-likelihoods plus `prior / 2 sum_c ((w_c - 1)^2 +
        b_c^2)`: convex, solved by L-BFGS with exact gradients in float64. Positions count as
        examples.

        Args:
            predictive: predictions of held-out examples.
            targets: the classes that happened.
            prior: precision of a Gaussian prior around the identity. 0 is maximum likelihood, for
                which every class must be among the targets.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, a prior below 0, or without a prior a
                class that is not among the targets, whose bias would be minus infinity.
        """
        held_out.require_of_classes(predictive, "PlattScaling")
        targets = as_targets(targets)
        logs = checked_logs(predictive, targets)
        classes = logs.shape[1]
        rows, labels = logs.movedim(1, -1).reshape(-1, classes), targets.reshape(-1).to(logs.device)
        require_prior(prior)
        _require_all_classes(prior, labels, classes)
        start = np.concatenate([np.ones(classes), np.zeros(classes)])
        best = minimize(
            lambda weights: _vector_loss(weights, rows, labels.long(), prior), start, jac=True,
            method="L-BFGS-B", options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 2000, "maxcor": 30},
        ).x  # fmt: skip
        scales, biases = best[:classes], best[classes:]
        centered = biases - biases.mean()
        return cls(tuple(scales.tolist()), tuple(centered.tolist()), HeldOut.of(predictive, group))

    def __call__(
        self, predictive: CategoricalPredictive, *, group: Groups | None = None
    ) -> CategoricalPredictive:
        """Return the predictions scaled class by class; draws are not kept.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of classes.
            ValueError: they are the ones fitted on, or of groups fitted on, or have another number
                of classes.
        """
        held_out.require_of_classes(predictive, "PlattScaling")
        self.held_out.require_other(predictive, group)
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
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def _vector_loss(
    weights: np.ndarray, rows: Tensor, labels: Tensor, prior: float
) -> tuple[float, np.ndarray]:
    """Return the loss per example, and its gradient in the scales and then the biases."""
    count, classes = rows.shape
    free = torch.from_numpy(weights).to(rows.device)
    scales, biases = free[:classes], free[classes:]
    logs = (rows * scales + biases).log_softmax(1)
    excess = logs.exp()
    excess[torch.arange(count, device=rows.device), labels] -= 1
    from_identity = torch.cat([scales - 1, biases])
    loss = prior / 2 * from_identity.square().sum() - logs.gather(1, labels[:, None]).sum()
    gradient = torch.cat([(excess * rows).sum(0), excess.sum(0)]) + prior * from_identity
    return float(loss / count), (gradient / count).cpu().numpy()


def require_numbers(scales: tuple[float, ...], biases: tuple[float, ...], of: str) -> None:
    """Check that there are as many scales as biases, and all are finite.

    Raises:
        ValueError: there are not.
    """
    if len(scales) != len(biases) or not all(map(math.isfinite, (*scales, *biases))):
        raise ValueError(
            f"expected one finite scale and bias per {of}, got {len(scales)} scales and "
            f"{len(biases)} biases; fit them with .fit"
        )


def _require_all_classes(prior: float, labels: Tensor, classes: int) -> None:
    missing = int((labels.long().bincount(minlength=classes) == 0).sum())
    if prior == 0 and missing:
        raise ValueError(
            f"expected every class among the targets where prior=0, got {missing} of {classes} "
            "that are not; leave prior at 1, or hold out more examples"
        )
