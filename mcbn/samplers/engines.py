"""Engines: the ways in which draws run. All give the same numbers; "auto" picks the fastest."""

import logging
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import batch_norm_layers, statistics_names
from mcbn.network.conduct import spread_examples, supervised
from mcbn.network.inputs import Inputs, count, tensors, wants_gradients
from mcbn.network.isolation import model_lock, own_warnings
from mcbn.network.known_conducts import Conduct, State
from mcbn.samplers.chunks import (
    Engine,
    EnginePlan,
    Layout,
    Statistics,
    laid_out,
    planned_outputs,
    raw_answers,
    states,
)
from mcbn.samplers.graph import traced
from mcbn.samplers.loop import FirstDraw, answers, checked_inputs
from mcbn.samplers.outputs import Output, all_tensors, nesting, tensor_output
from mcbn.samplers.vmap import CostProbe, PassCost, refuses_slow_rules

logger = logging.getLogger(__name__)

# Examples that an engine is tested on before it is trusted with a network.
TEST_EXAMPLES = 4
# Largest difference to the loop, relative to the largest output, that rounding explains.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_ROUNDING = 5e-2
# How often a pass uses each weight, on average, from which on its time is that of arithmetic, which
# draws that share a pass do not save: so it was on CPUs.
BUSY_USES = 512


# Plans are remembered for as long as the network stays in a state, so no plan may hold the network
# itself. Nor may it hold the function that picks an output, with whatever that has captured: a plan
# is tested on all that the network returns, so it serves any output.
_plans: WeakKeyDictionary[State, dict[Any, EnginePlan]] = WeakKeyDictionary()
# Kinds of inputs for which a network's plans are kept.
MAX_PLANS = 64


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
    only: int | None = None,
) -> Iterator[Tensor]:
    """Yield the network's output under each draw of `statistics`; the model is left unchanged.

    The loop, which runs any network, takes the place of an engine that the network does not
    allow, and of any engine where gradients are wanted.

    Args:
        model: the network.
        statistics: buffer names to (draws, channels).
        inputs: of the network.
        output: picks the output tensor.
        engine: "loop" calls the network once per draw. "batched" runs many draws in one pass:
            best for few inputs. "folded" multiplies the statistics into the weights: best for
            dense networks, and for many inputs. "auto" picks by the network and the number of
            inputs.
        only: index of the one draw to run; all by default.

    Raises:
        ValueError: an input or an output is NaN or infinite.
        TypeError: the network's output is not a tensor.
    """
    inputs = checked_inputs(model, inputs)
    by_loop = engine == "loop" or wants_gradients(chain(statistics.values(), tensors(inputs)))
    start = only or 0
    stop = None if only is None else only + 1
    chosen = {name: rows[start:stop] for name, rows in statistics.items()}

    def outputs(conduct: Conduct) -> Iterator[Tensor]:
        # Tested on several draws even where one is run: the plan is kept for all of them.
        plan = None if by_loop else _plan_for(model, statistics, inputs, engine, conduct)
        # The network may write into its buffers, but never into a draw of the bank.
        lent = {name: rows.clone() for name, rows in chosen.items()}
        if plan is not None and plan.engine != "loop":
            return planned_outputs(model, plan, lent, inputs, output)
        laid = inputs if plan is None else laid_out(inputs, plan.layout)
        raws = answers(model, states(lent), laid, conduct, first=start)
        return (tensor_output(raw, output) for raw in raws)

    first = FirstDraw(model, next(states(chosen)), output)
    return supervised(model, inputs, first, outputs)


def _plan_for(
    model: Module, statistics: Statistics, inputs: Inputs, engine: Engine, conduct: Conduct
) -> EnginePlan | None:
    """The plan for this network and kind of inputs; None where only the loop will do.

    Only the loop gives each pass its own inputs, and puts back what it changes in the network; only
    a network that treats each example by itself may be cut, or traced at a few of them.
    """
    if conduct.state is None or not may_be_cut(conduct, inputs):
        return None
    return _plan(model, statistics, inputs, engine, conduct.state)


def may_be_cut(conduct: Conduct, inputs: Inputs) -> bool:
    """Whether examples and draws may go through the network in passes of any size."""
    safe = conduct.engines and not (conduct.random or conduct.changes or conduct.hides_writes)
    return safe and (conduct.separable or count(inputs) == 1)


def kind_of(inputs: Inputs) -> tuple[Any, ...]:
    """What a plan depends on of the inputs, beside their number."""
    return tuple((*tensor.shape[1:], tensor.dtype, tensor.device) for tensor in tensors(inputs))


