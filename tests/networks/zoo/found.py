"""What a call must leave as it was: network, attributes, inputs, bank and random streams."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import as_found
import torch
from torch import Tensor, nn
from zoo.guest import WrongError, pristine

import mcbn
from mcbn.network.isolation import StreamStates


@contextmanager
def left_as_found(
    network: nn.Module, inputs: Any = (), bank: mcbn.Bank | None = None
) -> Iterator[None]:
    """Check that network, inputs and bank are afterwards as they were, also after a refusal."""
    before = _found(network), attributes(network), pristine(inputs)
    streams = StreamStates.now()
    rows = {} if bank is None else pristine(dict(bank.statistics))
    shapes = [tuple(tensor.shape) for tensor in _tensors(inputs)]
    try:
        yield
    finally:
        moved = as_found.moved(before[0], _found(network))
        if moved:
            raise WrongError(f"the network's {', '.join(moved)} are not as found")
        if changed := as_found.moved(before[1], attributes(network)):
            raise WrongError(f"the attributes {', '.join(changed)} are not as found")
        after = list(_tensors(inputs))
        if [tuple(tensor.shape) for tensor in after] != shapes or not all(
            map(torch.equal, after, _tensors(before[2]))
        ):
            raise WrongError("the caller's inputs are not as found")
        if not streams.unmoved():
            raise WrongError("the random streams are not as found")
        if bank is not None and not all(map(torch.equal, rows.values(), bank.statistics.values())):
            raise WrongError("the bank is not as found")


def _found(network: nn.Module) -> dict[str, Any]:
    """Of packed weights and scripted layers only values and modes: none of their tensors lasts."""
    if not any(isinstance(m, (torch.jit.ScriptModule, torch.ao.nn.quantized.dynamic.Linear))
               for m in network.modules()):  # fmt: skip
        return as_found.model(network)
    tensors = (*network.named_parameters(), *network.named_buffers())
    return {
        "values": {name: as_found.bits(tensor) for name, tensor in tensors},
        "modes": [(name, module.training) for name, module in network.named_modules()],
    }


def attributes(network: nn.Module) -> dict[str, Any]:
    """The plain attributes of every module, by name: by value where they have one."""
    return {
        f"{name}.{key}".removeprefix("."): _value(value)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training"
    }


def _value(value: Any) -> Any:
    if isinstance(value, Tensor):
        return as_found.bits(value)
    if isinstance(value, (list, tuple)):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return {key: _value(each) for key, each in value.items()}
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def _tensors(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs.to_dense() if inputs.is_sparse else inputs
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _tensors(value)
    elif isinstance(inputs, (tuple, list)):
        for value in inputs:
            yield from _tensors(value)
