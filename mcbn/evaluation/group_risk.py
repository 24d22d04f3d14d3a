"""How often answers to new groups, such as patients, are wrong: a bound at every threshold."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float64
from scipy.optimize import brentq
from scipy.special import betaincinv, rel_entr
from torch import Tensor

from mcbn.evaluation.clusters import Clusters

# Of so many groups one sets the thresholds; the bounds are from the others.
PARTS = 5


def bounds_of_groups(
    uncertainty: Float64[Tensor, " batch"],
    wrong: Bool[Tensor, " batch"],
    clusters: Clusters,
    *,
    thresholds: int,
    chance: float,
) -> Iterator[tuple[float, float, float, float]]:
    """Each threshold, with the coverage, the risk and its bound of the groups it is not from.

    Bounds hold for thresholds that do not depend on their groups, so every fifth group sets these:
    quantiles of its examples. Groups are independent and their examples are not. So every group
    counts as one, by its share of answered examples, and its share of wrong answers among them.

    Args:
        uncertainty: of all examples.
        wrong: which of them the network got wrong.
        clusters: their groups, in order of appearance.
        thresholds: how many are tried, the last of which is infinite.
        chance: probability with which the bound of each may fail.
    """
    setting = clusters.of_row % PARTS == 0
    ordered = uncertainty[setting].sort().values
    ranks = torch.arange(1, thresholds).mul(len(ordered)).add(thresholds - 1) // thresholds
    ends = [*ordered[ranks.clamp_max(len(ordered) - 1)].tolist(), math.inf]
    rest = Clusters(clusters.of_row[~setting]).spread(torch.arange(int((~setting).sum())))
    uncertainty, wrong = uncertainty[~setting], wrong[~setting]
    for end in ends:
        answered = uncertainty < end
        totals, errors = (
            torch.zeros(len(rest), dtype=torch.float64).index_add(0, rest.of_row, each.double())
            for each in (answered, answered & wrong)
        )
        shares = (errors / totals)[totals > 0].sum()
        count = int((totals > 0).sum())
        coverage = float((totals / rest.sizes).mean())
        risk = float(shares) / max(count, 1)
        yield end, coverage, risk, upper_bound(float(shares), count, chance)


def upper_bound(total: float, count: int, chance: float) -> float:
    """Upper bound of a mean of values from 0 to 1, which fails with probability `chance`.

    Args:
        total: the sum of independent values.
        count: how many they are.
        chance: of the bound.

    Reference:
        Hoeffding 1963 and Bentkus 2004, combined as in Bates, Angelopoulos, Lei, Malik and Jordan
        2021, "Distribution-Free, Risk-Controlling Prediction Sets", section 3.1.2.
    """
    if total >= count:
        return 1.0
    mean = total / count

    def excess(bound: float) -> float:
        divergence = rel_entr(mean, bound) + rel_entr(1 - mean, 1 - bound)
        return float(count * divergence + math.log(chance))

    # Where the bound is 1 within rounding there is nothing to solve.
    top = 1 - 1e-12
    hoeffding = brentq(excess, mean, top, xtol=1e-14) if excess(top) > 0 else 1.0
    whole = math.ceil(total)
    bentkus = 1.0
    if whole < count:
        bentkus = float(betaincinv(whole + 1, count - whole, 1 - chance / math.e))
    return min(hoeffding, bentkus)
