"""Intervals of calibration errors, by way of the gaps between what was said and what happened.

A calibration error is a norm of gaps. Chance adds to a norm: the error found is too large, and
resampled errors, to which chance was added twice, are larger still. The gaps themselves are means
over examples: those of a resample differ from those found as those found do from the true ones.
So the true gaps are taken to be k times those found. For each resample, k is the factor at which
its noise would have given the error that was found, and k times that error a replicate of the
true one. Their percentiles are an interval that reaches 0 where there may be no error.

Reference: Carpenter, Test Inversion Bootstrap Confidence Intervals, 1999.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from mcbn import bootstrap, calibration
from mcbn.bootstrap import Columns
from mcbn.reliability import Reliability

# Measures the gaps of each calibration error, so weighted that the error is a norm of them.
GapsOf = Callable[[Columns], dict[str, Tensor]]
# Makes one for the cells of some data, which it keeps on their resamples.
Kind = Callable[[Columns], GapsOf]
# The largest gap is the maximum norm, a root mean square the Euclidean, the rest are sums.
NORMS = {"mce": math.inf, "ece_debiased": 2.0}
CELLS = 512  # of the curves that have no bins
HALVINGS = 40  # to twelve digits


def binned_gaps(columns: Columns) -> GapsOf:
    """Measure gaps in bins of equal width and mass, which stay those of `columns`."""
    flags = columns["confidence"].flatten(), columns["correct"].flatten()
    width, mass = Reliability.from_predictions(*flags), Reliability.from_quantiles(*flags)
    shares = [bins.counts.double().clamp(min=1) / bins.counts.sum() for bins in (width, mass)]

    def measure(chosen: Columns) -> dict[str, Tensor]:
        confidence = chosen["confidence"].flatten()
        residuals = chosen["correct"].flatten().double() - confidence
        by_width, by_mass = (
            _sums(torch.bucketize(confidence, bins.edges[1:-1]), residuals, len(bins.counts))
            / len(confidence)
            for bins in (width, mass)
        )
        return {
            "ece": by_width,
            "mce": by_width / shares[0],
            "ece_equal_mass": by_mass,
            "ece_debiased": by_mass / shares[1].sqrt(),
        }

    return measure


def class_gaps(columns: Columns) -> GapsOf:
    """Measure the gaps of all calibration errors of a classification."""
    in_bins = binned_gaps(columns)
    flags = columns["confidence"].flatten(), columns["correct"].flatten()
    edges, classes = Reliability.from_predictions(*flags).edges, columns["probabilities"].shape[1]
    width, bins = calibration.smooth_calibration_error(*flags), len(edges) - 1

    def measure(chosen: Columns) -> dict[str, Tensor]:
        said = chosen["probabilities"].movedim(1, -1).reshape(-1, classes).contiguous()
        residuals = torch.nn.functional.one_hot(chosen["targets"].flatten(), classes) - said
        places = torch.bucketize(said, edges[1:-1]) + bins * torch.arange(classes)
        sums = _sums(places.flatten(), residuals.flatten(), bins * classes)
        smooth = calibration.smoothed_residuals(
            chosen["confidence"].flatten(), chosen["correct"].flatten(), width=width, cells=CELLS
        )
        return {
            **in_bins(chosen),
            "ece_classwise": sums / residuals.numel(),
            "ece_smooth": smooth / CELLS,
        }

    return measure


def pit_gaps(_: Columns) -> GapsOf:
    """Measure how far the distribution function of PITs is from the diagonal, cell by cell."""
    middles = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS

    def measure(chosen: Columns) -> dict[str, Tensor]:
        values = chosen["pit"].flatten()
        above = (values * CELLS - 0.5).ceil().long().clamp(0, CELLS)
        reached = above.bincount(minlength=CELLS + 1)[:CELLS].cumsum(0).double() / len(values)
        return {"pit_error": (reached - middles) / CELLS}

    return measure


def no_gaps(_: Columns) -> GapsOf:
    """Measure none, where there is no calibration error among the scores."""
    return lambda _: {}


def replicates(
    columns: Columns,
    measure: bootstrap.Measure,
    *,
    kind: Kind,
    resamples: int,
    seed: int,
    progress: bool = False,
) -> dict[str, Float64[Tensor, " resamples"]]:
    """Replicates of what `measure` says of resampled examples, and of calibration errors.

    Args:
        columns: one row an example.
        measure: its values are taken as they are, but for those of which there are gaps.
        kind: of gaps: one of the functions above.
        resamples: how many; without any there is nothing, not even names.
        seed: chooses the resamples.
        progress: show a bar, on a terminal only.

    Raises:
        ValueError: the number of resamples is negative.
    """
    gaps_of = (kind if resamples > 0 else no_gaps)(columns)
    found = gaps_of(columns)
    drawn = bootstrap.replicates(
        [columns],
        lambda chosen: {**measure(chosen), **gaps_of(chosen)},
        resamples=resamples,
        seed=seed,
        progress=progress,
    )
    return {
        name: _errors(found[name], values, NORMS.get(name, 1.0)) if name in found else values
        for name, values in drawn.items()
    }


def _errors(
    found: Float64[Tensor, " cells"], resampled: Float64[Tensor, "resamples cells"], order: float
) -> Float64[Tensor, " resamples"]:
    """`k |found|` with the k at which `|k found + noise| = |found|`; 0 where noise is larger."""
    noise = resampled - found
    size, least = (torch.linalg.vector_norm(x, order, dim=-1) for x in (found, noise))
    low = torch.zeros_like(least)
    high = 1 + least / size.clamp(min=torch.finfo(size.dtype).tiny)  # by the triangle inequality
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        under = torch.linalg.vector_norm(middle[:, None] * found + noise, order, dim=-1) < size
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    errors: Tensor = torch.where(least < size, high, 0.0) * size
    return errors


def _sums(
    places: Int[Tensor, " examples"], values: Float64[Tensor, " examples"], cells: int
) -> Float64[Tensor, " cells"]:
    return torch.zeros(cells, dtype=torch.float64).index_add_(0, places, values)
