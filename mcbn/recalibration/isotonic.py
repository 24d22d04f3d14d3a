"""Isotonic recalibration: one rising function for all probabilities, fitted on held-out data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import isotonic_regression
from torch.nn.functional import one_hot

from mcbn.evaluation.clusters import Groups
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.shares import averaged
from mcbn.recalibration.temperature import checked_logs


@dataclass(frozen=True, repr=False)
class Isotonic(Displayed):
    """One rising function of probability, shared by all classes, then normalised to sum to 1.

    `q_c = h(p_c) / sum_k h(p_k)` with `h(p) = (n g(p) + p) / (n + 1)`: g is the isotonic
    regression of "is it this class" on the mean probability, n labels with all classes pooled,
    linear between its knots and constant outside them. The share 1 / (n + 1) of p itself makes h
    strictly increasing, and 0 at most at 0. So the order of the classes stays (values that differ
    by rounding may tie), and no log score becomes infinite. Entropy and its parts are as in
    `TemperatureScaling`.

    Attributes:
        knots: probabilities, rising.
        values: g at the knots.
        examples: n, the labels fitted on.

    Reference:
        Zhang, Kailkhura and Han 2020, "Mix-n-Match: Ensemble and Compositional Methods for
        Uncertainty Calibration in Deep Learning", section 4.1.2 (IRM), where the share of p is
        any small number.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]
    examples: int
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_function(self.knots, self.values, self.examples)

    def display(self) -> Display:
        """The function at its knots."""
        heading = f"Isotonic with {len(self.knots)} knots, fitted on {self.examples:,} labels"
        rows = [
            (f"{knot:.4g}", f"{value:.4g}")
            for knot, value in zip(self.knots, self.values, strict=True)
        ]
        return Display(heading, ("probability", "share of labels"), rows)

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        group: Groups | None = None,
    ) -> "Isotonic":
        """Fit the function by least squares on held-out targets; positions count as examples.

        Equal probabilities are one point with their mean, as in scikit-learn.

        Args:
            predictive: predictions of held-out examples.
            targets: their class indices.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, or one of probability 0.
        """
        held_out.require_of_classes(predictive, "IsotonicByLabel")
        targets = as_targets(targets)
        logs = checked_logs(predictive, targets)
        happened = one_hot(targets.to(logs.device).long(), logs.shape[1]).movedim(-1, 1)
        knots, values = isotonic_function(
            logs.exp().cpu().numpy().ravel(), happened.cpu().numpy().ravel()
        )
        return cls(knots, values, targets.numel(), HeldOut.of(predictive, group))

    def __call__(
        self, predictive: CategoricalPredictive, *, group: Groups | None = None
    ) -> CategoricalPredictive:
        """Return the predictions recalibrated; draws are not kept.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of classes.
            ValueError: they are the ones fitted on, or of groups fitted on.
        """
        held_out.require_of_classes(predictive, "IsotonicByLabel")
        self.held_out.require_other(predictive, group)
        logs = predictive.log_probabilities
        values = np.interp(logs.exp().cpu().numpy(), self.knots, self.values)
        fitted = torch.from_numpy(values).to(logs.device).log() + np.log(self.examples)
        return averaged(predictive, torch.logaddexp(fitted, logs))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Isotonic":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def isotonic_function(
    probabilities: Float64[np.ndarray, " answers"], happened: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The isotonic regression of what happened on its probability: knots, and values at them."""
    points, place, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    means = np.bincount(place, happened) / counts
    fit = isotonic_regression(means, weights=counts)
    # Between the first and the last point of a block the function is constant.
    ends = np.unique(np.concatenate([fit.blocks[:-1], fit.blocks[1:] - 1]))
    return tuple(points[ends].clip(0, 1).tolist()), tuple(fit.x[ends].clip(0, 1).tolist())


def require_function(knots: tuple[float, ...], values: tuple[float, ...], examples: int) -> None:
    """Check that knots and values are those of a rising function.

    Raises:
        ValueError: they are not.
    """
    rising = all(
        np.all(np.diff(numbers) >= 0) and numbers[0] >= 0 and numbers[-1] <= 1
        for numbers in (knots, values)
        if len(numbers) > 0
    )
    if not rising or min(len(knots), examples) < 1 or len(knots) != len(values):
        raise ValueError(
            "expected as many knots as values, both rising from 0 to 1, and at least 1 example, "
            f"got {len(knots)} knots, {len(values)} values and {examples} examples; fit them with "
            ".fit"
        )
