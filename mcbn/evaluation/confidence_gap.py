"""How much more, or less, confident methods are than they are right."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.forecasts import Tally
from mcbn.evaluation.simultaneous import ClusterMeans, design_effects

FEW = 10  # independent events, or misses, of which the sample has no good variance
Interval = tuple[float, float, float]  # a value, and the lower and upper end of its interval


def confidence_gap(name: str, comparison: Comparison) -> Interval:
    """Mean confidence minus accuracy, with an interval; above 0 is over-confident.

    Of several labels it is their mean probability minus their frequency. Positions and labels of
    one example are not independent, nor are the rows of a cluster, so their sums are what the
    standard error is taken of. Of rare errors it is at least that of calibrated forecasts: without
    an error among them, those of a sure method show no spread at all.

    Returns:
        The gap, and the lower and upper end of its interval.
    """
    (gap,) = _means([name], comparison).intervals(comparison.evaluations[name].level)
    return gap


def confidence_gaps(comparison: Comparison) -> dict[str, Interval]:
    """The same of every method, with intervals that hold for all methods at once."""
    names = list(comparison.entries)
    level = comparison.evaluations[comparison.baseline].level
    return dict(zip(names, _means(names, comparison).intervals(level), strict=True))


def _means(names: list[str], comparison: Comparison) -> ClusterMeans:
    sums, sizes, least = [], torch.zeros(0), []
    for name in names:
        forecasts = comparison.forecasts(name)
        of_clusters, sizes = forecasts.confidence_gaps(comparison.units)
        sums.append(of_clusters)
        least.append(_least_error(of_clusters, sizes, forecasts.tally))
    return ClusterMeans.of_sums(
        torch.stack(sums), sizes, torch.tensor(least, dtype=torch.float64)
    )  # fmt: skip


def _least_error(
    sums: Float64[Tensor, " clusters"], sizes: Float64[Tensor, " clusters"], tally: Tally
) -> float:
    """The standard error of calibrated forecasts where events, or their misses, are few; else 0.

    Rows of one cluster count as fewer by the design effect. Of few events the sample shows too
    little spread just when it has too few of them, and none at all without any.
    """
    rows = float(sizes.sum())
    squares = torch.tensor([tally.squared_gaps], dtype=torch.float64)
    effect = float(design_effects(sums[None], sizes, squares))
    if min(tally.events, rows - tally.events) / effect >= FEW:
        return 0.0
    return math.sqrt(effect * tally.calibrated_variance) / rows
