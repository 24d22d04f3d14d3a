"""Batches of inputs with their targets, of data of any kind."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from mcbn.network.inputs import Inputs, Select, count, select_inputs
from mcbn.network.isolation import random_streams
from mcbn.network.loaders import Data, ordered_loader
from mcbn.network.targets import Targets, as_targets, read_targets, require_targets

END = object()


def labelled_batches(
    data: Data,
    targets: Targets | None,
    *,
    batch_size: int | None = None,
    select: Select | None = None,
) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield the inputs of one batch after another, each with its targets.

    A loader may shuffle if the targets are in its batches. Transforms that draw at random are
    seeded, and the global streams are left as they were.

    Args:
        data: inputs as a tensor, a data set or a loader.
        targets: of all examples in order; None to take those in the data.
        batch_size: examples in a batch where the data are no loader.
        select: picks the network's inputs out of a batch.

    Raises:
        TypeError: there are no targets, or data of another kind.
        ValueError: there are more or fewer targets than examples beside the data, or these are a
            loader that shuffles.
    """
    require_targets(data, targets)
    own = targets is None
    loader = data if own and isinstance(data, DataLoader) else ordered_loader(data, batch_size)
    known = None if own else as_targets(targets)
    examples = 0
    for batch in _loaded(loader):
        inputs = select_inputs(batch, select)
        if known is None:
            yield inputs, read_targets(batch)
            continue
        first, examples = examples, examples + count(inputs)
        if examples > len(known):
            raise _differing(f"{examples} or more", len(known))
        yield inputs, known[first:examples]
    if known is not None and len(known) != examples:
        raise _differing(str(examples), len(known))


def _loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    with random_streams(0, "batches"):  # from which a loader takes a seed, and an order
        batches = iter(loader)
    index = 0
    while True:
        with random_streams(0, "batches", index):
            batch = next(batches, END)
        if batch is END:
            return
        index += 1
        yield batch


def _differing(examples: str, targets: int) -> ValueError:
    return ValueError(
        f"expected one target per example, got {examples} examples and {targets} targets; give "
        "both of the same examples, or a loader of pairs where rows are no examples"
    )
