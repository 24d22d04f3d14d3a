"""Kernel herding: a few points that stand for many."""

import torch
from jaxtyping import Float
from torch import Tensor

from mcbn import validation


def herd(points: Float[Tensor, "points features"], count: int) -> list[int]:
    """Choose points by kernel herding: greedily, so that their kernel mean nears that of all.

    Features are in units of their spread; one without spread does not count. The kernel is
    Gaussian, as wide as the median distance. There is no randomness: ties go to the first point.

    Args:
        points: one per row; a few thousand at most, since all pairs are compared.
        count: how many to choose.

    Returns:
        Indices of the chosen points, in the order of choice.

    Raises:
        ValueError: `count` is below 1 or above the number of points.

    Reference:
        Chen, Welling and Smola 2010, "Super-samples from kernel herding", equation 8.
    """
    require_draws(count, len(points))
    rows = points.double() - points.double().mean(0)
    spread = rows.square().mean(0).sqrt()
    rows = rows / torch.where(spread > 0, spread, 1.0)
    squares = torch.cdist(rows, rows).square()
    width = squares.median()
    kernel = (-squares / torch.where(width > 0, width, 1.0)).exp()
    chosen: list[int] = []
    for step in range(count):
        score = kernel.mean(1) - kernel[:, chosen].sum(1) / (step + 1)
        score[chosen] = -torch.inf
        chosen.append(int(score.argmax()))
    return chosen


def require_draws(draws: int, available: int) -> None:
    """Check a number of draws to take out of those there are.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is below 1, or above `available`.
    """
    if not 1 <= validation.integer(draws, "draws") <= available:
        raise ValueError(f"expected from 1 to {available} draws, got {draws}; collect more")
