"""Batches of a data set or loader, in a fixed order."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from mcbn.network.collation import collated
from mcbn.network.inputs import Inputs, as_rows, can_be_cut, concatenate, count, slice_examples

DEFAULT_BATCH_SIZE = 256  # examples in a pass

# What is predicted: a tensor, an array or a data frame of pandas with an example in each row, a
# map-style or iterable data set, or a loader.
Data = Tensor | np.ndarray | Dataset[Any] | DataLoader[Any] | Any

SHUFFLING_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def order_sampler(loader: DataLoader[Any]) -> Any:
    """The sampler that decides the order of a loader."""
    # Where a batch sampler is given it decides, and the loader's own sampler is only a default.
    return getattr(index_sampler(loader), "sampler", loader.sampler)


def index_sampler(loader: DataLoader[Any]) -> Any:
    """The sampler that a loader asks for what to load next: an example's index, or a list."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


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
    data = as_rows(data)
    if isinstance(data, Tensor):
        data = TensorDataset(data)
    if not isinstance(data, Dataset):
        raise TypeError(
            "expected a tensor, an array, a data frame, a Dataset or a DataLoader, got "
            f"{type(data).__name__}; wrap several tensors in a TensorDataset"
        )
    batch_size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    return DataLoader(data, batch_size=batch_size, collate_fn=collated)


def batch_lengths(loader: DataLoader[Any]) -> Iterator[int | None]:
    """The number of examples in one batch of a loader after another; None where it does not say."""
    batches = index_sampler(loader)
    if loader.batch_sampler is not None and isinstance(batches, (list, tuple)):
        yield from map(len, batches)
    elif type(batches) is BatchSampler and isinstance(batches.sampler, Sized):
        examples, size = len(batches.sampler), batches.batch_size
        yield from (min(size, examples - start) for start in range(0, examples, size))
    yield from repeat(None)


class CountedLoader:
    """A copy of a loader whose batches come with the number of examples that it puts together.

    So the rows of a batch do not matter. The examples are counted as their indices are chosen; in a
    stream, and where batches overtake each other, as they are collated. The loader itself is left
    as it is.

    Args:
        loader: the loader to copy.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.lengths: deque[int | None] = deque()
        self.loader = copy.copy(loader)
        # Workers that outlive an epoch would go on with the sampler of the loader itself.
        vars(self.loader)["persistent_workers"] = False
        if not isinstance(loader.dataset, IterableDataset) and getattr(loader, "in_order", True):
            of_batches = loader.batch_sampler is not None
            counting = _CountingSampler(index_sampler(loader), of_batches, self.lengths)
            # PyTorch refuses to set the sampler of a loader that is made.
            vars(self.loader)["batch_sampler" if of_batches else "sampler"] = counting
        # Another class may change the batches after they are collated.
        elif loader.batch_sampler is not None and type(loader).__iter__ is DataLoader.__iter__:
            self.loader.collate_fn = _CountingCollate(loader.collate_fn)

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        """Yield each batch of one epoch, with its number of examples or None."""
        self.lengths.clear()
        for batch in self.loader:
            if isinstance(batch, _Collated):
                yield batch.batch, batch.examples
            else:
                yield batch, self.lengths.popleft() if self.lengths else None


@dataclass(frozen=True, eq=False)
class _CountingSampler:
    """A sampler that notes how many examples are in what it chooses."""

    # Private, since any other attribute is that of the sampler.
    _sampler: Any
    _of_batches: bool
    _lengths: deque[int | None]

    def __iter__(self) -> Iterator[Any]:
        for chosen in self._sampler:
            # A loader without a batch size may be given lists, but a tuple is a key of its data.
            several = isinstance(chosen, list) or (self._of_batches and isinstance(chosen, Sized))
            self._lengths.append(len(chosen) if several else None)
            yield chosen

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


class _Collated(NamedTuple):
    batch: Any
    examples: int


@dataclass(frozen=True, eq=False)
class _CountingCollate:
    """A function that makes a batch of examples, and says how many there were."""

    collate: Callable[[Any], Any]

    def __call__(self, examples: Any) -> Any:
        return _Collated(self.collate(examples), len(examples))


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
