"""Collect a bank: statistics of mini-batches, one draw per pass through the network."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader

from mcbn import validation
from mcbn.bank.bank import Bank
from mcbn.bank.consistency import InconsistentBankWarning, consistency
from mcbn.bank.grouping import equal_draws, group_size, grouped_statistics
from mcbn.bank.minibatches import MiniBatches, require_batches
from mcbn.io.progress import progress_bar
from mcbn.network.batchnorm import (
    HALF_PRECISION,
    MEAN,
    VARIANCE,
    batch_norm_layers,
    batch_normalized,
    batch_statistics,
    epsilon_of,
    fingerprint,
    frozen_layers,
    intercepted_batch_norm,
    require_finite_weights,
    require_observable,
    statistics_names,
    unwrapped,
)
from mcbn.network.inputs import (
    Inputs,
    Select,
    count,
    device_of,
    require_finite,
    select_inputs,
    to_device,
)
from mcbn.network.isolation import StreamStates, model_lock, random_streams
from mcbn.network.passes import forward


def collect(
    model: Module,
    batches: Iterable[Any],
    *,
    draws: int | None = None,
    select: Select | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Bank:
    """Draw a bank of batch-norm statistics from training mini-batches.

    Each mini-batch passes through the network once, with dropout off, and every batch-norm layer
    normalises by the batch's own mean and biased variance; these become one draw. The model, its
    modes, hooks and buffers and the global random streams are left unchanged, also by an error.

    Args:
        model: a trained network with batch-norm layers, in train or eval mode.
        batches: `minibatches(...)`, a DataLoader, or any iterable of batches of training data.
        draws: T; one per batch if not given. A DataLoader starts another epoch where needed.
        select: picks the network's inputs out of a batch where the default rule does not.
        seed: seeds the global random streams that a DataLoader's order or transforms may use.
        progress: show a progress bar, on a terminal only.

    Raises:
        TypeError: `model` is not a network, `batches` holds no batches, or a batch no inputs.
        ValueError: no compatible batch-norm layer, too few batches, values that are not finite.

    Warns:
        InconsistentBankWarning: the draws disagree with the network's running statistics.
        UserWarning: layers were frozen in training, so their spread is not one of training.

    Reference:
        Teye, Azizpour and Smith 2018, section 3.4. Biased variance as in their code.
    """
    require_batches(batches, draws)
    model = unwrapped(model)
    layers = batch_norm_layers(model)
    require_observable(layers)
    with model_lock(model):
        require_finite_weights(model)
        trained = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    _warn_if_frozen(layers)
    stream = _full_batches(batches, select, repeat=draws is not None)
    rows: list[dict[str, Tensor]] = []
    with (
        ExitStack() as seeded,
        progress_bar(label="collect", unit="draw", total=draws, shown=progress) as bar,
    ):
        seeded.enter_context(random_streams(seed, "collect"))
        streams = StreamStates.now()
        first, others = next(stream, None), islice(stream, None if draws is None else draws - 1)
        for drawn in _draw_rows(model, layers, first, others):
            rows.append(drawn)
            bar.update(_length(drawn))
            # MiniBatches seed their own loading; where the network draws nothing either, other
            # threads may have the random streams of the process.
            if len(rows) == 1 and isinstance(batches, MiniBatches) and streams.unmoved():
                seeded.close()
    _require_enough(rows, draws)
    statistics = {name: _joined(name, rows) for name in rows[0]}
    size = 0 if first is None else count(first)
    _require_different(statistics, batches, size)
    bank = Bank(
        statistics,
        {name: trained[name] for name in rows[0]},
        batch_size=size,
        population=_population(batches),
        model=type(model).__name__,
        weights=fingerprint(model),
        source=_description(batches),
    )
    if not (check := consistency(bank)).passed:
        validation.warn(str(check), InconsistentBankWarning)
    return bank


def _warn_if_frozen(layers: dict[str, Module]) -> None:
    if frozen := frozen_layers(layers):
        validation.warn(
            f"{len(frozen)} batch-norm layers were frozen in training (the first is "
            f"{frozen[0]!r}): the network never used batch statistics there, so the spread that "
            "MCBN draws is not one it was trained with"
        )


def _full_batches(batches: Iterable[Any], select: Select | None, *, repeat: bool) -> Iterator[Any]:
    """Yield the inputs of every batch as large as the first; `repeat` goes on to more epochs.

    Only a loader has more epochs.

    Raises:
        ValueError: an epoch holds no full batch.
    """
    size = batches.batch_size if isinstance(batches, DataLoader) else None
    while True:
        any_full = False
        for batch in batches:
            inputs = batch if isinstance(batches, MiniBatches) else select_inputs(batch, select)
            size = size or count(inputs)
            if count(inputs) == size:
                any_full = True
                yield inputs
        if not any_full:
            raise ValueError(
                f"expected at least one batch of {size or 'some'} examples, got none; "
                "lower the batch size or give more data"
            )
        if not (repeat and isinstance(batches, DataLoader)):
            return


def _draw_rows(
    model: Module, layers: Mapping[str, Module], first: Inputs | None, others: Iterator[Inputs]
) -> Iterator[dict[str, Tensor]]:
    """Yield the statistics of one or several mini-batches, with a leading axis of draws.

    The first mini-batch has a pass of its own. The others share passes where the network allows
    it: the first one is passed again with them, and must have the same statistics.
    """
    if first is None:
        return
    stream = torch.get_rng_state()
    first_row = _statistics(model, layers, first, draw=0)
    # A network that draws random numbers gets its mini-batches one at a time.
    size = group_size(model, layers, first) if torch.equal(stream, torch.get_rng_state()) else 1
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
                row = _statistics(model, layers, batch, draw=index)
                yield {name: value[None] for name, value in row.items()}
        draw, repeated = draw + len(chunk), []


def _begins_with(rows: dict[str, Tensor], row: dict[str, Tensor]) -> bool:
    return rows.keys() == row.keys() and bool(equal_draws(rows, row)[0])


def _statistics(
    model: Module, layers: Mapping[str, Module], batch: Inputs, *, draw: int
) -> dict[str, Tensor]:
    """The batch statistics of every layer, from a pass in which each normalises by its own."""
    require_finite(batch, f"the inputs of mini-batch {draw}")
    row: dict[str, Tensor] = {}
    watched = intercepted_batch_norm(
        model, layers, partial(_normalize, row), partial(_observe, row)
    )
    with torch.no_grad(), watched:
        forward(model, {}, to_device(batch, device_of(model)))
    return row


def _normalize(row: dict[str, Tensor], name: str, layer: Any, input: Tensor) -> Tensor:
    """A plain layer's forward by the statistics of its batch, which are stored in `row`."""
    epsilon = epsilon_of(name, layer)
    if input.dtype in HALF_PRECISION or not epsilon > 0:
        _observe(row, name, layer, (input,), {})
        return type(layer).forward(layer, input)  # type: ignore[no-any-return]
    with _statistics_keys(row, name) as (mean, variance):
        output, row[mean], row[variance] = batch_normalized(
            input, layer.weight, layer.bias, epsilon
        )
    return output


