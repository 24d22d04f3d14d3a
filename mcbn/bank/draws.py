"""Draws: the statistics of mini-batches, each normalised by its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.bank.full_batches import CountedBatch
from mcbn.bank.grouping import equal_draws, group_size, grouped_statistics
from mcbn.bank.own_forwards import OwnForwards
from mcbn.network.batchnorm import (
    HALF_PRECISION,
    MEAN,
    VARIANCE,
    batch_normalized,
    epsilon_of,
    intercepted_batch_norm,
    is_plain,
    statistics_names,
)
from mcbn.network.inputs import Inputs, require_finite, tensors, to_network
from mcbn.network.isolation import intercepted, restored
from mcbn.network.passes import forward
from mcbn.network.rounding import all_near
from mcbn.network.train_mode import Statistics, moments


def draw_rows(
    model: Module,
    layers: Mapping[str, Module],
    first: CountedBatch | None,
    others: Iterator[CountedBatch],
    own: OwnForwards,
) -> Iterator[dict[str, Tensor]]:
    """Yield the statistics of one or several mini-batches, with a leading axis of draws.

    The first mini-batch has a pass of its own. The others share passes where the network allows
    it: the first one is passed again with them, and must have the same statistics.
    """
    if first is None:
        return
    stream = torch.get_rng_state()
    first_row = batch_statistics(model, layers, first, own, draw=0)
    # One at a time where the network draws random numbers, or a layer takes no moments.
    alone = own.rewrites or not own.by_moments or not torch.equal(stream, torch.get_rng_state())
    size = 1 if alone else group_size(model, layers, first)
    yield {name: value[None] for name, value in first_row.items()}
    draw, repeated = 1, [first]
    while chunk := list(islice(others, max(1, size - len(repeated)))):
        grouped = None
        if size > 1:
            grouped = grouped_statistics(model, layers, [*repeated, *chunk], size=size)
            if grouped is None or (repeated and not _begins_with(grouped, first_row)):
                grouped, size = None, 1
        if grouped is not None:
            yield {name: rows[len(repeated) :] for name, rows in grouped.items()}
        else:
            for index, batch in enumerate(chunk, start=draw):
                row = batch_statistics(model, layers, batch, own, draw=index)
                yield {name: value[None] for name, value in row.items()}
        draw, repeated = draw + len(chunk), []


def _begins_with(rows: dict[str, Tensor], row: dict[str, Tensor]) -> bool:
    return rows.keys() == row.keys() and bool(equal_draws(rows, row)[0])


def batch_statistics(
    model: Module,
    layers: Mapping[str, Module],
    batch: CountedBatch,
    own: OwnForwards,
    *,
    draw: int | None = None,
) -> dict[str, Tensor]:
    """The batch statistics of every layer, from a pass in which each normalises by its own.

    Args:
        model: the network.
        layers: its batch-norm layers.
        batch: the inputs.
        own: where the statistics of layers with a forward of their own come from.
        draw: the number of the mini-batch, where it is one; the first is held to eval mode.

    Raises:
        ValueError: an input is NaN or infinite, or a layer was called twice.
    """
    if draw is not None:
        require_finite(batch.inputs, f"the inputs of mini-batch {draw}")
    row: dict[str, Tensor] = {}
    watched = intercepted_batch_norm(
        model, layers, partial(_normalize, row), partial(_observe, row, own)
    )
    inputs = to_network(model, batch.inputs)
    # What watches the layers puts back the buffers.
    kept = restored(model, buffers=False, parameters=True) if own.rewrites else nullcontext()
    with torch.no_grad(), kept, watched:
        outputs = forward(model, {}, inputs)
    batch.require_answer(outputs)
    if draw == 0 and row and not own.random:
        _require_used(model, layers, row, inputs, outputs)
    return row


def _require_used(
    model: Module,
    layers: Mapping[str, Module],
    row: dict[str, Tensor],
    inputs: Inputs,
    expected: Any,
) -> None:
    """Check that eval mode, given the first draw, answers as the pass that it was taken from.

    Raises:
        ValueError: it does not, as where PyTorch takes a fused path that skips the layers.
    """
    called: set[str] = set()
    names = statistics_names(layers)

    def noted(name: str, layer: Any, input: Tensor) -> Tensor:
        called.add(name)
        mean, variance = (row[key].to(layer.running_mean) for key in names[name])
        output: Tensor = torch.nn.functional.batch_norm(
            input, mean, variance, layer.weight, layer.bias, eps=layer.eps
        )
        return output

    # A plain layer is given its draw in the call, so that the network itself holds none.
    plain = {layers[name]: partial(noted, name, layers[name]) for name, (mean, _) in names.items()
             if is_plain(layers[name]) and mean in row}  # fmt: skip
    kinds = dict(model.named_buffers())
    state = {
        key: row[key].to(kinds[key])
        for name, keys in names.items()
        for key in keys
        if key in row and layers[name] not in plain
    }
    with torch.no_grad(), restored(model, parameters=True), intercepted(model, plain, {}):
        outputs = forward(model, state, inputs)
    if not all_near(model, list(tensors(outputs)), list(tensors(expected))):
        skipped = [name for name in layers if layers[name] not in plain or name not in called]
        which = f"{skipped[0]!r} and others" if skipped else "its layers"
        raise ValueError(
            f"expected eval mode to use the statistics of {which}, got outputs that they do not "
            "explain: the network takes another path in eval mode, as PyTorch's fused transformer "
            "layers do (torch.backends.mha.set_fastpath_enabled(False) turns them off); build it "
            "so that eval mode calls the layers that train mode calls"
        )


def _normalize(row: dict[str, Tensor], name: str, layer: Any, input: Tensor) -> Tensor:
    """A plain layer's forward by the statistics of its batch, which are stored in `row`."""
    epsilon = epsilon_of(name, layer)
    if input.dtype in HALF_PRECISION or not epsilon > 0:
        with _statistics_keys(row, name):
            _store(row, name, layer, moments((input,), {}))
        return type(layer).forward(layer, input)  # type: ignore[no-any-return]
    with _statistics_keys(row, name) as (mean, variance):
        output, row[mean], row[variance] = batch_normalized(
            input, layer.weight, layer.bias, epsilon
        )
    return output


def _observe(
    row: dict[str, Tensor],
    own: OwnForwards,
    name: str,
    layer: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Store a layer's batch statistics in `row`, and in its buffers for this pass."""
    with _statistics_keys(row, name):
        statistics = own.statistics(name, layer, (args, kwargs))
        if statistics is not None:
            _store(row, name, layer, statistics)


def _store(row: dict[str, Tensor], name: str, layer: Module, statistics: Statistics) -> None:
    keys = statistics_names([name])[name]
    for key, buffer, value in zip(keys, (MEAN, VARIANCE), statistics, strict=True):
        row[key] = value
        layer._buffers[buffer] = value.to(layer.get_buffer(buffer).dtype)


@contextmanager
def _statistics_keys(row: dict[str, Tensor], name: str) -> Iterator[tuple[str, str]]:
    """The keys of a layer's mean and variance in `row`; errors inside the block name the layer."""
    names = statistics_names([name])[name]
    if names[0] in row:
        raise ValueError(
            f"expected each batch-norm layer to be called once per pass, got {name!r} called "
            "again, and one pair of buffers cannot hold two statistics; give each call a layer of "
            "its own"
        )
    try:
        yield names
    except ValueError as error:
        raise ValueError(f"{error} (in layer {name!r})") from None
