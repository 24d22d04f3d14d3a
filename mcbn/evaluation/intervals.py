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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation import bootstrap, formulas
from mcbn.evaluation.bootstrap import CountMeasure, Counts, ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.reliability import equal_mass, equal_width, width_edges
from mcbn.evaluation.sums import ClassSums, Sums, class_sums, sums_of

# The gaps of each calibration error in a resample, so weighted that the error is a norm of them;
# of several resamples with a leading axis.
GapsOf = Callable[[Counts], dict[str, Tensor]]
# Makes one for some data: what each example adds to each gap is computed once.
GapKind = Callable[[ScoreColumns, Clusters | None], GapsOf]
# The gaps of each label in a resample.
ByLabel = Callable[[Counts], Float64[Tensor, "*resamples labels bins"]]
# The largest gap is the maximum norm, a root mean square the Euclidean, the others are sums.
NORMS = {"mce": math.inf, "ece_debiased": 2.0}
CELLS = 512  # of the curves that have no bins
NOISES = 2**18  # values of gaps that are scaled at once
HALVINGS = 40  # to twelve digits


def binned_gaps(columns: ScoreColumns, clusters: Clusters | None = None) -> GapsOf:
    """Gaps in bins of equal width and of equal mass; the bins stay those of `columns`."""
    confidence, correct = columns["confidence"], columns["correct"]
    flags = confidence.flatten().clamp(max=1), correct.flatten()
    both = equal_width(*flags), equal_mass(*flags)
    width, mass = (bins.counts.double().clamp(min=1) / bins.counts.sum() for bins in both)
    residuals = (correct.double() - confidence) / confidence.numel()
    by_width, by_mass = (
        sums_of(bins.places_of(confidence), residuals, len(bins.counts), clusters) for bins in both
    )

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        width_gaps, mass_gaps = (torch.from_numpy(sums(counts).T) for sums in (by_width, by_mass))
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
        "ece_classwise": torch.from_numpy(by_class(counts).T),
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
        Gaps with the axes (labels, bins), of several resamples (resamples, labels, bins).
    """
    probability, edges = columns["probability"], width_edges()
    known, codes = np.unique(columns["label"].numpy(), return_inverse=True)
    bins, labels, label = len(edges) - 1, len(known), torch.from_numpy(codes)
    places = torch.bucketize(probability, edges[1:-1]) + bins * label
    residuals = columns["present"].double() - probability
    sums = sums_of(places, residuals, bins * labels, clusters).matrix
    rows = sums_of(label, torch.ones_like(residuals), labels, clusters).matrix

    def gaps_of(counts: Counts) -> Float64[Tensor, "*resamples labels bins"]:
        known = np.maximum((rows @ counts).T, 1)[..., None]
        return torch.from_numpy((sums @ counts).T.reshape(*known.shape[:-1], bins) / known)

    return gaps_of


def _label_means(
    gaps: Float64[Tensor, "*resamples labels bins"],
) -> Float64[Tensor, "*resamples gaps"]:
    """Gaps so weighted that their norm is the mean over labels."""
    return gaps.flatten(-2) / gaps.shape[-2]


def _all_gaps(columns: ScoreColumns, clusters: Clusters | None) -> GapsOf:
    """Gaps of the errors of all confidences together: in bins, and smooth."""
    in_bins = binned_gaps(columns, clusters)
    confidence, correct = columns["confidence"], columns["correct"]
    flags = confidence.flatten().clamp(max=1), correct.flatten()
    width = formulas.smooth_calibration_error(*flags)
    cells, shares = (part.movedim(0, -1) for part in formulas.residual_shares(confidence, correct))
    on_cells = sums_of(cells, shares / confidence.numel(), formulas.CELLS, clusters)

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        smooth = formulas.smoothed_residuals(on_cells(counts).T, width=width, cells=CELLS)
        return {**in_bins(counts), "ece_smooth": smooth / CELLS}

    return gaps_of


def _class_sums(columns: ScoreColumns, clusters: Clusters | None) -> ClassSums:
    """What each example adds to the gaps of "is it this class", by class and bin of equal width."""
    probabilities = columns["probabilities"].movedim(1, -1)
    return class_sums(probabilities, columns["targets"], width_edges(), clusters)


def pit_gaps(columns: ScoreColumns, clusters: Clusters | None = None) -> GapsOf:
    """Distance of the distribution function of the PITs from the diagonal, cell by cell."""
    values = columns["pit"]
    above = (values * CELLS - 0.5).ceil().long().clamp(0, CELLS)
    return pit_gaps_of_steps(
        sums_of(above, torch.ones_like(values) / values.numel(), CELLS + 1, clusters)
    )


def pit_gaps_of_steps(steps: Sums) -> GapsOf:
    """The same from the share of PITs that come between two middles of cells.

    Args:
        steps: in a resample, from below the first middle to above the last.
    """
    middles = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        reached = torch.from_numpy(steps(counts).T)[..., :CELLS].cumsum(-1)
        return {"pit_error": (reached - middles) / CELLS}

    return gaps_of


def no_gaps(_: ScoreColumns, __: Clusters | None = None) -> GapsOf:
    """No gaps, for scores among which there is no calibration error."""
    return lambda _: {}


def weighted_replicates(
    columns: ScoreColumns,
    clusters: Clusters,
    measure: CountMeasure,
    *,
    kind: GapKind,
    resamples: int,
    seed: int,
    progress: bool = False,
) -> dict[str, Float64[Tensor, "*shapes resamples"]]:
    """Replicates of the scores that `measure` returns, and of the calibration errors of `kind`.

    Those of a calibration error have a leading axis, of one shape or two. No row is copied: the
    scores of a resample follow from how often each cluster was drawn.

    Args:
        columns: one row per example, for the gaps.
        clusters: of the rows, which are drawn whole; `Clusters.alone` to draw each by itself.
        measure: the scores whose replicates are the scores themselves, of several resamples.
        kind: which calibration errors: one of the functions above.
        resamples: how many; without any the result is empty.
        seed: chooses the resamples.
        progress: show a bar, on a terminal only.

    Raises:
        ValueError: the number of resamples is negative.
    """
    gaps_of = (kind if resamples > 0 else no_gaps)(columns, clusters)
    observed = gaps_of(np.ones(len(clusters)))

    def scores_and_gaps(counts: Counts) -> Mapping[str, Any]:
        if not observed:
            return measure(counts)
        # In this order, and as floats, the sums of all gaps take them without another copy.
        return {**measure(counts), **gaps_of(np.ascontiguousarray(counts, dtype=np.float64))}

    drawn = bootstrap.counted_replicates(
        [len(clusters)], scores_and_gaps, resamples=resamples, seed=seed, progress=progress
    )
    return _of_errors(drawn, observed)


def _of_errors(
    drawn: dict[str, Tensor], observed: Mapping[str, Tensor]
) -> dict[str, Float64[Tensor, "*shapes resamples"]]:
    """The replicates of scores as they are, and of calibration errors from those of their gaps."""
    for name, whole in observed.items():
        if name in drawn:  # the gaps, which take far more memory than the errors, are let go
            drawn[name] = errors(whole, drawn[name], NORMS.get(name, 1.0))
    return drawn


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
    size = torch.linalg.vector_norm(observed, order)
    shapes = (observed,) if order == 2 else _shapes(observed, resampled)
    # A few at a time: each halving takes as much memory again.
    parts = torch.split(resampled, max(1, NOISES // len(observed)))
    return torch.stack([
        torch.cat([_scaled(shape, part - observed, size, order) for part in parts])
        for shape in shapes
    ])  # fmt: skip


def _shapes(
    observed: Float64[Tensor, " cells"], resampled: Float64[Tensor, "resamples cells"]
) -> tuple[Float64[Tensor, " cells"], Float64[Tensor, " cells"]]:
    """The gaps without the part that chance explains, and all of them as if chance had cut them."""
    square, chance = observed.square(), resampled.var(0, correction=0)
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
