"""Examples with their targets, as tensors or as a data set that loads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from mcbn.io.display import Display, Displayed
from mcbn.network.collation import collated
from mcbn.network.inputs import Inputs, as_rows, select_inputs
from mcbn.network.loaders import DEFAULT_BATCH_SIZE
from mcbn.network.targets import as_targets, select_targets
from mcbn.validation import tensor


@dataclass(frozen=True, repr=False)
class LabeledData(Displayed):
    """Inputs and the target of each: a class index (or one per position), or real values.

    Attributes:
        inputs: one row per example.
        targets: one row per example.
    """

    inputs: Shaped[Tensor, "batch ..."]
    targets: Shaped[Tensor, "batch ..."]

    def __post_init__(self) -> None:
        tensor(self.inputs, "inputs")
        tensor(self.targets, "targets")
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                f"expected as many targets as inputs, got {len(self.targets)} and "
                f"{len(self.inputs)}; check that both come from one file pair"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def display(self) -> Display:
        """How many examples there are, and of what shape."""
        shapes = [tuple(each.shape[1:]) for each in (self.inputs, self.targets)]
        return Display(
            f"LabeledData of {len(self):,} examples: inputs {shapes[0]}, targets {shapes[1]} "
            f"{self.targets.dtype}"
        )

    def dataset(self) -> TensorDataset:
        """Return the pairs of input and target as a torch data set."""
        return TensorDataset(self.inputs, self.targets)

    def rows(self, index: Int[Tensor, " rows"]) -> "LabeledData":
        """Return the examples at `index`, in that order."""
        return LabeledData(self.inputs[index], self.targets[index])

    def batch(self, index: Int[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
        """The inputs and targets at `index`, as a network is trained on them."""
        return self.inputs[index], self.targets[index]


@dataclass(frozen=True, eq=False, repr=False)
class LabeledDataset(Displayed):
    """A map-style data set of inputs with their targets, which are loaded when they are needed.

    Attributes:
        source: the data set, transforms included.
        collate: makes a batch of a list of examples.
        batch_size: examples in a pass.
        num_workers: processes that load them.
    """

    source: Dataset[Any]
    collate: Callable[[list[Any]], Any] = collated
    batch_size: int = DEFAULT_BATCH_SIZE
    num_workers: int = 0

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def display(self) -> Display:
        """How many examples there are; none is loaded for it."""
        return Display(
            f"LabeledDataset of {len(self):,} examples in a {type(self.source).__name__}"
        )

    @property
    def inputs(self) -> DataLoader[Any]:
        """All examples in order, as `mcbn.predict` takes them."""
        return DataLoader(
            self.source,
            batch_size=self.batch_size,
            collate_fn=self.collate,
            num_workers=self.num_workers,
        )

    @cached_property
    def targets(self) -> Tensor:
        """The targets of all examples, which are loaded for it, once."""
        return as_targets(self.inputs)

    def dataset(self) -> Dataset[Any]:
        """Return the data set."""
        return self.source

    def rows(self, index: Int[Tensor, " rows"]) -> "LabeledDataset":
        """Return the examples at `index`, in that order."""
        return replace(self, source=Subset(self.source, index.tolist()))

    def batch(self, index: Int[Tensor, " rows"]) -> tuple[Inputs, Tensor]:
        """The inputs and targets at `index`, as a network is trained on them."""
        loaded = self.collate([self.source[each] for each in index.tolist()])
        return select_inputs(loaded), select_targets(loaded)


Examples = LabeledData | LabeledDataset


def as_examples(data: Any, name: str) -> Examples:
    """Examples with their targets, of whatever a user has.

    Args:
        data: a pair of inputs and targets (tensors, arrays, columns), a map-style data set or a
            list of inputs with their targets, or a loader of one, whose order does not matter.
        name: which part of a task they are, for errors.

    Raises:
        TypeError: they are of another kind.
        ValueError: there are none, or not as many targets as inputs.
    """
    examples = _examples(data, name)
    if len(examples) == 0:
        raise ValueError(f"expected examples in {name}, got none; check its filter or its folder")
    return examples


def _examples(data: Any, name: str) -> Examples:
    if isinstance(data, (LabeledData, LabeledDataset)):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, targets = as_rows(data[0]), as_targets(data[1], f"the targets of {name}")
        if isinstance(inputs, Tensor):
            return LabeledData(inputs, targets)
    source = data.dataset if isinstance(data, DataLoader) else data
    if type(source) is TensorDataset and len(source.tensors) == 2:
        return LabeledData(*source.tensors)
    # An example has its target beside it, so a list of tensors is of something else.
    if isinstance(source, list) and source and not isinstance(source[0], (Tensor, np.ndarray)):
        source = Subset(source, range(len(source)))  # type: ignore[arg-type]
    if (
        not isinstance(source, Dataset)
        or isinstance(source, IterableDataset)
        or not hasattr(source, "__len__")
    ):
        raise TypeError(
            f"expected {name} as a pair of inputs and targets, a data set with a length, a list of "
            f"examples or a loader of one, got {type(source).__name__}; wrap several inputs in "
            "torch.utils.data.StackDataset"
        )
    if not isinstance(data, DataLoader):
        return LabeledDataset(source)
    collate = collated if data.collate_fn is default_collate else data.collate_fn
    size = data.batch_size or DEFAULT_BATCH_SIZE
    return LabeledDataset(source, collate, size, data.num_workers)


def as_inputs(data: Any, name: str) -> Any:
    """Inputs without targets that count: a tensor, or a loader in order.

    Raises:
        TypeError: they are neither a tensor, an array, a data set nor a loader of one.
    """
    rows = as_rows(data)
    if isinstance(rows, Tensor):
        return rows
    if isinstance(data, (Dataset, DataLoader)):
        return as_examples(data, name).inputs
    raise TypeError(
        f"expected {name} as inputs in a tensor, an array, a data set or a loader, got "
        f"{type(data).__name__}; leave the targets out"
    )


def count_of(inputs: Any) -> int:
    """The number of examples in what `as_inputs` returns."""
    examples: Any = inputs.dataset if isinstance(inputs, DataLoader) else inputs
    return len(examples)


def rows_of(inputs: Any, index: Sequence[int] | Tensor) -> Any:
    """Some of the examples in what `as_inputs` returns."""
    if not isinstance(inputs, DataLoader):
        return inputs[torch.as_tensor(index)]
    return LabeledDataset(
        Subset(inputs.dataset, torch.as_tensor(index).tolist()),
        inputs.collate_fn,
        inputs.batch_size or DEFAULT_BATCH_SIZE,
        inputs.num_workers,
    ).inputs
