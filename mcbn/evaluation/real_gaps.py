r"""How forecasts of real values are off: in place, in spread and in shape.

By the probability integral transforms (PITs) $u$ of the true values, which are uniform if the
forecasts are right. The normalised Legendre polynomials $\pi_j$ of them then have mean 0 and
variance 1: the second is above 0 where forecasts are too narrow, the third where they are skewed
the wrong way, the fourth where their tails are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.confidence_gap import Interval
from mcbn.evaluation.simultaneous import ClusterMeans, design_effects
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.positions import pieces

NOMINAL = 0.9  # level of the central intervals whose coverage is judged
# What is averaged; each is 0 of right forecasts.
NAMES = ("bias", "spread", "skew", "tails", "coverage")
# Of a single value, if forecasts are right.
VARIANCES = (1.0, 1.0, 1.0, 1.0, NOMINAL * (1 - NOMINAL))


@dataclass(frozen=True, eq=False)
class RealGaps:
    """Sums over each cluster of how forecasts are off.

    Attributes:
        sums: of `NAMES`: the true value minus the mean, in standard deviations; three Legendre
            polynomials of the PIT; and 0.9 minus whether the central 90% interval has it.
        sizes: values in each cluster.
        squares: sums over all values of the squares of what is summed.
    """

    sums: Float64[Tensor, "names clusters"]
    sizes: Float64[Tensor, " clusters"]
    squares: Float64[Tensor, " names"]

    @classmethod
    def of(
        cls, scored: GaussianPredictive, targets: Tensor, clusters: Clusters | None = None
    ) -> "RealGaps":
        """Those of predictions of real values.

        Args:
            scored: the predictions; outputs and positions of an example are in its cluster.
            targets: the true values.
            clusters: of the examples; None if each is by itself.
        """
        rows, counts, squares = [], [], torch.zeros(len(NAMES), dtype=torch.float64)
        for part, of_part in pieces(scored, targets):
            aligned = part.aligned(of_part)
            deviation = part.variance.sqrt()
            # Without a variance there is no bias to measure it in, and the transform tells all.
            bias = torch.where(deviation > 0, (aligned - part.mean) / deviation, 0.0)
            gaps = torch.stack([bias, *_of_transforms(part.cdf(aligned).clamp(0, 1))])
            squares += gaps.double().square().flatten(1).sum(1).cpu()
            rows.append(gaps.flatten(2).sum(2) if gaps.ndim > 2 else gaps)
            counts.append(torch.full((gaps.shape[1],), gaps[0, 0].numel(), dtype=torch.float64))
        sums, sizes = torch.cat(rows, 1).cpu().double(), torch.cat(counts)
        if clusters is None:
            return cls(sums, sizes, squares)
        empty = torch.zeros(len(clusters), dtype=torch.float64)
        return cls(
            torch.stack([empty.index_add(0, clusters.of_row, row) for row in sums]),
            empty.index_add(0, clusters.of_row, sizes),
            squares,
        )

    def least_errors(self) -> Float64[Tensor, " names"]:
        """The standard errors of right forecasts, of values that hang together as these do.

        Of few clusters the sample has too little spread just when its mean is off: of few values
        every one may be covered. Rows of a cluster count as fewer by the design effect.
        """
        effects = design_effects(self.sums, self.sizes, self.squares)
        return (effects * torch.tensor(VARIANCES, dtype=torch.float64) / self.sizes.sum()).sqrt()


def _of_transforms(pit: Tensor) -> tuple[Tensor, ...]:
    x = 2 * pit.double() - 1
    legendre = (np.polynomial.legendre.Legendre.basis(degree) for degree in (2, 3, 4))
    second, third, fourth = (
        (2 * each.degree() + 1) ** 0.5 * sum(
            (float(c) * x**k for k, c in enumerate(each.convert(
                kind=np.polynomial.Polynomial).coef)), torch.zeros_like(x))
        for each in legendre
    )  # fmt: skip
    inside = (pit >= (1 - NOMINAL) / 2) & (pit <= (1 + NOMINAL) / 2)
    return second, third, fourth, NOMINAL - inside.double()


def real_gap_intervals(
    gaps: Mapping[str, RealGaps], *, level: float
) -> dict[str, dict[str, Interval]]:
    """The mean of each of `NAMES` by method; the intervals of all of them hold at once.

    Standard errors are at least those of right forecasts.

    Args:
        gaps: of the same values, by method.
        level: of all intervals together.
    """
    means = ClusterMeans.of_sums(
        torch.cat([each.sums for each in gaps.values()]),
        next(iter(gaps.values())).sizes,
        torch.cat([each.least_errors() for each in gaps.values()]),
    )
    found = iter(means.intervals(level))
    return {method: {name: next(found) for name in NAMES} for method in gaps}
