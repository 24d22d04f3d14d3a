"""Lookups whose exported form refuses the positions that PyTorch refuses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Steps that take a tensor, an axis of it, and positions along that axis.
ALONG_AXIS = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("gather", "index_add", "index_copy", "index_select", "scatter", "scatter_add"),
        *("scatter_reduce", "index_add_", "index_copy_", "scatter_", "scatter_add_"),
    )
    if hasattr(home, name)
}
EMBEDDINGS = (functional.embedding, functional.embedding_bag)


class GuardedLookups(TorchFunctionMode):
    """Replaces a negative position by the first one beyond the end, which every runtime refuses.

    PyTorch refuses negative ids in an embedding, while ONNX counts them from the end: -1 would be
    answered as the last id. Indexing by brackets counts from the end in both.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in EMBEDDINGS:
            return _embedded(func, *args, **kwargs)
        if func in ALONG_AXIS:
            return _along_axis(func, *args, **kwargs)
        if func is functional.one_hot:
            return _one_hot(*args, **kwargs)
        return func(*args, **kwargs)


def _guarded(positions: Tensor, size: int) -> Tensor:
    if positions.dtype == torch.bool or positions.is_floating_point():
        return positions  # not positions: PyTorch says so itself
    return torch.where(positions < 0, size, positions)


def _embedded(
    func: Callable[..., Any], input: Tensor, weight: Tensor, *args: Any, **kwargs: Any
) -> Any:
    return func(_guarded(input, weight.shape[0]), weight, *args, **kwargs)


def _along_axis(
    func: Callable[..., Any], input: Tensor, dim: Any, index: Any, *args: Any, **kwargs: Any
) -> Any:
    size = input.shape[dim] if input.ndim else 1
    return func(input, dim, _guarded(index, size), *args, **kwargs)


def _one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """One-hot rows; a lookup in zeros refuses a class beyond the end, for which ONNX has a row."""
    rows = functional.one_hot(input, num_classes)
    if num_classes < 0:
        return rows
    zeros = torch.zeros(num_classes, dtype=rows.dtype, device=input.device)
    checks = zeros.index_select(0, _guarded(input.flatten(), num_classes))
    return rows + checks.reshape(input.shape).unsqueeze(-1)
