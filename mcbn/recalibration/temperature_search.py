"""The search for a temperature: the loss of all draws with a prior, and how much was fitted on."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.recalibration.held_out import end_of, lowest

# Temperatures searched.
BOUNDS = (1e-2, 1e2)


class TemperatureBoundWarning(UserWarning):
    """A fitted temperature lies at a bound of its search, so that no temperature is best."""


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


def independent_labels(known: Bool[Tensor, "batch *positions"], group: Groups | None) -> int:
    """How many independent labels there are: examples with a known target, or groups of them.

    An example counts as one however many positions it has, and a group however many examples:
    their errors are alike, so that more of them are not as much more evidence.

    Args:
        known: which targets are known.
        group: what examples share; None where every example is by itself.
    """
    examples = known.flatten(1).any(1) if known.ndim > 1 else known
    if group is None:
        return int(examples.sum())
    names = names_of_groups(group, len(known))
    return len({name for name, counts in zip(names, examples.tolist(), strict=True) if counts})


def warn_at_bound(temperature: float, labels: int) -> None:
    """Warn where a fitted temperature lies at a bound of the search."""
    end = end_of(temperature, BOUNDS)
    if end is None:
        return
    better = {"lower": "more", "upper": "less"}[end]
    validation.warn(
        f"expected a temperature between {BOUNDS[0]:g} and {BOUNDS[1]:g}, got the {end} bound of "
        f"the search, {temperature:g}, from {labels:,} labels, of which {better} confidence would "
        "always have been better; hold out more labels, or give a larger prior",
        TemperatureBoundWarning,
    )
