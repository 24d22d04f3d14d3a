"""The normalisation layers of a network: those whose statistics MCBN can draw, and the others."""

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
    epsilon_of,
    frozen_layers,
    has_batch_statistics,
    incompatibility,
    is_plain,
)

# Normalisation within each example, by class name, since many libraries have classes of their own.
WITHIN_EXAMPLE = re.compile(r"(Layer|RMS|Group|Instance|Response)Norm|LocalResponse|EvoNorm\w*S\d")
CONVOLUTIONS = (
    torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d,
    torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True)
class BatchNormLayer:
    """A batch-norm layer whose statistics MCBN can draw.

    Attributes:
        name: in the network.
        kind: name of its class.
        channels: number of means, and of variances.
        eps: number added to the variance; None if the layer does not say.
        momentum: of its running statistics; None for a plain average, or if it does not say.
        affine: whether it has a learned scale and shift.
        frozen: whether it never used batch statistics in training.
        plain: whether its forward is that of PyTorch; a subclass may add an activation.
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
class SkippedLayer:
    """A normalisation layer whose statistics are not drawn.

    Attributes:
        name: in the network.
        kind: name of its class.
        reason: why they are not drawn.
        refused: whether `collect` refuses the whole network because of it.
    """

    name: str
    kind: str
    reason: str
    refused: bool


def drawable_layers(model: Module) -> tuple[BatchNormLayer, ...]:
    """All layers whose statistics MCBN can draw, in the order of the network."""
    return tuple(
        BatchNormLayer(
            name,
            class_name(layer),
            layer.get_buffer(MEAN).numel(),
            _epsilon(name, layer),
            getattr(layer, "momentum", None),
            getattr(layer, "weight", None) is not None,
            bool(frozen_layers({name: layer})),
            is_plain(layer),
        )
        for name, layer in model.named_modules()
        if has_batch_statistics(layer) and incompatibility(name, layer) is None
    )


def _epsilon(name: str, layer: Module) -> float | None:
    try:
        return epsilon_of(name, layer)
    except ValueError:  # the layer does not say, which is not an error here
        return None


def skipped_layers(model: Module) -> tuple[SkippedLayer, ...]:
    """All other normalisation layers, and why their statistics are not drawn."""
    return tuple(_skipped_layers(model))


def _skipped_layers(model: Module) -> Iterator[SkippedLayer]:
    for name, layer in model.named_modules():
        kind = class_name(layer)
        buffers = {MEAN, VARIANCE} & {key for key, _ in layer.named_buffers(recurse=False)}
        if reason := incompatibility(name, layer):
            yield SkippedLayer(name, kind, reason, refused=True)
        elif isinstance(layer, _InstanceNorm) or WITHIN_EXAMPLE.search(kind):
            yield SkippedLayer(
                name,
                kind,
                "normalises each example by itself, without mini-batch statistics",
                refused=False,
            )
        elif len(buffers) == 1:
            text = f"has only {buffers.pop()}, but MCBN draws a mean and a variance"
            yield SkippedLayer(name, kind, text, refused=False)


def class_name(module: Module) -> str:
    """Name of a module's class; for TorchScript that of the original class."""
    return str(getattr(module, "original_name", type(module).__name__))


def has_lazy_layers(model: Module) -> bool:
    """Whether some lazy layers have no weights yet."""
    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def lightning_network(model: Module) -> str | None:
    """Name of the network inside a Lightning module; "" if several children have weights.

    None for any other model. Recognised by the method `training_step`, so that Lightning need not
    be installed.
    """
    if not callable(getattr(model, "training_step", None)):
        return None
    children = model.named_children()
    trained = [name for name, child in children if any(map(_has_weights, child.modules()))]
    return trained[0] if len(trained) == 1 else ""


def layers_after_last(model: Module) -> tuple[int, int]:
    """Number of layers with weights after the last batch norm, and in the whole network."""
    after = total = 0
    for module in model.modules():
        if has_batch_statistics(module):
            after = 0
        elif _has_weights(module):
            after, total = after + 1, total + 1
    return after, total


def _has_weights(module: Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim > 1


def folding_evidence(model: Module) -> str:
    """Evidence that batch norm was folded into convolutions, or was never there, in words."""
    placeholders = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Identity) and re.search(r"bn|norm", name, re.IGNORECASE)
    ]
    if placeholders:
        return (
            f"{len(placeholders)} identity layers stand in its place (the first "
            f"{placeholders[0]!r}), so it was folded into other layers"
        )
    convolutions = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]
    biased = sum(module.bias is not None for module in convolutions)
    if convolutions and biased == len(convolutions):
        return f"every convolution ({biased}) has a bias, so it was folded into them or never there"
    if convolutions:
        return f"{len(convolutions) - biased} of {len(convolutions)} convolutions have no bias"
    return "it was never there"
