"""How much more, or less, confident a method is than it is right."""

import math

from scipy import stats

from mcbn.evaluation.comparison import Comparison


def confidence_gap(name: str, comparison: Comparison) -> tuple[float, float, float]:
    """Mean confidence minus accuracy, with a normal interval; above 0 is over-confident.

    Of several labels it is their mean probability minus their frequency. Positions and labels of
    one example are not independent, nor are the rows of a cluster, so their sums are what the
    standard error is taken of.

    Returns:
        The gap, and the lower and upper end of its interval.
    """
    sums, sizes = comparison.forecasts(name).confidence_gaps(comparison.units)
    mean = float(sums.sum() / sizes.sum())
    residuals = (sums - mean * sizes) * len(sums) / sizes.sum()
    if len(residuals) < 2:
        return mean, math.nan, math.nan
    level = comparison.evaluations[name].level
    half = float(stats.norm.isf((1 - level) / 2)) * float(residuals.std()) / len(residuals) ** 0.5
    return mean, mean - half, mean + half
