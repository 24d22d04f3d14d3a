"""How much more, or less, confident methods are than they are right."""

import torch

from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.simultaneous import ClusterMeans

Interval = tuple[float, float, float]  # a value, and the lower and upper end of its interval


def confidence_gap(name: str, comparison: Comparison) -> Interval:
    """Mean confidence minus accuracy, with an interval; above 0 is over-confident.

    Of several labels it is their mean probability minus their frequency. Positions and labels of
    one example are not independent, nor are the rows of a cluster, so their sums are what the
    standard error is taken of. Of rare errors it is at least that of calibrated independent
    forecasts: without an error among them, those of a sure method show no spread at all.

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
        least.append(forecasts.rare_variance**0.5 / float(sizes.sum()))
    return ClusterMeans.of_sums(
        torch.stack(sums), sizes, torch.tensor(least, dtype=torch.float64)
    )  # fmt: skip
