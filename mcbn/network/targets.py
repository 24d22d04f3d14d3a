"""Targets as users hold them, as one tensor: arrays, columns of a data frame, sets, loaders."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcbn.network.inputs import TARGET_KEYS, as_tensor, is_graph
from mcbn.network.isolation import random_streams
from mcbn.network.loaders import ordered_loader

# A tensor, an array, a sequence of numbers, a column or frame of pandas, or a data set or a loader
# of inputs with their targets.
Targets = Any

# Entries of a batch that are targets rather than places of examples.
LABEL_KEYS = TARGET_KEYS - {"index", "idx"}
REMEDY = "give the targets themselves, as a tensor, an array or a column of numbers"


def as_targets(targets: Targets, name: str = "targets") -> Tensor:
    """The targets as a tensor with one row per example, in the order of the data.

    A column of a data frame, and a frame of one column, become a vector. Of a data set or a loader,
    the targets of all examples are read, in order.

    Args:
        targets: see `Targets`.
        name: what they are, for errors.

    Raises:
        TypeError: they are no numbers, or of another kind.
        ValueError: a loader that shuffles, or targets that cannot be put together.
    """
    if isinstance(targets, Tensor):
        return targets
    if isinstance(targets, (Dataset, DataLoader)):
        return _read(targets, name)
    if isinstance(targets, (str, bytes, Mapping)) or not (
        hasattr(targets, "__array__") or isinstance(targets, Sequence)
    ):
        raise TypeError(
            f"expected {name} as a tensor, an array, a column of numbers, or a data set or loader "
            f"that has them, got {type(targets).__name__}; {REMEDY}"
        )
    array = np.asarray(targets)
    if array.dtype == object or array.dtype.kind in "USM":
        raise TypeError(
            f"expected {name} as numbers, got values such as {array.reshape(-1)[:1].tolist()!r:.80}"
            "; map the names of classes to their indices, and mark missing values"
        )
    is_frame = array.ndim == 2 and array.shape[1] == 1 and not isinstance(targets, np.ndarray)
    return as_tensor(array[:, 0] if is_frame else array)


def require_targets(data: Any, targets: Targets | None) -> None:
    """Check that targets are given, or are in the data.

    Raises:
        TypeError: they are in neither.
    """
    if targets is None and not isinstance(data, (Dataset, DataLoader)):
        raise TypeError(
            f"expected targets beside a {type(data).__name__} of inputs, got none; give targets=, "
            "or a data set or loader that has both"
        )


def select_targets(batch: Any) -> Tensor:
    """The targets in one batch of a data set or a loader.

    Of a tuple or list they are the second entry; of a dict the one entry with a name such as
    "labels" or "target"; of a batch of torch_geometric its `y`.

    Raises:
        TypeError: these rules find none.
    """
    found = None
    if isinstance(batch, Mapping):
        names = [key for key in batch if key in LABEL_KEYS]
        found = batch[names[0]] if len(names) == 1 else None
    elif isinstance(batch, (tuple, list)) and len(batch) > 1:
        found = batch[1]
    elif isinstance(batch, (tuple, list)) and len(batch) == 1 and is_graph(batch[0]):
        found = batch[0].y
    elif is_graph(batch):
        found = batch.y
    if isinstance(found, np.ndarray):
        found = as_tensor(found)
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        "expected batches of inputs and their targets, as (inputs, targets) or a dict with one "
        f"entry of {sorted(LABEL_KEYS)}, got {type(batch).__name__}; {REMEDY}"
    )


def read_targets(batch: Any) -> Tensor:
    """The targets in one batch, in memory of their own, since that of a worker is reused."""
    return select_targets(batch).detach().cpu().clone()


def joined_targets(parts: Iterable[Tensor], name: str = "targets") -> Tensor:
    """The targets of several batches, one after the other.

    Raises:
        ValueError: there are none, or they are of several shapes.
    """
    pieces = list(parts)
    shapes = {tuple(piece.shape[1:]) for piece in pieces}
    if len(shapes) != 1 or any(piece.ndim == 0 for piece in pieces):
        raise ValueError(
            f"expected {name} of one shape for every example, got {sorted(shapes) or 'none'}; "
            f"{REMEDY}"
        )
    return torch.cat(pieces)


def _read(data: Any, name: str) -> Tensor:
    with random_streams(0, "targets"):  # from which a loader takes a seed
        return joined_targets(map(read_targets, ordered_loader(data, None)), name)
