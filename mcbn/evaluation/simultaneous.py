"""Intervals of several differences that hold for all of them at once."""

import math
from collections.abc import Mapping

import torch

from mcbn.evaluation.bootstrap import percentile_interval
from mcbn.evaluation.evaluation import Score


def simultaneous_interval(
    name: str, differences: Mapping[str, Score], level: float
) -> tuple[float, float]:
    r"""The interval of one of several differences, such that those of all hold at once.

    Whichever of k differences is looked at, because it is the largest, say, the chance that its
    interval misses the truth is at most one minus the level. With standard errors $s_k$ from the
    bootstrap and the quantile $c$ of the largest deviation of a resample,
    $\max_k |d^*_k - d_k| / s_k$, it is $d_k \pm c \, s_k$. Replicates have to be paired: of one
    seed and the same examples. With a single difference, and without spread or with replicates that
    are infinite or not defined, it is the percentile interval at the level $1 - (1 - level) / k$.

    Args:
        name: of the difference.
        differences: by name, with their replicates.
        level: of all intervals together.

    Reference:
        Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis
        testing"; single step. Else Bonferroni.
    """
    scores = list(differences.values())
    chosen, count = differences[name], len(scores)
    replicates = torch.stack([score.replicates for score in scores])
    values = torch.tensor([score.value for score in scores], dtype=torch.float64)
    errors = replicates.std(-1) if replicates.shape[-1] > 1 else torch.zeros(count)
    if count == 1 or not bool(replicates.isfinite().all() and (errors > 0).all()):
        return percentile_interval(chosen.replicates, 1 - (1 - level) / count)
    largest = ((replicates - values[:, None]).abs() / errors[:, None]).amax(0)
    # The rank (R + 1) p, as for the other intervals of the bootstrap.
    last = max(len(largest) - 1, 1)
    rank = min(max((level * (len(largest) + 1) - 1) / last, 0.0), 1.0)
    reach = float(largest.quantile(rank)) * float(errors[list(differences).index(name)])
    low, high = chosen.value - reach, chosen.value + reach
    return (low, high) if math.isfinite(reach) else (math.nan, math.nan)
