"""Inputs of an exported file: the example it is made for, and their names."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import PackedSequence

from mcbn.network.inputs import Inputs, as_tensor, require_finite


def plain_inputs(example: Any) -> Inputs:
    """Return an example as a tensor, a tuple or a dict of tensors.

    Raises:
        ValueError: it is something else, its tensors have not as many examples each, or a value is
            NaN or infinite.
    """
    inputs: Inputs
    if isinstance(example, Mapping):
        inputs = {str(name): _tensor(value) for name, value in example.items()}
        values = list(inputs.values())
    elif isinstance(example, tuple) and not isinstance(example, PackedSequence):
        inputs = tuple(map(_tensor, example))
        values = list(inputs)
    else:
        inputs = _tensor(example)
        values = [inputs]
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise ValueError(
            "expected a tensor, a tuple or a dict of tensors as example, got "
            f"{type(example).__name__} of {sorted({type(value).__name__ for value in values})}; "
            "give what the network is called with, and wrap it in a module that takes tensors alone"
        )
    sizes = {tuple(tensor.shape[:1]) for tensor in values}
    if len(sizes) > 1 or sizes & {(), (0,)}:
        raise ValueError(
            "expected examples along the first axis of every tensor, as many in each and at least "
            f"one, got the shapes {[tuple(tensor.shape) for tensor in values]}; give a batch, or "
            "use mcbn.predict for a network with other inputs"
        )
    require_finite(inputs, "the example")
    return inputs


def _tensor(value: Any) -> Any:
    return as_tensor(value) if isinstance(value, np.ndarray) else value


def input_names(model: Module, inputs: Inputs) -> tuple[str, ...]:
    """Return one name per tensor: "inputs", those of the parameters, or the keys of a dict.

    Raises:
        ValueError: the network takes fewer positional arguments.
    """
    if isinstance(inputs, Tensor):
        return ("inputs",)
    if isinstance(inputs, Mapping):
        return tuple(inputs)
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(len(inputs) - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    if len(names) < len(inputs):
        raise ValueError(
            f"expected as many inputs as the network takes, {len(names)}, got {len(inputs)}; give "
            "what the network is called with"
        )
    return tuple(names[: len(inputs)])
