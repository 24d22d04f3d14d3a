"""Targets in a file of columns: which columns they are, and the class indices of labels."""

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
        if not output_columns(columns, name):
            column(columns, name, path)
        return name
    present = [name for name in TARGETS if output_columns(columns, name)]
    if len(present) > 1:
        raise ValueError(
            f"expected one column of targets in {path}, got {present}; choose one by target= or "
            "--target"
        )
    return present[0] if present else None


def output_columns(columns: Columns, name: str) -> list[str]:
    """The column of that name, or one for each output: `name_0`, `name_1`, ..."""
    if name in columns:
        return [name]
    numbered = [f"{name}_{k}" for k in range(len(columns))]
    return [each for each in numbered if each in columns]


def output_values(columns: Columns, name: str, path: object) -> np.ndarray | None:
    """Numbers of a column, or of those of all outputs with an axis for them; None without any."""
    names = output_columns(columns, name)
    values = [numbers(columns[each], each, path) for each in names]
    if not values:
        return None
    return values[0] if name in columns else np.stack(values, axis=1)


def is_whole(text: str) -> bool:
    """Whether a text is a whole number of at least 0."""
    return text.isascii() and text.isdigit()


def by_number(text: str) -> tuple[float, str]:
    """The key that sorts numbers by value, and other texts after them."""
    return (float(text) if is_whole(text) else math.inf), text


def _key(text: str) -> str:
    """A label as text: 3.0 is 3, as labels in a column with missing values are written."""
    head, _, tail = text.strip().partition(".")
    return (head.lstrip("0") or "0") if is_whole(head) and not tail.strip("0") else text.strip()


def class_indices(values: np.ndarray, classes: Sequence[str], name: str, path: object) -> Tensor:
    """Class indices of labels, which are names of classes, or indices where the names are words.

    Raises:
        ValueError: a label is not a class; names the row and the nearest class.
    """
    known = {_key(each): index for index, each in enumerate(classes)}
    if not any(is_whole(_key(each)) for each in classes):
        known |= {str(index): index for index in range(len(classes))}
    labels, codes = np.unique(np.array(texts(values.ravel())), return_inverse=True)
    indices = np.array([known.get(_key(str(label)), -1) for label in labels])[codes]
    if (indices < 0).any():
        row = int(np.argmax(indices < 0))
        label = str(labels[codes[row]])
        near = difflib.get_close_matches(label, classes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "remove rows without a label"
        raise ValueError(
            f"expected labels that are classes ({', '.join(map(repr, classes[:12]))}) in column "
            f"{name!r} of {path}, got {label!r} in row {row + 1} "
            f"({int((indices < 0).sum())} such rows); {hint}"
        )
    return torch.from_numpy(indices.reshape(values.shape))
