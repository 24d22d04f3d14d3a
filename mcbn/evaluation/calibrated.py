"""The log score after a temperature that other examples were fitted on."""

import math

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.temperature_search import MASKED, best_temperature
from mcbn.network.isolation import derived_seed

ROWS = 2**12  # that are tempered at once
MOST_FITTED = 5_000  # rows: of more, a temperature is known to less than 1%


def calibrated_nll(
    log_probabilities: Float64[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
    *,
    clusters: Clusters | None = None,
    seed: int = 0,
) -> Float64[Tensor, "batch *positions"]:
    r"""The negative log-likelihood of each example at the temperature of the other half, in nats.

    Examples are split in two halves by chance, whole clusters to one side. Those of each half are
    scored by $\mathrm{softmax}(\log p / T)$, where T is fitted on the other half, with the prior
    N(0, 1) on log T. So methods are compared after what a few labels would mend in each of them:
    a method that is only less over-confident gains nothing. Where a target has the probability 0,
    the loss is infinite, and no temperature is fitted on it.

    Args:
        log_probabilities: logs of the mean probabilities.
        targets: the class that happened.
        clusters: of the examples, or rows; by default each is by itself.
        seed: chooses the halves.

    Reference:
        Ashukha, Lyzhov, Molchanov, Vetrov 2020, "Pitfalls of in-domain uncertainty estimation and
        ensembling in deep learning", section 4.1: the calibrated log-likelihood; one split here, on
        which methods are paired, in place of the mean of several.
    """
    index = targets.long().unsqueeze(1)
    impossible = log_probabilities.gather(1, index).squeeze(1) == -math.inf
    of_row = (clusters or Clusters.alone(len(targets))).of_row
    losses = torch.empty(targets.shape, dtype=torch.float64, device=log_probabilities.device)
    possible = (~impossible).flatten(1).all(1) if targets.ndim > 1 else ~impossible
    first = first_half(of_row, seed).to(possible.device)
    for half in (first, ~first):
        fitted = (possible & ~half).nonzero()[:MOST_FITTED, 0]
        temperature = _temperature(log_probabilities[fitted], targets[fitted], of_row[fitted.cpu()])
        # A few rows at a time: of many classes, every further copy counts.
        for rows in torch.split(half.nonzero()[:, 0], ROWS):
            logs = log_probabilities[rows].clamp_min(MASKED) / temperature
            losses[rows] = -logs.log_softmax(1).gather(1, index[rows]).squeeze(1)
    return torch.where(impossible, math.inf, losses)


def first_half(of_row: Int[Tensor, " batch"], seed: int) -> Bool[Tensor, " batch"]:
    """Which rows are of the first half of the clusters, in random order."""
    count = int(of_row.max()) + 1
    generator = torch.Generator().manual_seed(derived_seed(seed, "halves"))
    return torch.randperm(count, generator=generator)[of_row] < (count + 1) // 2


def _temperature(logs: Tensor, targets: Tensor, of_row: Tensor) -> float:
    """The temperature of rows whose targets are possible; 1 if there are none.

    The prior counts as one cluster does, however many rows that has.
    """
    if len(targets) == 0:
        return 1.0
    pull = 1 / len(set(of_row.tolist()))
    return best_temperature(logs.clamp_min(MASKED)[None], targets, pull=pull)
