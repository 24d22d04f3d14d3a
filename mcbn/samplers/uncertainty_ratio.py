"""The epistemic uncertainty of approximate draws as a ratio to that of exact ones.

Each draw adds its own part to the uncertainty: to the variance its squared distance from the mean
of all draws, to the mutual information the divergence of its class probabilities from the mean
ones. The uncertainty is the mean of these parts, so resampling draws is resampling numbers.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from mcbn.network.isolation import derived_seed
from mcbn.network.output_kind import output_kind

Uncertainty = Literal["mutual information", "variance"]
# Largest relative error of the uncertainty of draws that are used in place of exact ones.
MAX_ERROR = 0.15
LEVEL = 0.95
RESAMPLES = 1000
# Mutual information, in nats, that rounding of float32 logits makes of equal draws.
MIN_INFORMATION = 1e-13


@dataclass(frozen=True)
class UncertaintyRatio:
    """Mean epistemic uncertainty of approximate draws, divided by that of exact draws.

    Attributes:
        of: the uncertainty: "mutual information" of classes, or "variance" of the outputs.
        value: the ratio; 1 is no error, below 1 is too little uncertainty.
        low, high: its 95% bootstrap interval over the draws, for these inputs. With few draws of
            heavy tails it is too short: see docs/fewer_draws.md.
    """

    of: Uncertainty
    value: float
    low: float
    high: float

    @property
    def trusted(self) -> bool:
        """Whether the whole interval is within 15% of 1; NaN is not."""
        return self.low >= 1 - MAX_ERROR and self.high <= 1 + MAX_ERROR

    @property
    def verdict(self) -> Literal["Trusted", "Not to be trusted", "Undecided"]:
        """Undecided if the interval has ratios within the limits and others beyond them."""
        if self.trusted:
            return "Trusted"
        within = self.low <= 1 + MAX_ERROR and self.high >= 1 - MAX_ERROR
        return "Undecided" if within else "Not to be trusted"

    def __str__(self) -> str:
        return (
            f"{self.value:.2f} times the {self.of} (95% interval {self.low:.2f} to "
            f"{self.high:.2f}; limits {1 - MAX_ERROR:.2f} to {1 + MAX_ERROR:.2f})"
        )


def require_uncertainty(of: Uncertainty | None) -> None:
    """Check the name of an uncertainty.

    Raises:
        ValueError: there is none of that name.
    """
    if of is not None and of not in get_args(Uncertainty):
        raise ValueError(
            f"expected of among {get_args(Uncertainty)}, got {of!r:.80}; leave it out to choose "
            "by the outputs"
        )


def chosen_uncertainty(
    of: Uncertainty | None, outputs: Shaped[Tensor, "batch *outputs"]
) -> Uncertainty:
    """The uncertainty that is asked for, or that which suits the outputs of an exact draw.

    Where there are two or more values per example they are taken for logits, unless they look like
    probabilities, whose linear draws may be negative.

    Raises:
        ValueError: mutual information of fewer than two classes.
    """
    classes = outputs.shape[1] if outputs.ndim > 1 else 0
    if of is None:
        logits = classes > 1 and output_kind(outputs) == "logits"
        return "mutual information" if logits else "variance"
    if of == "mutual information" and classes < 2:
        raise ValueError(
            f"expected logits with axes (batch, classes, *positions) of at least 2 classes, got "
            f'{tuple(outputs.shape)}; give of="variance"'
        )
    return of


def parts(
    draws: Float[Tensor, "draws batch *outputs"], of: Uncertainty
) -> Float64[Tensor, " draws"]:
    """What each draw adds to the uncertainty, averaged over examples and outputs or positions.

    Their mean is the mutual information in nats, or the biased variance over draws. What rounding
    makes of equal draws is 0.
    """
    if of == "mutual information":
        return _divergences(draws)
    center = draws.mean(0, dtype=torch.float64)
    found = torch.stack([(row.double() - center).square().mean() for row in draws])
    rounding = (8 * torch.finfo(draws.dtype).eps) ** 2 * center.square().mean()
    return torch.where(found.mean() > rounding, found, 0.0).cpu()


def _divergences(logits: Tensor) -> Tensor:
    """Mean divergence KL(p_t || mean p) of each draw."""
    mean = torch.zeros_like(logits[0], dtype=torch.float64)
    for row in logits:
        mean += row.double().softmax(1) / len(logits)
    logs = mean.clamp_min(torch.finfo(torch.float64).tiny).log()
    found = []
    for row in logits:
        p = row.double().softmax(1)
        found.append((torch.special.xlogy(p, p) - p * logs).sum(1).mean())
    rows = torch.stack(found)
    return torch.where(rows.mean() > MIN_INFORMATION, rows, 0.0).cpu()


def paired_ratio(
    approximate: Float64[Tensor, " draws"], exact: Float64[Tensor, " draws"], of: Uncertainty
) -> UncertaintyRatio:
    """The ratio for the same draws by two computations, from their `parts`.

    Each resample takes both parts of a draw, so what they have in common cancels.
    """
    chosen = _resampled(len(exact))
    replicates = _ratio(approximate[chosen].sum(1), exact[chosen].sum(1))
    return _with_interval(_ratio(approximate.sum(), exact.sum()), replicates, of)


def ratio_to(
    approximate: Float64[Tensor, " draws"], reference: Float64[Tensor, " other"], of: Uncertainty
) -> UncertaintyRatio:
    """The ratio to the uncertainty of a reference, from the `parts` of independent draws.

    The reference is what the draws approximate, so its own are not resampled. Both sums are divided
    by the number of draws less one: there may be more of one than of the other.
    """
    whole = reference.sum() / (len(reference) - 1)
    scale = 1 / (len(approximate) - 1)
    replicates = _ratio(approximate[_resampled(len(approximate))].sum(1) * scale, whole)
    return _with_interval(_ratio(approximate.sum() * scale, whole), replicates, of)


def _resampled(draws: int) -> Tensor:
    """Draws of each resample, by the same stream at every call."""
    generator = torch.Generator().manual_seed(derived_seed(0, draws, "uncertainty ratio"))
    return torch.randint(draws, (RESAMPLES, draws), generator=generator)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0/0 is 1: where nothing varies, an approximation that does not vary has no error."""
    return torch.where((part == 0) & (whole == 0), 1.0, part / whole)


def _with_interval(value: Tensor, replicates: Tensor, of: Uncertainty) -> UncertaintyRatio:
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    # Not interpolated: between two infinite ratios that makes NaN.
    low, high = torch.quantile(replicates, ends, interpolation="nearest").tolist()
    return UncertaintyRatio(of, float(value), low, high)
