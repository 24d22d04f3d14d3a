"""Fingerprints of networks that a user's own function builds."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.builders import build
from mcbn.network.isolation import random_streams
from mcbn.network.sources import source_digests
from mcbn.study.provenance import (
    OUTPUT_TOLERANCE,
    WEIGHT_TOLERANCE,
    Fingerprint,
    is_close,
)

OF_EVERY_MODULE = frozenset(vars(Module()))  # how PyTorch keeps a module, such as its mode
ROWS = 8  # more than one, since batch norm in train mode needs a variance


def fingerprint(name: str, input_shape: tuple[int, ...]) -> Fingerprint:
    """Build a user's network, twice, and say what identifies it.

    Whatever the builder reads, from its source to a file of weights or the environment, shows in
    the source, the structure, the first weights or the outputs.

    Args:
        name: module:function or file.py:function.
        input_shape: shape of one example.

    Raises:
        TypeError: the function returns no network.
    """
    one, two = _built(name, input_shape), _built(name, input_shape)
    same_weights = is_close(one.weights, two.weights, WEIGHT_TOLERANCE)
    same_outputs = is_close(one.outputs, two.outputs, OUTPUT_TOLERANCE)
    return Fingerprint(
        sources=source_digests(name, one.modules),
        structure=one.structure if one.structure == two.structure else "",
        input_shape=input_shape,
        weights=one.weights if same_weights else None,
        outputs=one.outputs if same_outputs else None,
    )


def build_own(name: str) -> Module:
    """Build the network that a user's function makes, from the global random streams.

    Raises:
        TypeError: the function returns no network.
    """
    model = build(name)
    if not isinstance(model, Module):
        raise TypeError(
            f"expected {name} to return a torch.nn.Module, got {type(model).__name__}; "
            "return the network"
        )
    return model


@dataclass(frozen=True)
class _Built:
    structure: str
    weights: tuple[float, ...]
    outputs: tuple[float, ...]
    modules: list[str]


def _built(name: str, input_shape: tuple[int, ...]) -> _Built:
    with random_streams(0, "fingerprint"):
        model = build_own(name)
        inputs = torch.randn(ROWS, *input_shape)
        # Small and large ones, since a threshold may show in large ones only.
        inputs *= torch.linspace(0.5, 4, ROWS).view(-1, *(1 for _ in input_shape))
        evaluated = _outputs(model.eval(), inputs)
        # After a forward, which makes the weights of lazy layers.
        structure, weights = _structure(model), _summary(_tensors(model.state_dict()))
        outputs = (*evaluated, *_outputs(model.train(), inputs))
    modules = [type(layer).__module__ for layer in model.modules()]
    return _Built(structure, weights, outputs, modules)


def _outputs(model: Module, inputs: Tensor) -> tuple[float, ...]:
    """Three numbers for the outputs; none if the network fails, as its job will tell."""
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            return _summary(_tensors(model(inputs.to(device, copy=True))))
    except Exception:  # any error of the user's code
        return ()


def _tensors(outputs: Any) -> Iterable[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for each in outputs.values():
            yield from _tensors(each)
    elif isinstance(outputs, (tuple, list)):
        for each in outputs:
            yield from _tensors(each)


def _summary(tensors: Iterable[Tensor]) -> tuple[float, ...]:
    """Two projections and the norm of all values, which vary with every one of them."""
    first = second = squares = 0.0
    for index, tensor in enumerate(tensors):
        values = tensor.detach().flatten().double().cpu()
        pattern = (torch.arange(len(values), dtype=torch.float64) * 0.618034 + 0.1) % 1 - 0.5
        share = float(values @ pattern)
        first, second = first + share * math.cos(index), second + share * math.sin(index + 1)
        squares += float(values @ values)
    summary = (first, second, math.sqrt(squares))
    return summary if all(math.isfinite(value) for value in summary) else ()


def _structure(model: Module) -> str:
    """A digest of the layers, of the plain values of their attributes, and of the tensors."""
    lines = []
    for name, layer in model.named_modules():
        values = {key: value for key, value in sorted(vars(layer).items()) if _is_plain(key, value)}
        lines.append(f"{name}: {type(layer).__qualname__} {values}")
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):  # an extra state of a layer's own
            continue
        lines.append(f"{name}: {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _is_plain(name: str, value: Any) -> bool:
    """Whether an attribute is a number or a tuple of numbers, which texts such as paths are not."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    numbers = all(isinstance(each, (bool, int, float, type(None))) for each in values)
    return numbers and name not in OF_EVERY_MODULE