def _observe(
    row: dict[str, Tensor], name: str, layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Store a layer's batch statistics in `row`, and in its buffers for this pass."""
    with _statistics_keys(row, name) as (mean, variance):
        row[mean], row[variance] = batch_statistics(
            args[0] if args else next(iter(kwargs.values()))
        )
    for buffer, value in ((MEAN, row[mean]), (VARIANCE, row[variance])):
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


def _length(rows: dict[str, Tensor]) -> int:
    return len(next(iter(rows.values()), ()))


def _joined(name: str, rows: list[dict[str, Tensor]]) -> Tensor:
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(
            f"expected every mini-batch to reach the same layers, got one that did not reach all "
            f"of {sorted(rows[0])[:4]} ...; give inputs that all take the same path"
        )
    return validation.finite(torch.cat([row[name] for row in rows]), f"the draws of {name}")


def _require_enough(rows: list[dict[str, Tensor]], draws: int | None) -> None:
    if not rows or not rows[0]:
        raise ValueError(
            "expected mini-batches that reach a batch-norm layer, got none; check that the data "
            "are not empty and that the network's forward calls its batch-norm layers"
        )
    drawn = sum(map(_length, rows))
    if draws is not None and drawn < draws:
        raise ValueError(
            f"expected {draws} full mini-batches, got {drawn} before the data ended; "
            "lower draws, or use mcbn.minibatches, which draws any number"
        )


def _require_different(statistics: dict[str, Tensor], batches: Iterable[Any], size: int) -> None:
    if not isinstance(batches, DataLoader) or size == _population(batches):
        return
    first = {name: rows[0] for name, rows in statistics.items()}
    repeated = equal_draws(statistics, first).nonzero().flatten().tolist()[1:]
    if repeated:
        raise ValueError(
            f"expected {_length(statistics)} different mini-batches, got draw {repeated[0]} equal "
            "to draw 0: the loader repeats its batches after an epoch; give it shuffle=True, "
            "lower draws, or use mcbn.minibatches"
        )


def _population(batches: Iterable[Any]) -> int | None:
    if isinstance(batches, MiniBatches):
        return batches.population
    dataset: Any = getattr(batches, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else None


def _description(batches: Iterable[Any]) -> str:
    if isinstance(batches, MiniBatches):
        how = "with" if batches.replacement else "without"
        return f"independent mini-batches {how} replacement, seed {batches.seed}"
    if isinstance(batches, DataLoader):
        sampler = batches.sampler if batches.batch_size else batches.batch_sampler
        return f"DataLoader in its own order ({type(sampler).__name__})"
    return f"{type(batches).__name__} of batches in its own order"
