"""Intervals of calibration errors, by way of the gaps between what was said and what happened.

A calibration error is a norm of gaps. Chance adds to a norm: the error found is too large, and
resampled errors, to which chance was added twice, are larger still. The gaps themselves are means
over examples: those of a resample differ from those found as those found do from the true ones.
So the true gaps are taken to be k times a shape. For each resample, k is the factor at which its
noise would have given the error that was found, and the error of k times the shape a replicate of
the true one. Their percentiles are an interval that reaches 0 where there may be no error.

What chance adds depends on how many gaps are large, and hides which they are. (But for a root mean
square: to that it always adds the same.) So there are two rows of replicates, of a sparse and of an
even shape, and the interval spans both.

Reference: Carpenter, Test Inversion Bootstrap Confidence Intervals, 1999.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.sparse import csc_array
from torch import Tensor

from mcbn.evaluation import bootstrap, calibration
from mcbn.evaluation.bootstrap import Columns
from mcbn.evaluation.reliability import Reliability

# How often each example was drawn.
Counts = Float64[np.ndarray, " examples"]
# The gaps of each calibration error in a resample, so weighted that the error is a norm of them.
GapsOf = Callable[[Counts], dict[str, Tensor]]
# Makes one for some data: what each example adds to each gap is worked out once.
Kind = Callable[[Columns], GapsOf]
# The largest gap is the maximum norm, a root mean square the Euclidean, the rest are sums.
NORMS = {"mce": math.inf, "ece_debiased": 2.0}
CELLS = 512  # of the curves that have no bins
LARGE = ("probabilities", "targets")  # columns that nothing but gaps is made from
HALVINGS = 40  # to twelve digits


def binned_gaps(columns: Columns) -> GapsOf:
    """The gaps in bins of equal width and mass, which stay those of `columns`."""
    confidence, correct = columns["confidence"], columns["correct"]
    flags = confidence.flatten(), correct.flatten()
    kinds = Reliability.from_predictions(*flags), Reliability.from_quantiles(*flags)
    width, mass = (bins.counts.double().clamp(min=1) / bins.counts.sum() for bins in kinds)
    residuals = (correct.double() - confidence) / confidence.numel()
    by_width, by_mass = (
        _adds(torch.bucketize(confidence, bins.edges[1:-1]), residuals, len(bins.counts))
        for bins in kinds
    )

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        wide, heavy = (torch.from_numpy(adds @ counts) for adds in (by_width, by_mass))
        return {
            "ece": wide,
            "mce": wide / width,
            "ece_equal_mass": heavy,
            "ece_debiased": heavy / mass.sqrt(),
        }

    return gaps_of


def class_gaps(columns: Columns) -> GapsOf:
    """The gaps of all calibration errors of a classification."""
    in_bins, by_class = binned_gaps(columns), _of_classes(columns)
    confidence, correct = columns["confidence"], columns["correct"]
    width = calibration.smooth_calibration_error(confidence.flatten(), correct.flatten())
    cells, shares = (
        part.movedim(0, -1) for part in calibration.residual_shares(confidence, correct)
    )
    on_cells = _adds(cells, shares / confidence.numel(), calibration.CELLS)

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        smooth = calibration.smoothed_residuals(on_cells @ counts, width=width, cells=CELLS)
        return {
            **in_bins(counts),
            "ece_classwise": torch.from_numpy(by_class @ counts),
            "ece_smooth": smooth / CELLS,
        }

    return gaps_of


def _of_classes(columns: Columns) -> csc_array:
    """What each example adds to the gaps of "is it this class", by class and bin of equal width."""
    said = columns["probabilities"].movedim(1, -1).contiguous()
    edges = Reliability.from_predictions(
        columns["confidence"].flatten(), columns["correct"].flatten()
    ).edges
    bins, classes = len(edges) - 1, said.shape[-1]
    happened = torch.ones_like(columns["targets"], dtype=said.dtype)
    residuals = (-said).scatter_add(-1, columns["targets"].long()[..., None], happened[..., None])
    places = torch.bucketize(said, edges[1:-1], out_int32=True)
    places += bins * torch.arange(classes, dtype=torch.int32)
    return _adds(places, residuals / said.numel(), bins * classes)


def pit_gaps(columns: Columns) -> GapsOf:
    """How far the distribution function of PITs is from the diagonal, cell by cell."""
    middles = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
    values = columns["pit"]
    above = (values * CELLS - 0.5).ceil().long().clamp(0, CELLS)
    steps = _adds(above, torch.ones_like(values) / values.numel(), CELLS + 1)

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        reached = torch.from_numpy(steps @ counts)[:CELLS].cumsum(0)
        return {"pit_error": (reached - middles) / CELLS}

    return gaps_of


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
) -> dict[str, Float64[Tensor, "*shapes resamples"]]:
    """Replicates of what `measure` says of resampled examples, and of calibration errors.

    Those of a calibration error have a leading axis, of one shape or two.

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
    examples = len(next(iter(columns.values())))
    found = gaps_of(np.ones(examples))
    kept = {name: values for name, values in columns.items() if name not in LARGE}

    def measured(chosen: Columns) -> dict[str, float | Tensor]:
        counts = chosen["row"].bincount(minlength=examples).double().numpy()
        return {**measure(chosen), **gaps_of(counts)}

    drawn = bootstrap.replicates(
        [{**kept, "row": torch.arange(examples)}],
        measured,
        resamples=resamples,
        seed=seed,
        progress=progress,
    )
    return {
        name: _errors(found[name], values, NORMS.get(name, 1.0)) if name in found else values
        for name, values in drawn.items()
    }


