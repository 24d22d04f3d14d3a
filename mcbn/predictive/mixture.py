"""Densities, quantiles and the CRPS of an equally weighted mixture of Gaussians.

Each stochastic pass is one component; the draw axis comes first. Computed in float64.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mcbn import validation

# Values of a temporary while pairs of draws are compared: 8 MiB in float64.
PAIR_BUDGET = 2**20
# Bisection steps, at most: after some 53 float64 has no number left between the ends.
MAX_BISECTIONS = 64


def _checked(
    means: Tensor, variances: Tensor | float, values: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return means, variances expanded to them, and values, all float64."""
    validation.finite(means, "means")
    if means.ndim == 0:
        raise ValueError(
            "expected means with a draw axis, got a single number; add the axis with unsqueeze(0)"
        )
    if not isinstance(variances, Tensor):
        variances = torch.tensor(variances, dtype=torch.float64, device=means.device)
    validation.finite(variances, "variances")
    if variances.min() < 0:
        raise ValueError(
            f"expected variances of at least 0, got {float(variances.min()):.4g}; "
            "a network that returns log-variances needs an exp first"
        )
    if values is None:
        values = means[0]
    validation.finite(values, "values")
    validation.require_same_shape(values, means[0], ("values", "one draw of means"))
    try:
        expanded = variances.double().expand(means.shape)
    except RuntimeError:
        raise ValueError(
            f"expected variances that broadcast to means {tuple(means.shape)}, got "
            f"{tuple(variances.shape)}; give one number, one per target, or one per draw and target"
        ) from None
    return means.double(), expanded, values.double()


def _positive(variances: Tensor) -> None:
    """Check that every variance is above 0, so that there is a density."""
    zeros = int((variances == 0).sum())
    if zeros:
        raise ValueError(
            f"expected variances above 0 for a density, got {zeros} of {variances.numel()} equal "
            "to 0; add the noise variance 1/tau, or score with the CRPS"
        )


def _log_normal(difference: Tensor, variance: Tensor) -> Tensor:
    """Return the log-density of a centred Gaussian at `difference`."""
    # Dividing by the deviation before squaring keeps tiny variances from overflowing early.
    scaled = difference / variance.sqrt()
    return -0.5 * (variance.log() + math.log(2 * math.pi) + scaled.square())


def _mean_distance(difference: Tensor, variance: Tensor) -> Tensor:
    """Return `E|difference + sd Z|` for a standard normal Z; at sd = 0 that is `|difference|`."""
    deviation = variance.sqrt()
    scaled = difference / torch.where(deviation > 0, deviation, 1.0)
    spread = math.sqrt(2 / math.pi) * deviation * torch.exp(-0.5 * scaled.square())
    smooth = spread + difference * torch.erf(scaled / math.sqrt(2))
    return torch.where(deviation > 0, smooth, difference.abs())


def log_density(
    means: Float[Tensor, "draws *shape"],
    variances: Float[Tensor, "..."] | float,
    values: Float[Tensor, "*shape"],
) -> Float64[Tensor, "*shape"]:
    """Return the log-density of the mixture at `values`.

    `log (1/T) sum_t N(y; m_t, v_t)` as a log-sum-exp, so 200 standard deviations away are still a
    finite number. In nats per target unit; higher is better.

    Args:
        means: mean of each component.
        variances: variance of each component, a number or broadcastable to `means`.
        values: where to evaluate.

    Raises:
        ValueError: a value is not finite, a variance is negative or 0 (there is no density).

    Reference: Gal and Ghahramani, Dropout as a Bayesian Approximation, 2016, appendix 4.

    >>> log_density(torch.zeros(3, 1), 1.0, torch.zeros(1))
    tensor([-0.9189], dtype=torch.float64)
    """
    means, variances, values = _checked(means, variances, values)
    _positive(variances)
    return _log_density(means, variances, values)


def _log_density(means: Tensor, variances: Tensor, values: Tensor) -> Tensor:
    return torch.logsumexp(_log_normal(values - means, variances), 0) - math.log(len(means))


def _cdf(means: Tensor, deviations: Tensor, values: Tensor) -> Tensor:
    difference = values - means
    scaled = difference / torch.where(deviations > 0, deviations, 1.0)
    step = (difference >= 0).double()
    # Not special.ndtr, which is 0 from 9 deviations below on.
    smooth = torch.special.erfc(-scaled / math.sqrt(2)) / 2
    return torch.where(deviations > 0, smooth, step).mean(0)


