"""The loop engine: the network called once per draw, with that draw's statistics as its buffers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import batch_norm_layers, epsilon_of, statistics_names
from mcbn.network.conduct import supervised
from mcbn.network.inputs import (
    Inputs,
    as_tensor,
    channels_last,
    require_finite,
    tensors,
    to_network,
    wants_gradients,
)
from mcbn.network.isolation import eval_mode, intercepted, model_lock, random_streams, restored
from mcbn.network.known_conducts import STEADY, Conduct
from mcbn.network.passes import Lender, call
from mcbn.network.train_mode import require_second_axis
from mcbn.samplers.outputs import Output, tensor_output


def passes(
    model: Module,
    states: Sequence[Mapping[str, Tensor]],
    inputs: Inputs,
    *,
    output: Output | None = None,
) -> Iterator[Tensor]:
    """Yield the network's output once for each state, in eval mode; the model is left unchanged.

    Gradients flow to the inputs and to the state's statistics if they require them; else none
    are tracked.

    Raises:
        ValueError: an input or an output is NaN or infinite; statistics require gradients in a
            layer without a known epsilon; the network normalises by the batch at hand.
        TypeError: the network's output is not a tensor.
    """
    inputs = checked_inputs(model, inputs)
    first = FirstDraw(model, states[0], output)

    def outputs(conduct: Conduct) -> Iterator[Tensor]:
        raws = answers(model, states, inputs, conduct)
        return (tensor_output(raw, output) for raw in raws)

    return supervised(model, inputs, first, outputs)


@dataclass(frozen=True, eq=False)
class FirstDraw:
    """The network's output under one state, for inputs that it may write into.

    Attributes:
        model: the network.
        state: tensors by the names of parameters and buffers.
        output: picks the output tensor.
        written: names of the state's tensors that the last pass wrote to.
    """

    model: Module
    state: Mapping[str, Tensor]
    output: Output | None
    written: list[str] = field(default_factory=list)

    def __call__(self, inputs: Inputs) -> Tensor:
        """The output for `inputs`, in eval mode and without gradients."""
        lent = _matching({k: v.detach().clone() for k, v in self.state.items()}, _kinds(self.model))
        before = {name: value.clone() for name, value in lent.items()}
        with eval_mode(self.model), torch.no_grad():
            outputs = tensor_output(call(self.model, lent, inputs), self.output)
        self.written[:] = [name for name in lent if not torch.equal(lent[name], before[name])]
        return outputs


def checked_inputs(model: Module, inputs: Inputs) -> Inputs:
    """The inputs on the network's device and in its type, once they are known to be finite.

    Raises:
        ValueError: an input is NaN or infinite.
    """
    if isinstance(inputs, np.ndarray):
        inputs = as_tensor(inputs)
    require_finite(inputs, "the inputs")
    return to_network(model, inputs)


def answers(
    model: Module,
    states: Iterable[Mapping[str, Tensor]],
    inputs: Inputs,
    conduct: Conduct = STEADY,
    *,
    first: int = 0,
) -> Iterator[Any]:
    """Yield what the network returns under each state, for inputs from `checked_inputs`.

    Args:
        model: the network.
        states: tensors by the names of parameters and buffers.
        inputs: of the network, which are not written to.
        conduct: how the network treats them.
        first: index of the first draw, which seeds the numbers that a random network draws.
    """
    if conduct.channels_last:
        inputs = channels_last(inputs)
    lender, kinds = Lender(inputs, always=conduct.hides_writes), _kinds(model)
    input_gradients = any(tensor.requires_grad for tensor in tensors(inputs))
    for draw, state in enumerate(states, start=first):
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        with ExitStack() as stack:
            if conduct.random:
                stack.enter_context(random_streams(0, "pass", draw))
            if conduct.changes:
                stack.enter_context(restored(model, parameters=True))
            matching = _matching(state, kinds)
            raw = _answer(model, matching, lender.lend(), input_gradients=input_gradients)
        yield raw


Kinds = Mapping[str, tuple[torch.dtype, torch.device]]


def _kinds(model: Module) -> Kinds:
    """The type and the device of each buffer."""
    with model_lock(model):
        return {name: (buffer.dtype, buffer.device) for name, buffer in model.named_buffers()}


def _matching(state: Mapping[str, Tensor], kinds: Kinds) -> dict[str, Tensor]:
    """The tensors of a state in the type and on the device of the buffers they stand for."""
    return {
        name: value.to(dtype=kinds[name][0], device=kinds[name][1]) if name in kinds else value
        for name, value in state.items()
    }


def _answer(
    model: Module, state: dict[str, Tensor], inputs: Inputs, *, input_gradients: bool
) -> Any:
    """What the network returns under `state`; gradients flow to whatever requires them."""
    tracked = wants_gradients(state.values())
    run = _differentiable if tracked else call
    gradients = torch.is_grad_enabled() and (input_gradients or tracked)
    with eval_mode(model), torch.set_grad_enabled(gradients):
        return run(model, state, inputs)


def _differentiable(model: Module, state: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """The output under `state`, differentiable in its statistics.

    PyTorch's batch norm has no derivative in its running statistics. So each layer gets
    activations that are normalised already and holds the statistics 0 and 1 meanwhile; its own
    forward, including a subclass's activation, does the rest.
    """
    # Detached, so that a backward leaves no gradients on the user's weights.
    replaced = {
        f"{name}.{key}" if name else key: weight.detach()
        for name, module in model.named_modules()
        for key, weight in module.named_parameters(recurse=False, remove_duplicate=False)
    }
    layers = batch_norm_layers(model)
    hooks = {}
    for name, (mean, variance) in statistics_names(layers).items():
        if mean in state:
            epsilon = epsilon_of(name, layers[name])
            hooks[layers[name]] = partial(_normalize, state[mean], state[variance], epsilon)
            replaced[mean] = torch.zeros_like(state[mean])
            replaced[variance] = torch.ones_like(state[variance])
    with intercepted(model, {}, hooks):
        return call(model, replaced, inputs)


def _normalize(
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    layer: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A layer's arguments with its activations normalised by `mean` and `variance`."""
    require_second_axis(layer, (args, kwargs), (mean, variance))
    key = None if args else next(iter(kwargs))
    activations = args[0] if key is None else kwargs[key]
    shape = (-1, *[1] * (activations.ndim - 2))
    # The layer holds the variance 1 and will divide by the root of 1 + epsilon.
    scale = ((1 + epsilon) / (variance + epsilon)).sqrt().reshape(shape)
    normalized = ((activations - mean.reshape(shape)) * scale).to(activations.dtype)
    if key is None:
        return (normalized, *args[1:]), kwargs
    return args, {**kwargs, key: normalized}
