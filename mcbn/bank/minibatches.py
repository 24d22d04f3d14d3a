"""Seeded random mini-batches of training examples: batch t depends only on the seed and t."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from mcbn import validation
from mcbn.io.display import Display, Displayed
from mcbn.network.collation import collated
from mcbn.network.inputs import Inputs, Select, as_rows, select_inputs
from mcbn.network.isolation import derived_seed, random_streams

SELECTED = "give one that takes a batch and returns what the network is called with"


@dataclass(frozen=True, eq=False, repr=False)
class MiniBatches(Dataset[Inputs], Displayed):
    """T independent mini-batches of exactly M examples; `self[t]` is the input batch of draw t.

    Each is drawn from the whole data set, not cut from an epoch; without replacement unless
    `replacement`. The global random streams are seeded from (seed, t) while its examples are
    loaded, so random transforms do not depend on the number of workers.
    """

    dataset: Dataset[Any] | Sequence[Any]
    batch_size: int
    draws: int
    seed: int
    replacement: bool = False
    num_workers: int = 0
    collate: Callable[[list[Any]], Any] = default_collate
    select: Select | None = None

    def display(self) -> Display:
        """How many there are, of what size, and what they are drawn from."""
        how = "with" if self.replacement else "without"
        return Display(
            f"{self.draws} mini-batches of {self.batch_size} examples, drawn from "
            f"{self.population:,} {how} replacement, seed {self.seed}"
        )

    @property
    def population(self) -> int:
        """N, the number of training examples that batches are drawn from."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.draws

    def indices(self, draw: int) -> list[int]:
        """Indices of the examples in mini-batch `draw`, in order."""
        generator = np.random.Generator(np.random.Philox(derived_seed(self.seed, draw)))
        chosen = generator.choice(self.population, self.batch_size, replace=self.replacement)
        return [int(index) for index in chosen]

    def __getitem__(self, draw: int) -> Inputs:
        if not 0 <= draw < self.draws:
            raise IndexError(f"expected a draw from 0 to {self.draws - 1}, got {draw}")
        indices = self.indices(draw)
        default = self.collate is default_collate and self.select is None
        if type(self.dataset) is TensorDataset and default:
            # All rows are taken at once, which is faster than one by one.
            rows = torch.as_tensor(indices)
            return select_inputs([tensor[rows] for tensor in self.dataset.tensors], None)
        return self._load(draw, indices)

    def _load(self, draw: int, indices: list[int]) -> Inputs:
        with random_streams(self.seed, draw, "examples"):
            load_many = getattr(self.dataset, "__getitems__", None)
            collate = collated if self.collate is default_collate else self.collate
            examples = load_many(indices) if load_many else [self.dataset[i] for i in indices]
            return select_inputs(collate(list(examples)), self.select)

    def __iter__(self) -> Iterator[Inputs]:
        if self.num_workers == 0:
            return (self[draw] for draw in range(self.draws))
        return self._loaded_in_processes()

    def _loaded_in_processes(self) -> Iterator[Inputs]:
        loader = DataLoader(
            self,
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            # Its own: the loader would otherwise take its base seed from the global stream.
            generator=torch.Generator(),
        )
        batches = iter(loader)
        for draw in range(self.draws):
            try:
                inputs = next(batches)
            except (TypeError, ValueError):
                self[draw]  # the same refusal, without the traceback of a process around it
                raise
            yield inputs


def _unchanged(inputs: Any) -> Any:
    """The inputs as they are; a loader would make a list of a tuple, which is another argument."""
    return inputs


