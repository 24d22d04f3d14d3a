"""Many mini-batches in one pass of a dense network, each normalised by its own statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from mcbn.network.batchnorm import MEAN, VARIANCE, batch_normalized, is_plain, statistics_names
from mcbn.network.inputs import Inputs, device_of
from mcbn.network.isolation import intercepted

Rows = dict[str, Tensor]

# Values in the widest tensor of a pass, 1 MB in float32: more leaves the cache and is slower.
MAX_VALUES_PER_PASS = 2**18
# Beyond this what a pass costs besides its arithmetic no longer counts.
MAX_BATCHES_PER_PASS = 64
# Largest difference that rounding explains, relative to a statistic's own scale.
RELATIVE_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def group_size(model: Module, layers: Mapping[str, Module], batch: Inputs) -> int:
    """How many mini-batches like `batch` go in one pass; 1 where they have to go one by one.

    The widest tensor of a pass holds at most `BUDGET` values, and two or three of them live at a
    time. That mini-batches can share a pass at all is seen by `agree` on a first one.
    """
    if not isinstance(batch, Tensor) or batch.ndim != 2 or batch.dtype not in RELATIVE_TOLERANCE:
        return 1
    if not all(isinstance(layer, _BatchNorm) for layer in layers.values()):
        return 1
    widths = [size for weight in model.parameters() for size in weight.shape]
    widest = max(batch.shape[1], *widths) if widths else batch.shape[1]
    return max(1, min(MAX_BATCHES_PER_PASS, MAX_VALUES_PER_PASS // max(1, batch.shape[0] * widest)))


def grouped_statistics(
    model: Module, layers: Mapping[str, Module], batches: Sequence[Inputs], *, size: int
) -> Rows | None:
    """The statistics of every mini-batch, (draws, channels), from one pass of all of them.

    The pass always holds `size` mini-batches, the last one repeated where there are fewer: so a
    draw's last bit does not depend on how many come after it.

    Returns:
        None if the network does not take them together, or a value is not finite.
    """
    inputs = _interleaved(batches, size)
    if inputs is None:
        return None
    seen = _Pass({}, [], len(inputs) // size, size)
    forwards = {
        layer: partial(_forward, seen, name, layer)
        for name, layer in layers.items()
        if is_plain(layer)
    }
    hooks = {
        layer: partial(_feed, seen, name) for name, layer in layers.items() if layer not in forwards
    }
    try:
        with torch.no_grad(), intercepted(model, forwards, hooks):
            model(inputs.to(device_of(model)))
    # A network may refuse another number of rows in any way; one by one it may take them.
    except Exception:
        return None
    if seen.refused or not seen.found:
        return None
    return {name: rows[: len(batches)] for name, rows in seen.found.items()}


@dataclass(frozen=True, eq=False)
class _Pass:
    """What is written down in one pass of `size` mini-batches of `examples` each."""

    found: Rows
    refused: list[str]
    examples: int
    size: int


def _interleaved(batches: Sequence[Inputs], size: int) -> Tensor | None:
    """Row m of every mini-batch beside each other, for all m in turn.

    So the activations of a layer, seen as a table of M rows, have a column for each channel of
    each mini-batch, and batch norm's own kernel takes all statistics at once.
    """
    first = batches[0]
    tensors = [batch for batch in batches if isinstance(batch, Tensor)]
    if not isinstance(first, Tensor) or len(tensors) < len(batches):
        return None
    if any((t.shape, t.dtype, t.device) != (first.shape, first.dtype, first.device)
           for t in tensors):  # fmt: skip
        return None
    tensors += tensors[-1:] * (size - len(tensors))
    stacked = torch.stack(tensors, 1).flatten(0, 1)
    # A sum is not finite if any value is not. One that overflows sends the mini-batches one by one.
    return stacked if bool(torch.isfinite(stacked.sum())) else None


def _forward(seen: _Pass, name: str, layer: Any, input: Tensor) -> Tensor:
    """A plain layer's forward with each mini-batch's own statistics."""
    found = _normalized(seen, name, layer, input, (layer.weight, layer.bias))
    return input if found is None else found


def _feed(
    seen: _Pass, name: str, layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Feed a layer with a forward of its own activations that are normalised already.

    It holds the mean 0 and the variance 1 less its epsilon meanwhile, which change nothing.
    """
    activations = args[0] if len(args) == 1 and not kwargs else None
    fed = _normalized(seen, name, layer, activations, (None, None))
    if fed is None:
        return args, kwargs
    layer._buffers[MEAN] = torch.zeros_like(layer.get_buffer(MEAN))
    layer._buffers[VARIANCE] = torch.full_like(layer.get_buffer(VARIANCE), 1 - _epsilon(layer))
    return (fed,), kwargs


def _normalized(
    seen: _Pass,
    name: str,
    layer: Module,
    activations: Any,
    affine: tuple[Tensor | None, Tensor | None],
) -> Tensor | None:
    """Write down each mini-batch's statistics; the activations normalised by them, if they fit."""
    mean_name, variance_name = statistics_names([name])[name]
    if (
        mean_name in seen.found
        or not isinstance(activations, Tensor)
        or activations.ndim != 2
        or len(activations) != seen.examples * seen.size
        or activations.dtype not in RELATIVE_TOLERANCE
        or activations.dtype != layer.get_buffer(MEAN).dtype
        or seen.examples < 2
    ):
        seen.refused.append(name)
        return None
    table = activations.reshape(seen.examples, -1)
    weight, bias = (None if part is None else part.repeat(seen.size) for part in affine)
    fed, mean, variance = batch_normalized(table, weight, bias, _epsilon(layer))
    seen.found[mean_name] = mean.view(seen.size, -1)
    seen.found[variance_name] = variance.view(seen.size, -1)
    return fed.view_as(activations)


def _epsilon(layer: Module) -> float:
    return float(layer.eps)  # type: ignore[arg-type]  # every batch norm of PyTorch has one


def equal_draws(
    rows: Mapping[str, Float[Tensor, "draws _"]], one: Mapping[str, Float[Tensor, " _"]]
) -> Bool[Tensor, " draws"]:
    """Which draws equal the draw `one`, up to rounding.

    Relative to the standard deviation and size of a mean; to a variance and the square of its
    mean's rounding, so that a channel without spread agrees too.
    """
    same = torch.ones(len(next(iter(rows.values()))), dtype=torch.bool)
    for mean_name in (name for name in one if name.endswith(MEAN)):
        variance_name = mean_name.removesuffix(MEAN) + VARIANCE
        mean, variance = one[mean_name], one[variance_name]
        limit = RELATIVE_TOLERANCE.get(mean.dtype, RELATIVE_TOLERANCE[torch.float32])
        near = (rows[mean_name] - mean).abs() <= limit * (mean.abs() + variance.sqrt())
        scale = variance + limit * mean.square()
        near &= (rows[variance_name] - variance).abs() <= limit * scale
        same &= near.all(1).cpu()
    return same
