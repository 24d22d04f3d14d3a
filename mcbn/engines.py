"""Engines: the ways in which draws run. All give the same numbers; one is picked by itself."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from mcbn.batching import Load, Weighing, cut, stacked
from mcbn.engine import Output, passes, tensor_output
from mcbn.graph import Graph, branch_state, traced
from mcbn.inputs import Inputs, count, device_of, forward, moved, require_finite, tensors
from mcbn.isolation import eval_mode
from mcbn.layers import batch_norm_layers, statistics_names

Engine = Literal["auto", "loop", "folded", "batched", "compiled"]
Statistics = Mapping[str, Tensor]

logger = logging.getLogger(__name__)

# Examples that an engine is tried on before it is trusted with a network.
TRIED = 4
# Largest difference to the loop, relative to the largest output, that rounding explains.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_ROUNDING = 5e-2


@dataclass(frozen=True, eq=False)
class Plan:
    """How one network runs on one kind of inputs.

    Attributes:
        engine: what was asked for, or the loop where that does not fit the network.
        load: what one example weighs.
        channels_last: whether images go in with their channels last.
        graph: the traced network, for folding.
        call: the compiled network.
    """

    engine: Engine
    load: Load
    channels_last: bool = False
    graph: Graph | None = None
    call: Callable[..., Any] | None = None


# What was found out about a network is remembered for as long as the network lives.
_plans: WeakKeyDictionary[Module, dict[Any, Plan]] = WeakKeyDictionary()


def require_engine(name: str) -> None:
    """Check the name of an engine.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in get_args(Engine):
        raise ValueError(
            f"expected an engine among {get_args(Engine)}, got {name!r}; "
            'leave it at "auto", which picks one'
        )


def draws(
    model: Module,
    statistics: Statistics,
    inputs: Inputs,
    *,
    output: Output | None = None,
    engine: Engine = "auto",
) -> Iterator[Tensor]:
    """Yield the network's output under each draw of `statistics`, the model left as found.

    An engine that the network does not allow gives way to the loop, which takes them all. So does
    any engine where gradients are wanted.

    Args:
        model: the network.
        statistics: buffer names to (draws, channels).
        inputs: of the network.
        output: picks the output tensor.
        engine: "loop" calls the network once a draw. "batched" runs many draws in one pass:
            best for few inputs. "folded" multiplies the statistics into the weights: best for
            dense networks, and for many inputs. "compiled" is the loop under `torch.compile`.
            "auto" picks by the network and the number of inputs.

    Raises:
        ValueError: an input or an output is NaN or infinite.
        TypeError: the network's output is no tensor.
    """
    total = len(next(iter(statistics.values())))
    states = ({name: rows[t] for name, rows in statistics.items()} for t in range(total))
    if engine == "loop" or _differentiable(statistics, inputs):
        yield from passes(model, states, inputs, output=output)
        return
    require_finite(inputs, "the inputs")
    inputs = moved(inputs, device_of(model))
    plan = _remembered(model, statistics, inputs, output, engine)
    if plan.engine == "loop":
        yield from passes(model, states, inputs, output=output)
        return
    if plan.engine == "compiled" and plan.call is not None:
        for state in states:
            with eval_mode(model), torch.no_grad():
                raw = plan.call(_matching(model, state), inputs)
            yield tensor_output(raw, output)
        return
    yield from _chunks(model, plan, statistics, inputs, output)


def _differentiable(statistics: Statistics, inputs: Inputs) -> bool:
    wanted = (*statistics.values(), *tensors(inputs))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in wanted)


def _matching(model: Module, statistics: Statistics) -> dict[str, Tensor]:
    """The statistics in the type and on the device of the buffers they stand for."""
    buffers = dict(model.named_buffers())
    return {name: rows.detach().to(buffers[name]) for name, rows in statistics.items()}


def _remembered(
    model: Module, statistics: Statistics, inputs: Inputs, output: Output | None, engine: Engine
) -> Plan:
    """The plan for this network and kind of inputs; made and tried the first time."""
    # A power of two near the number of inputs: the pick may depend on it, the numbers do not.
    few = count(inputs).bit_length()
    kind = tuple((*tensor.shape[1:], tensor.dtype, tensor.device) for tensor in tensors(inputs))
    key = (engine, few, kind, tuple(statistics), output, _signature(model))
    known = _plans.setdefault(model, {})
    if key not in known:
        for stale in [other for other in known if other[-1] != key[-1]]:
            del known[stale]
        known[key] = _tried(model, statistics, inputs, output, engine)
    return known[key]