def minibatches(
    dataset: Dataset[Any] | Tensor | Sequence[Any] | Any,
    *,
    batch_size: int = 32,
    draws: int = 64,
    seed: int = 0,
    replacement: bool = False,
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] = default_collate,
    select: Select | None = None,
) -> MiniBatches:
    """Draw T independent mini-batches of M training examples each, to `collect` a bank from.

    The first k of T batches are those of a run with T = k, bit for bit. Give the data as the
    network saw them in training, augmentation included.

    Args:
        dataset: training examples: a map-style data set, also of graphs of torch_geometric, or a
            tensor, an array or a data frame with one example per row.
        batch_size: M, as in training unless the batch size is studied.
        draws: T, the number of mini-batches.
        seed: of the choice of examples and of their random transforms.
        replacement: draw with replacement within a batch; then M may exceed N.
        num_workers: processes that load the examples; the batches do not depend on it.
        collate: makes a batch of a list of examples, which may have any number of rows.
        select: picks the network's inputs out of a batch where the default rule does not.

    Raises:
        TypeError: `dataset` is a DataLoader or has no length.
        ValueError: a number is out of range, or M exceeds N without replacement.
    """
    if isinstance(dataset, DataLoader):
        raise TypeError(
            "expected a data set, got a DataLoader; give collect(model, loader, draws=...) the "
            "loader itself, or minibatches(loader.dataset, ...) its data set"
        )
    dataset = as_rows(dataset)
    if isinstance(dataset, Tensor):
        dataset = _rows(dataset)
    _require_examples(dataset)
    validation.require_function(collate, "collate", "give one that makes a batch of a list")
    validation.require_function(select, "select", SELECTED)
    batches = MiniBatches(
        dataset,
        batch_size=batch_size,
        draws=draws,
        seed=seed,
        replacement=replacement,
        num_workers=num_workers,
        collate=collate,
        select=select,
    )
    _require_possible(batches)
    return batches


def _require_examples(dataset: Any) -> None:
    """Check that a data set has a length, and examples rather than whole columns of them.

    Raises:
        TypeError: it has not.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"expected a data set with a length, got {type(dataset).__name__}; wrap a stream in "
            "a DataLoader and give that to collect"
        )
    if isinstance(dataset, Mapping):
        raise TypeError(
            f"expected a data set of examples, got a {type(dataset).__name__} of whole columns; "
            "wrap it as torch.utils.data.StackDataset(**columns)"
        )
    if isinstance(dataset, tuple) and all(hasattr(part, "__array__") for part in dataset):
        raise TypeError(
            "expected a data set of examples, got a tuple of arrays; wrap columns as "
            "torch.utils.data.StackDataset(*columns), or give a list if each is an example"
        )


def _rows(tensor: Tensor) -> TensorDataset:
    """A data set of the rows of a tensor.

    Raises:
        ValueError: it has none.
    """
    if tensor.ndim == 0:
        raise ValueError("expected a tensor with one example per row, got a single number")
    return TensorDataset(tensor)


def require_batches(batches: Iterable[Any], draws: int | None) -> None:
    """Check that an argument yields batches, as data sets and tensors do not.

    Raises:
        TypeError: it does not, or `draws` is not an integer.
        ValueError: `draws` is below 1.
    """
    if draws is not None and validation.integer(draws, "draws") < 1:
        raise ValueError(f"expected at least 1 draw, got {draws}; leave it out to use every batch")
    data = isinstance(batches, (Tensor, np.ndarray, Dataset))
    if not isinstance(batches, MiniBatches) and (data or not isinstance(batches, Iterable)):
        raise TypeError(
            "expected mini-batches, a DataLoader or another iterable of batches, got "
            f"{type(batches).__name__}; cut data by mcbn.minibatches(data, batch_size=, draws=)"
        )


def _require_possible(batches: MiniBatches) -> None:
    for name in ("batch_size", "draws"):
        value = getattr(batches, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"expected {name} to be an integer of at least 1, got {value!r}; leave it out for "
                "the default"
            )
    if batches.population == 0:
        raise ValueError("expected training examples, got an empty data set; check its filter")
    if not batches.replacement and batches.batch_size > batches.population:
        raise ValueError(
            f"expected batch_size of at most the {batches.population} training examples, got "
            f"{batches.batch_size}; lower it, or draw with replacement=True"
        )
    if validation.integer(batches.num_workers, "num_workers") < 0:
        raise ValueError(
            f"expected num_workers of at least 0, got {batches.num_workers}; leave it out to load "
            "in this process"
        )
    derived_seed(batches.seed)
