"""Intervals of several differences, or means, that hold for all of them at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from scipy.special import ndtr, ndtri, stdtrit
from torch import Tensor

from mcbn.evaluation.bootstrap import percentile_interval
from mcbn.evaluation.evaluation import Score

ROUNDING = 1e-9  # of a sum of squares, below which all values are equal
DRAWS = 10_000  # of the largest of several deviations: their 95% point to about 1%


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


@dataclass(frozen=True, eq=False)
class ClusterMeans:
    """Means over the same rows, and what each cluster of rows adds to the error of each.

    Attributes:
        values: the means.
        residuals: of each mean and cluster, such that their standard deviation over clusters,
            divided by the root of the number of these, is the standard error of the mean.
        least: the least standard error of each mean: a sample may show less spread than there is,
            as that of rare errors without any.
    """

    values: Float64[Tensor, " means"]
    residuals: Float64[Tensor, "means clusters"]
    least: Float64[Tensor, " means"]

    @classmethod
    def of_sums(
        cls,
        sums: Float64[Tensor, "means clusters"],
        sizes: Float64[Tensor, " clusters"],
        least: Float64[Tensor, " means"],
    ) -> "ClusterMeans":
        """Those of sums over the rows of each cluster.

        Args:
            sums: of what the means are of.
            sizes: rows of each cluster.
            least: see the attribute.
        """
        values = sums.sum(1) / sizes.sum()
        residuals = (sums - values[:, None] * sizes) * (len(sizes) / sizes.sum())
        return cls(values, residuals, least)

    @property
    def errors(self) -> Float64[Tensor, " means"]:
        """The standard error of each mean; NaN with a single cluster."""
        count = self.residuals.shape[1]
        if count < 2:
            return torch.full_like(self.values, math.nan)
        found: Tensor = (self.residuals.std(1) / count**0.5).maximum(self.least)
        return found

    def intervals(self, level: float) -> tuple[tuple[float, float, float], ...]:
        """The value of each mean, and the ends of its interval: those of all hold at once.

        The largest deviation of means that are correlated as the residuals are is drawn from their
        normal law; few clusters widen it as they do a single interval, by Student's t.

        Args:
            level: of all intervals together.

        Reference:
            Hothorn, Bretz and Westfall 2008, "Simultaneous Inference in General Parametric Models".
        """
        clusters = self.residuals.shape[1]
        errors = self.errors
        if clusters < 2:
            return tuple((float(value), math.nan, math.nan) for value in self.values)
        tail = ndtr(-_reach(self.residuals, level))
        half = float(-stdtrit(clusters - 1, tail)) * errors
        ends = (self.values, self.values - half, self.values + half)
        return tuple(zip(*(end.tolist() for end in ends), strict=True))


def design_effects(
    sums: Float64[Tensor, "means clusters"],
    sizes: Float64[Tensor, " clusters"],
    squares: Float64[Tensor, " means"],
) -> Float64[Tensor, " means"]:
    """How many times larger the variance of each sum is than that of independent rows; at least 1.

    Args:
        sums: over the rows of each cluster.
        sizes: rows of each cluster.
        squares: sums over all rows of the squares.

    Reference:
        Rao and Scott 1981, "The Analysis of Categorical Data from Complex Sample Surveys".
    """
    rows = sizes.sum()
    means = sums.sum(1) / rows
    between = (sums - means[:, None] * sizes).square().sum(1)
    alone = squares - rows * means.square()
    # Where all are equal, nothing tells the rows of a cluster apart: they count as one.
    alike = rows / len(sizes)
    return torch.where(alone > ROUNDING * squares, between / alone, alike).clamp(min=1)


def _reach(residuals: Float64[Tensor, "means clusters"], level: float) -> float:
    """The quantile of the largest of standard normal numbers with the residuals' correlation."""
    count = len(residuals)
    if count == 1:
        return float(-ndtri((1 - level) / 2))
    centred = residuals - residuals.mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    unit = centred / norms.clamp(min=torch.finfo(norms.dtype).tiny)
    correlation = unit @ unit.T
    correlation.fill_diagonal_(1.0)  # also of those without spread
    values, vectors = torch.linalg.eigh(correlation)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(count, DRAWS, generator=generator, dtype=torch.float64)
    largest = (vectors @ (values.clamp(min=0).sqrt()[:, None] * drawn)).abs().amax(0)
    return float(largest.quantile(level))
