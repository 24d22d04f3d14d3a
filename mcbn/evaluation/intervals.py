"""Bootstrap intervals of calibration errors, from the gaps between forecast and outcome.

A calibration error is a norm of gaps, and chance adds to a norm: the observed error is too large,
and resampled errors, to which chance was added twice, are larger still. The gaps themselves are
means over examples: those of a resample differ from the observed gaps as the observed ones do from
the true ones. So the true gaps are taken to be k times a shape. For each resample, k is the factor
at which its noise would have given the observed error, and the error of k times the shape is a
replicate of the true one. The percentiles of these are an interval that reaches 0 where there may
be no error.

What chance adds depends on how many gaps are large, and hides which they are. (But for a root mean
square: to that it always adds the same.) So there are two rows of replicates, of a sparse and of an
even shape, and the interval spans both.

Reference: Carpenter, Test Inversion Bootstrap Confidence Intervals, 1999.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.sparse import csc_array
from torch import Tensor

from mcbn.evaluation import bootstrap, formulas
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.reliability import equal_mass, equal_width, width_edges

# How often each example, or each cluster of rows, was drawn.
Counts = Float64[np.ndarray, " units"]
# The gaps of each calibration error in a resample, so weighted that the error is a norm of them.
GapsOf = Callable[[Counts], dict[str, Tensor]]
# Makes one for some data: what each example adds to each gap is computed once.
GapKind = Callable[[ScoreColumns, Clusters | None], GapsOf]
# The gaps of each label in a resample.
ByLabel = Callable[[Counts], Float64[Tensor, "labels bins"]]
# The largest gap is the maximum norm, a root mean square the Euclidean, the others are sums.
NORMS = {"mce": math.inf, "ece_debiased": 2.0}
CELLS = 512  # of the curves that have no bins
ONLY_FOR_GAPS = ("probabilities", "targets")  # columns that need not be resampled
HALVINGS = 40  # to twelve digits


def binned_gaps(columns: ScoreColumns, clusters: Clusters | None = None) -> GapsOf:
    """Gaps in bins of equal width and of equal mass; the bins stay those of `columns`."""
    confidence, correct = columns["confidence"], columns["correct"]
    flags = confidence.flatten().clamp(max=1), correct.flatten()
    both = equal_width(*flags), equal_mass(*flags)
    width, mass = (bins.counts.double().clamp(min=1) / bins.counts.sum() for bins in both)
    residuals = (correct.double() - confidence) / confidence.numel()
    by_width, by_mass = (
        _sums(torch.bucketize(confidence, bins.edges[1:-1]), residuals, len(bins.counts), clusters)
        for bins in both
    )

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        width_gaps, mass_gaps = (torch.from_numpy(sums(counts)) for sums in (by_width, by_mass))
        return {
            "ece": width_gaps,
            "mce": width_gaps / width,
            "ece_equal_mass": mass_gaps,
            "ece_debiased": mass_gaps / mass.sqrt(),
        }

    return gaps_of


def class_gaps(columns: ScoreColumns, clusters: Clusters | None = None) -> GapsOf:
    """Gaps of all calibration errors of a classification."""
    of_all, by_class = _all_gaps(columns, clusters), _class_sums(columns, clusters)
    return lambda counts: {
        **of_all(counts),
        "ece_classwise": torch.from_numpy(by_class(counts)),
    }


def label_gaps(columns: ScoreColumns, clusters: Clusters | None = None) -> GapsOf:
    """Gaps of all calibration errors of several labels, of the probabilities that they are there.

    Args:
        columns: with the `probability` of each answer, whether its label is `present`, and which
            `label` it is.
        clusters: of the answers.
    """
    asked = {"confidence": columns["probability"], "correct": columns["present"]}
    of_all, by_label = _all_gaps(asked, clusters), gaps_by_label(columns, clusters)
    return lambda counts: {**of_all(counts), "ece_classwise": _label_means(by_label(counts))}


def gaps_by_label(columns: ScoreColumns, clusters: Clusters | None) -> ByLabel:
    """Makes the gaps of each label in bins of equal width, whose norm is its own error.

    Labels of which no answer is known are left out. Others may have more or fewer known answers in
    a resample, and each is divided by its own.

    Args:
        columns: as for `label_gaps`.
        clusters: of the answers.

    Returns:
        Gaps with the axes (labels, bins).
    """
    probability, edges = columns["probability"], width_edges()
    known, codes = np.unique(columns["label"].numpy(), return_inverse=True)
    bins, labels, label = len(edges) - 1, len(known), torch.from_numpy(codes)
    places = torch.bucketize(probability, edges[1:-1]) + bins * label
    residuals = columns["present"].double() - probability
    sums = _sums(places, residuals, bins * labels, clusters).matrix
    rows = _sums(label, torch.ones_like(residuals), labels, clusters).matrix

    def gaps_of(counts: Counts) -> Float64[Tensor, "labels bins"]:
        found = (sums @ counts).reshape(labels, bins)
        return torch.from_numpy(found / np.maximum(rows @ counts, 1)[:, None])

    return gaps_of


def _label_means(gaps: Float64[Tensor, "labels bins"]) -> Float64[Tensor, " gaps"]:
    """Gaps so weighted that their norm is the mean over labels."""
    return gaps.flatten() / len(gaps)


def _all_gaps(columns: ScoreColumns, clusters: Clusters | None) -> GapsOf:
    """Gaps of the errors of all confidences together: in bins, and smooth."""
    in_bins = binned_gaps(columns, clusters)
    confidence, correct = columns["confidence"], columns["correct"]
    flags = confidence.flatten().clamp(max=1), correct.flatten()
    width = formulas.smooth_calibration_error(*flags)
    cells, shares = (part.movedim(0, -1) for part in formulas.residual_shares(confidence, correct))
    on_cells = _sums(cells, shares / confidence.numel(), formulas.CELLS, clusters)

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        smooth = formulas.smoothed_residuals(on_cells(counts), width=width, cells=CELLS)
        return {**in_bins(counts), "ece_smooth": smooth / CELLS}

    return gaps_of


def _class_sums(columns: ScoreColumns, clusters: Clusters | None) -> "Sums":
    """What each example adds to the gaps of "is it this class", by class and bin of equal width."""
    probabilities = columns["probabilities"].movedim(1, -1).contiguous()
    edges = width_edges()
    bins, classes = len(edges) - 1, probabilities.shape[-1]
    happened = torch.ones_like(columns["targets"], dtype=probabilities.dtype)[..., None]
    residuals = (-probabilities).scatter_add(-1, columns["targets"].long()[..., None], happened)
    places = torch.bucketize(probabilities, edges[1:-1], out_int32=True)
    places += bins * torch.arange(classes, dtype=torch.int32)
    return _sums(places, residuals / probabilities.numel(), bins * classes, clusters)


def pit_gaps(columns: ScoreColumns, clusters: Clusters | None = None) -> GapsOf:
    """Distance of the distribution function of the PITs from the diagonal, cell by cell."""
    values = columns["pit"]
    above = (values * CELLS - 0.5).ceil().long().clamp(0, CELLS)
    return pit_gaps_of_steps(
        _sums(above, torch.ones_like(values) / values.numel(), CELLS + 1, clusters)
    )


def pit_gaps_of_steps(steps: "Sums") -> GapsOf:
    """The same from the share of PITs that come between two middles of cells.

    Args:
        steps: in a resample, from below the first middle to above the last.
    """
    middles = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        reached = torch.from_numpy(steps(counts))[:CELLS].cumsum(0)
        return {"pit_error": (reached - middles) / CELLS}

    return gaps_of


def no_gaps(_: ScoreColumns, __: Clusters | None = None) -> GapsOf:
    """No gaps, for scores among which there is no calibration error."""
    return lambda _: {}


def score_replicates(
    columns: ScoreColumns,
    measure: bootstrap.Measure,
    *,
    kind: GapKind,
    resamples: int,
    seed: int,
    progress: bool = False,
    clusters: Clusters | None = None,
) -> dict[str, Float64[Tensor, "*shapes resamples"]]:
    """Replicates of the scores that `measure` returns, and of the calibration errors of `kind`.

    Those of a calibration error have a leading axis, of one shape or two.

    Args:
        columns: one row per example.
        measure: the scores of a resample whose replicates are the scores themselves.
        kind: which calibration errors: one of the functions above.
        resamples: how many; without any the result is empty.
        seed: chooses the resamples.
        progress: show a bar, on a terminal only.
        clusters: of the rows, which are drawn whole; None to draw the rows.

    Raises:
        ValueError: the number of resamples is negative.
    """
    gaps_of = (kind if resamples > 0 else no_gaps)(columns, clusters)
    rows = len(next(iter(columns.values())))
    unit = torch.arange(rows) if clusters is None else clusters.of_row
    sizes = torch.ones(rows) if clusters is None else clusters.sizes
    observed = gaps_of(np.ones(len(sizes)))
    resampled = {name: rows for name, rows in columns.items() if name not in ONLY_FOR_GAPS}

    def scores_and_gaps(chosen: ScoreColumns) -> dict[str, float | Tensor]:
        counts = chosen["unit"].bincount(minlength=len(sizes)).double() / sizes
        return {**measure(chosen), **gaps_of(counts.numpy())}

    drawn = bootstrap.replicates(
        [{**resampled, "unit": unit}],
        scores_and_gaps,
        resamples=resamples,
        seed=seed,
        progress=progress,
        clusters=[clusters],
    )
    return _of_errors(drawn, observed)


def weighted_replicates(
    columns: ScoreColumns,
    clusters: Clusters,
    measure: Callable[[Counts], Mapping[str, float | Tensor]],
    *,
    kind: GapKind,
    resamples: int,
    seed: int,
    progress: bool = False,
) -> dict[str, Float64[Tensor, "*shapes resamples"]]:
    """The same replicates where `measure` takes how often each cluster was drawn.

    Resamples are the same as by `score_replicates`, without a copy of the rows for each.
    """
    gaps_of = (kind if resamples > 0 else no_gaps)(columns, clusters)
    observed = gaps_of(np.ones(len(clusters)))

    def scores_and_gaps(chosen: ScoreColumns) -> dict[str, float | Tensor]:
        counts = chosen["unit"].bincount(minlength=len(clusters)).double().numpy()
        return {**measure(counts), **gaps_of(counts)}

    drawn = bootstrap.replicates(
        [{"unit": torch.arange(len(clusters))}], scores_and_gaps, resamples=resamples, seed=seed,
        progress=progress,
    )  # fmt: skip
    return _of_errors(drawn, observed)


def _of_errors(
    drawn: Mapping[str, Tensor], observed: Mapping[str, Tensor]
) -> dict[str, Float64[Tensor, "*shapes resamples"]]:
    """The replicates of scores as they are, and of calibration errors from those of their gaps."""
    return {
        name: errors(observed[name], values, NORMS.get(name, 1.0)) if name in observed else values
        for name, values in drawn.items()
    }


def difference(
    first: Float64[Tensor, "*shapes resamples"],
    second: Float64[Tensor, "*shapes resamples"],
    level: float,
) -> Float64[Tensor, "*rows resamples"]:
    """Replicates of the difference first - second of two scores that were resampled alike.

    Those of a calibration error are never below 0, so where there is none they are too large on
    average. Where one may be 0, by its interval, the other alone is a replicate as well. Equal
    replicates are of equal gaps, whose difference is 0.
    """
    if first.ndim == 1 or first.equal(second):
        return first - second
    rows = [first - second]
    if bootstrap.percentile_interval(first, level)[0] <= 0:
        rows.append(-second)
    if bootstrap.percentile_interval(second, level)[0] <= 0:
        rows.append(first)
    return torch.cat(rows)


def errors(
    observed: Float64[Tensor, " cells"],
    resampled: Float64[Tensor, "resamples cells"],
    order: float,
) -> Float64[Tensor, "shapes resamples"]:
    """Replicates of the true error, for each shape that its gaps may have.

    Args:
        observed: the gaps, so weighted that the error is their norm.
        resampled: those of each resample.
        order: of the norm.
    """
    noise = resampled - observed
    size = torch.linalg.vector_norm(observed, order)
    shapes = (observed,) if order == 2 else _shapes(observed, noise)
    return torch.stack([_scaled(shape, noise, size, order) for shape in shapes])


def _shapes(
    observed: Float64[Tensor, " cells"], noise: Float64[Tensor, "resamples cells"]
) -> tuple[Float64[Tensor, " cells"], Float64[Tensor, " cells"]]:
    """The gaps without the part that chance explains, and all of them as if chance had cut them."""
    square, chance = observed.square(), noise.var(0, correction=0)
    tiny = torch.finfo(square.dtype).tiny
    sparse = observed * (1 - chance / square.clamp(min=tiny)).clamp(min=0)
    even = observed.sign() * (square + chance).sqrt()
    return sparse if bool(sparse.any()) else observed, even


def _scaled(
    shape: Float64[Tensor, " cells"],
    noise: Float64[Tensor, "resamples cells"],
    size: Float64[Tensor, ""],
    order: float,
) -> Float64[Tensor, " resamples"]:
    """`k |shape|` with the k at which `|k shape + noise| = size`; 0 where noise is larger."""
    unit, noise_size = (torch.linalg.vector_norm(x, order, dim=-1) for x in (shape, noise))
    low = torch.zeros_like(noise_size)
    # The triangle inequality bounds k.
    high = (size + noise_size) / unit.clamp(min=torch.finfo(unit.dtype).tiny)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        under = torch.linalg.vector_norm(middle[:, None] * shape + noise, order, dim=-1) < size
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    errors: Tensor = torch.where(noise_size < size, high, 0.0) * unit
    return errors


@dataclass(frozen=True, eq=False)
class Sums:
    """What a resample adds to each cell.

    Attributes:
        matrix: what each example, or each cluster, adds to each cell: (cells, units).
        sizes: rows of each cluster; None where every row is drawn by itself.
    """

    matrix: csc_array
    sizes: Float64[np.ndarray, " clusters"] | None

    def __call__(self, counts: Counts) -> Float64[np.ndarray, " cells"]:
        """The sums of a resample, per row of it: clusters of other sizes have other numbers."""
        sums: np.ndarray = self.matrix @ counts
        return sums if self.sizes is None else sums * (self.sizes.sum() / (self.sizes @ counts))


def _sums(
    places: Int[Tensor, "examples *values"],
    values: Float[Tensor, "examples *values"],
    cells: int,
    clusters: Clusters | None,
) -> Sums:
    """What each example adds to each cell, or each cluster of them together."""
    starts = np.arange(len(places) + 1) * places[0].numel()
    entries = values.double().flatten().numpy(), places.flatten().numpy(), starts
    matrix = csc_array(entries, shape=(cells, len(places)))
    if clusters is None:
        return Sums(matrix, None)
    rows = np.arange(len(places))
    members = csc_array((np.ones(len(rows)), (rows, clusters.of_row.numpy())))
    return Sums(matrix @ members, clusters.sizes.double().numpy())
