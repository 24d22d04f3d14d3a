"""Distributions and rank correlations by special functions alone, which load in no time.

`scipy.stats` computes the same numbers, and takes as long to import as a third of torch.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrik, betaln, gammaln
from torch import Tensor


def binomial_quantile(
    level: float, count: ArrayLike, probability: ArrayLike
) -> NDArray[np.float64]:
    """The smallest number of successes that at most so many have with a probability of `level`.

    Args:
        level: strictly between 0 and 1.
        count: whole numbers of trials.
        probability: of success in each; where it is NaN, the quantile is.
    """
    trials, chance = np.broadcast_arrays(
        np.asarray(count, np.int64), np.asarray(probability, np.float64)
    )
    # At the ends, and without trials, the inverse is not defined.
    inside = (trials > 0) & (chance > 0) & (chance < 1)
    near = np.ceil(bdtrik(level, np.where(inside, trials, 1), np.where(inside, chance, 0.5)))
    below = np.maximum(near - 1, 0)
    # Rounding may have carried it over the whole number that has the level already.
    found = np.where(bdtr(below, trials, chance) >= level, below, near)
    quantile: NDArray[np.float64] = np.where(inside, found, trials * np.ceil(chance))
    return quantile


def beta_binomial_cdf(successes: int, count: int, alpha: float, beta: float) -> float:
    r"""The probability of at most so many successes where their chance has a beta distribution.

    $$P(K \le k) = \sum_{i=0}^{k} \binom{n}{i}
    \frac{B(i + \alpha, n - i + \beta)}{B(\alpha, \beta)}$$

    Args:
        successes: k.
        count: n, of trials.
        alpha: of the beta distribution.
        beta: of the beta distribution.
    """
    hits = np.arange(min(successes, count) + 1)
    choices = gammaln(count + 1) - gammaln(hits + 1) - gammaln(count - hits + 1)
    logs = choices + betaln(hits + alpha, count - hits + beta) - betaln(alpha, beta)
    return min(1.0, float(np.exp(logs).sum()))


def spearman(first: Float[Tensor, " values"], second: Float[Tensor, " values"]) -> float:
    """Spearman's rank correlation; equal values share their mean rank.

    NaN where one of the two does not vary.

    Reference:
        Spearman 1904, "The Proof and Measurement of Association between Two Things".
    """
    ranks = torch.stack([_mean_ranks(values) for values in (first, second)])
    centred = ranks - ranks.mean(1, keepdim=True)
    spreads = centred.square().sum(1)
    return float((centred[0] * centred[1]).sum() / spreads.prod().sqrt())


def _mean_ranks(values: Float[Tensor, " values"]) -> Float64[Tensor, " values"]:
    _, index, counts = np.unique(values.cpu().numpy(), return_inverse=True, return_counts=True)
    # The mean of the ranks of a run of equal values, from the rank of its last one.
    ranks = counts.cumsum() - (counts - 1) / 2
    return torch.from_numpy(ranks[index])
