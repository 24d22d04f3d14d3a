"""Statistics of many mini-batches from one pass of a dense network, each normalised by its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from mcbn.bank.full_batches import CountedBatch
from mcbn.network.batchnorm import (
    MEAN,
    VARIANCE,
    batch_normalized,
    epsilon_of,
    intercepted_batch_norm,
    statistics_names,
)
from mcbn.network.inputs import Inputs, device_of

Rows = dict[str, Tensor]

# Values in the widest tensor of a pass, 1 MB in float32: more does not fit the cache.
MAX_VALUES_PER_PASS = 2**18
# Beyond this the fixed cost of a pass no longer matters.
MAX_BATCHES_PER_PASS = 64
# Largest difference that rounding explains, relative to a statistic's own scale.
RELATIVE_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def group_size(model: Module, layers: Mapping[str, Module], batch: CountedBatch) -> int:
    """The number of mini-batches like `batch` that may share a pass; 1 where each needs its own.

    The widest tensor of a pass holds at most `MAX_VALUES_PER_PASS` values. Whether the network
    really takes several mini-batches together is known once `equal_draws` has compared one.
    """
    inputs, examples = batch.inputs, batch.examples
    if not isinstance(inputs, Tensor) or inputs.ndim != 2 or len(inputs) != examples:
        return 1
    if inputs.dtype not in RELATIVE_TOLERANCE:
        return 1
    if not all(isinstance(layer, _BatchNorm) for layer in layers.values()):
        return 1
    widths = [size for weight in model.parameters() for size in weight.shape]
    widest = max([inputs.shape[1], *widths])
    return max(1, min(MAX_BATCHES_PER_PASS, MAX_VALUES_PER_PASS // max(1, examples * widest)))


def grouped_statistics(
    model: Module, layers: Mapping[str, Module], batches: Sequence[CountedBatch], *, size: int
) -> Rows | None:
    """The statistics of every mini-batch, as (draws, channels), from one pass of all of them.

    The pass always holds `size` mini-batches, with the last one repeated where there are fewer, so
    that the last bits of a draw do not depend on the number of draws.

    Returns:
        None if the network does not take them together, or a value is not finite.
    """
    inputs = _interleaved([batch.inputs for batch in batches], size)
    if inputs is None:
        return None
    record = _PassRecord({}, [], len(inputs) // size, size)
    watched = intercepted_batch_norm(
        model, layers, partial(_forward, record), partial(_replace_input, record)
    )
    try:
        with torch.no_grad(), watched:
            model(inputs.to(device_of(model)))
    # A network may fail on another number of rows in any way, and still take them one by one.
    except Exception:
        return None
    if record.unsuitable or not record.statistics:
        return None
    return {name: rows[: len(batches)] for name, rows in record.statistics.items()}


@dataclass(frozen=True, eq=False)
class _PassRecord:
    """Statistics from one pass of `size` mini-batches of `examples` each.

    Attributes:
        statistics: a row per mini-batch, by buffer name.
        unsuitable: names of layers whose activations are not those of `size` mini-batches.
        examples: in each mini-batch.
        size: number of mini-batches.
    """

    statistics: Rows
    unsuitable: list[str]
    examples: int
    size: int


def _interleaved(batches: Sequence[Inputs], size: int) -> Tensor | None:
    """The examples of all mini-batches, interleaved: first the first of each, then the second.

    The activations of a layer then reshape to a table of M rows with a column for each channel of
    each mini-batch, and PyTorch's batch-norm kernel computes all statistics at once.
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
    # A sum is not finite if any value is not; if it only overflows, passes of one batch are safe.
    return stacked if bool(torch.isfinite(stacked.sum())) else None


def _forward(record: _PassRecord, name: str, layer: Any, input: Tensor) -> Tensor:
    """The forward of a plain layer with each mini-batch's own statistics."""
    output = _normalized(record, name, layer, input, (layer.weight, layer.bias))
    return input if output is None else output


def _replace_input(
    record: _PassRecord, name: str, layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Normalise the input of a layer that has its own forward.

    During the pass its buffers hold mean 0 and variance 1 - epsilon, which change nothing.
    """
    activations = args[0] if len(args) == 1 and not kwargs else None
    normalized = _normalized(record, name, layer, activations, (None, None))
    if normalized is None:
        return args, kwargs
    layer._buffers[MEAN] = torch.zeros_like(layer.get_buffer(MEAN))
    variance = 1 - epsilon_of(name, layer)
    layer._buffers[VARIANCE] = torch.full_like(layer.get_buffer(VARIANCE), variance)
    return (normalized,), kwargs


def _normalized(
    record: _PassRecord,
    name: str,
    layer: Module,
    activations: Any,
    affine: tuple[Tensor | None, Tensor | None],
) -> Tensor | None:
    """Record each mini-batch's statistics and normalise by them; None if that is impossible."""
    mean_name, variance_name = statistics_names([name])[name]
    if (
        mean_name in record.statistics
        or not isinstance(activations, Tensor)
        or activations.ndim != 2
        or len(activations) != record.examples * record.size
        or activations.dtype not in RELATIVE_TOLERANCE
        or activations.dtype != layer.get_buffer(MEAN).dtype
        or record.examples < 2
    ):
        record.unsuitable.append(name)
        return None
    table = activations.reshape(record.examples, -1)
    weight, bias = (None if part is None else part.repeat(record.size) for part in affine)
    normalized, mean, variance = batch_normalized(table, weight, bias, epsilon_of(name, layer))
    record.statistics[mean_name] = mean.view(record.size, -1)
    record.statistics[variance_name] = variance.view(record.size, -1)
    return normalized.view_as(activations)


def equal_draws(
    rows: Mapping[str, Float[Tensor, "draws ..."]], one: Mapping[str, Float[Tensor, "..."]]
) -> Bool[Tensor, " draws"]:
    """Which rows equal the draw `one` up to rounding.

    The tolerance of a mean is relative to its size and standard deviation; that of a variance to
    the variance and the square of the mean's rounding, so that constant channels are equal too.
    """
    same = torch.ones(len(next(iter(rows.values()))), dtype=torch.bool)
    for mean_name in (name for name in one if name.endswith(MEAN)):
        variance_name = mean_name.removesuffix(MEAN) + VARIANCE
        mean, variance = one[mean_name], one[variance_name]
        limit = RELATIVE_TOLERANCE.get(mean.dtype, RELATIVE_TOLERANCE[torch.float32])
        near = (rows[mean_name] - mean).abs() <= limit * (mean.abs() + variance.sqrt())
        scale = variance + limit * mean.square()
        near &= (rows[variance_name] - variance).abs() <= limit * scale
        same &= near.reshape(len(same), -1).all(1).cpu()
    return same
