"""Engines: the ways in which draws run. All give the same numbers; one is picked by itself."""

import logging
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import batch_norm_layers, statistics_names
from mcbn.network.inputs import (
    Inputs,
    count,
    device_of,
    forward,
    moved,
    part,
    require_finite,
    tensors,
)
from mcbn.network.isolation import model_lock, own_warnings
from mcbn.samplers.chunks import Engine, Layout, Plan, Statistics, rows
from mcbn.samplers.graph import traced
from mcbn.samplers.loop import Output, passes
from mcbn.samplers.vmap import Load, Weighing

logger = logging.getLogger(__name__)

# Examples that an engine is tried on before it is trusted with a network.
TRIED = 4
# Largest difference to the loop, relative to the largest output, that rounding explains.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_ROUNDING = 5e-2


# What was found out about a network is remembered for as long as the network lives, so no plan
# may hold the network itself.
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
    if engine == "loop" or _differentiable(statistics, inputs):
        yield from passes(model, _states(statistics), inputs, output=output)
        return
    require_finite(inputs, "the inputs")
    inputs = moved(inputs, device_of(model))
    plan = _remembered(model, statistics, inputs, output, engine)
    if plan.engine == "loop":
        yield from passes(model, _states(statistics), inputs, output=output)
        return
    yield from rows(model, plan, statistics, inputs, output)


def _states(statistics: Statistics) -> Iterator[dict[str, Tensor]]:
    """One draw after another."""
    for draw in range(len(next(iter(statistics.values())))):
        yield {name: rows[draw] for name, rows in statistics.items()}


def _differentiable(statistics: Statistics, inputs: Inputs) -> bool:
    wanted = (*statistics.values(), *tensors(inputs))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in wanted)


def _remembered(
    model: Module, statistics: Statistics, inputs: Inputs, output: Output | None, engine: Engine
) -> Plan:
    """The plan for this network and kind of inputs; made and tried the first time."""
    # A power of two near the number of inputs: the pick may depend on it, the numbers do not.
    few = count(inputs).bit_length()
    kind = tuple((*tensor.shape[1:], tensor.dtype, tensor.device) for tensor in tensors(inputs))
    asked = (engine, few, kind, tuple(statistics), output)
    known = _plans.setdefault(model, {})
    with model_lock(model):  # another thread may have hooked it, or swapped its tensors
        found = known.get((*asked, _signature(model)))
    if found is not None:
        return found
    # Tracing patches every module of the process, and warnings are caught in all of it.
    with own_warnings(), model_lock(model):
        key = (*asked, _signature(model))
        if key not in known:
            for stale in [other for other in known if other[-1] != key[-1]]:
                del known[stale]
            known[key] = _tried(model, statistics, inputs, output, engine)
        return known[key]


def _signature(model: Module) -> tuple[Any, ...]:
    """Changes when a module or tensor is replaced, cast, moved or hooked; its values may change.

    A trace keeps the tensors that it reads, so no other one can come by their numbers.
    """
    modules = tuple(
        (id(module), len(module._forward_hooks), len(module._forward_pre_hooks))
        for module in model.modules()
    )
    held = tuple(
        (id(tensor), tensor.dtype, tensor.device)
        for tensor in chain(model.parameters(), model.buffers())
    )
    return (*modules, *held)


def _tried(
    model: Module, statistics: Statistics, inputs: Inputs, output: Output | None, engine: Engine
) -> Plan:
    """Make a plan and compare it with the loop on a few examples of the first draws."""
    some = part(inputs, 0, TRIED)
    states = _states(statistics)
    weighing = Weighing()
    try:
        expected = _weighed(model, weighing, islice(states, 1), some, output)
    # It may take no other number of examples; if anything else is wrong, the loop will say.
    except Exception as error:
        logger.debug("%s does not take %d examples: %r", type(model).__name__, count(some), error)
        return Plan("loop", weighing.load(model, count(some)))
    load = weighing.load(model, count(some))
    if load.dense:
        # Draws may be stacked in one tensor: with one alone, a step that mixes them is not seen.
        expected += passes(model, islice(states, 1), some, output=output)
    few = {name: rows[: len(expected)] for name, rows in statistics.items()}
    for name, layout in _candidates(engine, load, count(inputs)):
        try:
            plan = _made(model, statistics, name, load, layout)
            with warnings.catch_warnings():
                # Where `vmap` has no rule it would run one draw at a time, slower than the loop.
                warnings.filterwarnings("error", message="There is a performance drop")
                found = list(rows(model, plan, few, some, output))
            _require_same(torch.stack(found), torch.stack(expected))
            return plan
        # A network may refuse tracing, vmap or compiling in any way; the loop takes all of them.
        except Exception as error:
            logger.debug("%s does not run %s: %r", type(model).__name__, name, error)
    return Plan("loop", load)


def _weighed(
    model: Module,
    weighing: Weighing,
    states: Iterator[dict[str, Tensor]],
    inputs: Inputs,
    output: Output | None,
) -> list[Tensor]:
    with weighing:
        return list(passes(model, states, inputs, output=output))


def _candidates(engine: Engine, load: Load, examples: int) -> Iterator[tuple[Engine, Layout]]:
    """Engines to try in this order, each with the layouts to try it in."""
    names = [engine]
    if engine == "auto":
        # Folding rewrites every weight for every draw: worth it where activations outweigh them.
        folding: list[Engine] = ["folded"]
        names = folding if load.dense or examples * load.values > load.weights else []
        names = [*names, "batched"]
    for name in names:
        if load.dense and name == "folded":
            yield name, "features first"
        if not load.dense and name != "compiled":
            yield name, "channels last"
        # Some networks have steps that only the usual layout allows.
        yield name, "as given"


def _made(
    model: Module, statistics: Statistics, engine: Engine, load: Load, layout: Layout
) -> Plan:
    if engine == "folded":
        names = statistics_names(batch_norm_layers(model))
        layers = {
            name: model.get_submodule(name) for name, pair in names.items() if pair[0] in statistics
        }
        graph = traced(model, layers, stacked=layout == "features first")
        return Plan(engine, load, layout, graph=graph)
    if engine == "compiled":
        return Plan(engine, load, layout, call=torch.compile(forward))
    return Plan(engine, load, layout)


def _require_same(found: Tensor, expected: Tensor) -> None:
    # A trace leaves out an autocast inside the network, and answers in another type.
    kind = (found.shape, found.dtype)
    limit = ROUNDING.get(expected.dtype, HALF_ROUNDING) * float(expected.abs().max())
    if (
        kind != (expected.shape, expected.dtype)
        or not float((found - expected).abs().max()) <= limit
    ):
        raise ValueError("its numbers are not those of the loop")
