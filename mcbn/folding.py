"""Statistics folded into other tensors: into the weights before a layer, or a scale and a shift."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.nn.modules.batchnorm import _BatchNorm

from mcbn.layers import statistics_names


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
    """

    name: str
    layer: _BatchNorm
    mixer: Module | None
    weight: str
    bias: str


def scaled(activations: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each channel times its scale plus its shift, in one sweep over the memory."""
    shape = (-1, *[1] * (activations.ndim - 2))
    return torch.addcmul(shift.reshape(shape), activations, scale.reshape(shape))


def multiplied(activations: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A dense layer whose weights may carry an axis of draws under `torch.vmap`."""
    return _Stacked.apply(activations, weight, bias)  # type: ignore[no-untyped-call,no-any-return]


class _Stacked(torch.autograd.Function):
    """A dense layer; under `vmap` one fused batched product, which PyTorch's own rule is not."""

    @staticmethod
    def forward(activations: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.linear(activations, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: folded draws carry no gradients."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        activations: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, int]:
        """All draws' products at once: `baddbmm` over (draws, rows, features)."""
        if in_dims[0] is None:
            rows = activations.expand(info.batch_size, *activations.shape)
        else:
            rows = activations.movedim(in_dims[0], 0)
        product = torch.baddbmm(bias[:, None], rows.flatten(1, -2), weight.mT)
        return product.reshape(*rows.shape[:-1], -1), 0


def folded(folds: Iterable[Fold], statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What draws set in a branch; any leading axes of `statistics` stay in front.

    Folded in the precision of the statistics' buffers, as the layer itself computes.
    """
    state, folds = dict(statistics), tuple(folds)
    names = statistics_names([fold.name for fold in folds])
    for fold in folds:
        mean, variance = (state.pop(name) for name in names[fold.name])
        scale = torch.rsqrt(variance + fold.layer.eps)
        if fold.layer.weight is not None:
            scale = scale * fold.layer.weight
        centre = mean if fold.mixer is None else mean - _bias(fold.mixer, mean)
        shift = -centre * scale if fold.layer.bias is None else fold.layer.bias - centre * scale
        state[fold.bias] = shift
        state[fold.weight] = scale if fold.mixer is None else _weights(fold.mixer, scale)
    return state


def _weights(mixer: Module, scale: Tensor) -> Tensor:
    weight = mixer.get_parameter("weight")
    return weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 1))


def _bias(mixer: Module, like: Tensor) -> Tensor:
    return like.new_zeros(()) if mixer.bias is None else mixer.get_parameter("bias")
