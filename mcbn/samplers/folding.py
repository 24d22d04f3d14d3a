"""Batch norm folded into the weights of the layer before it, or into a scale and a shift."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module

from mcbn.network.batchnorm import epsilon_of, statistics_names


@dataclass(frozen=True, eq=False)
class Fold:
    """A batch-norm layer that is folded, and the names that the suffix has for its tensors.

    Attributes:
        name: of the layer in the network.
        layer: the batch-norm layer.
        preceding_linear: the convolution or dense layer before it, whose weights it scales; None
            where the layer becomes a scale and a shift of its own.
        weight: name of the scaled weights, or of the scale.
        bias: name of the bias, or of the shift.
        out_buffer: name of preallocated memory for the result, where draws are stacked: asking
            the system for memory takes longer than a small product.
    """

    name: str
    layer: Any
    preceding_linear: Module | None
    weight: str
    bias: str
    out_buffer: str


def scaled(activations: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Multiply each channel by its scale and add its shift, in one sweep over the memory.

    As in PyTorch's batch norm the result has the type of the activations, which autocast may have
    chosen, and is computed in that of the statistics.
    """
    shape = (-1, *[1] * (activations.ndim - 2))
    result = torch.addcmul(shift.reshape(shape), activations, scale.reshape(shape))
    # An exported file would hold a conversion that changes nothing, and some cannot be read then.
    return result if result.dtype == activations.dtype else result.to(activations.dtype)


def scaled_stack(activations: Tensor, scale: Tensor, shift: Tensor, buffer: Tensor) -> Tensor:
    """Multiply each feature by its scale and add its shift; axes (draws, features, rows).

    Two sweeps are faster than one fused one here: PyTorch has vector code for a factor that is
    the same along a row in the former only.
    """
    target = _view(buffer, (*scale.shape, activations.shape[-1]))
    return torch.mul(activations, scale[..., None], out=target).add_(shift[..., None])


def linear_stack(activations: Tensor, weight: Tensor, bias: Tensor, buffer: Tensor) -> Tensor:
    """Apply each draw's own dense layer; axes (draws, features, rows)."""
    target = _view(buffer, (*bias.shape, activations.shape[-1]))
    return torch.baddbmm(bias[..., None], weight, activations, out=target)


def _view(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)


class DenseStack(Module):
    """A dense layer that is the same for all draws, for activations (draws, features, rows)."""

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, activations: Tensor) -> Tensor:
        """Return the products with the weights that the layer holds now."""
        weight = self.layer.weight.expand(len(activations), -1, -1)
        if self.layer.bias is None:
            return torch.bmm(weight, activations)
        return torch.baddbmm(self.layer.bias[:, None], weight, activations)


def folded(
    folds: Iterable[Fold], statistics: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that draws set in the suffix: those folded, and the statistics not folded.

    Any leading axes of `statistics` stay in front. Folded in the precision of the statistics'
    buffers, as the layer itself computes. Scaled weights are written to the buffer of their name,
    where there is one.
    """
    tensors, unfolded, folds = {}, dict(statistics), tuple(folds)
    names = statistics_names([fold.name for fold in folds])
    for fold in folds:
        mean, variance = (unfolded.pop(name) for name in names[fold.name])
        scale = torch.rsqrt(variance + epsilon_of(fold.name, fold.layer))
        if fold.layer.weight is not None:
            scale = scale * fold.layer.weight
        center = (
            mean if fold.preceding_linear is None else mean - _bias(fold.preceding_linear, mean)
        )
        shift = -center * scale if fold.layer.bias is None else fold.layer.bias - center * scale
        tensors[fold.bias] = shift
        tensors[fold.weight] = scale
        if fold.preceding_linear is not None:
            buffer = buffers.get(fold.weight)
            tensors[fold.weight] = _weights(fold.preceding_linear, scale, buffer)
    return tensors, unfolded


def _weights(layer: Module, scale: Tensor, buffer: Tensor | None) -> Tensor:
    weight = layer.get_parameter("weight")
    factor = scale.reshape(*scale.shape, *[1] * (weight.ndim - 1))
    shape = (*scale.shape, *weight.shape[1:])
    return torch.mul(weight, factor, out=None if buffer is None else _view(buffer, shape))


def _bias(layer: Module, like: Tensor) -> Tensor:
    return like.new_zeros(()) if layer.bias is None else layer.get_parameter("bias")
