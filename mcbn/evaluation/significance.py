"""Significance tests: paired and unpaired, and the correction for making several of them."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtr
from torch import Tensor

# Differences that vary by less than this share of their size vary by rounding alone.
ROUNDING = 1e-12


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down method, which bounds the chance of any false alarm.

    In ascending order, adjusted p(i) is the largest of (m - j + 1) p(j) over j up to i, at most 1.
    NaN stays NaN and is not counted among the m.

    Reference:
        Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    ascending = [index for index, value in enumerate(p_values) if not math.isnan(value)]
    ascending.sort(key=lambda index: p_values[index])
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def paired_test(differences: Sequence[float]) -> float:
    """Two-sided p value of the paired t test.

    NaN for fewer than two pairs, for equal differences, and where one is not finite.
    """
    count = len(differences)
    if count < 2 or not all(map(math.isfinite, differences)):
        return math.nan
    spread = statistics.stdev(differences)
    if spread <= ROUNDING * max(abs(value) for value in differences):
        return math.nan
    statistic = statistics.fmean(differences) / (spread / count**0.5)
    return float(2 * stdtr(count - 1, -abs(statistic)))


def welch(first: Tensor, second: Tensor) -> float:
    """Two-sided p value of Welch's t test of equal means; NaN if it is not defined.

    Reference:
        Welch 1947, "The Generalization of 'Student's' Problem when Several Different Population
        Variances are Involved".
    """
    if min(len(first), len(second)) < 2:
        return math.nan
    squares = [float(values.std()) ** 2 / len(values) for values in (first, second)]
    total = sum(squares)
    if not (math.isfinite(total) and total > 0):
        return math.nan
    freedom = total**2 / (squares[0] ** 2 / (len(first) - 1) + squares[1] ** 2 / (len(second) - 1))
    statistic = (float(first.mean()) - float(second.mean())) / math.sqrt(total)
    return float(2 * stdtr(freedom, -abs(statistic)))
