"""Herding: a few of many points, picked so that together they stand for all."""

import torch
from jaxtyping import Float
from torch import Tensor


def herded(points: Float[Tensor, "points features"], count: int) -> list[int]:
    """Pick points one by one so that their mean in a kernel space nears that of all.

    Each feature counts in units of its spread; one without spread does not count. The kernel is
    Gaussian, as wide as the median distance. No randomness: ties go to the first.

    Args:
        points: one a row; a few thousand at most, since all pairs are compared.
        count: how many to pick.

    Raises:
        ValueError: there are fewer points, or none is asked for.

    Reference:
        Chen, Welling and Smola 2010, "Super-samples from kernel herding", equation 8.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"expected from 1 to {len(points)} draws, got {count}; collect more")
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
