"""P values from ranks, valid for any number of exchangeable values."""

import math

import torch
from jaxtyping import Float
from scipy.stats import mannwhitneyu
from torch import Tensor

# Pairs of values up to which the distribution of their ranks is counted, in about a tenth of a
# second; above, the normal one differs from it by less than .001.
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
    values = torch.cat([observed, calibration])
    order = values.argsort(stable=True)  # of equal values the observed come first, so lower
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[order] = torch.arange(len(values), dtype=torch.float64)
    count = len(observed)
    exact = count * len(calibration) <= MAX_EXACT_PAIRS
    test = mannwhitneyu(
        ranks[:count].numpy(), ranks[count:].numpy(), alternative="greater",
        method="exact" if exact else "asymptotic",
    )  # fmt: skip
    return float(test.pvalue)


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
