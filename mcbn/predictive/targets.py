"""Targets in columns: which they are, and the classes that labels name."""

import difflib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mcbn.io.tables import column, numbers, texts

Columns = Mapping[str, np.ndarray]
TARGETS = ("target", "targets", "label", "labels", "y")


def target_column(columns: Columns, name: str | None, path: object) -> str | None:
    """The name of the column (or of the outputs' columns) of targets; None if there is none.

    Raises:
        ValueError: there is no column of the given name, or several could be meant.
    """
    if name is not None:
        if not outputs(columns, name):
            column(columns, name, path)
        return name
    found = [name for name in TARGETS if outputs(columns, name)]
    if len(found) > 1:
        raise ValueError(
            f"expected one column of targets in {path}, got {found}; choose one by --target"
        )
    return found[0] if found else None


def outputs(columns: Columns, name: str) -> list[str]:
    """The column of that name, or those of its outputs: `name_0`, `name_1`, ..."""
    if name in columns:
        return [name]
    found = [f"{name}_{k}" for k in range(len(columns))]
    return [each for each in found if each in columns]


def stacked(columns: Columns, name: str, path: object) -> np.ndarray | None:
    """Numbers of a column, or of all its outputs with an axis for them; None if there are none."""
    names = outputs(columns, name)
    values = [numbers(columns[each], each, path) for each in names]
    if not values:
        return None
    return values[0] if name in columns else np.stack(values, axis=1)


def is_whole(text: str) -> bool:
    """Whether a text is a number from 0 without a point."""
    return text.isascii() and text.isdigit()


def by_number(text: str) -> tuple[float, str]:
    """The key that puts numbers in order, and other text behind them."""
    return (float(text) if is_whole(text) else math.inf), text


def _key(text: str) -> str:
    """A label as text: 3.0 is 3, as a column with gaps is written."""
    head, _, tail = text.strip().partition(".")
    return (head.lstrip("0") or "0") if is_whole(head) and not tail.strip("0") else text.strip()


def class_indices(values: np.ndarray, classes: Sequence[str], name: str, path: object) -> Tensor:
    """Class indices of labels: names of classes, or indices where the names are words.

    Raises:
        ValueError: a label is none, with the row and the nearest class.
    """
    known = {_key(each): place for place, each in enumerate(classes)}
    if not any(is_whole(_key(each)) for each in classes):
        known |= {str(place): place for place in range(len(classes))}
    kinds, codes = np.unique(np.array(texts(values.ravel())), return_inverse=True)
    places = np.array([known.get(_key(str(kind)), -1) for kind in kinds])[codes]
    if (places < 0).any():
        row = int(np.argmax(places < 0))
        label = str(kinds[codes[row]])
        near = difflib.get_close_matches(label, classes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "remove rows without a label"
        raise ValueError(
            f"expected labels that are classes ({', '.join(map(repr, classes[:12]))}) in column "
            f"{name!r} of {path}, got {label!r} in row {row + 1} "
            f"({int((places < 0).sum())} such rows); {hint}"
        )
    return torch.from_numpy(places.reshape(values.shape))
