"""The search for one positive number, by the value and the slope of a curve in its logarithm."""

import math
from collections.abc import Callable

from scipy.optimize import brentq

SCAN_POINTS = 25  # evenly spaced in the logarithm
NEAR = 1e-9  # relative: a number this near a bound of the search is at the bound

Curve = Callable[[float], tuple[float, float]]


def lowest(curve: Curve, bounds: tuple[float, float]) -> float:
    """Find the number between `bounds` at which a curve is lowest; deterministic.

    Wherever the slope turns from falling to rising between two points of a scan, Brent's method
    finds its root; the best of those and of the bounds that the curve falls towards is returned.
    So a curve with one minimum is solved to rounding, and one with several as far as the scan
    resolves them. A flat curve gives 1, which changes nothing.

    Args:
        curve: value and slope at the logarithm of a number.
        bounds: smallest and largest number.
    """
    low, high = (math.log(end) for end in bounds)
    scan = [low + (high - low) * index / (SCAN_POINTS - 1) for index in range(SCAN_POINTS)]
    slopes = [curve(point)[1] for point in scan]
    if not any(slopes):
        return 1.0
    minima = []
    for left, right, falling, rising in zip(scan, scan[1:], slopes, slopes[1:], strict=False):
        if falling < 0 <= rising:
            minima.append(math.exp(brentq(lambda point: curve(point)[1], left, right, xtol=1e-12)))
    minima += [bounds[0]] * (slopes[0] >= 0) + [bounds[1]] * (slopes[-1] <= 0)
    return min(minima, key=lambda number: curve(math.log(number))[0])


def end_of(number: float, bounds: tuple[float, float]) -> str | None:
    """Which of the `bounds` a number lies at, "lower" or "upper"; None if at neither."""
    if number <= bounds[0] * (1 + NEAR):
        return "lower"
    return "upper" if number >= bounds[1] * (1 - NEAR) else None
