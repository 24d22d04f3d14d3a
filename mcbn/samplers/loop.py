"""The loop engine: the network called once per draw, with that draw's statistics as its buffers."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import batch_norm_layers, epsilon_of, statistics_names
from mcbn.network.inputs import Inputs, device_of, require_finite, tensors, to_device
from mcbn.network.isolation import eval_mode, intercepted, model_lock
from mcbn.network.passes import forward
from mcbn.samplers.outputs import Output, tensor_output


def passes(
    model: Module,
    states: Iterable[Mapping[str, Tensor]],
    inputs: Inputs,
    *,
    output: Output | None = None,
) -> Iterator[Tensor]:
    """Yield the network's output once for each state, in eval mode; the model is left unchanged.

    Gradients flow to the inputs and to the state's statistics if they require them; else none
    are tracked.

    Raises:
        ValueError: an input or an output is NaN or infinite; statistics require gradients in a
            layer without a known epsilon.
        TypeError: the network's output is not a tensor.
    """
    for raw in answers(model, states, checked_inputs(model, inputs)):
        yield tensor_output(raw, output)


def checked_inputs(model: Module, inputs: Inputs) -> Inputs:
    """The inputs on the network's device, once they are known to be finite.

    Raises:
        ValueError: an input is NaN or infinite.
    """
    require_finite(inputs, "the inputs")
    on_device: Inputs = to_device(inputs, device_of(model))
    return on_device


def answers(model: Module, states: Iterable[Mapping[str, Tensor]], inputs: Inputs) -> Iterator[Any]:
    """Yield what the network returns under each state, for inputs from `checked_inputs`."""
    with model_lock(model):
        buffers = {name: (buffer.dtype, buffer.device) for name, buffer in model.named_buffers()}
    input_gradients = any(tensor.requires_grad for tensor in tensors(inputs))
    for state in states:
        matching = {
            name: value.to(dtype=buffers[name][0], device=buffers[name][1])
            for name, value in state.items()
        }
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        yield _answer(model, matching, inputs, input_gradients=input_gradients)


def _answer(
    model: Module, state: dict[str, Tensor], inputs: Inputs, *, input_gradients: bool
) -> Any:
    """What the network returns under `state`; gradients flow to whatever requires them."""
    tracked = torch.is_grad_enabled() and any(v.requires_grad for v in state.values())
    call = _differentiable if tracked else forward
    gradients = torch.is_grad_enabled() and (input_gradients or tracked)
    with eval_mode(model), torch.set_grad_enabled(gradients):
        return call(model, state, inputs)


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
        return forward(model, replaced, inputs)


def _normalize(
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    _: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A layer's arguments with its activations normalised by `mean` and `variance`."""
    key = None if args else next(iter(kwargs))
    activations = args[0] if key is None else kwargs[key]
    shape = (-1, *[1] * (activations.ndim - 2))
    # The layer holds the variance 1 and will divide by the root of 1 + epsilon.
    scale = ((1 + epsilon) / (variance + epsilon)).sqrt().reshape(shape)
    normalized = ((activations - mean.reshape(shape)) * scale).to(activations.dtype)
    if key is None:
        return (normalized, *args[1:]), kwargs
    return args, {**kwargs, key: normalized}
