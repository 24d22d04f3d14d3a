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
        ValueError: there are more or fewer targets than examples, or a loader that shuffles has
            targets beside it.
    """
    require_targets(data, targets)
    own = targets is None
    loader = data if own and isinstance(data, DataLoader) else ordered_loader(data, batch_size)
    known = None if own else as_targets(targets)
    place = 0
    for index, batch in enumerate(_loaded(loader)):
        inputs = select_inputs(batch, select)
        stop = place + count(inputs)
        chosen = read_targets(batch) if known is None else known[place:stop]
        _require_as_many(count(inputs), len(chosen), index)
        place = stop
        yield inputs, chosen
    if known is not None and len(known) != place:
        _require_as_many(place, len(known), None)


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


def _require_as_many(examples: int, targets: int, batch: int | None) -> None:
    if examples != targets:
        where = "" if batch is None else f" in batch {batch}"
        raise ValueError(
            f"expected one target per example, got {examples} examples and {targets} targets"
            f"{where}; give both of the same examples"
        )
