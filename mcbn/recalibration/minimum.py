"""The lowest point of a smooth curve over a positive number, by the roots of its slope."""

import math
from collections.abc import Callable

from scipy.optimize import brentq

POINTS = 25  # of the scan, even in the logarithm
NEAR = 1e-9  # relative: a number this near an end of the search is at the end

Curve = Callable[[float], tuple[float, float]]


def lowest(curve: Curve, bounds: tuple[float, float]) -> float:
    """The number between `bounds` at which the curve is lowest; deterministic.

    Wherever the slope turns from falling to rising between two points of a scan, Brent's method
    finds its root; the best of those and of the ends that the curve falls towards is the answer.
    So a curve with one minimum is solved to rounding, and one with several as far as the scan
    tells them apart. A flat curve gives 1, which changes nothing.

    Args:
        curve: value and slope at the logarithm of a number.
        bounds: smallest and largest number.
    """
    low, high = (math.log(end) for end in bounds)
    scan = [low + (high - low) * index / (POINTS - 1) for index in range(POINTS)]
    slopes = [curve(point)[1] for point in scan]
    if not any(slopes):
        return 1.0
    found = []
    for left, right, falling, rising in zip(scan, scan[1:], slopes, slopes[1:], strict=False):
        if falling < 0 <= rising:
            found.append(math.exp(brentq(lambda point: curve(point)[1], left, right, xtol=1e-12)))
    found += [bounds[0]] * (slopes[0] >= 0) + [bounds[1]] * (slopes[-1] <= 0)
    return min(found, key=lambda number: curve(math.log(number))[0])


def end_of(number: float, bounds: tuple[float, float]) -> str | None:
    """The end of `bounds` that a number lies at, "lower" or "upper", if it does."""
    if number <= bounds[0] * (1 + NEAR):
        return "lower"
    return "upper" if number >= bounds[1] * (1 - NEAR) else None
