"""Inputs of a network: selecting them from a batch, slicing, moving and passing them.

Inputs are a tensor (one argument), a tuple (several), a dict (keyword arguments), or one packed
sequence or batch of graphs.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import Dataset

from mcbn import validation

# Any is a batch of graphs of torch_geometric, which need not be installed.
Inputs = Tensor | tuple[Any, ...] | dict[str, Any] | Any
Select = Callable[[Any], Inputs]

# Values that no pass can change.
IMMUTABLE = (
    type(None), bool, int, float, complex, str, bytes, slice, range,
    torch.dtype, torch.device, torch.Size, type, FunctionType, BuiltinFunctionType, Module,
)  # fmt: skip

# Entries of a dict batch that are targets, not inputs.
TARGET_KEYS = frozenset({"label", "labels", "target", "targets", "y", "index", "idx"})


def select_inputs(batch: Any, select: Select | None = None) -> Inputs:
    """The network's inputs in one batch of a data set or loader.

    A tensor is the input itself, and so are a packed sequence and a batch of torch_geometric. Of a
    tuple or list the first entry is taken, so `(x, y)`, `(x, y, index)` and `((x1, x2), y)` all
    work. Of a dict the target entries are removed; a single remaining one is the input, several are
    keyword arguments. Anything else needs `select`.

    Raises:
        TypeError: these rules find no tensor.
    """
    if select is not None:
        return _checked(select(batch))
    if (
        isinstance(batch, (tuple, list))
        and len(batch) > 0
        and not isinstance(batch, PackedSequence)
    ):
        first = batch[0]
        return _checked(tuple(first) if isinstance(first, list) else first)
    return _checked(batch)


def _checked(inputs: Any) -> Inputs:
    if isinstance(inputs, np.ndarray):
        inputs = as_tensor(inputs)
    if isinstance(inputs, Mapping):
        inputs = {str(key): value for key, value in inputs.items() if key not in TARGET_KEYS}
        if len(inputs) == 1:
            inputs = next(iter(inputs.values()))
    accepted = isinstance(inputs, (Tensor, tuple, dict)) or is_graph(inputs)
    if accepted and next(tensors(inputs), None) is not None:
        checked: Inputs = inputs
        return checked
    raise TypeError(
        f"expected a tensor, a tuple or a dict of tensors as inputs, got {type(inputs).__name__}; "
        "give select=, a function that takes a batch and returns what the network is called with"
    )


def as_tensor(values: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    """A tensor of the numbers of an array, which it may share.

    Raises:
        TypeError: they are not numbers that a tensor can hold.
    """
    native = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    try:
        # PyTorch warns of memory that is read only, which no pass writes to.
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    except (TypeError, ValueError):
        raise TypeError(
            f"expected an array of numbers, got the type {values.dtype}; convert it, for example "
            "with x.astype('float32')"
        ) from None


def as_rows(values: Any) -> Any:
    """An array or a data frame as a tensor with one example per row; anything else as it is.

    Real numbers of a data frame, which have no other precision than float64, take PyTorch's default
    type; those of an array keep theirs.

    Raises:
        TypeError: they are not numbers that a tensor can hold.
    """
    if isinstance(values, np.ndarray):
        return as_tensor(values)
    if not hasattr(values, "__array__") or isinstance(values, (Tensor, Dataset)):
        return values
    rows = as_tensor(np.asarray(values))
    return rows.to(torch.get_default_dtype()) if rows.is_floating_point() else rows


def is_graph(inputs: object) -> bool:
    """Whether the inputs are a graph, or a batch of graphs, of torch_geometric."""
    return any(cls.__module__.startswith("torch_geometric.data") for cls in type(inputs).__mro__)


def map_inputs(change: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """The same inputs in new containers, with every tensor changed.

    The containers are mappings, lists, tuples, dataclasses, packed sequences and graphs of
    torch_geometric. Whatever is written into one of them is not seen in the inputs given. Other
    objects are copied, but not what is inside them.
    """
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, PackedSequence):
        # The batch sizes stay on the CPU, and in their type.
        data, sizes, *orders = inputs
        return PackedSequence(change(data), sizes, *(o if o is None else change(o) for o in orders))
    if isinstance(inputs, (list, tuple)):
        items = [map_inputs(change, item) for item in inputs]
        return type(inputs)(*items) if hasattr(inputs, "_fields") else type(inputs)(items)
    if isinstance(inputs, IMMUTABLE):
        return inputs
    try:
        copied: Any = copy.copy(inputs)
    except Exception:  # whatever an object of the user raises that cannot be copied
        return inputs
    if is_graph(copied):
        return copied.apply(change)
    if isinstance(copied, MutableMapping):
        for key, value in inputs.items():
            copied[key] = map_inputs(change, value)
    elif is_dataclass(copied):
        for field in fields(copied):
            value = map_inputs(change, getattr(inputs, field.name))
            object.__setattr__(copied, field.name, value)
    return copied


def tensors(inputs: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in nested inputs, in order."""
    if isinstance(inputs, Tensor):
        yield inputs
        return
    seen: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return tensor

    map_inputs(note, inputs)
    yield from seen


