"""Doubts about rescaling: what in the draws of a bank speaks against a law of their scale."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mcbn.bank.coordinates import partner, to_coordinates
from mcbn.bank.rescaling import dead_in_some, merged, rescaled
from mcbn.network.batchnorm import VARIANCE

# M relative to that of the bank: where rescaling was measured, in
# experiments/choosing/rescaling_networks.py, and mostly right.
VALID_RATIOS = (1 / 2, 4.0)
# Nearer to the bank's own M than by this factor nothing is doubted.
MIN_FACTOR = 1.2
# Typical spread of a layer's log(v + epsilon) over draws, above which the second order is not
# enough: a chi-square of ten values has one of .5. Downwards half of it, at the smaller size.
MAX_SPREAD, MAX_SPREAD_BELOW = 0.5, 0.25
# Share of a layer's channels that are dead in some draws, above which merging them is doubted.
MAX_DEAD = 0.1
# Of the spread of log(v + epsilon), after draws are merged by two and rescaled back.
HALVED = (0.8, 1.25)
# Bias of a layer's means, in standard deviations of a draw, which smaller batches have more of.
MAX_BIAS = 0.3


class RescalingWarning(UserWarning):
    """Draws rescaled to another batch size may not be as those collected there."""


def doubts(
    statistics: Mapping[str, Tensor],
    epsilon: Mapping[str, float],
    bias: Mapping[str, Tensor],
    size: float,
    other: float,
) -> tuple[str, ...]:
    """Why draws of `size` examples, rescaled to `other`, may not be as those collected there.

    Args:
        statistics: means and variances by buffer name, with a leading axis of draws.
        epsilon: by the name of the variance.
        bias: the mean over draws minus the limit; empty where it is not known.
        size: M.
        other: M'.

    Returns:
        A sentence for each reason; it names the worst layer and counts the others.
    """
    if abs(math.log(other / size)) < math.log(MIN_FACTOR):
        return ()
    detached = {name: rows.detach() for name, rows in statistics.items()}
    reasons = list(_reasons(detached, epsilon, bias, size, other))
    start, end = (f"{round(each, 2):g}" for each in (size, other))
    return tuple(
        f"draws of {start} examples that are rescaled to {end} may differ from those collected "
        f"there: {reason}; collect a bank at {end} to be sure"
        for reason in reasons
    )


def _reasons(
    statistics: Mapping[str, Tensor],
    epsilon: Mapping[str, float],
    bias: Mapping[str, Tensor],
    size: float,
    other: float,
) -> Iterator[str]:
    low, high = VALID_RATIOS
    if not low / 1.01 <= other / size <= high * 1.01:
        yield f"that is not between {low:g} and {high:g} times as many, and often wrong beyond"
    rows = to_coordinates(statistics, epsilon)
    variances = [name for name in rows if name.endswith(VARIANCE)]
    if not bias and len(variances) > 1:
        yield (
            "what larger batches have was not collected, and deep layers differ there; collect "
            "with limit=512"
        )
    spreads = {name: float(rows[name].std(0).median()) for name in variances}
    growth, most = (1.0, MAX_SPREAD) if other > size else ((size / other) ** 0.5, MAX_SPREAD_BELOW)
    if wide := _worst(spreads, most / growth):
        yield (
            f"the variances of {wide} spread widely over draws of {min(size, other):.3g}, by about "
            f"{max(spreads.values()) * growth:.2f} in their logarithms, as those of few values or "
            "heavy tails do"
        )
    dead = dead_in_some(statistics, epsilon)
    shares = {name: float(each.double().mean()) for name, each in dead.items()}
    if layers := _worst(shares, MAX_DEAD if other > size else 0.0):
        yield (
            f"{sum(int(each.sum()) for each in dead.values())} channels, of {layers}, are dead in "
            "some draws and alive in others"
        )
    if other > size:
        return
    halved = _halved(statistics, epsilon)
    if layers := _worst({name: abs(math.log(each)) for name, each in halved.items()},
                        math.log(HALVED[1])):  # fmt: skip
        yield (
            f"draws of {layers} that are merged and rescaled back do not have the spread of those "
            "collected"
        )
    offs = {name: _in_spreads(bias[partner(name)], rows[partner(name)]) for name in variances
            if partner(name) in bias}  # fmt: skip
    if layers := _worst(offs, MAX_BIAS):
        yield (
            f"the means of {layers} are {max(offs.values()):.1f} standard deviations of a draw off "
            "their limit, and those of smaller batches more"
        )


def _worst(values: Mapping[str, float], limit: float) -> str:
    """The layer of the largest value, with the number of others above the limit; else empty."""
    above = {name: value for name, value in values.items() if value > limit}
    if not above:
        return ""
    worst = max(above, key=lambda name: above[name])
    layer = repr(worst.removesuffix(VARIANCE).removesuffix(".") or "the network")
    others = len(above) - 1
    more = "" if others == 0 else " and 1 other" if others == 1 else f" and {others} others"
    return layer + more


def _halved(statistics: Mapping[str, Tensor], epsilon: Mapping[str, float]) -> dict[str, float]:
    """By layer, the typical spread after merging two and rescaling back, over that before."""
    if len(next(iter(statistics.values()))) < 3:
        return {}
    two = torch.tensor(2.0, dtype=torch.float64)
    back = rescaled(merged(statistics, two), epsilon, {}, two)
    rows, ratios = to_coordinates(statistics, epsilon), {}
    for name in rows:
        before, after = rows[name].std(0), back[name].std(0)
        alive = (before > 0) & (after > 0)
        if name.endswith(VARIANCE) and bool(alive.any()):
            ratios[name] = float((after[alive] / before[alive]).median())
    return ratios


def _in_spreads(bias: Tensor, rows: Tensor) -> float:
    """Root mean square over channels of a bias in standard deviations of a draw."""
    spread = rows.std(0)
    alive = spread > 0
    if not bool(alive.any()):
        return 0.0
    return float((bias.to(spread)[alive] / spread[alive]).square().mean().sqrt())
