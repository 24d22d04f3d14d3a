"""Variance scaling: predictive intervals of a regression widened or narrowed by held-out data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.line_search import end_of, lowest
from mcbn.network.targets import Targets
from mcbn.predictive import mixture
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut

# Factors of the variance searched.
BOUNDS = (1e-6, 1e6)
PARTS = ("total", "epistemic")


@dataclass(frozen=True)
class VarianceScaling:
    """One factor on the predictive variance, whole or epistemic; the mean stays.

    The distance of every draw from the mean is multiplied by the root of the factor:
    `m + sqrt(f) (m_t - m)`. With the part "total" noise variances are multiplied by f too, so the
    mixture keeps its form and its variance is f times as large. With "epistemic" they stay, and
    the variance is `f epistemic + 1/tau`.

    Attributes:
        factor: f; above 1 widens.
        part: "total" or "epistemic".

    Reference:
        Laves, Ihler, Fast, Kahrs and Ortmaier 2020, "Well-Calibrated Regression Uncertainty in
        Medical Imaging with Deep Learning", for the total.
    """

    factor: float
    part: Literal["total", "epistemic"] = "total"
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.factor > 0 and math.isfinite(self.factor)):
            raise ValueError(
                f"expected a positive, finite factor, got {self.factor}; fit it on held-out data "
                "with .fit"
            )
        if self.part not in PARTS:
            raise ValueError(
                f"expected the part 'total' or 'epistemic', got {self.part!r}; choose one"
            )

    @classmethod
    def fit(
        cls,
        predictive: GaussianPredictive,
        targets: Targets,
        *,
        part: Literal["total", "epistemic"] = "total",
        criterion: Literal["mixture", "moments"] = "mixture",
        group: Groups | None = None,
    ) -> "VarianceScaling":
        """Fit the factor of the lowest negative log-likelihood of held-out targets.

        Solved by its exact slope.

        Args:
            predictive: predictions of held-out examples.
            targets: what was observed, in the units of the predictions.
            part: what is scaled.
            criterion: "mixture": of the mixture over draws, joint over outputs, which is what
                `evaluate` scores; "moments": of the Gaussian of the mixture's mean and variance,
                output by output. For the total that is the mean squared error in units of the
                predictive variance.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            ValueError: an option is unknown, targets or groups do not fit, a variance is 0,
                predictions are perfect, or there is no epistemic variance to scale.
        """
        if criterion not in ("mixture", "moments"):
            raise ValueError(
                f"expected criterion 'mixture' or 'moments', got {criterion!r}; choose one"
            )
        held_out.require_of_real_values(predictive)
        aligned = predictive.aligned(targets)
        scaling = cls(1.0, part)
        if part == "epistemic" and not bool(predictive.epistemic_variance.any()):
            raise ValueError(
                "expected draws that differ, got equal ones, whose epistemic variance is 0; take "
                "part='total'"
            )
        if bool((predictive.mean == aligned).all()):
            raise ValueError(
                "expected targets that differ from the predictions, got a perfect fit, whose best "
                "factor is 0; fit on data the network was not trained on"
            )

        def curve(log_factor: float) -> tuple[float, float]:
            free = torch.tensor(log_factor, dtype=torch.float64, requires_grad=True)
            scaled = _scaled(copied, free.exp(), scaling.part)
            loss = -_log_likelihood(scaled, aligned, criterion).mean()
            return float(loss.detach()), float(torch.autograd.grad(loss, free)[0])

        # Tensors made in inference mode cannot be differentiated through; their copies can.
        with torch.inference_mode(False), torch.enable_grad():
            copied = GaussianPredictive(predictive.means.clone(), predictive.variances.clone())
            factor = lowest(curve, BOUNDS)
        return replace(scaling, factor=factor, held_out=HeldOut.of(predictive, group))

    @property
    def at_bound(self) -> str | None:
        """Which bound of the search, 1e-6 to 1e6, the factor lies at, if it does.

        "lower" for the epistemic part: the spread of the draws does not explain the errors.
        """
        return end_of(self.factor, BOUNDS)

    def __call__(
        self, predictive: GaussianPredictive, *, group: Groups | None = None
    ) -> GaussianPredictive:
        """Return the predictions with the variance scaled.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            ValueError: they are the ones fitted on, or of groups fitted on.
        """
        self.held_out.require_other(predictive, group)
        return _scaled(predictive, torch.tensor(self.factor, dtype=torch.float64), self.part)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VarianceScaling":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def _scaled(predictive: GaussianPredictive, factor: Tensor, part: str) -> GaussianPredictive:
    factor = factor.to(predictive.means.device)
    means = torch.lerp(predictive.mean.expand_as(predictive.means), predictive.means, factor.sqrt())
    noise = predictive.variances
    return GaussianPredictive(means, noise * factor if part == "total" else noise)


def _log_likelihood(predictive: GaussianPredictive, targets: Tensor, criterion: str) -> Tensor:
    if criterion == "mixture":
        return predictive.log_prob(targets)
    return mixture.gaussian_log_density(predictive.mean, predictive.variance, targets)