def wants_gradients(values: Iterable[Tensor]) -> bool:
    """Whether gradients are to flow to any of these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in values)


def own_count(inputs: Any) -> int | None:
    """The number of graphs or sequences, if the first part of the inputs is a batch of them."""
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    if is_graph(inputs):
        return int(inputs.num_graphs) if hasattr(inputs, "num_graphs") else None
    if isinstance(inputs, (tuple, dict)):
        parts = inputs.values() if isinstance(inputs, dict) else inputs
        return own_count(next(iter(parts), None))
    return None


def count(inputs: Inputs) -> int:
    """The number of examples: graphs or sequences, else the length of the first tensor.

    Raises:
        TypeError: there is no tensor.
        ValueError: the first tensor has no batch axis.
    """
    if (own := own_count(inputs)) is not None:
        return own
    first = next(tensors(inputs), None)
    if first is None:
        raise TypeError(
            f"expected a tensor, a tuple or a dict of tensors as inputs, got "
            f"{type(inputs).__name__}; convert numbers with torch.as_tensor"
        )
    if first.ndim == 0:
        raise ValueError(
            "expected inputs with a leading batch axis, got a single number; "
            "add the axis with x.unsqueeze(0)"
        )
    return first.shape[0]


def can_be_cut(inputs: Any) -> bool:
    """Whether the inputs are tensors alone, in tuples and dicts, with first axes of one length.

    Only then can the first axis be that of the examples throughout.
    """
    lengths = set()
    pending = [inputs]
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor):
            rows = value.ndim > 0 and value.layout == torch.strided
            lengths.add(value.shape[0] if rows else -1)
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, tuple) and not isinstance(value, PackedSequence):
            pending += value
        elif not isinstance(value, IMMUTABLE):
            return False
    return len(lengths) == 1 and -1 not in lengths


def slice_examples(inputs: Any, start: int, stop: int) -> Any:
    """The examples from `start` up to, not including, `stop`, of inputs that can be cut."""
    return map_inputs(lambda tensor: tensor[start:stop], inputs)


def take_examples(inputs: Any, indices: Sequence[int]) -> Any:
    """A copy of the examples at `indices` of inputs that can be cut."""
    return map_inputs(lambda tensor: tensor[list(indices)], inputs)


def channels_last(inputs: Inputs) -> Inputs:
    """Images in the layout that convolutions work in, which saves rearranging at each of them."""
    layout = torch.channels_last
    return map_inputs(lambda x: x.to(memory_format=layout) if x.ndim == 4 else x, inputs)


def concatenate(parts: Sequence[Any]) -> Any:
    """Join inputs of the same structure along the first axis of each tensor.

    Raises:
        ValueError: the tensors differ in other axes than the first.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        if len({part.shape[1:] for part in parts}) > 1:
            raise ValueError(
                f"expected examples of one shape, to put batches together, got "
                f"{tuple(first.shape[1:])} and others; leave batch_size out, and each batch of the "
                "loader is passed as it is"
            )
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {key: concatenate([each[key] for each in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(concatenate(entries) for entries in zip(*parts, strict=True))
    return first


def to_network(model: Module, inputs: Inputs) -> Inputs:
    """The inputs on the device and in the floating-point type of the network's parameters.

    Numbers of another floating-point type are cast, as float64 of NumPy is for a network in
    float32, unless some parameter has their type. Integers stay integers: they may be indices.
    """
    device = device_of(model)
    types = list(dict.fromkeys(p.dtype for p in model.parameters() if p.is_floating_point()))

    def moved(tensor: Tensor) -> Tensor:
        foreign = tensor.is_floating_point() and types and tensor.dtype not in types
        return tensor.to(device, types[0]) if foreign else tensor.to(device)

    matching: Inputs = map_inputs(moved, inputs)
    return matching


def require_finite(inputs: Inputs, where: str) -> None:
    """Check that no input is NaN or infinite.

    Raises:
        ValueError: some are; names `where`, their number and the first position.
    """
    for tensor in tensors(inputs):
        validation.finite(tensor, where)


def device_of(model: Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")
