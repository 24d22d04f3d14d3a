"""Full batches: which batches of an iterable hold M examples, whatever their rows are."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from mcbn import validation
from mcbn.bank.minibatches import SELECTED, MiniBatches
from mcbn.network.inputs import Inputs, Select, count, own_count, select_inputs, tensors
from mcbn.network.loaders import CountedLoader, index_sampler, order_sampler

# The number of examples in a batch, as the iterable gives it.
Size = Callable[[Any], int]


@dataclass(frozen=True, eq=False)
class CountedBatch:
    """The inputs in one batch, and its number of examples.

    Attributes:
        inputs: of the network.
        examples: how many they are.
        source: what counted them: `size=`, the mini-batches or the loader, the inputs themselves
            as graphs and packed sequences do, or nothing but the length of their first axis.
    """

    inputs: Inputs
    examples: int
    source: str

    def require_answer(self, outputs: Any) -> None:
        """Check that the outputs of the network do not say another number of examples.

        Raises:
            ValueError: they do.
        """
        lengths = [len(tensor) for tensor in tensors(outputs) if tensor.ndim > 0]
        if not lengths or self.examples in lengths or self.source in (CHOSEN, INPUTS):
            return
        # Rows need not be examples where a loader counts those. But where there are as many outputs
        # as rows, one example is a batch that the data set made, and examples without a row were
        # dropped when they were collated.
        rows = count(self.inputs)
        if self.source == LOADER and (rows not in lengths or 1 < self.examples < rows):
            return
        raise ValueError(
            f"expected one output per example, got {lengths[0]} outputs for a batch of "
            f"{self.examples} by {self.source}; {COUNT_THEM}"
        )


CHOSEN, LOADER, INPUTS, ROWS = "size=", "its loader", "its inputs", "the first axis of its inputs"
COUNT_THEM = "give size=, a function that takes a batch and returns its number of examples"


def full_batches(
    batches: Iterable[Any], select: Select | None, size: Size | None, *, repeat: bool
) -> Iterator[CountedBatch]:
    """Yield the batches of M examples; `repeat` goes on to more epochs of a loader.

    M is what the mini-batches or the loader were made with, else the number in the first batch. A
    smaller last batch of an epoch is left out; of a stream that several processes load, each has
    one.

    Raises:
        TypeError: `select` or `size` is not a function.
        ValueError: an epoch holds no full batch, or batches of different numbers of examples.
    """
    validation.require_function(select, "select", SELECTED)
    validation.require_function(size, "size", COUNT_THEM)
    loader = batches if isinstance(batches, DataLoader) else None
    source = CountedLoader(loader) if loader is not None else batches
    full = None if size is not None else declared_size(batches)
    while True:
        any_full, smaller = False, None
        for batch in _counted(batches, source, select, size):
            full = full or batch.examples
            if batch.examples > full:
                raise _unequal(batch, full)
            if smaller is not None and not _has_several_ends(loader):
                raise _unequal(smaller, full)
            if batch.examples == full:
                any_full = True
                yield batch
            else:
                smaller = batch
        if not any_full:
            raise ValueError(
                f"expected at least one batch of {full or 'some'} examples, got none; "
                "lower the batch size or give more data"
            )
        if not (repeat and loader is not None):
            return


def _counted(
    batches: Iterable[Any], source: Iterable[Any], select: Select | None, size: Size | None
) -> Iterator[CountedBatch]:
    """Yield each batch of one epoch with its number of examples."""
    drawn = mini_batches(batches)
    for item in source:
        batch, examples = item if isinstance(source, CountedLoader) else (item, None)
        if drawn is None:
            inputs = select_inputs(batch, select)
        else:  # inputs already, of which a loader makes a list where they are several
            inputs = tuple(batch) if isinstance(batch, list) else batch
        if size is not None:
            yield CountedBatch(inputs, _whole(size(batch)), CHOSEN)
        elif drawn is not None:
            yield CountedBatch(inputs, drawn.batch_size, LOADER)
        elif examples is not None:
            yield CountedBatch(inputs, examples, LOADER)
        else:
            own = own_count(inputs)
            found = (count(inputs), ROWS) if own is None else (own, INPUTS)
            yield CountedBatch(inputs, *found)


def _whole(examples: Any) -> int:
    """The number that `size` returned.

    Raises:
        ValueError: it is not a whole number of at least 1.
    """
    number = examples.item() if isinstance(examples, Tensor) and examples.numel() == 1 else examples
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(
            f"expected a whole number of at least 1 from size=, got {examples!r:.80}; count the "
            "examples in the batch that it is given"
        )
    return int(number)


def _has_several_ends(loader: DataLoader[Any] | None) -> bool:
    """Whether a smaller batch may come before the end of an epoch."""
    if loader is None or loader.num_workers == 0:
        return False
    return isinstance(loader.dataset, IterableDataset) or not getattr(loader, "in_order", True)


def _unequal(batch: CountedBatch, full: int) -> ValueError:
    unit, advice = "examples", "make them equal (drop_last=True), or"
    if batch.source == ROWS:
        unit, advice = "rows", f"{COUNT_THEM}, or"
    return ValueError(
        f"expected batches of {full} {unit}, but for a smaller last one, got one of "
        f"{batch.examples}; {advice} use mcbn.minibatches(data, batch_size=, draws=)"
    )


def mini_batches(batches: Iterable[Any]) -> MiniBatches | None:
    """The `MiniBatches` that an iterable is, or that a loader loads one by one.

    Raises:
        ValueError: a loader puts several of them together.
    """
    drawn = batches.dataset if isinstance(batches, DataLoader) else batches
    if not isinstance(drawn, MiniBatches):
        return None
    if isinstance(batches, DataLoader) and batches.batch_sampler is not None:
        raise ValueError(
            f"expected a loader that takes mini-batches one by one, got batch_size="
            f"{batches.batch_size}; give it batch_size=None, or minibatches num_workers="
        )
    return drawn


def declared_size(batches: Iterable[Any]) -> int | None:
    """M that mini-batches or a loader were made with; None where they do not say."""
    if (drawn := mini_batches(batches)) is not None:
        return drawn.batch_size
    sampler = index_sampler(batches) if isinstance(batches, DataLoader) else None
    return sampler.batch_size if type(sampler) is BatchSampler else None


def population(batches: Iterable[Any]) -> int | None:
    """N, the number of examples that batches are drawn from, if known."""
    if (drawn := mini_batches(batches)) is not None:
        return drawn.population
    dataset = getattr(batches, "dataset", None)
    if isinstance(batches, DataLoader):
        sampler = index_sampler(batches)
        if batches.batch_sampler is None and not isinstance(sampler, BatchSampler):
            return None  # the data set makes the batches, and its length is their number
        if isinstance(order_sampler(batches), (SubsetRandomSampler, list, tuple, range)):
            dataset = order_sampler(batches)
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:  # a stream
        return None


def replacement(batches: Iterable[Any]) -> bool | None:
    """Whether one example may be in a batch twice; None if not known."""
    if (drawn := mini_batches(batches)) is not None:
        return drawn.replacement
    if not isinstance(batches, DataLoader) or isinstance(batches.dataset, IterableDataset):
        return None
    sampler = order_sampler(batches)
    if type(sampler) in (SequentialSampler, SubsetRandomSampler):
        return False
    if type(sampler) in (RandomSampler, WeightedRandomSampler):
        return bool(sampler.replacement)
    return None
