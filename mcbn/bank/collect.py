"""Collecting a bank: each mini-batch goes through the network once, on its own statistics."""

import warnings
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
    fingerprint,
    frozen_layers,
    is_plain,
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
    forward,
    require_finite,
    select_inputs,
    to_device,
)
from mcbn.network.isolation import StreamStates, intercepted, model_lock, random_streams


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

    Each mini-batch goes through the network once, dropout off, every batch-norm layer normalising
    by that batch's own mean and biased variance; these become one draw. The model, its modes,
    hooks and buffers and the global random streams are left as found, whatever happens.

    Args:
        model: a trained network with batch-norm layers, in train or eval mode.
        batches: `minibatches(...)`, a DataLoader, or any iterable of batches of training data.
        draws: T; all of `batches` if not given. A DataLoader starts another epoch when it needs to.
        select: picks the network's inputs out of a batch where the default rule does not.
        seed: seeds the global random streams that a DataLoader's order or transforms may use.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: no network, no batches, or no inputs in one.
        ValueError: no usable batch-norm layer, too few batches, values that are not finite.

    Reference:
        Teye, Azizpour and Smith 2018, section 3.4. Biased variance as in their code.
    """
    require_batches(batches, draws)
    model = unwrapped(model)
    layers = batch_norm_layers(model)
    require_observable(layers)
    with model_lock(model):
        require_finite_weights(model)
        trained = {name: held.detach().clone() for name, held in model.named_buffers()}
    if frozen := frozen_layers(layers):
        warnings.warn(
            f"{len(frozen)} batch-norm layers were frozen in training (the first is "
            f"{frozen[0]!r}): the network never saw batch statistics there, so the spread that "
            "MCBN draws is not one it was trained under",
            stacklevel=2,
        )
    stream = _full_batches(batches, select, repeat=draws is not None)
    rows: list[dict[str, Tensor]] = []
    with (
        ExitStack() as seeded,
        progress_bar(label="collect", unit="draw", total=draws, shown=progress) as bar,
    ):
        seeded.enter_context(random_streams(seed, "collect"))
        streams = StreamStates.now()
        first, rest = next(stream, None), islice(stream, None if draws is None else draws - 1)
        for drawn in _drawn(model, layers, first, rest):
            rows.append(drawn)
            bar.update(_length(drawn))
            # Mini-batches of ours seed their own loading; where the network draws nothing either,
            # the streams of the process are free for other threads.
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
        warnings.warn(str(check), InconsistentBankWarning, stacklevel=2)
    return bank


def _full_batches(batches: Iterable[Any], select: Select | None, *, repeat: bool) -> Iterator[Any]:
    """The inputs of every batch that is as large as the first; another epoch of a loader after.

    Raises:
        ValueError: an epoch holds no full batch.
    """
    size = batches.batch_size if isinstance(batches, DataLoader) else None
    while True:
        found = False
        for batch in batches:
            inputs = batch if isinstance(batches, MiniBatches) else select_inputs(batch, select)
            size = size or count(inputs)
            if count(inputs) == size:
                found = True
                yield inputs
        if not found:
            raise ValueError(
                f"expected at least one batch of {size or 'some'} examples, got none; "
                "lower the batch size or give more data"
            )
        if not (repeat and isinstance(batches, DataLoader)):
            return


def _drawn(
    model: Module, layers: Mapping[str, Module], first: Inputs | None, rest: Iterator[Inputs]
) -> Iterator[dict[str, Tensor]]:
    """Yield the statistics of one or many mini-batches, with a leading axis of draws.

    The first mini-batch goes alone. The others go many at a time where the network allows it: on
    the first of them, gone both ways, the two ways agree.
    """
    if first is None:
        return
    stream = torch.get_rng_state()
    alone = _statistics(model, layers, first, draw=0)
    # A network that draws random numbers gets them one mini-batch at a time.
    size = group_size(model, layers, first) if torch.equal(stream, torch.get_rng_state()) else 1
    yield {name: value[None] for name, value in alone.items()}
    draw, tried = 1, [first]
    while chunk := list(islice(rest, max(1, size - len(tried)))):
        found = None
        if size > 1:
            found = grouped_statistics(model, layers, [*tried, *chunk], size=size)
            if found is None or (tried and not _same(found, alone)):
                found, size = None, 1
        if found is not None:
            yield {name: rows[len(tried) :] for name, rows in found.items()}
        else:
            for index, batch in enumerate(chunk, start=draw):
                row = _statistics(model, layers, batch, draw=index)
                yield {name: value[None] for name, value in row.items()}
        draw, tried = draw + len(chunk), []


def _same(found: dict[str, Tensor], alone: dict[str, Tensor]) -> bool:
    """Whether the first draw of many is the one that went alone."""
    return found.keys() == alone.keys() and bool(equal_draws(found, alone)[0])


def _statistics(
    model: Module, layers: Mapping[str, Module], batch: Inputs, *, draw: int
) -> dict[str, Tensor]:
    """Send one batch through; each layer writes down its statistics and normalises by them."""
    require_finite(batch, f"the inputs of mini-batch {draw}")
    row: dict[str, Tensor] = {}
    forwards = {
        layer: partial(_normalize, row, name, layer)
        for name, layer in layers.items()
        if is_plain(layer)
    }
    hooks = {
        layer: partial(_observe, row, name)
        for name, layer in layers.items()
        if layer not in forwards
    }
    with torch.no_grad(), intercepted(model, forwards, hooks):
        forward(model, {}, to_device(batch, device_of(model)))
    return row


def _normalize(row: dict[str, Tensor], name: str, layer: Any, input: Tensor) -> Tensor:
    """A plain layer's forward by its batch's own statistics, written into the row on the way."""
    if input.dtype in HALF_PRECISION or not layer.eps > 0:
        _observe(row, name, layer, (input,), {})
        return type(layer).forward(layer, input)  # type: ignore[no-any-return]
    with _written(row, name) as (mean, variance):
        answer, row[mean], row[variance] = batch_normalized(
            input, layer.weight, layer.bias, layer.eps
        )
    return answer


def _observe(
    row: dict[str, Tensor], name: str, layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Write a layer's batch statistics into the row, and into the layer for this pass."""
    with _written(row, name) as (mean, variance):
        row[mean], row[variance] = batch_statistics(
            args[0] if args else next(iter(kwargs.values()))
        )
    for buffer, value in ((MEAN, row[mean]), (VARIANCE, row[variance])):
        layer._buffers[buffer] = value.to(layer.get_buffer(buffer).dtype)


