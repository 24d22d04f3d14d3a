"""Examples for the command line: inputs, targets, and groups of examples."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mcbn.bank.minibatches import MiniBatches, minibatches
from mcbn.io.archives import damaged, read_array, read_arrays
from mcbn.io.suffixes import stem
from mcbn.io.tables import column, numbers, parsed, read_columns, shortened, texts
from mcbn.network.inputs import Inputs, select_inputs
from mcbn.network.isolation import derived_seed, random_streams
from mcbn.network.loaders import Data
from mcbn.tasks.examples import LabeledData, LabeledDataset

NAMES = ("classes", "outputs", "units")  # arrays of a data file that are no values of examples


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of a network, with targets and groups of examples where they are known.

    Attributes:
        name: of the file, the folder or the task.
        inputs: one row per example, or a data set that loads them.
        targets: class indices or real values; None if not known, or if a data set loads them.
        classes: names of the classes or labels, if they have any.
        columns: a text or whole number per example, by name of the column.
        labeled: whether the data set loads the targets beside the inputs.
        index: what identifies each example; None for their order.
        outputs: names of the real targets, if there are several.
        units: of the real targets, one for all or one for each.
        target_mean: what to add to a real target after multiplying by `target_scale`.
        target_scale: original units per unit of the targets, where those are standardised.
        is_part: whether they are one part of several.
        ignore_index: the class of positions that are not labelled; None if all are.
        multilabel: whether they are known to have several labels each.
    """

    name: str
    inputs: Tensor | LabeledDataset
    targets: Tensor | None = None
    classes: tuple[str, ...] = ()
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    labeled: bool = False
    index: np.ndarray | None = None
    outputs: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0
    is_part: bool = False
    ignore_index: int | None = None
    multilabel: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Examples":
        """Read a .safetensors file, a .npy file of inputs, or an .npz file of any other name.

        `inputs` is required; `targets` is not, nor are the names of `classes` or of several real
        `outputs`, or their `units`. Other arrays with one text or whole number per example become
        columns; further arrays are ignored.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or has no inputs.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"expected a data file at {path}, got none; check --data")
        if Path(path).suffix.lower() == ".npy":
            return cls(Path(path).stem, _rows(read_array(path), path))
        arrays = _arrays(path)
        if "inputs" not in arrays:
            raise ValueError(
                f"expected an array 'inputs' in {path}, got {sorted(arrays)}; rename yours"
            )
        inputs, targets = arrays["inputs"], arrays.get("targets")
        columns = {
            name: values
            for name, values in arrays.items()
            if isinstance(values, np.ndarray)
            and name not in ("inputs", "targets", *NAMES)
            and values.shape == tuple(inputs.shape[:1])
            and values.dtype.kind in "Ubiu"
        }
        names: Any = {name: texts(arrays[name].ravel()) for name in NAMES if name in arrays}
        known = None if targets is None else torch.as_tensor(targets)
        examples = cls(Path(path).stem, torch.as_tensor(inputs), known, columns=columns)
        return replace(examples, **names)

    @classmethod
    def from_table(cls, path: str, targets: Sequence[str]) -> "Examples":
        """Read a table whose columns are the inputs, in their order, but for those of targets.

        Raises:
            ValueError: the file is damaged, a column of targets or any of inputs is missing, or a
                value is no finite number.
        """
        columns = read_columns(path)
        for name in targets:
            column(columns, name, path)
        names = [name for name in columns if name not in targets]
        if not names:
            raise ValueError(
                f"expected columns of inputs in {path}, got {shortened(columns)}, all of them "
                "targets; give fewer by --target"
            )
        values = {name: _numbers(columns[name], name, path) for name in columns}
        inputs = torch.from_numpy(np.stack([values[name] for name in names], axis=1))
        known = None
        if targets:
            known = torch.from_numpy(np.stack([values[name] for name in targets], 1)).squeeze(1)
        outputs = tuple(targets) if len(targets) > 1 else ()
        return cls(stem(path), inputs.to(torch.get_default_dtype()), known, outputs=outputs)

    @classmethod
    def of(cls, name: str, examples: LabeledData | LabeledDataset, **more: Any) -> "Examples":
        """The examples of a task, or of a data set with its targets."""
        if isinstance(examples, LabeledData):
            return cls(name, examples.inputs, examples.targets, **more)
        return cls(name, examples, labeled=True, **more)

    def loaded_by(self, workers: int) -> "Examples":
        """The same examples, which so many processes load, if they are loaded when needed."""
        if isinstance(self.inputs, Tensor) or not workers:
            return self
        return replace(self, inputs=replace(self.inputs, num_workers=workers))

    def loader(self, batch_size: int) -> Data:
        """The inputs as they are predicted: in order, and loaded when they are needed."""
        if isinstance(self.inputs, Tensor):
            return self.inputs
        return replace(self.inputs, batch_size=batch_size).inputs

    def minibatches(self, *, batch_size: int, draws: int, seed: int = 0) -> MiniBatches:
        """Random mini-batches of the inputs, with the random transforms of a data set."""
        if isinstance(self.inputs, Tensor):
            return minibatches(self.inputs, batch_size=batch_size, draws=draws, seed=seed)
        return minibatches(
            self.inputs.source, batch_size=batch_size, draws=draws, seed=seed,
            num_workers=self.inputs.num_workers, collate=self.inputs.collate,
        )  # fmt: skip

    def disjoint_batches(self, batch_size: int, *, seed: int = 0) -> Data:
        """Mini-batches that share no example, in a random order; the rest is left out."""
        inputs = self.inputs
        if isinstance(inputs, Tensor):
            inputs = LabeledDataset(TensorDataset(inputs))
        return DataLoader(
            inputs.source, batch_size=batch_size, shuffle=True, drop_last=True,
            collate_fn=inputs.collate, num_workers=inputs.num_workers,
            generator=torch.Generator().manual_seed(derived_seed(seed)),
        )  # fmt: skip

    def first(self, count: int) -> Inputs:
        """The first inputs, as a network takes them."""
        if isinstance(self.inputs, Tensor):
            return self.inputs[:count]
        source: Any = self.inputs.source
        with random_streams(0, "first"):
            rows = [source[index] for index in range(min(count, len(self)))]
            return select_inputs(self.inputs.collate(rows))

    def first_target(self) -> Tensor | None:
        """The target of the first example; None if none is known."""
        if self.targets is not None:
            return self.targets[0]
        if not self.labeled or isinstance(self.inputs, Tensor):
            return None
        with random_streams(0, "first"):
            return self.inputs.batch(torch.tensor([0]))[1][0]


def _numbers(values: np.ndarray, name: str, path: str) -> np.ndarray:
    if values.dtype.kind not in "biuf" and bool(np.isnan(parsed(values)).all()):
        raise ValueError(
            f"expected columns of numbers in {path}, got the text column {name!r:.80} with values "
            f"such as {texts(values)[0]!r:.80}; leave it out of the file, or write numbers instead"
        )
    return numbers(values, name, path)


def _rows(array: np.ndarray, path: str | os.PathLike[str]) -> Tensor:
    if array.ndim == 0 or array.dtype.kind not in "biufc":
        raise ValueError(
            f"expected an array of numbers with one row per example in {path}, got "
            f"{array.ndim} axes of {array.dtype}; write the inputs by numpy.save"
        )
    return torch.as_tensor(array)


def _arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    if Path(path).suffix != ".safetensors":
        return read_arrays(path, expected=".npz or .safetensors data")
    try:
        # Floating-point values stay tensors, since numpy has no bfloat16.
        return {
            name: value if value.is_floating_point() else value.numpy()
            for name, value in load_file(path).items()
        }
    except SafetensorError as error:
        raise damaged(path, ".npz or .safetensors data", error) from error
