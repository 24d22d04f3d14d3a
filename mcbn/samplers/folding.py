"""Statistics folded into other tensors: into the weights before a layer, or a scale and a shift."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.modules.batchnorm import _BatchNorm

from mcbn.network.batchnorm import statistics_names


@dataclass(frozen=True, eq=False)
class Fold:
    """A batch-norm layer whose statistics go into other tensors of the branch.

    Attributes:
        name: of the layer in the network.
        layer: the layer.
        mixer: the convolution or dense layer before it, whose weights it scales; None where the
            layer becomes a scale and a shift of its own.
        weight: name in the branch of the scaled weights, or of the scale.
        bias: name in the branch of the bias, or of the shift.
        room: name in the branch of memory that the answer is written to, where draws are stacked.
            Fresh memory from the system takes longer than a small product.
    """

    name: str
    layer: _BatchNorm
    mixer: Module | None
    weight: str
    bias: str
    room: str


def scaled(activations: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each channel times its scale plus its shift, in one sweep over the memory."""
    shape = (-1, *[1] * (activations.ndim - 2))
    return torch.addcmul(shift.reshape(shape), activations, scale.reshape(shape))


def scaled_stack(activations: Tensor, scale: Tensor, shift: Tensor, room: Tensor) -> Tensor:
    """Each feature times its scale plus its shift, written in `room`; (draws, features, rows).

    Two sweeps are faster than one fused one here: PyTorch has vector code for a factor that is
    the same along a row in the former only.
    """
    target = _within(room, (*scale.shape, activations.shape[-1]))
    return torch.mul(activations, scale[..., None], out=target).add_(shift[..., None])


def multiplied_stack(activations: Tensor, weight: Tensor, bias: Tensor, room: Tensor) -> Tensor:
    """Each draw's own dense layer, written in `room`; (draws, features, rows)."""
    target = _within(room, (*bias.shape, activations.shape[-1]))
    return torch.baddbmm(bias[..., None], weight, activations, out=target)


def _within(room: Tensor, shape: tuple[int, ...]) -> Tensor:
    return room[: math.prod(shape)].view(shape)


class DenseStack(Module):
    """A dense layer that is the same for all draws; (draws, features, rows)."""

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
    folds: Iterable[Fold], statistics: Mapping[str, Tensor], rooms: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What draws set in a branch: folded tensors, and the statistics that are left as they are.

    Any leading axes of `statistics` stay in front. Folded in the precision of the statistics'
    buffers, as the layer itself computes. Scaled weights are written to the room of their name,
    where there is one.
    """
    found, rest, folds = {}, dict(statistics), tuple(folds)
    names = statistics_names([fold.name for fold in folds])
    for fold in folds:
        mean, variance = (rest.pop(name) for name in names[fold.name])
        scale = torch.rsqrt(variance + fold.layer.eps)
        if fold.layer.weight is not None:
            scale = scale * fold.layer.weight
        center = mean if fold.mixer is None else mean - _bias(fold.mixer, mean)
        shift = -center * scale if fold.layer.bias is None else fold.layer.bias - center * scale
        found[fold.bias] = shift
        found[fold.weight] = scale
        if fold.mixer is not None:
            found[fold.weight] = _weights(fold.mixer, scale, rooms.get(fold.weight))
    return found, rest


def _weights(mixer: Module, scale: Tensor, room: Tensor | None) -> Tensor:
    weight = mixer.get_parameter("weight")
    factor = scale.reshape(*scale.shape, *[1] * (weight.ndim - 1))
    shape = (*scale.shape, *weight.shape[1:])
    return torch.mul(weight, factor, out=None if room is None else _within(room, shape))


def _bias(mixer: Module, like: Tensor) -> Tensor:
    return like.new_zeros(()) if mixer.bias is None else mixer.get_parameter("bias")
