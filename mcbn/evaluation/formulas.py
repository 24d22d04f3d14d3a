"""The scores as formulas, for arguments that were checked before.

A public score of `scores`, `calibration` or `detection` checks its arguments and calls the formula
of the same name here. `evaluate` checks once and calls the formulas, also for every resample.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy import fft, optimize
from torch import Tensor

from mcbn.evaluation.reliability import equal_width

# Cells of the smooth calibration error: a bandwidth of 0.001 spans 8 of them.
CELLS = 2**13
RECALL = 0.95  # of `fpr95`


def negative_log_likelihood(
    log_probabilities: Float64[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
) -> Float64[Tensor, "batch *positions"]:
    """Return minus the log-probability of the class that happened."""
    chosen = log_probabilities.gather(1, targets.long().unsqueeze(1)).squeeze(1)
    return 0.0 - chosen  # not -chosen, which turns a perfect score into -0


def brier(
    probabilities: Float64[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
) -> Float64[Tensor, "batch *positions"]:
    """Return the squared distance between the probabilities and the class that happened."""
    index = targets.long().unsqueeze(1)
    hit = torch.full_like(index, -1, dtype=torch.float64)
    return probabilities.scatter_add(1, index, hit).square().sum(1)


def correct(
    probabilities: Float[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
) -> Bool[Tensor, "batch *positions"]:
    """Return whether the most probable class happened."""
    return probabilities.argmax(1) == targets


def squared_error(
    mean: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """Return the squared difference."""
    return (mean.double() - targets.double()).square()


def classwise_calibration_error(
    probabilities: Float[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
    *,
    bins: int = 15,
) -> float:
    """Return the mean over classes of the expected error of "is it this class"."""
    flat, classes = targets.flatten(), probabilities.shape[1]
    errors = [
        equal_width(
            probabilities[:, c].flatten().double().clamp(max=1), flat == c, bins
        ).expected_error
        for c in range(classes)
    ]
    return math.fsum(errors) / classes


def residual_shares(
    confidence: Float[Tensor, "*batch"], correct: Bool[Tensor, "*batch"]
) -> tuple[Int[Tensor, "2 *batch"], Float64[Tensor, "2 *batch"]]:
    """Return on which cells of the unit interval each `correct - confidence` lies, and how much.

    It is shared by the two nearest of `CELLS` cell centres; beyond the ends it is reflected.
    """
    residuals = correct.double() - confidence
    place = confidence * CELLS - 0.5
    left = place.floor()
    cells = torch.stack([left, left + 1]).clamp(0, CELLS - 1).long()
    return cells, torch.stack([1 - (place - left), place - left]) * residuals


def smooth_calibration_error(
    confidence: Float64[Tensor, " batch"], correct: Bool[Tensor, " batch"]
) -> float:
    """Return the calibration error at the one bandwidth that equals it."""
    cells, shares = residual_shares(confidence, correct)
    mass = torch.zeros(CELLS, dtype=torch.float64, device=confidence.device)
    mass.index_add_(0, cells.flatten(), shares.flatten() / len(confidence))
    return smooth_error_of_shares(mass.cpu().numpy())


def smooth_error_of_shares(mass: Float64[np.ndarray, " fine"]) -> float:
    """Return the same from the mean over examples of their `residual_shares` on each cell."""
    # Cosines are reflected at both ends, so the kernel is a factor on each of them.
    waves = fft.dct(mass)
    frequencies = np.pi * np.arange(CELLS)

    def excess(width: float) -> float:
        kernel = np.exp(-0.5 * (width * frequencies) ** 2)
        return float(np.abs(fft.idct(waves * kernel)).sum() - width)

    # The error falls as the bandwidth rises and is at most 1, so there is one crossing.
    return float(optimize.brentq(excess, 0.0, 2.0, xtol=1e-12))


def smoothed_residuals(
    mass: Float64[np.ndarray, "*resamples fine"], *, width: float, cells: int
) -> Float64[Tensor, "*resamples cells"]:
    """Return `1/n sum_i K_s(t, confidence_i) (correct_i - confidence_i)` at the cells' centres.

    With the kernel of `smooth_calibration_error` at the bandwidth s = `width`. What is finer than
    the cells is left out.

    Args:
        mass: mean over examples of their `residual_shares` on each of `CELLS` cells.
        width: the bandwidth.
        cells: how many to return.
    """
    kernel = np.exp(-0.5 * (width * np.pi * np.arange(cells)) ** 2)
    return torch.from_numpy(fft.idct(fft.dct(mass)[..., :cells] * kernel) * cells)


def quantile_calibration_error(pit: Float64[Tensor, " batch"]) -> float:
    """Return the mean gap between nominal and observed coverage of all lower quantiles."""
    ones = torch.ones_like(pit)
    return quantile_error_of_counts(pit.sort().values, ones)


def quantile_error_of_counts(
    values: Float64[Tensor, " values"], counts: Float64[Tensor, " values"]
) -> float:
    """Return the same of ascending values that occur so often each."""
    knots = torch.cat([values.new_zeros(1), values, values.new_ones(1)])
    heights = torch.cat([counts.new_zeros(1), counts.cumsum(0)]) / counts.sum()
    # The integral of |u - h| is (u - h) |u - h| / 2.
    starts, ends = ((u - heights) * (u - heights).abs() for u in (knots[:-1], knots[1:]))
    return float((ends - starts).sum() / 2)


def auroc(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the probability that a positive example scores above a negative one."""
    ordered, chosen = scores.sort().values, scores[positive]
    # Twice the number of examples below each positive one, ties and itself counting one half.
    below = sum(torch.searchsorted(ordered, chosen, right=right).sum() for right in (False, True))
    count = len(chosen)
    return (int(below) - count**2) / (2 * count * (len(scores) - count))


