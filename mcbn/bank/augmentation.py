"""Whether mini-batches come from examples that are transformed at random."""

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mcbn.bank.full_batches import mini_batches
from mcbn.bank.minibatches import MiniBatches
from mcbn.network.isolation import StreamStates, random_streams

# In the description of the mini-batches of a bank.
AUGMENTED = "examples transformed at random"


def is_augmented(batches: Iterable[Any]) -> bool:
    """Whether loading an example draws random numbers, as random crops and flips do.

    One example is loaded for it. False where it is not known: of a stream, of mini-batches that are
    made already, and where the collation draws them.
    """
    drawn = mini_batches(batches)
    dataset: Any = getattr(batches, "dataset", None) if drawn is None else drawn.dataset
    if type(dataset) is TensorDataset or isinstance(dataset, (IterableDataset, MiniBatches)):
        return False
    if drawn is None and not (isinstance(batches, DataLoader) and isinstance(dataset, Dataset)):
        return False
    with random_streams(0, "augmentation"):
        before = StreamStates.now()
        try:
            dataset[0]
        except Exception:  # whatever a data set raises whose keys are others
            return False
        return not before.unmoved()
