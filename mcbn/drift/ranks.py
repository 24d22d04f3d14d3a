"""P values from ranks, valid for any number of exchangeable values."""

import math
from collections.abc import Sequence
from functools import cache

from jaxtyping import Float
from scipy.special import ndtr
from torch import Tensor

# Pairs of values up to which the choices of their ranks are counted, in less than a second; above,
# the normal distribution differs from that by less than .001.
MAX_EXACT_PAIRS = 10_000


def rank_sum_p_value(
    calibration: Float[Tensor, " draws"], observed: Float[Tensor, " batches"]
) -> float:
    """One-sided p value that the observed values are larger: the rank-sum test of Wilcoxon.

    If all n + k values are exchangeable, every choice of k ranks is equally likely for the
    observed ones, and the p value is the share of choices with a rank sum of at least theirs. For
    one observed value that is the conformal (1 + #{calibration >= observed}) / (n + 1). Nothing is
    assumed about the law of the values or their independence, and the observed values share the
    calibration. Ties count against the observed values, so p is valid with them too.

    Args:
        calibration: n values.
        observed: k values.

    Reference:
        Mann and Whitney 1947, "On a Test of Whether one of Two Random Variables is Stochastically
        Larger than the Other"; Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random
        World", section 2.2.
    """
    draws, batches = len(calibration), len(observed)
    pairs = draws * batches
    lower = int((calibration[:, None] < observed).sum())
    if pairs <= MAX_EXACT_PAIRS:
        return sum(_choices(draws, batches)[lower:]) / math.comb(draws + batches, batches)
    spread = math.sqrt(pairs * (draws + batches + 1) / 12)
    return float(ndtr((pairs / 2 - lower + 0.5) / spread))


@cache
def _choices(draws: int, batches: int) -> Sequence[int]:
    """How many choices of the ranks have u pairs of a lower draw and a higher mini-batch, from 0.

    These are the coefficients of a Gaussian binomial in q, the product over i from 1 to k of
    (1 - q^(n + i)) / (1 - q^i).
    """
    few, many = sorted((draws, batches))
    counts = [1] + [0] * draws * batches
    for i in range(1, few + 1):
        for u in range(len(counts) - 1, many + i - 1, -1):
            counts[u] -= counts[u - many - i]
        for u in range(i, len(counts)):
            counts[u] += counts[u - i]
    return counts


def required_calibration(alpha: float, batches: int) -> int:
    """The smallest number of calibration draws for which a p value of at most `alpha` exists.

    The smallest p value is one over the number of choices of k ranks out of n + k.
    """
    draws = 1
    while math.comb(draws + batches, batches) < 1 / alpha - 1e-9:
        draws += 1
    return draws


def smoothed_rank(earlier: Float[Tensor, " values"], value: float, tie_breaker: float) -> float:
    """The conformal p value of a value among earlier ones, smoothed by a uniform number.

    p = (#{earlier > value} + tie_breaker (1 + #{earlier = value})) / (n + 1). If all n + 1 values
    are exchangeable it is uniform, and where each value of a sequence is ranked among all before
    it, the p values are independent too.

    Reference:
        Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", proposition 2.8.
    """
    above, equal = int((earlier > value).sum()), int((earlier == value).sum())
    return (above + tie_breaker * (1 + equal)) / (len(earlier) + 1)