def aupr(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the average precision."""
    return separation_of_counts(*_runs(scores, positive))[1]


def fpr95(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the share of negatives flagged where at least 95% of positives are."""
    return separation_of_counts(*_runs(scores, positive))[2]


def _runs(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many negatives and positives have each value of the scores, ascending."""
    ordered, order = scores.sort()
    run = torch.cat([order.new_zeros(1), (ordered.diff() != 0).cumsum(0)])
    hits = run.bincount(positive[order].double())
    return run.bincount().double() - hits, hits


def out_of_distribution(
    inside_uncertainty: Float[Tensor, " inside"], outside_uncertainty: Float[Tensor, " outside"]
) -> tuple[float, float, float]:
    """Return AUROC, AUPR and FPR95 of finding the examples that are out of distribution."""
    scores = torch.cat([inside_uncertainty.double(), outside_uncertainty.double()])
    positive = torch.arange(len(scores), device=scores.device) >= len(inside_uncertainty)
    return separation_of_counts(*_runs(scores, positive))


def separation_of_counts(
    inside: Float64[Tensor, " values"], outside: Float64[Tensor, " values"]
) -> tuple[float, float, float]:
    """Return the same of ascending values that occur so often in each set."""
    hits, misses = outside.flip(0), inside.flip(0)
    hits_until, misses_until = hits.cumsum(0), misses.cumsum(0)
    positives, negatives = float(hits_until[-1]), float(misses_until[-1])
    pairs = float((misses * (hits_until - hits / 2)).sum())
    precision = hits_until / (hits_until + misses_until).clamp(min=1)
    enough = int((hits_until >= RECALL * positives).nonzero()[0, 0])
    return (
        pairs / (positives * negatives),
        float((hits * precision).sum()) / positives,
        float(misses_until[enough]) / negatives,
    )


def risk_coverage(
    uncertainty: Float[Tensor, " batch"],
    loss: Float[Tensor, " batch"] | Bool[Tensor, " batch"],
) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"], float, float, float]:
    """Return coverage, risk, AURC, E-AURC and AUGRC: the fields of `detection.RiskCoverage`."""
    losses, count = loss.double(), len(loss)
    ordered, order = uncertainty.sort()
    group = torch.cat([order.new_zeros(1), (ordered.diff() != 0).cumsum(0)])
    sizes = group.bincount()
    # In a random order every member of a tie costs the mean of the tie.
    totals = torch.zeros_like(sizes, dtype=torch.float64).index_add(0, group, losses[order])
    accepted = (totals / sizes).repeat_interleave(sizes).cumsum(0)
    number = torch.arange(1, count + 1, dtype=torch.float64, device=losses.device)
    risk = accepted / number
    best = losses.sort().values.cumsum(0) / number
    area = float(risk.mean())
    trapezoids = float(accepted.sum() - accepted[-1] / 2)
    return number / count, risk, area, area - float(best.mean()), trapezoids / count**2
