"""Passes of several draws, as a plan of one network says, in memory that is bounded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.inputs import Inputs, count, forward, part
from mcbn.network.isolation import eval_mode
from mcbn.samplers.folding import folded
from mcbn.samplers.graph import Graph
from mcbn.samplers.loop import Output, tensor_output
from mcbn.samplers.vmap import Load, cut, stacked

Engine = Literal["auto", "loop", "folded", "batched", "compiled"]
# How tensors lie in memory. "channels last": images as convolutions work on them. "features first":
# rows of features as columns, with draws in front: (draws, features, rows).
Layout = Literal["channels last", "features first", "as given"]
Statistics = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """How one network runs on one kind of inputs.

    Attributes:
        engine: what was asked for, or the loop where that does not fit the network.
        load: what one example weighs.
        layout: of what goes through the network.
        graph: the traced network, for folding.
        call: a compiled pass, of a network, a state and inputs.
    """

    engine: Engine
    load: Load
    layout: Layout = "as given"
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
        yield tensor_output(_run(model, partial(plan.call, model), one, inputs), output)


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
    # What is folded for one draw after another shares only what is in the trunk.
    alone = plan.graph is not None and plan.layout != "features first"
    piece, together = cut(plan.load, examples, 1 if alone else total)
    if plan.layout == "channels last":
        inputs = _channels_last(inputs)
    pieces = [part(inputs, start, start + piece) for start in range(0, examples, piece)]
    run = _prepared(model, plan, pieces, output, (together, piece))
    for start in range(0, total, together):
        chunk = {name: rows[start : start + together] for name, rows in statistics.items()}
        yield from _run(model, run, chunk).contiguous()


def _run(model: Module, call: Callable[..., Any], statistics: Statistics, *inputs: Inputs) -> Any:
    with eval_mode(model), torch.no_grad():
        return call(_matching(model, statistics), *inputs)


def _trunk(plan: Plan, inputs: Inputs) -> Any:
    """What the branch needs of the inputs: computed once for all draws."""
    if plan.graph is None:
        return inputs
    if isinstance(inputs, Tensor):
        values = plan.graph.trunk(inputs)
    else:
        arguments = tuple(inputs.values()) if isinstance(inputs, Mapping) else inputs
        values = plan.graph.trunk(*arguments)
    return _features_first(values) if plan.layout == "features first" else values


def _prepared(
    model: Module, plan: Plan, pieces: list[Any], output: Output | None, size: tuple[int, int]
) -> Callable[[Statistics], Tensor]:
    with eval_mode(model), torch.no_grad():
        return _pass(model, plan, [_trunk(plan, one) for one in pieces], output, size)


def _pass(
    model: Module, plan: Plan, pieces: list[Any], output: Output | None, size: tuple[int, int]
) -> Callable[[Statistics], Tensor]:
    """From the statistics of a few draws to their answers on all pieces: (draws, examples, ...)."""
    if plan.graph is None:
        return partial(_batched, model, pieces, output)
    if plan.layout == "features first":
        return partial(_stacked, plan.graph, plan.graph.rooms(*size), pieces, output)
    return partial(_folded, plan.graph, pieces, output)


def _batched(model: Module, pieces: list[Any], output: Output | None, state: Statistics) -> Tensor:
    """All draws at once through the network as it is."""

    def call(one: Statistics, inputs: Any) -> Tensor:
        return tensor_output(forward(model, one, inputs), output)

    return torch.cat([stacked(call, state, piece) for piece in pieces], 1)


def _stacked(
    graph: Graph,
    rooms: Mapping[str, Tensor],
    pieces: list[Any],
    output: Output | None,
    state: Statistics,
) -> Tensor:
    """All draws at once through a dense branch."""
    own, rest = folded(graph.folds, state, rooms)
    own |= {fold.room: rooms[fold.room] for fold in graph.folds}
    raw = [
        # The answer may lie in a room, which the next piece is written to.
        graph.answer(piece, own, rest).mT.clone(memory_format=torch.contiguous_format)
        for piece in pieces
    ]
    found = torch.cat(raw, 1) if len(raw) > 1 else raw[0]
    return found if output is None else torch.stack([output(row) for row in found])


def _folded(graph: Graph, pieces: list[Any], output: Output | None, state: Statistics) -> Tensor:
    """One draw after another through a branch."""
    own, rest = folded(graph.folds, state, {})
    rows = []
    for draw in range(_total(state)):
        mine = {name: values[draw] for name, values in own.items()}
        left = {name: values[draw] for name, values in rest.items()}
        raw = [graph.answer(piece, mine, left) for piece in pieces]
        rows.append(torch.cat([tensor_output(one, output) for one in raw]))
    return torch.stack(rows)


def _features_first(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(isinstance(value, Tensor) and value.ndim != 2 for value in values):
        raise ValueError("expected rows of features before the first batch norm, got other tensors")
    return tuple(value.mT.contiguous() if isinstance(value, Tensor) else value for value in values)


def _channels_last(inputs: Any) -> Any:
    """Images in the layout that convolutions work in, which saves rearranging at each of them."""
    if isinstance(inputs, Tensor):
        return inputs.to(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
    if isinstance(inputs, Mapping):
        return {key: _channels_last(value) for key, value in inputs.items()}
    return tuple(_channels_last(value) for value in inputs)
