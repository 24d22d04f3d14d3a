"""What a network is made of, as far as MCBN goes: layers that normalise, and what holds them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import Module
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from mcbn.network.batchnorm import (
    MEAN,
    VARIANCE,
    frozen_layers,
    is_plain,
    obstacle,
    owns_statistics,
)

# Normalisers that no mini-batch enters, by their class's name: most libraries write their own.
WITHIN_EXAMPLE = re.compile(r"(Layer|RMS|Group|Instance|Response)Norm|LocalResponse|EvoNorm\w*S\d")
CONVOLUTIONS = (
    torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d,
    torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True)
class Normaliser:
    """A batch-norm layer that MCBN can draw.

    Attributes:
        name: where it is in the network.
        kind: its class.
        channels: how many means and variances it holds.
        eps: what is added to the variance; None if the layer does not say.
        momentum: of its running statistics; None for a plain average, or if it does not say.
        affine: whether it has a scale and a shift of its own.
        frozen: never used batch statistics in training.
        plain: does what PyTorch's layer does and nothing else; a subclass may have an activation.
    """

    name: str
    kind: str
    channels: int
    eps: float | None
    momentum: float | None
    affine: bool
    frozen: bool
    plain: bool


@dataclass(frozen=True)
class Skipped:
    """A layer that looks like batch norm and whose statistics are not drawn.

    Attributes:
        name: where it is in the network.
        kind: its class.
        reason: why, in words.
        refused: `collect` refuses the whole network because of it.
    """

    name: str
    kind: str
    reason: str
    refused: bool


def normalisers(model: Module) -> tuple[Normaliser, ...]:
    """Every batch-norm layer that MCBN can draw, in the order of the network."""
    return tuple(
        Normaliser(
            name,
            kind_of(layer),
            layer.get_buffer(MEAN).numel(),
            getattr(layer, "eps", None),
            getattr(layer, "momentum", None),
            getattr(layer, "weight", None) is not None,
            bool(frozen_layers({name: layer})),
            is_plain(layer),
        )
        for name, layer in model.named_modules()
        if owns_statistics(layer) and obstacle(name, layer) is None
    )


def skipped(model: Module) -> tuple[Skipped, ...]:
    """Every layer that one might take for batch norm and that is not drawn, and why."""
    return tuple(_skipped(model))


def _skipped(model: Module) -> Iterator[Skipped]:
    for name, layer in model.named_modules():
        kind = kind_of(layer)
        kept = {MEAN, VARIANCE} & {key for key, _ in layer.named_buffers(recurse=False)}
        if reason := obstacle(name, layer):
            yield Skipped(name, kind, reason, refused=True)
        elif isinstance(layer, _InstanceNorm) or WITHIN_EXAMPLE.search(kind):
            yield Skipped(
                name, kind, "normalises each example by itself: no mini-batch enters", refused=False
            )
        elif len(kept) == 1:
            text = f"keeps {kept.pop()} alone, and MCBN draws a mean and a variance"
            yield Skipped(name, kind, text, refused=False)


def kind_of(module: Module) -> str:
    """Name of a module's class; of the one it was written as, where it is TorchScript."""
    return str(getattr(module, "original_name", type(module).__name__))


def lazy(model: Module) -> bool:
    """Whether some layers have no weights yet."""
    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def trained_part(model: Module) -> str | None:
    """Name of the one child with weights in a Lightning module; "" if several, None in others.

    Told by the form, so that Lightning need not be installed.
    """
    if not callable(getattr(model, "training_step", None)):
        return None
    parts = [name for name, child in model.named_children() if any(map(_weighs, child.modules()))]
    return parts[0] if len(parts) == 1 else ""


def after_last(model: Module) -> tuple[int, int]:
    """How many layers with weights come after the last batch norm, and how many there are."""
    after = total = 0
    for module in model.modules():
        if owns_statistics(module):
            after = 0
        elif _weighs(module):
            after, total = after + 1, total + 1
    return after, total


def _weighs(module: Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim > 1


def folded(model: Module) -> str:
    """What speaks for batch norm that was folded into convolutions, in words; "" if nothing."""
    left = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Identity) and re.search(r"bn|norm", name, re.IGNORECASE)
    ]
    if left:
        return f"{len(left)} empty layers are left where it was, the first {left[0]!r}: folded away"
    convolutions = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]
    biased = sum(module.bias is not None for module in convolutions)
    if convolutions and biased == len(convolutions):
        return f"every convolution ({biased}) has a bias: it was folded away or never there"
    if convolutions:
        return f"{len(convolutions) - biased} of {len(convolutions)} convolutions have no bias"
    return "it was never there"
