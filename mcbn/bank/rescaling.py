"""Draws of one batch size as draws of another: rescaled by a law, or merged.

With `u(M) = 1/M`, or `1/M - 1/N` for examples drawn without replacement from N, a coordinate of a
draw is to second order `limit + b u(M) + d sqrt(u(M))`. See docs/method.md.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mcbn.bank.coordinates import partner, pooled, to_coordinates
from mcbn.network.batchnorm import VARIANCE

# Draws that are merged at most; so many together have no dead channels left.
MAX_MERGED = 64.0


def ratio_of_scales(size: float | Tensor, other: Tensor, population: int | None) -> Tensor:
    """u(other) / u(size); 0 where `other` holds the whole population.

    Args:
        size: M.
        other: M', with gradients where they are wanted.
        population: N, for draws without replacement; None for others.
    """
    if population is None or float(torch.as_tensor(size)) >= population:
        return size / other
    # (N - M') / (N - M) is the finite-population factor. Not quite 0, where a root has no slope,
    # also where M' is N up to rounding, as from its logarithm.
    factor = (population - other) / (population - size)
    rounding = 1e-9 * population / (population - size)
    factor = torch.where(factor < rounding, torch.finfo(torch.float64).tiny, factor)
    return (size / other) * factor


def dead_in_some(
    statistics: Mapping[str, Tensor], epsilon: Mapping[str, float]
) -> dict[str, Tensor]:
    """Which channels have a variance below epsilon in some draws and not in others.

    To the network they are dead there. Halfway between a dead and a living draw lies a tiny
    variance beside a mean that is not that of a dead channel, as no mini-batch has it.

    Returns:
        By the name of the variance, booleans of shape (channels).
    """
    return {
        name: (rows < epsilon[name]).any(0) & (rows >= epsilon[name]).any(0)
        for name, rows in statistics.items()
        if name.endswith(VARIANCE) and name in epsilon
    }


def rescaled(
    statistics: Mapping[str, Tensor],
    epsilon: Mapping[str, float],
    bias: Mapping[str, Tensor],
    ratio: Tensor,
) -> dict[str, Tensor]:
    """Coordinates of draws whose scale u is `ratio` times that of these draws.

    Deviations from the mean over draws are multiplied by the root of the ratio, and the bias of
    that mean by the ratio. Upwards, channels that are dead in some draws are merged instead.

    Args:
        statistics: means and variances by buffer name, with a leading axis of draws.
        epsilon: by the name of the variance.
        bias: the mean over draws minus the limit, in coordinates; where there is none, the limit
            is that of all draws pooled.
        ratio: u(M') / u(M).
    """
    rows = to_coordinates(statistics, epsilon)
    limits = {} if bias else to_coordinates(pooled(statistics), epsilon)
    moved = {}
    for name, values in rows.items():
        factor, center = ratio.to(values.device), values.mean(0)
        off = bias[name].to(values) if name in bias else center - limits[name]
        moved[name] = center - off * (1 - factor) + (values - center) * factor.sqrt()
    dead = dead_in_some(statistics, epsilon) if float(ratio.detach()) < 1 else {}
    if any(bool(channels.any()) for channels in dead.values()):
        # Of many draws together none is dead, and the law holds.
        times = (1 / ratio).clamp_max(MAX_MERGED)
        whole = to_coordinates(merged(statistics, times), epsilon)
        for name, channels in dead.items():
            for each in (name, partner(name)):
                center = whole[each].mean(0)
                shrunk = center + (whole[each] - center) * (times * ratio).sqrt().to(center.device)
                moved[each] = torch.where(channels, shrunk, moved[each])
    return moved


def merged(statistics: Mapping[str, Tensor], ratio: Tensor, *, seed: int = 0) -> dict[str, Tensor]:
    """Draws that stand for `ratio` times as many examples, each pooled from several draws.

    Draw t is pooled, by the law of total variance, with other draws chosen at random; every draw is
    used equally often, so the mean over draws stays. Between whole numbers k of draws the weight
    of the next one grows in proportion.

    Args:
        statistics: means and variances by buffer name, with a leading axis of draws.
        ratio: at least 1.
        seed: of the choice.
    """
    draws = len(next(iter(statistics.values())))
    whole = math.floor(float(ratio.detach()) + 1e-9)
    rest = (ratio - whole).clamp_min(0.0)
    shared = (1 - rest) / whole + rest / (whole + 1)
    weights = [shared] * whole + [rest / (whole + 1)]
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.arange(draws)]
    orders += [torch.randperm(draws, generator=generator) for _ in weights[1:]]

    def average(rows: Tensor) -> Tensor:
        total = torch.zeros_like(rows)
        for weight, order in zip(weights, orders, strict=True):
            total = total + weight.to(rows.device) * rows[order.to(rows.device)]
        return total

    means = {
        name: average(rows.double())
        for name, rows in statistics.items()
        if not name.endswith(VARIANCE)
    }
    whole_batches = {}
    for name, rows in statistics.items():
        if name in means:
            whole_batches[name] = means[name]
            continue
        squares = average(rows.double() + statistics[partner(name)].double().square())
        whole_batches[name] = (squares - means[partner(name)].square()).clamp_min(0.0)
    return whole_batches
