"""How well a map of uncertainty matches the errors of an image, pixel by pixel."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata
from torch import Tensor

import mcbn
from mcbn.evaluation.detection import risk_coverage
from mcbn.predictive.mixture import gaussian_log_density

COVERED = 1.959964  # standard deviations in which a Gaussian has 95% of its mass
Images = Float64[Tensor, "images height width"]


@dataclass(frozen=True)
class Map:
    """A predicted image and its map of uncertainty.

    Attributes:
        mean: predicted images.
        spread: standard deviation, in any units.
    """

    mean: Images
    spread: Images


@dataclass(frozen=True)
class Scaled:
    """Predictive variance `factor * spread**2 + floor`.

    Attributes:
        factor: of the squared map.
        floor: what every pixel has.
    """

    factor: float
    floor: float

    def variance(self, spread: Images) -> Images:
        """The variance of every pixel."""
        return self.factor * spread.square() + self.floor


def ranks(values: Tensor) -> NDArray[np.float64]:
    """Ranks of all values, standardised; equal values share their mean rank."""
    ranked = rankdata(values.flatten().numpy())
    standardised: NDArray[np.float64] = (ranked - ranked.mean()) / ranked.std()
    return standardised


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation."""
    return float((ranks(one) * ranks(other)).mean())


def partial_rank_correlation(one: Tensor, other: Tensor, given: Tensor) -> float:
    """Spearman's rank correlation of two maps, given a third.

    The correlation of what is left of the ranks of both after linear regression on those of the
    third: `(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))`.
    """
    first, second, third = ranks(one), ranks(other), ranks(given)
    xy, xz, yz = (first * second).mean(), (first * third).mean(), (second * third).mean()
    return float((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))


def sparsification_area(spread: Tensor, error: Tensor) -> float:
    """Area under the sparsification error, in units of the mean error; 0 is best.

    Pixels are left out from the most uncertain on. The curve is the mean error of those kept, minus
    that when the largest errors are left out first, averaged over all shares kept.
    """
    curve = risk_coverage(spread.flatten(), error.flatten())
    return curve.excess_area / float(error.mean())


def fit_scale_and_floor(prediction: Map, target: Images) -> Scaled:
    """Fit both numbers by the log score of a Gaussian around the mean."""
    squares = (prediction.mean - target).square().flatten()
    mean_square = float(squares.mean())
    # In units of the errors, so that both numbers are near 1.
    unit = mean_square / float(prediction.spread.square().mean())
    shape = prediction.spread.square().flatten() * unit

    def loss(logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        factor, floor = math.exp(logs[0]), math.exp(logs[1]) * mean_square
        variance = factor * shape + floor
        slope = (1 - squares / variance) / variance / 2
        gradient = [float((slope * shape).mean()) * factor, float(slope.mean()) * floor]
        return float((variance.log() + squares / variance).mean() / 2), np.array(gradient)

    best = minimize(
        loss, np.log([0.5, 0.5]), jac=True, method="L-BFGS-B", bounds=[(-18, 6), (-9, 3)]
    )
    return Scaled(math.exp(best.x[0]) * unit, math.exp(best.x[1]) * mean_square)


def fit_scale(prediction: Map, target: Images, *, quantisation: float) -> Scaled:
    """Fit one factor of the variance, that of the map and of the quantisation of the target."""
    # Two draws with this mean and this standard deviation stand for any map.
    draws = torch.stack([prediction.mean - prediction.spread, prediction.mean + prediction.spread])
    predictive = mcbn.GaussianPredictive(draws, torch.tensor(quantisation, dtype=torch.float64))
    factor = mcbn.VarianceScaling.fit(predictive, target, criterion="moments").factor
    return Scaled(factor, factor * quantisation)


def log_score(prediction: Map, target: Images, scaled: Scaled) -> float:
    """Log-density per pixel in nats; higher is better."""
    variance = scaled.variance(prediction.spread)
    return float(gaussian_log_density(prediction.mean, variance, target).mean())


def coverage(prediction: Map, target: Images, scaled: Scaled) -> float:
    """Share of pixels in the 95% intervals."""
    deviations = scaled.variance(prediction.spread).sqrt()
    return float(((prediction.mean - target).abs() <= COVERED * deviations).double().mean())


def psnr(mean: Images, target: Images) -> float:
    """Peak signal-to-noise ratio in decibels, averaged over images."""
    squares = (mean - target).square().flatten(1).mean(1)
    return float((-10 * squares.log10()).mean())


def scores(
    prediction: Map,
    target: Images,
    *,
    gradient: Images,
    plain_error: Images,
    scalings: Mapping[str, Scaled],
) -> dict[str, float]:
    """All scores of a method on test images; the ranking ones are means over images.

    Args:
        prediction: its mean and its map.
        target: the images.
        gradient: map of the gradient's magnitude.
        plain_error: absolute error of the plain network, which is the same for every method.
        scalings: from a map to a variance, fitted on validation images.
    """
    found = {"psnr": psnr(prediction.mean, target)}
    for name, scaled in scalings.items():
        found[f"log_score_{name}"] = log_score(prediction, target, scaled)
        found[f"coverage_{name}"] = coverage(prediction, target, scaled)
    error = (prediction.mean - target).abs()
    return found | ranking_scores(
        prediction.spread, error, gradient=gradient, plain_error=plain_error
    )


def ranking_scores(
    spread: Images, error: Images, *, gradient: Images, plain_error: Images
) -> dict[str, float]:
    """Scores of the order of the pixels; a constant map has no rank correlation."""
    rows: list[dict[str, float]] = []
    for one, wrong, slope, plain in zip(spread, error, gradient, plain_error, strict=True):
        row = {"sparsification_area": sparsification_area(one, wrong)}
        if float(one.max()) > float(one.min()):
            row["rank_correlation"] = rank_correlation(one, wrong)
            row["rank_correlation_plain_error"] = rank_correlation(one, plain)
            if not torch.equal(one, slope):
                row["partial_given_gradient"] = partial_rank_correlation(one, wrong, slope)
                row["rank_correlation_with_gradient"] = rank_correlation(one, slope)
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
