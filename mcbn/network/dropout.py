"""Dropout masks that depend on the draw alone, applied to a network that stays in eval mode."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

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


@contextmanager
def dropout_masks(model: Module, seed: int, draw: int) -> Iterator[None]:
    """Apply the dropout masks of draw `draw` in every pass inside the block.

    A layer that is called several times in a pass has a mask for each call.
    """
    calls: Counter[str] = Counter()
    with eval_mode(model), ExitStack() as hooks:
        for name, layer in dropout_layers(model).items():
            hook = in_this_thread(partial(_drop_output, calls, (seed, draw, name)))
            hooks.enter_context(layer.register_forward_hook(hook))
        yield


def _drop_output(
    calls: Counter[str],
    key: tuple[int, int, str],
    layer: _DropoutNd,
    _args: tuple[Any, ...],
    output: Tensor,
) -> Tensor:
    seed, draw, name = key
    calls[name] += 1
    return _with_dropout(output, layer, derived_seed(seed, draw, name, calls[name]))


def kept(values: Tensor, rate: float, seed: int, *, channelwise: bool) -> Bool[Tensor, "1 ..."]:
    """Which values dropout keeps: one mask for all examples of the batch.

    Args:
        values: the activations, of axes (batch, channels, ...).
        rate: the share that is dropped.
        seed: of the mask.
        channelwise: whether a channel is kept or dropped as a whole.
    """
    channels = values.shape[1:2] if channelwise else values.shape[1:]
    shape = (1, *channels, *(1 for _ in values.shape[1 + len(channels) :]))
    # Drawn on the CPU, so that a draw is the same on every device.
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (uniform >= rate).to(values.device)


def _with_dropout(values: Tensor, layer: _DropoutNd, seed: int) -> Tensor:
    """The output of `layer` in train mode, with one mask for all examples of the batch."""
    keep = kept(values, layer.p, seed, channelwise=isinstance(layer, CHANNELWISE))
    if isinstance(layer, (AlphaDropout, FeatureAlphaDropout)):
        scale = ((1 - layer.p) * (1 + layer.p * DROPPED_ALPHA**2)) ** -0.5 if layer.p < 1 else 0.0
        return scale * (torch.where(keep, values, DROPPED_ALPHA) - layer.p * DROPPED_ALPHA)
    scale = 1 / (1 - layer.p) if layer.p < 1 else 0.0
    return torch.where(keep, values * scale, 0.0)
