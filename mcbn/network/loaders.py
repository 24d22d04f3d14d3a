"""Batches of a data set or loader, in a fixed order."""

from collections.abc import Iterable, Iterator, Sized
from itertools import repeat
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from mcbn.network.inputs import Inputs, as_tensor, can_be_cut, concatenate, count, slice_examples

DEFAULT_BATCH_SIZE = 256  # examples in a pass

SHUFFLING_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


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
    if isinstance(data, np.ndarray):
        data = as_tensor(data)
    if isinstance(data, Tensor):
        data = TensorDataset(data)
    if not isinstance(data, Dataset):
        raise TypeError(
            f"expected a tensor, an array, a Dataset or a DataLoader, got {type(data).__name__}; "
            "wrap several tensors in a TensorDataset"
        )
    return DataLoader(data, batch_size=DEFAULT_BATCH_SIZE if batch_size is None else batch_size)


def batch_lengths(loader: DataLoader[Any]) -> Iterator[int | None]:
    """The number of examples in one batch of a loader after another; None where it does not say."""
    batches = loader.batch_sampler
    if isinstance(batches, (list, tuple)):
        yield from map(len, batches)
    elif type(batches) is BatchSampler and isinstance(batches.sampler, Sized):
        examples, size = len(batches.sampler), batches.batch_size
        yield from (min(size, examples - start) for start in range(0, examples, size))
    yield from repeat(None)


def rebatched(stream: Iterable[Inputs], size: int) -> Iterator[Inputs]:
    """Yield the examples of a stream of batches in batches of `size`; the last may be smaller.

    The result does not depend on the batches of the stream, so neither do the last bits of sums.

    Raises:
        ValueError: the first axes of a batch differ, so they cannot all be that of the examples.
    """
    pending: list[Inputs] = []
    pending_count = 0
    for inputs in stream:
        if not can_be_cut(inputs):
            raise ValueError(
                "expected inputs whose first axes are all that of the examples, to put them "
                "together in batches of batch_size, got others; leave batch_size out, and each "
                "batch of the loader is passed as it is"
            )
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
