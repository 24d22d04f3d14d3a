"""Running the draws as the plan of a network says, in passes of bounded memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.inputs import Inputs, channels_last, count, map_inputs, slice_examples
from mcbn.network.isolation import eval_mode
from mcbn.network.passes import forward, written
from mcbn.samplers.folding import folded
from mcbn.samplers.graph import Graph
from mcbn.samplers.loop import answers
from mcbn.samplers.outputs import Output, at_draw, map_tensors, tensor_output
from mcbn.samplers.vmap import PassCost, batched_answer, pass_size

Engine = Literal["auto", "loop", "folded", "batched"]
# How tensors lie in memory. "channels last": images as convolutions work on them. "features first":
# rows of features as columns, with draws in front: (draws, features, rows).
Layout = Literal["channels last", "features first", "as given"]
Statistics = Mapping[str, Tensor]
# From the statistics of some draws to what the network returns for each piece of the inputs, every
# tensor with a leading axis of draws.
Pass = Callable[[Statistics], Iterator[Any]]


@dataclass(frozen=True, eq=False)
class EnginePlan:
    """How one network runs on one kind of inputs, whichever output is picked.

    Attributes:
        engine: the one asked for, or the loop where that does not fit the network.
        cost: the size of one example in a pass.
        layout: of the tensors that go through the network.
        graph: the traced network, for folding.
    """

    engine: Engine
    cost: PassCost
    layout: Layout = "as given"
    graph: Graph | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether a pass has one draw: weights that are folded for one share only the prefix."""
        return self.graph is not None and self.layout != "features first"


def states(statistics: Statistics) -> Iterator[dict[str, Tensor]]:
    """Yield the statistics of one draw after another."""
    for draw in range(_draw_count(statistics)):
        yield {name: rows[draw] for name, rows in statistics.items()}


def planned_outputs(
    model: Module,
    plan: EnginePlan,
    statistics: Statistics,
    inputs: Inputs,
    output: Output | None,
) -> Iterator[Tensor]:
    """Yield the network's output under one draw after another; the model is left unchanged.

    Memory holds the outputs of the draws of one pass, however many there are in all.
    """
    total, examples = _draw_count(statistics), count(inputs)
    piece, together = pass_size(plan.cost, examples, 1 if plan.one_by_one else total)
    run = _prepared(model, plan, inputs, (together, piece))
    for chunk in _chunks(statistics, together):
        yield from _run(model, partial(_picked, run, output), chunk).contiguous()


def raw_answers(
    model: Module, plan: EnginePlan, statistics: Statistics, inputs: Inputs
) -> list[Any]:
    """All that the network returns for a few inputs under each draw: what a plan is tested by."""
    if plan.engine == "loop":
        return list(answers(model, states(statistics), laid_out(inputs, plan.layout)))
    together = 1 if plan.one_by_one else _draw_count(statistics)
    run = _prepared(model, plan, inputs, (together, count(inputs)))
    raws = []
    for chunk in _chunks(statistics, together):
        (raw,) = _run(model, lambda state: list(run(state)), chunk)
        raws += [at_draw(raw, draw) for draw in range(together)]
    return raws


def laid_out(inputs: Inputs, layout: Layout) -> Inputs:
    """The inputs as a plan has them in memory."""
    return channels_last(inputs) if layout == "channels last" else inputs


def _draw_count(statistics: Statistics) -> int:
    return len(next(iter(statistics.values())))


def _chunks(statistics: Statistics, size: int) -> Iterator[Statistics]:
    for start in range(0, _draw_count(statistics), size):
        yield {name: rows[start : start + size] for name, rows in statistics.items()}


def _run(model: Module, call: Callable[..., Any], statistics: Statistics) -> Any:
    """Call with the statistics in the type and on the device of the buffers they stand for."""
    with eval_mode(model), torch.no_grad():
        buffers = dict(model.named_buffers())
        matching = {name: rows.detach().to(buffers[name]) for name, rows in statistics.items()}
        return call(matching)


