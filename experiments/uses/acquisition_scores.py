"""BatchBALD: the batch whose labels together say most about the draws, chosen greedily.

Reference:
    Kirsch, van Amersfoort and Gal 2019, "BatchBALD: Efficient and Diverse Batch Acquisition for
    Deep Bayesian Active Learning".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

CHUNK = 64  # candidates that are scored together
TINY = 1e-300  # stands for a probability of 0 where one is divided by


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen examples.

    Attributes:
        rows: in the order in which they were chosen.
        gains: mutual information of each one's label and the draws, in nats, given the labels of
            those before it. Their sum is that of the batch.
    """

    rows: list[int]
    gains: list[float]


@dataclass(frozen=True, eq=False)
class Labellings:
    """What the labels of the examples chosen so far may be.

    Attributes:
        weights: probability of each combination of labels; 1 / K of K sampled ones.
        posteriors: probability of each draw given these labels.
    """

    weights: Float64[Tensor, " labellings"]
    posteriors: Float64[Tensor, "labellings draws"]


def batch_bald(
    probabilities: Float[Tensor, "draws batch classes"],
    size: int,
    *,
    labellings: int,
    generator: torch.Generator,
) -> Choice:
    """Choose a batch of examples whose labels have a large joint mutual information with the draws.

    By the chain rule the gain of an example is its mutual information under the posterior over the
    draws, averaged over the labels of those chosen before. It is exact while there are at most
    `labellings` combinations of labels; then as many are sampled from their joint distribution.

    Args:
        probabilities: of each draw.
        size: of the batch.
        labellings: most combinations of labels that are held.
        generator: samples them.
    """
    chances = probabilities.double()
    draws, count, _ = chances.shape
    uniform = torch.full((1, draws), 1 / draws, dtype=torch.float64)
    state = Labellings(torch.ones(1, dtype=torch.float64), uniform)
    # A gain falls as labels are known, so what it was bounds it, and most are never computed anew.
    bounds, left = torch.full((count,), math.inf), torch.ones(count, dtype=torch.bool)
    rows: list[int] = []
    found: list[float] = []
    for _ in range(size):
        best, gain = _best(state, chances, bounds, left)
        rows.append(best)
        found.append(gain)
        left[best] = False
        state = _extended(state, chances[:, best], labellings, generator)
    return Choice(rows, found)


def _best(state: Labellings, chances: Tensor, bounds: Tensor, left: Tensor) -> tuple[int, float]:
    """The example with the largest gain, and its gain; bounds are updated in place."""
    order = bounds.argsort(descending=True, stable=True)
    best, largest = -1, -math.inf
    for rows in torch.split(order[left[order]], CHUNK):
        if largest >= float(bounds[rows[0]]):
            break
        values = gains(state, chances[:, rows])
        bounds[rows] = values.to(bounds.dtype)
        if float(values.max()) > largest:
            best, largest = int(rows[values.argmax()]), float(values.max())
    return best, largest


def gains(
    state: Labellings, chances: Float64[Tensor, "draws batch classes"]
) -> Float64[Tensor, " batch"]:
    """Mutual information of each example's label and the draws, given labels chosen before."""
    draws, count, classes = chances.shape
    means = (state.posteriors @ chances.reshape(draws, -1)).reshape(-1, count, classes)
    expected = (state.weights @ state.posteriors) @ entropy(chances)
    return state.weights @ entropy(means) - expected


def entropy(chances: Float64[Tensor, "*batch classes"]) -> Float64[Tensor, "*batch"]:
    """Entropy in nats; a probability of 0 adds nothing."""
    return -torch.xlogy(chances, chances).sum(-1)


def _extended(
    state: Labellings,
    chances: Float64[Tensor, "draws classes"],
    most: int,
    generator: torch.Generator,
) -> Labellings:
    """The labellings with the label of one more example."""
    classes = chances.shape[1]
    if len(state.weights) * classes <= most:
        joint = state.posteriors[:, None, :] * chances.T
        share = joint.sum(2)
        posteriors = (joint / share[..., None].clamp(min=TINY)).flatten(0, 1)
        return Labellings((state.weights[:, None] * share).flatten(), posteriors)
    sampled = state.posteriors
    if len(state.weights) < most:
        picked = torch.multinomial(state.weights, most, replacement=True, generator=generator)
        sampled = sampled[picked]
    labels = torch.multinomial(sampled @ chances, 1, generator=generator)[:, 0]
    joint = sampled * chances.T[labels]
    weights = torch.full((len(joint),), 1 / len(joint), dtype=torch.float64)
    return Labellings(weights, joint / joint.sum(1, keepdim=True))


def gaussian_batch_bald(
    outputs: Float[Tensor, "draws batch"], size: int, *, noise_variance: float
) -> Choice:
    """The same of real targets: of jointly normal ones with the covariance of the draws.

    The mutual information of a batch is half the log-determinant of I + K / s^2, of the biased
    covariance K of its outputs over draws and the noise variance s^2. Of a single example it grows
    with the epistemic variance, so that BALD chooses the largest variances whatever the noise.
    """
    deviations = outputs.double() - outputs.double().mean(0)
    covariance = deviations.T @ deviations / len(outputs)
    left = torch.ones(len(covariance), dtype=torch.bool)
    rows: list[int] = []
    found: list[float] = []
    for _ in range(size):
        variances = torch.where(left, covariance.diagonal(), -math.inf)
        best = int(variances.argmax())
        variance = float(variances[best])
        rows.append(best)
        found.append(math.log1p(variance / noise_variance) / 2)
        left[best] = False
        column = covariance[:, best]
        covariance = covariance - column[:, None] * column / (variance + noise_variance)
    return Choice(rows, found)


def largest(scores: Float[Tensor, " batch"], size: int) -> Int[Tensor, " size"]:
    """The rows of the largest scores, the largest first."""
    return scores.argsort(descending=True, stable=True)[:size]
