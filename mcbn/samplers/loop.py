"""Stochastic passes: the network called once a draw, its own tensors replaced by the draw's."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import batch_norm_layers, statistics_names
from mcbn.network.inputs import Inputs, device_of, forward, moved, require_finite, tensors
from mcbn.network.isolation import eval_mode, model_lock

Output = Callable[[Any], Tensor]


def passes(
    model: Module,
    states: Iterable[Mapping[str, Tensor]],
    inputs: Inputs,
    *,
    output: Output | None = None,
) -> Iterator[Tensor]:
    """Yield the network's output once for each state, in eval mode, the model left as found.

    Gradients flow to the inputs and to the state's statistics if they require them; else none
    are tracked.

    Raises:
        ValueError: an input or an output is NaN or infinite; statistics require gradients in a
            layer without a known epsilon.
        TypeError: the network's output is no tensor.
    """
    require_finite(inputs, "the inputs")
    inputs = moved(inputs, device_of(model))
    with model_lock(model):
        buffers = {name: (held.dtype, held.device) for name, held in model.named_buffers()}
    wanted = any(tensor.requires_grad for tensor in tensors(inputs))
    for state in states:
        matching = {
            name: value.to(dtype=buffers[name][0], device=buffers[name][1])
            for name, value in state.items()
        }
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        yield tensor_output(_answer(model, matching, inputs, wanted=wanted), output)


def _answer(model: Module, state: dict[str, Tensor], inputs: Inputs, *, wanted: bool) -> Any:
    """The network's answer under `state`; gradients flow if `wanted`, or to the state's own."""
    tracked = torch.is_grad_enabled() and any(v.requires_grad for v in state.values())
    call = _differentiable if tracked else forward
    gradients = torch.is_grad_enabled() and (wanted or tracked)
    with eval_mode(model), torch.set_grad_enabled(gradients):
        return call(model, state, inputs)


def _differentiable(model: Module, state: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """The output under `state`, differentiable in its statistics.

    PyTorch's batch norm has no derivative in its running statistics. So each layer is fed
    activations that are normalised already and holds the statistics 0 and 1 meanwhile: its own
    forward, a subclass's activation included, does the rest.
    """
    # Detached, so that a backward leaves no gradients on the user's weights.
    replaced = {
        f"{name}.{key}" if name else key: weight.detach()
        for name, module in model.named_modules()
        for key, weight in module._parameters.items()
        if weight is not None
    }
    layers = batch_norm_layers(model)
    handles = []
    try:
        for name, (mean, variance) in statistics_names(layers).items():
            if mean in state:
                epsilon = _epsilon(name, layers[name])
                hook = partial(_normalize, state[mean], state[variance], epsilon)
                handles.append(layers[name].register_forward_pre_hook(hook, with_kwargs=True))
                replaced[mean] = torch.zeros_like(state[mean])
                replaced[variance] = torch.ones_like(state[variance])
        return forward(model, replaced, inputs)
    finally:
        for handle in handles:
            handle.remove()


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
    fed = ((activations - mean.reshape(shape)) * scale).to(activations.dtype)
    return ((fed, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: fed})


def _epsilon(name: str, layer: Module) -> float:
    found = getattr(layer, "eps", None)
    if not isinstance(found, (int, float)):
        raise ValueError(
            f"expected a batch-norm layer with a known epsilon, got {name!r} "
            f"({type(layer).__name__}) without the attribute eps, so that no gradient can reach "
            "the batch size; give the bank a batch_size that is a plain number"
        )
    return float(found)


def tensor_output(raw: Any, output: Output | None) -> Tensor:
    """The one tensor that the network answers with, picked by `output` where that is needed.

    Raises:
        TypeError: there is no tensor; names what there is.
    """
    found = output(raw) if output is not None else raw
    if isinstance(found, Tensor):
        return found
    keys = f" with the keys {list(found)}" if isinstance(found, Mapping) else ""
    raise TypeError(
        f"expected a network whose output is one tensor, got {type(found).__name__}{keys}; "
        "give output=function that picks it, such as output=lambda answer: answer['logits']"
    )
