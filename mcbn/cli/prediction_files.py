"""Files of predictions as the verbs of the command line are given them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mcbn.cli import messages
from mcbn.cli.paths import split_name
from mcbn.cli.values import names_of
from mcbn.evaluation.subgroups import group_names
from mcbn.io.tables import column, shortened, texts
from mcbn.predictive.pairing import repeating_columns
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions
from mcbn.predictive.targets import TARGETS


def named_predictions(text: str, **columns: Any) -> Predictions:
    """Read the predictions of FILE or NAME=FILE; the name is that of their method."""
    name, path = split_name(text)
    predictions = read_predictions(path, **columns)
    return predictions if name is None else replace(predictions, method=name)


def targets_of(predictions: Predictions, path: str) -> Tensor:
    """The targets of predictions from a file.

    Raises:
        ValueError: it has none.
    """
    if predictions.targets is None:
        raise ValueError(
            f"expected targets in {path}, got none; predict data that has targets, or name the "
            f"column {' or '.join(TARGETS)}, or give its name with --target"
        )
    return predictions.targets


def groups_of(
    predictions: Predictions, given: Sequence[str] | str | None, path: str
) -> dict[str, tuple[str, ...]]:
    """The group of each example by each column; checks their number before any scoring."""
    groups = {name: labels_of(predictions, name, path) for name in names_of(given)}
    for name, labels in groups.items():
        group_names(labels, len(predictions.predictive), of=name)
    return groups


def group_of(predictions: Predictions, name: str | None, path: str) -> tuple[str, ...] | None:
    """What examples that are resampled together share; tells where it could be given."""
    if name is not None:
        return texts(column(predictions.columns, name, path))
    if repeating := repeating_columns(predictions):
        messages.note(
            f"values of {shortened(repeating)} in {path} repeat: if examples that share one hang "
            f"together, as those of a patient, give --group {repeating[0]} for right intervals"
        )
    return None


def labels_of(predictions: Predictions, name: str, path: str) -> tuple[str, ...]:
    """The group of each example: a column, or "target" for its true class."""
    targets, classes = predictions.targets, predictions.classes
    classified = targets is not None and targets.ndim == 1 and not targets.is_floating_point()
    if name == "target" and targets is not None and classified:
        return tuple(classes[k] if classes else str(k) for k in targets.tolist())
    return texts(column(predictions.columns, name, path))
