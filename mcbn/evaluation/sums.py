"""What resamples add to cells, as products of how often each example was drawn with its values."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.sparse import csc_array
from torch import Tensor

from mcbn.evaluation.bootstrap import Counts
from mcbn.evaluation.clusters import Clusters

# Share of entries from which a dense product takes less time.
DENSE = 0.1


@dataclass(frozen=True, eq=False)
class Sums:
    """What a resample adds to each cell.

    Attributes:
        matrix: what each example, or each cluster, adds to each cell: (cells, units).
        sizes: rows of each cluster; None where every row is drawn by itself.
    """

    matrix: csc_array | Float64[np.ndarray, "cells units"]
    sizes: Float64[np.ndarray, " clusters"] | None

    def __call__(self, counts: Counts) -> Float64[np.ndarray, "cells *resamples"]:
        """The sums of resamples, per row of each: clusters of other sizes have other numbers."""
        return _per_row(self.matrix @ counts, self.sizes, counts)


@dataclass(frozen=True, eq=False)
class ClassSums:
    """What a resample adds to each bin of each class.

    Of many classes nearly all probabilities are in the first bin, which is therefore held densely.
    No row has more probabilities beyond it than there are bins.

    Attributes:
        first: what each unit adds to the first bin of each class: (units, classes).
        others: the same of each bin of each class, without the first: (cells, units).
        sizes: rows of each cluster; None where every row is drawn by itself.
    """

    first: Float64[np.ndarray, "units classes"]
    others: csc_array
    sizes: Float64[np.ndarray, " clusters"] | None

    def __call__(self, counts: Counts) -> Float64[np.ndarray, "cells *resamples"]:
        """The sums of resamples, class by class, per row of each."""
        sums = self.others @ counts
        sums[:: len(sums) // self.first.shape[1]] += self.first.T @ counts
        return _per_row(sums, self.sizes, counts)


def _per_row(
    sums: Float64[np.ndarray, "cells *resamples"],
    sizes: Float64[np.ndarray, " clusters"] | None,
    counts: Counts,
) -> Float64[np.ndarray, "cells *resamples"]:
    return sums if sizes is None else sums * (sizes.sum() / (sizes @ counts))


def dense_if_filled(matrix: Any) -> Any:
    """A sparse matrix as an array, where that takes less time in products."""
    return matrix.toarray() if matrix.nnz > DENSE * math.prod(matrix.shape) else matrix


def sums_of(
    places: Int[Tensor, "examples *values"],
    values: Float[Tensor, "examples *values"],
    cells: int,
    clusters: Clusters | None,
) -> Sums:
    """What each example adds to each cell, or each cluster of them together."""
    starts = np.arange(len(places) + 1) * places[0].numel()
    entries = values.double().flatten().numpy(), places.flatten().numpy(), starts
    return _of_units(csc_array(entries, shape=(cells, len(places))), clusters)


def class_sums(
    probabilities: Float[Tensor, "examples *positions classes"],
    targets: Int[Tensor, "examples *positions"],
    edges: Float64[Tensor, " edges"],
    clusters: Clusters | None,
) -> ClassSums:
    """What each example adds to the residuals of "is it this class", by class and bin.

    Args:
        probabilities: of each class.
        targets: the class that happened.
        edges: of the bins.
        clusters: of the examples; None where each is drawn by itself.
    """
    bins, classes = len(edges) - 1, probabilities.shape[-1]
    scale, rows = 1 / probabilities.numel(), len(probabilities)
    residuals = probabilities.double() * -scale
    happened = torch.full_like(targets, scale, dtype=torch.float64)[..., None]
    residuals.scatter_add_(-1, targets.long()[..., None], happened)
    beyond = (probabilities > edges[1]).nonzero(as_tuple=True)
    place = torch.bucketize(probabilities[beyond], edges[1:-1]) + bins * beyond[-1]
    entries = residuals[beyond].numpy(), (place.numpy(), beyond[0].numpy())
    others = _of_units(csc_array(entries, shape=(bins * classes, rows)), clusters)
    residuals[beyond] = 0.0
    first = residuals.reshape(rows, -1, classes).sum(1) if residuals.ndim > 2 else residuals
    if clusters is not None:
        summed = torch.zeros(len(clusters), classes, dtype=torch.float64)
        first = summed.index_add_(0, clusters.of_row, first)
    return ClassSums(first.numpy(), others.matrix, others.sizes)


def _of_units(matrix: csc_array, clusters: Clusters | None) -> Sums:
    """The sums of examples, or of the clusters that they are of."""
    if clusters is None:
        return Sums(matrix, None)
    rows = np.arange(matrix.shape[1])
    members = csc_array((np.ones(len(rows)), (rows, clusters.of_row.numpy())))
    return Sums(csc_array(matrix @ members), clusters.sizes.double().numpy())
