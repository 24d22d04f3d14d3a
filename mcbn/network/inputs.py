"""Inputs of a network: selecting them from a batch, slicing, moving and passing them.

Inputs are a tensor (one argument), a tuple (several) or a dict (keyword arguments).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from mcbn import validation
from mcbn.network.isolation import call_with_tensors

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]
Select = Callable[[Any], Inputs]

DEFAULT_BATCH_SIZE = 256  # examples in a pass

SHUFFLING_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)

# Entries of a dict batch that are targets, not inputs.
TARGET_KEYS = frozenset({"label", "labels", "target", "targets", "y", "index", "idx"})


def select_inputs(batch: Any, select: Select | None = None) -> Inputs:
    """The network's inputs in one batch of a data set or loader.

    A tensor is the input itself. Of a tuple or list the first entry is taken, so `(x, y)`,
    `(x, y, index)` and `((x1, x2), y)` all work. Of a dict the target entries are removed; a
    single remaining one is the input, several are keyword arguments. Anything else needs `select`.

    Raises:
        TypeError: these rules find no tensor.
    """
    if select is not None:
        return _checked(select(batch))
    if isinstance(batch, (tuple, list)) and len(batch) > 0:
        first = batch[0]
        return _checked(tuple(first) if isinstance(first, list) else first)
    return _checked(batch)


def _checked(inputs: Any) -> Inputs:
    if isinstance(inputs, Mapping):
        inputs = {str(key): value for key, value in inputs.items() if key not in TARGET_KEYS}
        if len(inputs) == 1:
            inputs = next(iter(inputs.values()))
    if isinstance(inputs, (Tensor, tuple, dict)) and next(tensors(inputs), None) is not None:
        return inputs
    raise TypeError(
        f"expected a tensor, a tuple or a dict of tensors as inputs, got {type(inputs).__name__}; "
        "give select=, a function that takes a batch and returns what the network is called with"
    )


def tensors(inputs: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in nested inputs, in order."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from tensors(value)
    elif isinstance(inputs, (tuple, list)):
        for value in inputs:
            yield from tensors(value)


def count(inputs: Inputs) -> int:
    """The number of examples: the length of the first tensor.

    Raises:
        TypeError: there is no tensor.
        ValueError: the first tensor has no batch axis.
    """
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


def slice_examples(inputs: Any, start: int, stop: int) -> Any:
    """The examples from `start` up to, not including, `stop`, of each tensor in nested inputs."""
    if isinstance(inputs, Tensor):
        return inputs[start:stop]
    if isinstance(inputs, Mapping):
        return {key: slice_examples(value, start, stop) for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(slice_examples(value, start, stop) for value in inputs)
    return inputs


def rebatched(stream: Iterable[Inputs], size: int) -> Iterator[Inputs]:
    """Yield the examples of a stream of batches in batches of `size`; the last may be smaller.

    The result does not depend on the batches of the stream, so neither do the last bits of sums.
    """
    pending: list[Inputs] = []
    pending_count = 0
    for inputs in stream:
        start, examples = 0, count(inputs)
        while start < examples:
            piece = slice_examples(inputs, start, start + size - pending_count)
            pending.append(piece)
            pending_count, start = pending_count + count(piece), start + count(piece)
            if pending_count == size:
                yield concatenate(pending)
                pending, pending_count = [], 0
    if pending:
        yield concatenate(pending)


def concatenate(parts: Sequence[Any]) -> Any:
    """Join inputs of the same structure along the first axis of each tensor."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {key: concatenate([each[key] for each in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(concatenate(entries) for entries in zip(*parts, strict=True))
    return first


def to_device(inputs: Any, device: torch.device) -> Any:
    """The same inputs on `device`; anything that is not a tensor is unchanged."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: to_device(value, device) for key, value in inputs.items()}
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(to_device(value, device) for value in inputs))
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(to_device(value, device) for value in inputs)
    return inputs


def require_finite(inputs: Inputs, where: str) -> None:
    """Check that no input is NaN or infinite.

    Raises:
        ValueError: some are; names `where`, their number and the first position.
    """
    for tensor in tensors(inputs):
        validation.finite(tensor, where)


def forward(model: Module, state: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """Call `model` on `inputs` with the tensors of `state` in place of its own."""
    args: tuple[Any, ...] = inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        args, kwargs = (), dict(inputs)
    return call_with_tensors(model, state, lambda: model(*args, **kwargs))


def device_of(model: Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def order_sampler(loader: DataLoader[Any]) -> Any:
    """The sampler that decides the order of a loader."""
    # Where a batch sampler is given it decides, and the loader's own sampler is only a default.
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def ordered_loader(data: Any, batch_size: int | None) -> DataLoader[Any]:
    """A loader in a fixed order over a tensor, a data set or a loader.

    Raises:
        TypeError: the data are something else.
        ValueError: a loader that shuffles, or `batch_size` is below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}; leave it out")
    if isinstance(data, DataLoader):
        if isinstance(order_sampler(data), SHUFFLING_SAMPLERS):
            raise ValueError(
                "expected a loader in a fixed order, got one that shuffles, whose predictions "
                "could not be matched with targets; give it shuffle=False"
            )
        return data
    if isinstance(data, Tensor):
        data = TensorDataset(data)
    if not isinstance(data, Dataset):
        raise TypeError(
            f"expected a tensor, a Dataset or a DataLoader, got {type(data).__name__}; "
            "wrap several tensors in a TensorDataset"
        )
    return DataLoader(data, batch_size=DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
