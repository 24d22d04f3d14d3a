"""Predictives of several batches as one, and of one example out of several."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")
# The axis of examples in the tensors of a predictive, where it is not the first.
EXAMPLE_AXES = {"draws": 1, "means": 1, "variances": 1}


def joined(likelihood: Any, parts: Iterable[Any], examples: int) -> Any:
    """The predictives of several batches as one, or None if there are no batches.

    Args:
        likelihood: what they come from; one of the user's own joins them by its own method.
        parts: predictives, in order.
        examples: expected number in all; a wrong one costs memory, but the result is right.
    """
    if type(likelihood).__module__.startswith("mcbn."):
        return join_predictives(parts, examples)
    every = list(parts)
    return likelihood.join(every) if every else None


def joined_parts(parts: Sequence[S]) -> S:
    """The predictives of several batches as one.

    Raises:
        ValueError: there are none.
    """
    whole = join_predictives(parts, sum(map(len, parts)))  # type: ignore[arg-type]
    if whole is None:
        raise ValueError("expected predictives to join, got none; give those of a batch or more")
    return whole


def join_predictives(parts: Iterable[S], examples: int) -> S | None:
    """Return the predictives of several batches as one, or None if there are no batches.

    Each is written to its place as it comes: a list of all would hold the result twice.

    Args:
        parts: predictives of one likelihood, in order.
        examples: expected number in all; a wrong one costs memory, but the result is right.
    """
    whole: dict[str, Any] = {}
    kind, done = None, 0
    for part in parts:
        kind, stop = type(part), done + len(part)  # type: ignore[arg-type]
        for name, value in vars(part).items():
            missing = name in whole and whole[name] is None  # in a part before
            if missing or not isinstance(value, Tensor) or value.ndim == 0:
                whole[name] = None if missing else value
                continue
            axis = EXAMPLE_AXES.get(name, 0)
            capacity = whole[name].shape[axis] if name in whole else 0
            if capacity < stop:
                larger = max(stop, 2 * capacity or examples)
                grown = value.new_empty((*value.shape[:axis], larger, *value.shape[axis + 1 :]))
                if capacity > 0:
                    grown.narrow(axis, 0, done).copy_(whole[name].narrow(axis, 0, done))
                whole[name] = grown
            whole[name].narrow(axis, done, stop - done).copy_(value)
        done = stop
    for name, value in whole.items():
        axis = EXAMPLE_AXES.get(name, 0)
        if isinstance(value, Tensor) and value.ndim > 0 and value.shape[axis] > done:
            whole[name] = value.narrow(axis, 0, done).clone(memory_format=torch.contiguous_format)
    return None if kind is None else kind(**whole)


def example_of(predictive: S, index: int) -> S:
    """The predictive of one example, as views."""
    tensors = {
        name: value.narrow(EXAMPLE_AXES.get(name, 0), index, 1)
        for name, value in vars(predictive).items()
        if isinstance(value, Tensor) and value.ndim > 0
    }
    one: S = replace(predictive, **tensors)  # type: ignore[type-var]
    return one
