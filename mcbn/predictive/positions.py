"""Predictions of positions, such as pixels: how many there are, and their images one by one."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor

from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.joining import example_of

P = TypeVar("P")
LARGE = 2**17  # positions: of more, what is made of all of them is made image by image


def positions(predictive: Any) -> int:
    """The positions of dense predictions of classes or real values; 0 of others."""
    if isinstance(predictive, CategoricalPredictive):
        shape = predictive.log_probabilities.shape
        return shape.numel() // shape[1] if len(shape) > 2 else 0
    if isinstance(predictive, GaussianPredictive):
        shape = predictive.means.shape[1:]
    elif isinstance(predictive, Moments):
        shape = predictive.mean.shape
    else:
        return 0
    return shape.numel() if len(shape) > 2 else 0


def is_large(predictive: Any) -> bool:
    """Whether predictions have so many positions that they are taken image by image."""
    return are_large([predictive])


def are_large(parts: Iterable[Any]) -> bool:
    """Whether predictions of several batches have so many together."""
    return sum(map(positions, parts)) > LARGE


def pieces(predictive: P, targets: Tensor | None) -> Iterator[tuple[P, Tensor | None]]:
    """Yield predictions and their targets: all at once, or very many positions image by image.

    What is made of a piece takes memory; the predictions of a file are mapped and take none.
    """
    if not is_large(predictive):
        yield predictive, targets
        return
    for place in range(len(predictive)):  # type: ignore[arg-type]
        yield example_of(predictive, place), None if targets is None else targets[place : place + 1]