def _plan(
    model: Module, statistics: Statistics, inputs: Inputs, engine: Engine, state: State
) -> EnginePlan:
    """The plan for this state of the network and kind of inputs; tested the first time."""
    # A power of two near the number of inputs: the choice may depend on it, the numbers do not.
    magnitude = count(inputs).bit_length()
    request = (engine, magnitude, kind_of(inputs), tuple(statistics))
    with model_lock(model):
        plans = _plans.setdefault(state, {})
    if request not in plans:
        # Tracing patches every module of the process, and warnings are caught in all of it.
        with own_warnings(), model_lock(model):
            if len(plans) >= MAX_PLANS:
                plans.clear()
            if request not in plans:  # another thread may have made it meanwhile
                plans[request] = _tested_plan(model, statistics, inputs, engine)
    return plans[request]


def _tested_plan(
    model: Module, statistics: Statistics, inputs: Inputs, engine: Engine
) -> EnginePlan:
    """Make a plan and compare it with the loop on a few examples of the first draws."""
    some = spread_examples(inputs, TEST_EXAMPLES)
    loop = answers(model, states(_first(statistics, 2)), some)
    probe, kind = CostProbe(), type(model).__name__
    try:
        with probe:
            expected = list(islice(loop, 1))
        # One draw alone would not show a step that mixes draws, or writes into what they share.
        expected += islice(loop, 1)
    # It may take no other number of examples; if anything else is wrong, the loop will say.
    except Exception as error:
        logger.debug("%s does not take %d examples: %r", kind, count(some), error)
        return EnginePlan("loop", probe.cost(model, count(some)))
    cost = probe.cost(model, count(some))
    for name, layout in _candidates(engine, cost, count(inputs)):
        try:
            plan = _made(model, statistics, name, cost, layout)
            with refuses_slow_rules():
                actual = raw_answers(model, plan, _first(statistics, len(expected)), some)
            for pair in zip(actual, expected, strict=True):
                require_same(*pair)
            return plan
        # A network may refuse tracing or vmap in any way; the loop takes all of them.
        except Exception as error:
            logger.debug("%s does not run %s: %r", kind, name, error)
    return EnginePlan("loop", cost)


def _first(statistics: Statistics, draws: int) -> Statistics:
    """A copy of the first draws, which the network may write into."""
    return {name: rows[:draws].clone() for name, rows in statistics.items()}


def _candidates(engine: Engine, cost: PassCost, examples: int) -> Iterator[tuple[Engine, Layout]]:
    """Engines to try in this order, each with the layouts to try it in."""
    for name in _automatic(cost, examples) if engine == "auto" else [engine]:
        if cost.dense and name == "folded":
            yield name, "features first"
        if not cost.dense:
            yield name, "channels last"
        # Some networks have steps that only the usual layout allows.
        yield name, "as given"


def _automatic(cost: PassCost, examples: int) -> Iterator[Engine]:
    """Engines in the order in which they are likely to be fast."""
    fits = 2 * examples * cost.values <= cost.budget
    busy = examples * cost.multiplications >= BUSY_USES * cost.weights
    if not cost.dense and fits and not busy:
        yield "batched"
    # Folding rewrites every weight for every draw: worth it where activations outweigh them.
    if cost.dense or examples * cost.values > cost.weights:
        yield "folded"
    if cost.dense:
        yield "batched"
    else:  # a pass of one draw gains by its layout alone
        yield "loop"


def _made(
    model: Module, statistics: Statistics, engine: Engine, cost: PassCost, layout: Layout
) -> EnginePlan:
    if engine == "folded":
        names = statistics_names(batch_norm_layers(model))
        layers = {
            name: model.get_submodule(name) for name, pair in names.items() if pair[0] in statistics
        }
        graph = traced(model, layers, stacked=layout == "features first")
        return EnginePlan(engine, cost, layout, graph=graph)
    return EnginePlan(engine, cost, layout)


def require_same(actual: Any, expected: Any) -> None:
    """Check that all tensors that the network returns are those of the loop, nested alike."""
    pairs = list(zip(all_tensors(actual), all_tensors(expected), strict=True))
    if not pairs or nesting(actual) != nesting(expected):
        raise ValueError("what it returns is not nested as in the loop")
    for tensor, other in pairs:
        # A trace leaves out an autocast inside the network, and has another type.
        if (tensor.shape, tensor.dtype) != (other.shape, other.dtype):
            raise ValueError("a tensor has not the shape and type of the loop's")
        if other.numel() == 0 or tensor.equal(other):
            continue
        limit = ROUNDING.get(other.dtype, HALF_ROUNDING) * float(other.abs().max())
        if not float((tensor.double() - other.double()).abs().max()) <= limit:
            raise ValueError("its numbers are not those of the loop")