def _signature(model: Module) -> tuple[Any, ...]:
    """Changes when a module is replaced, cast, moved or hooked; the weights' values may change."""
    parts = tuple(
        (id(module), len(module._forward_hooks), len(module._forward_pre_hooks))
        for module in model.modules()
    )
    first = next(iter((*model.parameters(), *model.buffers())))
    return (*parts, first.dtype, first.device)


def _tried(
    model: Module, statistics: Statistics, inputs: Inputs, output: Output | None, engine: Engine
) -> Plan:
    """Make a plan and compare it with the loop on a few examples of the first draw."""
    some = _examples(inputs, 0, TRIED)
    one = {name: rows[:1] for name, rows in statistics.items()}
    weighing = Weighing()
    with weighing:
        (expected,) = passes(
            model, [{name: rows[0] for name, rows in one.items()}], some, output=output
        )
    load = weighing.load(count(some))
    for name, channels_last in _candidates(model, engine, load, count(inputs)):
        try:
            plan = _made(model, statistics, name, load, channels_last)
            with warnings.catch_warnings():
                # PyTorch warns where `vmap` has no rule and falls back to one draw at a time.
                warnings.simplefilter("error")
                (found,) = _rows(model, plan, one, some, output)
            _require_same(found, expected)
            return plan
        # A network may refuse tracing, vmap or compiling in any way; the loop takes all of them.
        except Exception as error:
            logger.debug("%s does not run %s: %r", type(model).__name__, name, error)
    return Plan("loop", load)


def _candidates(
    model: Module, engine: Engine, load: Load, examples: int
) -> Iterator[tuple[Engine, bool]]:
    """Engines to try in this order, each with images in channels-last layout or as they are."""
    names = [engine]
    if engine == "auto":
        # Folding rewrites every weight for every draw: worth it where activations outweigh them.
        weights = sum(parameter.numel() for parameter in model.parameters())
        folding: list[Engine] = ["folded"]
        names = folding if load.dense or examples * load.values > weights else []
        names = [*names, "batched"]
    for name in names:
        if not load.dense and name != "compiled":
            yield name, True
        # Some networks take a view that only the usual layout allows.
        yield name, False


def _made(
    model: Module, statistics: Statistics, engine: Engine, load: Load, channels_last: bool
) -> Plan:
    if engine == "folded":
        names = statistics_names(batch_norm_layers(model))
        layers = {
            name: model.get_submodule(name) for name, pair in names.items() if pair[0] in statistics
        }
        return Plan(engine, load, channels_last, graph=traced(model, layers))
    if engine == "compiled":
        return Plan(engine, load, channels_last, call=torch.compile(_call(model)))
    return Plan(engine, load, channels_last)


def _call(model: Module) -> Callable[..., Any]:
    def call(state: Statistics, inputs: Inputs) -> Any:
        return forward(model, state, inputs)

    return call


def _require_same(found: Tensor, expected: Tensor) -> None:
    limit = ROUNDING.get(expected.dtype, HALF_ROUNDING) * float(expected.abs().max())
    if found.shape != expected.shape or not float((found - expected).abs().max()) <= limit:
        raise ValueError("its numbers are not those of the loop")


def _rows(
    model: Module, plan: Plan, statistics: Statistics, inputs: Inputs, output: Output | None
) -> Iterator[Tensor]:
    if plan.call is not None:
        state = {name: rows[0] for name, rows in _matching(model, statistics).items()}
        with eval_mode(model), torch.no_grad():
            raw = plan.call(state, inputs)
        return iter([tensor_output(raw, output)])
    return _chunks(model, plan, statistics, inputs, output)


def _chunks(
    model: Module, plan: Plan, statistics: Statistics, inputs: Inputs, output: Output | None
) -> Iterator[Tensor]:
    """Yield rows of as many draws as fit in one pass, for one piece of the inputs after another.

    Memory holds the rows of those draws, however many there are in all.
    """
    total = len(next(iter(statistics.values())))
    examples = count(inputs)
    piece, together = cut(plan.load, examples, total)
    if plan.channels_last:
        inputs = _channels_last(inputs)
    pieces = [_examples(inputs, start, start + piece) for start in range(0, examples, piece)]
    with eval_mode(model), torch.no_grad():
        given = [_trunk(plan.graph, part) for part in pieces]
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

    own = branch_state(graph, state)
    if graph.dense:
        return torch.cat([stacked(call, own, piece) for piece in pieces], 1)
    total = len(next(iter(state.values())))
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


def _examples(inputs: Any, start: int, stop: int) -> Any:
    """Some of the examples, in each tensor of nested inputs."""
    if isinstance(inputs, Tensor):
        return inputs[start:stop]
    if isinstance(inputs, Mapping):
        return {key: _examples(value, start, stop) for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_examples(value, start, stop) for value in inputs)
    return inputs
