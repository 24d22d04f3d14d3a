"""Collect a bank: statistics of mini-batches, one draw per pass through the network."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, IterableDataset

from mcbn import validation
from mcbn.bank.augmentation import AUGMENTED, is_augmented
from mcbn.bank.bank import Bank
from mcbn.bank.consistency import InconsistentBankWarning, consistency
from mcbn.bank.draws import draw_rows
from mcbn.bank.full_batches import CountedBatch, Size, full_batches, population, replacement
from mcbn.bank.grouping import equal_draws
from mcbn.bank.limit import LargerBatch, known_epsilon
from mcbn.bank.minibatches import MiniBatches, require_batches
from mcbn.bank.own_forwards import OwnForwards
from mcbn.io.progress import progress_bar
from mcbn.network.batchnorm import (
    MEAN,
    VARIANCE,
    batch_norm_layers,
    fingerprint,
    frozen_layers,
    require_finite_weights,
    require_observable,
    statistics_names,
    unwrapped,
)
from mcbn.network.conduct import network_conduct
from mcbn.network.inputs import Select, count, require_finite, to_network
from mcbn.network.isolation import StreamStates, model_lock, random_streams
from mcbn.network.known_conducts import Conduct
from mcbn.network.loaders import index_sampler
from mcbn.network.training import kept_in_eval_mode, unknown_statistics


def collect(
    model: Module,
    batches: Iterable[Any],
    *,
    draws: int | None = None,
    select: Select | None = None,
    size: Size | None = None,
    limit: int | Literal["all"] | None = 512,
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
        size: a function that returns the number of examples in a batch, for batches of an iterable
            whose rows are not its examples. Mini-batches and DataLoaders know it.
        limit: examples of the mini-batches that are passed once more, put together, so that the
            bank knows what its statistics come to in large batches, which `Bank.rescale` needs;
            "all" of them, or None to leave that out. It needs memory for a batch of so many.
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
    _warn_if_frozen(model, layers)
    stream = full_batches(batches, select, size, repeat=draws is not None)
    rows: list[dict[str, Tensor]] = []
    own, together = OwnForwards(), LargerBatch(limit)
    with (
        ExitStack() as seeded,
        progress_bar(label="collect", unit="draw", total=draws, shown=progress) as bar,
    ):
        seeded.enter_context(random_streams(seed, "collect"))
        streams = StreamStates.now()
        first, others = next(stream, None), islice(stream, None if draws is None else draws - 1)
        if first is not None:
            conduct = _conduct(model, first)
            own = OwnForwards(rewrites=conduct.changes != (), random=conduct.random)
            if conduct.random or conduct.mixes:
                together = LargerBatch(None)
            together.keep(first)
        for drawn in draw_rows(model, layers, first, map(together.keep, others), own):
            if not rows:
                _tell_layers(layers, drawn, own)
            rows.append(drawn)
            bar.update(_length(drawn))
            # MiniBatches seed their own loading; where the network draws nothing either, other
            # threads may have the random streams of the process.
            if len(rows) == 1 and isinstance(batches, MiniBatches) and streams.unmoved():
                seeded.close()
    _require_enough(rows, draws, layers)
    statistics = {name: _joined(name, rows) for name in rows[0]}
    examples = 0 if first is None else first.examples
    _require_different(statistics, batches, examples)
    epsilon = known_epsilon(layers, statistics)
    bank = Bank(
        statistics,
        {name: trained[name] for name in rows[0]},
        batch_size=examples,
        population=population(batches),
        model=type(model).__name__,
        weights=fingerprint(model),
        source=_description(batches) + (f", {AUGMENTED}" if is_augmented(batches) else ""),
        epsilon=epsilon,
        bias=together.bias(model, layers, own, statistics, epsilon),
        replacement=replacement(batches),
    )
    if not (check := consistency(bank)).passed:
        validation.warn(str(check), InconsistentBankWarning, code="MCBN001")
    return bank


def _warn_if_frozen(model: Module, layers: dict[str, Module]) -> None:
    frozen = frozen_layers(layers)
    if frozen := [*frozen, *(n for n in kept_in_eval_mode(model, layers) if n not in frozen)]:
        validation.warn(
            f"{len(frozen)} batch-norm layers were frozen in training (the first is "
            f"{frozen[0]!r}): the network never used batch statistics there, so the spread that "
            "MCBN draws is not one it was trained with",
            code="MCBN112",
        )


def _conduct(model: Module, batch: CountedBatch) -> Conduct:
    """How the network treats the first mini-batch in eval mode.

    Raises:
        ValueError: it normalises by the batch at hand.

    Warns:
        UserWarning: it is random, or mixes the examples of a batch.
    """
    require_finite(batch.inputs, "the inputs of mini-batch 0")
    inputs = to_network(model, batch.inputs)
    conduct = network_conduct(model, inputs)
    if count(batch.inputs) != batch.examples:  # it was tried on rows that are no examples
        conduct = replace(conduct, mixes=False)
    for code, note in conduct.notes():
        validation.warn(note, code=code)
    if others := unknown_statistics(model, batch_norm_layers(model), inputs):
        validation.warn(
            f"{_number(others, 'module')} left out of the bank, {others[0]!r} "
            f"({type(model.get_submodule(others[0])).__name__}) first: it changes buffers of its "
            f"own in train mode, but has none named {MEAN} and {VARIANCE}; rename them if they are "
            "the mean and variance of a batch norm",
            code="MCBN123",
        )
    return conduct


def _tell_layers(
    layers: Mapping[str, Module], drawn: Mapping[str, Tensor], own: OwnForwards
) -> None:
    """Tell of the layers that the first mini-batch has no statistics of.

    Raises:
        ValueError: there are no others.

    Warns:
        UserWarning: names them.
    """
    unreached = [
        name
        for name, (mean, _) in statistics_names(layers).items()
        if mean not in drawn and name not in own.sources
    ]
    if own.left_out:
        first = own.left_out[0]
        text = f"{first!r} ({type(layers[first]).__name__})"
        if not drawn:
            raise ValueError(
                f"expected layers that normalise by the mean and variance of a mini-batch in train "
                f"mode, got {text}, whose train mode does something else; use MCDropout or an "
                "ensemble for this network"
            )
        validation.warn(
            f"{_number(own.left_out, 'layer')} left out of the bank, {text} first: what train mode "
            "does there is not to normalise by the mean and variance of a mini-batch, so it keeps "
            "its running statistics",
            code="MCBN124",
        )
    if unreached and drawn:
        validation.warn(
            f"{_number(unreached, 'batch-norm layer')} not called by the first mini-batch, "
            f"{unreached[0]!r} first, so nothing is drawn there: it is not used in eval mode, or "
            "through its tensors alone, or by another path through the network",
            code="MCBN117",
        )


def _number(names: list[str], noun: str) -> str:
    return f"1 {noun} was" if len(names) == 1 else f"{len(names)} {noun}s were"


def _length(rows: dict[str, Tensor]) -> int:
    return len(next(iter(rows.values()), ()))


def _joined(name: str, rows: list[dict[str, Tensor]]) -> Tensor:
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(
            f"expected every mini-batch to reach the same layers, got one that did not reach all "
            f"of {sorted(rows[0])[:4]} ...; give inputs that all take the same path"
        )
    return validation.finite(torch.cat([row[name] for row in rows]), f"the draws of {name}")


def _require_enough(
    rows: list[dict[str, Tensor]], draws: int | None, layers: Mapping[str, Module]
) -> None:
    if not rows:
        raise ValueError("expected mini-batches, got none; check that the data are not empty")
    if not rows[0]:
        raise ValueError(
            "expected a network that calls its batch-norm layers in eval mode, got one that calls "
            f"none of them, {next(iter(layers))!r} first; let its forward call the layers as "
            "modules, rather than use their tensors or call their forward"
        )
    drawn = sum(map(_length, rows))
    if draws is not None and drawn < draws:
        raise ValueError(
            f"expected {draws} full mini-batches, got {drawn} before the data ended; "
            "lower draws, or use mcbn.minibatches, which draws any number"
        )


def _require_different(
    statistics: dict[str, Tensor], batches: Iterable[Any], examples: int
) -> None:
    if not isinstance(batches, DataLoader) or examples == population(batches):
        return
    first = {name: rows[0] for name, rows in statistics.items()}
    repeated = equal_draws(statistics, first).nonzero().flatten().tolist()[1:]
    if repeated:
        # PyTorch shuffles no streams.
        stream = isinstance(batches.dataset, IterableDataset)
        advice = "shuffle in its data set" if stream else "give it shuffle=True"
        raise ValueError(
            f"expected {_length(statistics)} different mini-batches, got draw {repeated[0]} equal "
            f"to draw 0: the loader repeats its batches after an epoch; {advice}, lower draws, or "
            "use mcbn.minibatches"
        )


def _description(batches: Iterable[Any]) -> str:
    if isinstance(batches, MiniBatches):
        how = "with" if batches.replacement else "without"
        return f"independent mini-batches {how} replacement, seed {batches.seed}"
    if isinstance(batches, DataLoader):
        sampler = batches.sampler if batches.batch_size else index_sampler(batches)
        return f"DataLoader in its own order ({type(sampler).__name__})"
    return f"{type(batches).__name__} of batches in its own order"