def cdf(
    means: Float[Tensor, "draws *shape"],
    variances: Float[Tensor, "..."] | float,
    values: Float[Tensor, "*shape"],
) -> Float64[Tensor, "*shape"]:
    """Return the distribution function of the mixture, which at the target is its PIT.

    `(1/T) sum_t Phi((y - m_t) / sd_t)`; a component of variance 0 is a step, 1 at its own mean.

    Raises:
        ValueError: a value is not finite or a variance is negative.

    Reference: Dawid, Statistical Theory: the Prequential Approach, 1984.

    >>> cdf(torch.tensor([[0.0], [2.0]]), 1.0, torch.tensor([1.0]))
    tensor([0.5000], dtype=torch.float64)
    """
    means, variances, values = _checked(means, variances, values)
    return _cdf(means, variances.sqrt(), values)


def quantile(
    means: Float[Tensor, "draws *shape"],
    variances: Float[Tensor, "..."] | float,
    level: float,
) -> Float64[Tensor, "*shape"]:
    """Return the smallest value at which the distribution function reaches `level`.

    Found by bisection to float64 precision. The quantiles of the components bracket that of the
    mixture. Components of variance 0 are allowed; at a jump the place of the jump is returned.

    Raises:
        ValueError: a value is not finite, a variance is negative, `level` is not inside (0, 1).

    >>> quantile(torch.zeros(3, 1), 1.0, 0.975)
    tensor([1.9600], dtype=torch.float64)
    """
    validation.fraction(level, "level")
    means, variances, _ = _checked(means, variances, None)
    return _quantile(means, variances.sqrt(), level)


def _quantile(means: Tensor, deviations: Tensor, level: float) -> Tensor:
    shift = torch.special.ndtri(torch.tensor(level, dtype=torch.float64, device=means.device))
    low, high = torch.aminmax(means + deviations * shift, dim=0)
    for _ in range(MAX_BISECTIONS):
        middle = low + (high - low) / 2
        if bool(((middle <= low) | (middle >= high)).all()):
            break
        reached = _cdf(means, deviations, middle) >= level
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    # Bisection never lands on the lower end, which is the answer where the mixture jumps there.
    return torch.where(_cdf(means, deviations, low) >= level, low, high)


def crps(
    means: Float[Tensor, "draws *shape"],
    variances: Float[Tensor, "..."] | float,
    values: Float[Tensor, "*shape"],
) -> Float64[Tensor, "*shape"]:
    """Return the continuous ranked probability score of the mixture, in closed form.

    `E|X - y| - E|X - X'| / 2`, where every expectation is `E|N(d, s^2)| = s sqrt(2/pi)
    exp(-d^2 / 2 s^2) + d erf(d / s sqrt 2)`. In target units; 0 is perfect, lower is better.
    A variance of 0 gives the limit, `|d|`. Time grows with draws squared, memory does not.

    Raises:
        ValueError: a value is not finite or a variance is negative.

    Reference: Grimit, Gneiting, Berrocal, Johnson, The CRPS for Circular Variables, 2006, eq. 5.

    >>> crps(torch.tensor([[-1.0], [1.0]]), 0.0, torch.tensor([0.0]))
    tensor([0.5000], dtype=torch.float64)
    """
    return _crps(*_checked(means, variances, values))


