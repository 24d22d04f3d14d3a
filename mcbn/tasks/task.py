"""A data set that is split for training and testing, with out-of-distribution inputs beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from mcbn.validation import tensor


@dataclass(frozen=True)
class LabeledData:
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

    def dataset(self) -> TensorDataset:
        """Return the pairs of input and target as a torch data set."""
        return TensorDataset(self.inputs, self.targets)

    def rows(self, index: Int[Tensor, " rows"]) -> "LabeledData":
        """Return the examples at `index`, in that order."""
        return LabeledData(self.inputs[index], self.targets[index])


@dataclass(frozen=True)
class Task:
    """A data set in three parts, with inputs that are out of distribution (OOD).

    Attributes:
        classes: names of the classes; empty for regression.
        outside: out-of-distribution inputs by name, preprocessed like the others.
        description: where the data come from and how `outside` was made.
        target_mean: what to add to a target after multiplying by `target_scale`.
        target_scale: original target units per unit of the targets here.
        augmented: training examples with the augmentation that published networks were trained
            under; None where there is none.
    """

    name: str
    train: LabeledData
    validation: LabeledData
    test: LabeledData
    classes: tuple[str, ...]
    outside: Mapping[str, Shaped[Tensor, "batch ..."]]
    description: str
    target_mean: float = 0.0
    target_scale: float = 1.0
    augmented: Dataset[Any] | None = None
