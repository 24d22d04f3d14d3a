"""The smallest difference that a design of so many seeds and tests can find."""

import math
from functools import cache

from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

FEW_SEEDS = 5  # with fewer, only huge differences can be found
POWER = 0.8


def detectable(pairs: int, *, tests: int, alpha: float = 0.05, power: float = POWER) -> float:
    r"""The difference that a paired t test finds with this power, in sd of paired differences.

    At the first threshold of Holm's method, $\alpha / m$ for m tests, which the smallest p value
    has to pass: the noncentral t distribution with n - 1 degrees of freedom and the
    noncentrality $\delta \sqrt{n}$ has the given chance beyond it.

    Args:
        pairs: number n of seeds and splits.
        tests: number m of tests that are corrected for.
        alpha: chance of any false alarm among them.
        power: chance of finding the difference.

    Returns:
        The difference in standard deviations; NaN for fewer than two pairs.

    >>> round(detectable(3, tests=45), 1)
    22.0
    """
    return math.nan if pairs < 2 else _detectable(pairs, tests, alpha, power)


@cache  # a study asks the same of each of its many tests
def _detectable(pairs: int, tests: int, alpha: float, power: float) -> float:
    threshold = float(-stdtrit(pairs - 1, alpha / tests / 2))

    def lacking(noncentrality: float) -> float:
        return float(1 - nctdtr(pairs - 1, noncentrality, threshold)) - power

    # The noncentral t has a long tail: three thresholds are beyond any power below 0.99.
    found: float = brentq(lacking, 0.0, 3 * threshold + 3) / pairs**0.5
    return found