def _crps(means: Tensor, variances: Tensor, values: Tensor) -> Tensor:
    draws = len(means)
    width = max(1, PAIR_BUDGET // draws)
    columns = means.reshape(draws, -1), variances.reshape(draws, -1), values.reshape(-1)
    parts = [
        _crps_columns(*(part[..., start : start + width] for part in columns))
        for start in range(0, values.numel(), width)
    ]
    return torch.cat(parts).reshape(values.shape)


def _crps_columns(means: Tensor, variances: Tensor, values: Tensor) -> Tensor:
    """Return the score of a few targets; each pair of draws is visited once."""
    draws = len(means)
    # A component meets an independent copy of itself: E|N(0, 2 v)| / 2 = sd / sqrt(pi).
    spread = variances.sqrt().sum(0) / math.sqrt(math.pi)
    for i in range(draws - 1):
        gaps, sums = means[i + 1 :] - means[i], variances[i + 1 :] + variances[i]
        spread += _mean_distance(gaps, sums).sum(0)
    return _mean_distance(values - means, variances).mean(0) - spread / draws**2


def gaussian_log_density(
    mean: Float[Tensor, "*shape"],
    variance: Float[Tensor, "..."] | float,
    targets: Float[Tensor, "*shape"],
) -> Float64[Tensor, "*shape"]:
    """Return the log-density of one Gaussian at `targets`.

    `-(log(2 pi v) + (y - m)^2 / v) / 2`, in nats per target unit; higher is better.

    Raises:
        ValueError: a value is not finite, a variance is negative or 0 (there is no density).

    >>> gaussian_log_density(torch.zeros(1), 1.0, torch.zeros(1))
    tensor([-0.9189], dtype=torch.float64)
    """
    validation.finite(mean, "mean")
    means, variances, values = _checked(mean.unsqueeze(0), variance, targets)
    _positive(variances)
    return _log_normal(values - means[0], variances[0])


def gaussian_crps(
    mean: Float[Tensor, "*shape"],
    variance: Float[Tensor, "..."] | float,
    targets: Float[Tensor, "*shape"],
) -> Float64[Tensor, "*shape"]:
    """Return the continuous ranked probability score of one Gaussian.

    `sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))` with `z = (y - m) / sd`. In target units;
    0 is perfect, lower is better. A variance of 0 gives the limit, `|y - m|`.

    Raises:
        ValueError: a value is not finite or a variance is negative.

    Reference: Gneiting and Raftery, Strictly Proper Scoring Rules, 2007, eq. 21.

    >>> gaussian_crps(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]))
    tensor([0.2337, 3.0000], dtype=torch.float64)
    """
    validation.finite(mean, "mean")
    means, variances, values = _checked(mean.unsqueeze(0), variance, targets)
    return _gaussian_crps(means[0], variances[0], values)


def _gaussian_crps(mean: Tensor, variance: Tensor, values: Tensor) -> Tensor:
    return _mean_distance(values - mean, variance) - variance.sqrt() / math.sqrt(math.pi)


def forecast_scores(
    means: Float[Tensor, "draws batch *outputs"],
    variances: Float[Tensor, "..."] | float,
    values: Float[Tensor, "batch *outputs"],
    *,
    mean: Float[Tensor, "batch *outputs"],
    variance: Float[Tensor, "batch *outputs"],
    level: float,
) -> dict[str, Tensor]:
    """Return what forecasts are scored by, from arguments that are checked once.

    Each entry is what the function for it alone returns: `log_prob`, joint over outputs, but of
    each value by itself where there are positions; `crps`; `crps_moment_matched`, of the Gaussian
    with this mean and variance; the ends `low` and `high` of the central interval of `level`; and
    `pit`, the distribution function at the values.

    Raises:
        ValueError: a value is not finite, a variance is negative or 0 (there is no density).
    """
    validation.fraction(level, "level")
    means, variances, values = _checked(means, variances, values)
    _positive(variances)
    deviations = variances.sqrt()
    if means.ndim != 3:
        log_prob = _log_density(means, variances, values)
    else:
        each = [
            _log_normal(values - one, spread).flatten(1).sum(1)
            for one, spread in zip(means, variances, strict=True)
        ]
        log_prob = torch.stack(each).logsumexp(0) - math.log(len(means))
    return {
        "log_prob": log_prob,
        "crps": _crps(means, variances, values),
        "crps_moment_matched": _gaussian_crps(mean.double(), variance.double(), values),
        "low": _quantile(means, deviations, (1 - level) / 2),
        "high": _quantile(means, deviations, (1 + level) / 2),
        "pit": _cdf(means, deviations, values),
    }


def ensemble_crps(
    draws: Float[Tensor, "draws *shape"], targets: Float[Tensor, "*shape"], *, fair: bool = False
) -> Float64[Tensor, "*shape"]:
    """Return the continuous ranked probability score of the draws themselves.

    `mean|x_t - y| - sum_{i,j} |x_i - x_j| / (2 T^2)`, where the double sum is one sort. In target
    units; 0 is perfect, lower is better. With `fair` the divisor is `2 T (T - 1)`: unbiased for
    the score of infinitely many draws, and so sometimes below 0.

    Raises:
        ValueError: a value is not finite, or `fair` with a single draw.

    Reference: Ferro, Fair Scores for Ensemble Forecasts, 2014.

    >>> ensemble_crps(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.0]))
    tensor([0.5000], dtype=torch.float64)
    >>> ensemble_crps(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.0]), fair=True)
    tensor([0.], dtype=torch.float64)
    """
    members, _, values = _checked(draws, 0.0, targets)
    count = len(members)
    if fair and count < 2:
        raise ValueError("expected at least 2 draws for the fair score, got 1; use fair=False")
    ordered = members.sort(0).values
    # From the lowest draw on, so that a common offset cannot swallow the differences.
    ordered = ordered - ordered[0]
    ranks = torch.arange(1 - count, count, 2, dtype=torch.float64, device=members.device)
    spread: Tensor = torch.tensordot(ranks, ordered, 1)
    return (members - values).abs().mean(0) - spread / (count * (count - fair))
