"""Digests of data: equal for equal examples, other for any other value."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from mcbn.io.progress import progress_bar
from mcbn.network.inputs import is_graph
from mcbn.network.isolation import random_streams
from mcbn.tasks.examples import LabeledData, LabeledDataset
from mcbn.tasks.task import Task

PLAIN = (str, bytes, bool, int, float, complex, type(None))


def digest_of(task: Task, *, progress: bool = False) -> str:
    """A digest of all examples of a task, and of what says how they are read.

    Tensors are read as they are, and pictures of a folder as files, with the first example as it is
    transformed. Every example of other data sets is loaded once, with the same random transforms
    each time.

    Args:
        task: the task.
        progress: show a bar while examples are loaded, on a terminal only.

    Raises:
        TypeError: an example holds something whose value cannot be told.
    """
    total = _Digest(progress)
    for name in ("train", "validation", "test"):
        total.add(name)
        total.add_examples(getattr(task, name))
    for name, inputs in task.outside.items():
        total.add(name)
        total.add_examples(inputs)
    total.add([task.classes, task.ignore_index, task.target_mean, task.target_scale])
    return total.text()


class _Digest:
    def __init__(self, progress: bool) -> None:
        self._hash = hashlib.sha256()
        self._progress = progress

    def text(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()[:32]

    def add_examples(self, examples: Any) -> None:
        """Add all examples of a part of a task."""
        if isinstance(examples, LabeledData):
            self.add([examples.inputs, examples.targets])
        elif isinstance(examples, (LabeledDataset, DataLoader)):
            source = examples.source if isinstance(examples, LabeledDataset) else examples.dataset
            self._add_dataset(source)
        else:
            self.add(examples)

    def _add_dataset(self, source: Dataset[Any]) -> None:
        if type(source) is TensorDataset:
            self.add(source.tensors)
        elif type(source) is Subset:
            self.add(list(source.indices))
            self._add_dataset(source.dataset)
        elif type(source) is ConcatDataset:
            for each in source.datasets:
                self._add_dataset(each)
        elif _is_of_files(source):
            self._add_files(source)
            self._add_loaded(source, 1)
        else:
            self._add_loaded(source, len(source))  # type: ignore[arg-type]

    def _add_files(self, source: Any) -> None:
        """Add the files of a folder of classes, without the place of the folder."""
        paths = [Path(path) for path, _ in source.samples]
        bar = progress_bar(paths, label="digest", unit="file", shown=self._progress)
        for path, (_, target) in zip(bar, source.samples, strict=True):
            self.add([str(path.relative_to(source.root)), int(target), path.read_bytes()])

    def _add_loaded(self, source: Any, count: int) -> None:
        for index in progress_bar(
            range(count), label="digest", unit="example", shown=self._progress and count > 1
        ):
            with random_streams(0, "digest", index):
                self.add(source[index])

    def add(self, value: Any) -> None:
        """Add a value, and those inside it."""
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            rows = torch.as_tensor(value).detach().cpu().contiguous()
            self._update(f"{rows.dtype} {tuple(rows.shape)}".encode())
            self._update(rows.flatten().view(torch.uint8).numpy().data if rows.numel() else b"")
        elif isinstance(value, PLAIN):
            content = value if isinstance(value, bytes) else f"{type(value).__name__} {value!r}"
            self._update(content if isinstance(content, bytes) else content.encode())
        elif is_graph(value):
            self.add(value.to_dict())
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                self.add([key, value[key]])
        elif isinstance(value, Sequence):
            self._update(f"{len(value)}".encode())
            for each in value:
                self.add(each)
        elif hasattr(value, "tobytes") and hasattr(value, "size"):  # a picture
            self.add([str(value.size), value.tobytes()])
        else:
            raise TypeError(
                f"expected examples of tensors, arrays, numbers and texts, got a "
                f"{type(value).__name__}; convert it in the data set or its transform"
            )

    def _update(self, content: Any) -> None:
        # With its length, so that no two sequences of values give the same bytes.
        self._hash.update(f"{len(content)}:".encode())
        self._hash.update(content)


def _is_of_files(source: Any) -> bool:
    """Whether it reads the files in `samples`, as torchvision's folders of classes do."""
    samples = getattr(source, "samples", None)
    return any(
        kind.__module__ == "torchvision.datasets.folder" for kind in type(source).__mro__
    ) and isinstance(samples, list)
