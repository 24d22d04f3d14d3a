"""Dropout masks that depend on the draw alone, applied to a network that stays in eval mode."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.dropout import AlphaDropout, FeatureAlphaDropout, _DropoutNd

from mcbn.network.isolation import derived_seed, eval_mode, in_this_thread

# Layers that drop whole channels: one decision per channel, for all its positions.
CHANNELWISE = (torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d, FeatureAlphaDropout)
# The value of dropped units in alpha dropout: the limit of SELU at minus infinity.
DROPPED_ALPHA = -1.7580993408473766


def dropout_layers(model: Module) -> dict[str, _DropoutNd]:
    """All dropout layers with a positive rate, by name.

    Raises:
        ValueError: there is none, so all passes would be equal.
    """
    layers = _layers(model)
    if not layers:
        raise ValueError(
            f"expected a network with dropout layers of positive rate, got {type(model).__name__} "
            "with none; functional dropout cannot be seen, so use nn.Dropout modules, put dropout "
            "in by MCDropout(model, insert=0.1), or use MCBatchNorm, which needs no dropout"
        )
    return layers


def has_dropout(model: Module) -> bool:
    """Whether the network has dropout layers with a positive rate."""
    return bool(_layers(model))


def _layers(model: Module) -> dict[str, _DropoutNd]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _DropoutNd) and module.p > 0
    }


@runtime_checkable
class Masks(Protocol):
    """What dropout keeps at each of its calls in a pass."""

    def __call__(
        self, name: str, call: int, values: Tensor, rate: float, *, channelwise: bool
    ) -> Bool[Tensor, "1 ..."]:
        """Which values are kept: one mask for all examples of the batch.

        Args:
            name: of the layer, or of the place where dropout is put in.
            call: how often it was called in this pass, from 1.
            values: the activations, of axes (batch, channels, ...).
            rate: the share that is dropped.
            channelwise: whether a channel is kept or dropped as a whole.
        """
        ...


@dataclass(frozen=True)
class DrawnMasks:
    """The masks of one draw, which depend on (seed, draw, name, call) alone.

    Attributes:
        seed: of all draws.
        draw: index of the draw.
    """

    seed: int
    draw: int

    def __call__(
        self, name: str, call: int, values: Tensor, rate: float, *, channelwise: bool
    ) -> Bool[Tensor, "1 ..."]:
        """Draw the mask of a call."""
        shape = mask_shape(values, channelwise=channelwise)
        return self.drawn(name, call, shape, rate).to(values.device)

    def drawn(
        self, name: str, call: int, shape: tuple[int, ...], rate: float
    ) -> Bool[Tensor, "1 ..."]:
        """The mask of a call by its shape, on the CPU, so that it is the same on every device."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.draw, name, call))
        return torch.rand(shape, generator=generator) >= rate


def mask_shape(values: Tensor, *, channelwise: bool) -> tuple[int, ...]:
    """The shape of one mask for all examples of a batch of activations (batch, channels, ...)."""
    channels = values.shape[1:2] if channelwise else values.shape[1:]
    return (1, *channels, *(1 for _ in values.shape[1 + len(channels) :]))


@contextmanager
def dropout_masks(model: Module, masks: Masks) -> Iterator[None]:
    """Apply dropout with these masks in every pass inside the block.

    A layer that is called several times in a pass has a mask for each call.
    """
    calls: Counter[str] = Counter()
    with eval_mode(model), ExitStack() as hooks:
        for name, layer in dropout_layers(model).items():
            hook = in_this_thread(partial(_drop_output, calls, masks, name))
            hooks.enter_context(layer.register_forward_hook(hook))
        yield


def _drop_output(
    calls: Counter[str],
    masks: Masks,
    name: str,
    layer: _DropoutNd,
    _args: tuple[Any, ...],
    output: Tensor,
) -> Tensor:
    """The output of `layer` in train mode, with one mask for all examples of the batch."""
    calls[name] += 1
    keep = masks(name, calls[name], output, layer.p, channelwise=isinstance(layer, CHANNELWISE))
    if isinstance(layer, (AlphaDropout, FeatureAlphaDropout)):
        scale = ((1 - layer.p) * (1 + layer.p * DROPPED_ALPHA**2)) ** -0.5 if layer.p < 1 else 0.0
        return scale * (torch.where(keep, output, DROPPED_ALPHA) - layer.p * DROPPED_ALPHA)
    return masked(output, keep, layer.p)


def masked(values: Tensor, keep: Bool[Tensor, "1 ..."], rate: float) -> Tensor:
    """The values that are kept, over the share of those; the others are 0."""
    scale = 1 / (1 - rate) if rate < 1 else 0.0
    if torch.finfo(values.dtype).bits < 32:  # the factor itself would be rounded
        return values * scale * keep
    return values * (keep.to(values.dtype) * scale)