@contextmanager
def _written(row: dict[str, Tensor], name: str) -> Iterator[tuple[str, str]]:
    """The names that a layer's statistics are written under; errors name the layer."""
    names = statistics_names([name])[name]
    if names[0] in row:
        raise ValueError(
            f"expected each batch-norm layer to be called once a pass, got {name!r} called again, "
            "and one pair of buffers cannot hold two statistics; give each call a layer of its own"
        )
    try:
        yield names
    except ValueError as error:
        raise ValueError(f"in layer {name!r}: {error}") from None


def _length(rows: dict[str, Tensor]) -> int:
    return len(next(iter(rows.values()), ()))


def _joined(name: str, rows: list[dict[str, Tensor]]) -> Tensor:
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(
            f"expected every mini-batch to reach the same layers, got one that did not reach all "
            f"of {sorted(rows[0])[:4]} ...; give inputs of one kind"
        )
    return validation.finite(torch.cat([row[name] for row in rows]), f"the draws of {name}")


def _require_enough(rows: list[dict[str, Tensor]], draws: int | None) -> None:
    if not rows or not rows[0]:
        raise ValueError(
            "expected mini-batches that reach a batch-norm layer, got none; check that the data "
            "is not empty and that the network's forward uses its layers"
        )
    drawn = sum(map(_length, rows))
    if draws is not None and drawn < draws:
        raise ValueError(
            f"expected {draws} full mini-batches, got {drawn} before the data ended; "
            "lower draws, or use mcbn.minibatches, which never runs out"
        )


def _require_different(statistics: dict[str, Tensor], batches: Iterable[Any], size: int) -> None:
    if not isinstance(batches, DataLoader) or size == _population(batches):
        return
    first = {name: rows[0] for name, rows in statistics.items()}
    repeated = equal_draws(statistics, first).nonzero().flatten().tolist()[1:]
    if repeated:
        raise ValueError(
            f"expected {_length(statistics)} different mini-batches, got draw {repeated[0]} equal "
            "to draw 0: the loader repeats itself after an epoch; give it shuffle=True, lower "
            "draws, or use mcbn.minibatches"
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
