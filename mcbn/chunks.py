"""Passes of several draws, as a plan of one network says, in memory that is bounded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from mcbn.batching import Load, cut, stacked
from mcbn.engine import Output, tensor_output
from mcbn.folding import folded
from mcbn.graph import Graph
from mcbn.inputs import Inputs, count, forward, part
from mcbn.isolation import eval_mode

Engine = Literal["auto", "loop", "folded", "batched", "compiled"]
Statistics = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """How one network runs on one kind of inputs.

    Attributes:
        engine: what was asked for, or the loop where that does not fit the network.
        load: what one example weighs.
        channels_last: whether images go in with their channels last.
        graph: the traced network, for folding.
        call: a compiled pass, of a network, a state and inputs.
    """

    engine: Engine
    load: Load
    channels_last: bool = False
    graph: Graph | None = None
    call: Callable[..., Any] | None = None


def rows(
    model: Module, plan: Plan, statistics: Statistics, inputs: Inputs, output: Output | None
) -> Iterator[Tensor]:
    """Yield the output under one draw after another, the model left as found."""
    if plan.call is None:
        yield from _chunks(model, plan, statistics, inputs, output)
        return
    for draw in range(_total(statistics)):
        one = {name: values[draw] for name, values in statistics.items()}
        with eval_mode(model), torch.no_grad():
            raw = plan.call(model, _matching(model, one), inputs)
        yield tensor_output(raw, output)


def _total(statistics: Statistics) -> int:
    return len(next(iter(statistics.values())))


def _matching(model: Module, statistics: Statistics) -> dict[str, Tensor]:
    """The statistics in the type and on the device of the buffers they stand for."""
    buffers = dict(model.named_buffers())
    return {name: rows.detach().to(buffers[name]) for name, rows in statistics.items()}


def _chunks(
    model: Module, plan: Plan, statistics: Statistics, inputs: Inputs, output: Output | None
) -> Iterator[Tensor]:
    """Yield rows of as many draws as fit in one pass, for one piece of the inputs after another.

    Memory holds the rows of those draws, however many there are in all.
    """
    total = _total(statistics)
    examples = count(inputs)
    # Convolutions are folded for one draw after another, which shares only what is in the trunk.
    alone = plan.graph is not None and not plan.graph.dense
    piece, together = cut(plan.load, examples, 1 if alone else total)
    if plan.channels_last:
        inputs = _channels_last(inputs)
    pieces = [part(inputs, start, start + piece) for start in range(0, examples, piece)]
    with eval_mode(model), torch.no_grad():
        given = [_trunk(plan.graph, one) for one in pieces]
    for start in range(0, total, together):
        chunk = {name: rows[start : start + together] for name, rows in statistics.items()}
        with eval_mode(model), torch.no_grad():
            state = _matching(model, chunk)
            if plan.graph is None:
                found = _batched(model, state, given, output)
            else:
                found = _folded(plan.graph, state, given, output)
        yield from found.contiguous()


def _trunk(graph: Graph | None, inputs: Inputs) -> Any:
    """What the branch needs of the inputs: computed once for all draws."""
    if graph is None:
        return inputs
    if isinstance(inputs, Tensor):
        return graph.trunk(inputs)
    arguments = tuple(inputs.values()) if isinstance(inputs, Mapping) else inputs
    return graph.trunk(*arguments)


def _batched(model: Module, state: Statistics, pieces: list[Any], output: Output | None) -> Tensor:
    def call(one: Statistics, inputs: Any) -> Tensor:
        return tensor_output(forward(model, one, inputs), output)

    return torch.cat([stacked(call, state, piece) for piece in pieces], 1)


def _folded(graph: Graph, state: Statistics, pieces: list[Any], output: Output | None) -> Tensor:
    def call(one: Statistics, values: Any) -> Tensor:
        return tensor_output(functional_call(graph.branch, dict(one), values), output)

    own = folded(graph.folds, state)
    if graph.dense:
        return torch.cat([stacked(call, own, piece) for piece in pieces], 1)
    total = _total(state)
    rows = [
        torch.cat([call({name: rows[t] for name, rows in own.items()}, piece) for piece in pieces])
        for t in range(total)
    ]
    return torch.stack(rows)


def _channels_last(inputs: Any) -> Any:
    """Images in the layout that convolutions work in, which saves rearranging at each of them."""
    if isinstance(inputs, Tensor):
        return inputs.to(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
    if isinstance(inputs, Mapping):
        return {key: _channels_last(value) for key, value in inputs.items()}
    return tuple(_channels_last(value) for value in inputs)
