"""The search for the temperature of draws: the loss of their average, with a prior."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mcbn.evaluation.line_search import lowest

# Temperatures searched.
BOUNDS = (1e-2, 1e2)
# Stands for the log-probability of a masked class, minus infinity; times 0 it is 0, not NaN.
MASKED = -1e100


def best_temperature(
    draws: Float[Tensor, "draws batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
    *,
    pull: float = 0.0,
    known: Bool[Tensor, "batch *positions"] | None = None,
) -> float:
    """Return the temperature T of all draws at which the penalised loss is lowest.

    The loss is the mean over targets of the negative log of the mean probability over draws, plus
    `pull / 2 (log T)^2`. It may have several minima: the lowest is taken.

    Args:
        draws: logits of each draw.
        targets: class indices.
        pull: precision of the prior on log T, per label fitted on; 0 for none.
        known: which targets count; None for all.
    """
    targets = targets.to(draws.device)
    counts = torch.ones_like(targets, dtype=torch.bool) if known is None else known.to(draws.device)
    index = torch.where(counts, targets, 0).long().unsqueeze(1)

    def curve(log_temperature: float) -> tuple[float, float]:
        # The slope is in the logarithm of T, where beta = 1/T has the slope -beta.
        beta = math.exp(-log_temperature)
        rows = [_chosen(logits, index, beta) for logits in draws]
        chosen, slopes = (torch.stack(part) for part in zip(*rows, strict=True))
        loss = math.log(len(draws)) - chosen.logsumexp(0)
        slope = beta * (chosen.softmax(0) * slopes).sum(0)
        return (
            float(loss[counts].mean()) + pull / 2 * log_temperature**2,
            float(slope[counts].mean()) + pull * log_temperature,
        )

    return lowest(curve, BOUNDS)


def _chosen(logits: Tensor, index: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the log-probability of the targets by one draw, and its slope in beta."""
    values = logits.double() - logits.double().amax(1, keepdim=True)
    logs = (beta * values).log_softmax(1)
    slope = values.gather(1, index) - (logs.exp() * values).sum(1, keepdim=True)
    return logs.gather(1, index).squeeze(1), slope.squeeze(1)
