"""Monte Carlo error: how much a score still moves with the number of draws."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import scores
from mcbn.predictive.categorical import Categorical


@dataclass(frozen=True)
class Convergence:
    """Mean negative log-likelihood of the test examples against the number of draws T.

    Attributes:
        draws: numbers of draws looked at.
        nll: mean over disjoint groups of that many draws, in nats.
        spread: standard deviation over the groups: the Monte Carlo error of one answer. NaN where
            the draws make up one group only.
    """

    draws: tuple[int, ...]
    nll: tuple[float, ...]
    spread: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)


def convergence(
    draws: Float[Tensor, "draws batch classes"], targets: Int[Tensor, " batch"]
) -> Convergence:
    """Cut the kept draws of a predictive into disjoint groups of 1, 2, 4, ... and score each.

    Raises:
        ValueError: there are no draws, or some are not finite.
    """
    if len(draws) == 0:
        raise ValueError("expected draws, got none; predict with keep_draws=True")
    validation.finite(draws, "draws")
    sizes = [2**power for power in range(int(math.log2(len(draws))) + 1)]
    means, spreads = [], []
    for size in sizes:
        whole = draws[: len(draws) // size * size]
        groups = whole.reshape(-1, size, *draws.shape[1:])
        found = torch.tensor([_nll(group, targets) for group in groups], dtype=torch.float64)
        means.append(float(found.mean()))
        spreads.append(float(found.std()) if len(found) > 1 else float("nan"))
    return Convergence(tuple(sizes), tuple(means), tuple(spreads))


def _nll(group: Tensor, targets: Tensor) -> float:
    predictive = Categorical().summarize(group)
    return float(scores.negative_log_likelihood(predictive.log_probabilities, targets).mean())
