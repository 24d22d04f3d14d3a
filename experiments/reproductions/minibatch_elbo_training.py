"""Maximisation of noisy objectives of many networks at once, until more steps change nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

DECAYS, STABILISER = (0.9, 0.999), 1e-8  # of Adam
SPREAD_RATE = 0.5  # rate of the natural gradient of log sd, in learning rates
LARGEST_STEP = 0.3  # of log sd
LAST_RATE = 0.002  # learning rate at the end of a cycle, as a share of that at its start
NOISE = 0.01  # nats per example, of an estimate by 128 draws
CHECKS = 10  # evaluations in a cycle


@dataclass(frozen=True)
class Schedule:
    """Cycles of training, each twice as long as the one before, with half as many variants.

    Attributes:
        first: steps of the first cycle.
        cycles: largest number of cycles.
        kept: variants that are never dropped.
        tolerance: training ends when a cycle raises the best objective of each seed by less.
    """

    first: int
    cycles: int
    kept: int = 2
    tolerance: float = 0.005


@dataclass(frozen=True)
class Spreads:
    """Which parameters are logarithms of standard deviations of q.

    Attributes:
        start: index of the first; all others follow.
        examples: number of examples that the objective is a mean over.
    """

    start: int
    examples: int


Moments = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Training:
    """Result of a training.

    Attributes:
        free: parameters of the best variant of each seed, at the end of its best cycle.
        best: best objective of each seed after each cycle, in nats per example.
        steps: steps at which the objective was evaluated.
        path: best objective at these steps, by fewer draws.
        rates: learning rate of each seed's best variant.
    """

    free: Float[Tensor, "seeds parameters"]
    best: Float[Tensor, "cycles seeds"]
    steps: list[int]
    path: Float[Tensor, "checks seeds"]
    rates: Float[Tensor, " seeds"]

    @property
    def gain(self) -> Float[Tensor, " seeds"]:
        """Increase of the best objective of each seed by the last cycle."""
        return self.best[-1] - self.best[-2] if len(self.best) > 1 else self.best[-1] * math.inf


def maximize(
    objective: Callable[[Tensor], Tensor],
    free: Float[Tensor, "variants seeds parameters"],
    *,
    rates: Float[Tensor, " variants"],
    schedule: Schedule,
    estimate: Callable[[Tensor, int], Tensor],
    spreads: Spreads | None = None,
) -> Training:
    """Maximise by Adam, with a learning rate that falls along a cosine in each cycle.

    The better half of the variants of each seed enters the next cycle.

    Args:
        objective: (variants, seeds) noisy objectives of free parameters.
        free: initial parameters.
        rates: learning rate of each variant at the start of a cycle.
        schedule: of the cycles.
        estimate: objectives of free parameters by a number of draws that are always the same.
        spreads: which parameters are logarithms of standard deviations; none by default.
    """
    seeds = torch.arange(free.shape[1])
    rate = rates[:, None, None].expand(-1, len(seeds), 1)
    moments = (torch.zeros_like(free), torch.zeros_like(free))
    ends: list[tuple[Tensor, Tensor, Tensor]] = []
    path, steps, total = [], [], 0
    for cycle in range(schedule.cycles):
        length = schedule.first * 2**cycle
        for step in range(length):
            fall = (1 + math.cos(math.pi * step / length)) / 2
            total += 1
            free, moments = stepped(objective, free, moments, step=total, spreads=spreads,
                                    rate=rate * (LAST_RATE + (1 - LAST_RATE) * fall))  # fmt: skip
            if (step + 1) % max(1, length // CHECKS) == 0:
                steps.append(total)
                path.append(estimate(free, 16).amax(0))
        value, order = estimate(free, 128).sort(0, descending=True)
        ends.append((value[0], free[order[0], seeds], rate[order[0], seeds][:, 0]))
        if cycle and bool((value[0] - ends[-2][0] < schedule.tolerance).all()):
            break
        chosen = order[: max(schedule.kept, len(order) // 2)]
        free, rate = free[chosen, seeds], rate[chosen, seeds]
        moments = (moments[0][chosen, seeds], moments[1][chosen, seeds])
    best = torch.stack([end[0] for end in ends])
    # A cycle that starts at a high rate may leave an optimum for a worse one. Within NOISE the last
    # cycle is preferred: an earlier one would be chosen for the draws of the estimate.
    preferred = best + NOISE * (torch.arange(len(best)) == len(best) - 1)[:, None]
    place = preferred.argmax(0)
    top, top_rate = (torch.stack([end[part] for end in ends])[place, seeds] for part in (1, 2))
    return Training(top, best, steps, torch.stack(path), top_rate)


def stepped(
    objective: Callable[[Tensor], Tensor],
    free: Tensor,
    moments: Moments,
    *,
    rate: Tensor,
    step: int,
    spreads: Spreads | None,
) -> tuple[Tensor, Moments]:
    """One step upwards; networks do not share parameters, so the sum of objectives does for all.

    Means take a step of Adam. Logarithms of standard deviations take one of the natural gradient,
    whose Fisher information is 2: noise does not slow it down as it does Adam.
    """
    free = free.detach().requires_grad_()
    (slope,) = torch.autograd.grad(objective(free).sum(), free)
    first, second = DECAYS
    mean = first * moments[0] + (1 - first) * slope
    square = second * moments[1] + (1 - second) * slope.square()
    corrected = mean / (1 - first**step)
    change = rate * corrected / ((square / (1 - second**step)).sqrt() + STABILISER)
    if spreads is not None:
        natural = SPREAD_RATE * rate * spreads.examples * corrected[..., spreads.start :] / 2
        natural = natural.clamp(-LARGEST_STEP, LARGEST_STEP)
        change = torch.cat([change[..., : spreads.start], natural], -1)
    return free.detach() + change, (mean, square)