def _prepared(model: Module, plan: EnginePlan, inputs: Inputs, size: tuple[int, int]) -> Pass:
    """A pass over all inputs, for up to `size[0]` draws, `size[1]` examples at a time."""
    piece = size[1]
    inputs = laid_out(inputs, plan.layout)
    pieces = [
        slice_examples(inputs, start, start + piece) for start in range(0, count(inputs), piece)
    ]
    if plan.graph is None:
        return partial(_batched, model, pieces)
    graph = plan.graph
    with eval_mode(model), torch.no_grad():
        values = [_prefix_values(graph, each) for each in pieces]
        if plan.layout == "features first":
            values = [_features_first(each) for each in values]
            return partial(_stacked, graph, graph.out_buffers(*size), values)
    return partial(_folded, graph, values)


def _prefix_values(graph: Graph, inputs: Inputs) -> tuple[Any, ...]:
    """What the suffix needs of the inputs: computed once for all draws."""
    inputs = map_inputs(torch.clone, inputs)
    if isinstance(inputs, Tensor):
        arguments: tuple[Any, ...] = (inputs,)
    else:
        arguments = tuple(inputs.values()) if isinstance(inputs, Mapping) else inputs
    values: tuple[Any, ...] = graph.prefix(*arguments)
    return values


def _require_unwritten(values: tuple[Any, ...], versions: list[int]) -> None:
    """Check that a draw has not written into what all draws share.

    Raises:
        ValueError: it has; the loop takes such networks.
    """
    if written(values) != versions:
        raise ValueError("expected draws that leave the values of the prefix, got one that writes")


def _batched(model: Module, pieces: list[Any], state: Statistics) -> Iterator[Any]:
    """All draws at once through the network itself."""
    for piece in pieces:
        yield batched_answer(partial(forward, model, inputs=piece), state)


def _stacked(
    graph: Graph, buffers: Mapping[str, Tensor], pieces: list[Any], state: Statistics
) -> Iterator[Tensor]:
    """All draws at once through a dense suffix."""
    weights, unfolded = folded(graph.folds, state, buffers)
    weights |= {fold.out_buffer: buffers[fold.out_buffer] for fold in graph.folds}
    for piece in pieces:
        versions = written(piece)
        # The answer may lie in a buffer, which the next piece is written to.
        answer = graph.answer(piece, weights, unfolded)
        _require_unwritten(piece, versions)
        yield answer.mT.clone(memory_format=torch.contiguous_format)


def _folded(graph: Graph, pieces: list[Any], state: Statistics) -> Iterator[Any]:
    """The only draw of a pass through a suffix."""
    weights, unfolded = (at_draw(each, 0) for each in folded(graph.folds, state, {}))
    for piece in pieces:
        versions = written(piece)
        answer = graph.answer(piece, weights, unfolded)
        _require_unwritten(piece, versions)
        yield map_tensors(lambda tensor: tensor[None], answer)


def _picked(run: Pass, output: Output | None, state: Statistics) -> Tensor:
    """The outputs of all draws of a pass for all inputs: (draws, examples, ...)."""
    draws = _draw_count(state)
    rows = [_picked_rows(raw, draws, output) for raw in run(state)]
    return torch.cat(rows, 1) if len(rows) > 1 else rows[0]


def _picked_rows(raw: Any, draws: int, output: Output | None) -> Tensor:
    if output is None:
        return tensor_output(raw, None)
    # As in the loop, the function of the user sees one draw at a time.
    return torch.stack([tensor_output(at_draw(raw, draw), output) for draw in range(draws)])


def _features_first(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(isinstance(value, Tensor) and value.ndim != 2 for value in values):
        raise ValueError("expected rows of features before the first batch norm, got other tensors")
    return tuple(value.mT.contiguous() if isinstance(value, Tensor) else value for value in values)