def difference(
    mine: Float64[Tensor, "*shapes resamples"],
    theirs: Float64[Tensor, "*shapes resamples"],
    level: float,
) -> Float64[Tensor, "*rows resamples"]:
    """Replicates of a difference of two scores that were resampled alike.

    Those of a calibration error are never below 0, so where there is none they are too large on
    average. Where one may be 0, by its interval, the other alone is a replicate as well. Equal
    replicates are of equal gaps, whose difference is 0.
    """
    if mine.ndim == 1 or mine.equal(theirs):
        return mine - theirs
    rows = [mine - theirs]
    if bootstrap.percentile_interval(mine, level)[0] <= 0:
        rows.append(-theirs)
    if bootstrap.percentile_interval(theirs, level)[0] <= 0:
        rows.append(mine)
    return torch.cat(rows)


def _errors(
    found: Float64[Tensor, " cells"], resampled: Float64[Tensor, "resamples cells"], order: float
) -> Float64[Tensor, "shapes resamples"]:
    """Replicates of the true error, of each shape that its gaps may have."""
    noise = resampled - found
    size = torch.linalg.vector_norm(found, order)
    shapes = (found,) if order == 2 else _shapes(found, noise)
    return torch.stack([_scaled(shape, noise, size, order) for shape in shapes])


def _shapes(
    found: Float64[Tensor, " cells"], noise: Float64[Tensor, "resamples cells"]
) -> tuple[Float64[Tensor, " cells"], Float64[Tensor, " cells"]]:
    """The gaps without the part that chance explains, and all of them as if chance had cut them."""
    square, chance = found.square(), noise.var(0, correction=0)
    sparse = found * (1 - chance / square.clamp(min=torch.finfo(square.dtype).tiny)).clamp(min=0)
    return sparse if bool(sparse.any()) else found, found.sign() * (square + chance).sqrt()


def _scaled(
    shape: Float64[Tensor, " cells"],
    noise: Float64[Tensor, "resamples cells"],
    size: Float64[Tensor, ""],
    order: float,
) -> Float64[Tensor, " resamples"]:
    """`k |shape|` with the k at which `|k shape + noise| = size`; 0 where noise is larger."""
    one, least = (torch.linalg.vector_norm(x, order, dim=-1) for x in (shape, noise))
    low = torch.zeros_like(least)
    # By the triangle inequality.
    high = (size + least) / one.clamp(min=torch.finfo(one.dtype).tiny)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        under = torch.linalg.vector_norm(middle[:, None] * shape + noise, order, dim=-1) < size
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    errors: Tensor = torch.where(least < size, high, 0.0) * one
    return errors


def _adds(
    places: Int[Tensor, "examples *values"], values: Float[Tensor, "examples *values"], cells: int
) -> csc_array:
    """A matrix (cells, examples) of what each example adds to each cell."""
    each = places[0].numel()
    starts = np.arange(len(places) + 1) * each
    flat = values.double().flatten().numpy(), places.flatten().numpy(), starts
    return csc_array(flat, shape=(cells, len(places)))
