"""Predictions whose classes, labels or outputs are put in the order of others, by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mcbn.io.tables import shortened
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.labels import ClassNames, match
from mcbn.predictive.predictions import Predictions

CLASS_AXES = {"log_probabilities": 1, "variance": 1, "draws": 2}
OUTPUT_AXES = {"means": 2, "variances": 2}


def same_classes(other: Predictions, first: Predictions, where: str) -> Predictions:
    """Predictions with classes, or outputs, in the order of the first, by name where both have any.

    Args:
        other: predictions of any examples.
        first: whose classes or outputs are meant.
        where: the other ones are, in words.

    Raises:
        ValueError: another number of classes, or other names.
    """
    given, wanted = other.predictive, first.predictive
    if isinstance(given, BernoulliPredictive) and isinstance(wanted, BernoulliPredictive):
        return _same_labels(other, first, where)
    if not isinstance(given, CategoricalPredictive) or not isinstance(
        wanted, CategoricalPredictive
    ):
        return _same_outputs(other, first, where)
    count = wanted.log_probabilities.shape[1]
    if given.log_probabilities.shape[1] != count:
        raise ValueError(
            f"expected the same classes of every method, got {given.log_probabilities.shape[1]} "
            f"in {where} and {count} in the first; predict the same classes with each"
        )
    if other.classes == first.classes or not other.classes or not first.classes:
        return other
    places = match(first.classes, ClassNames(other.classes), where)
    # Of two classes the second may be unnamed, where one column held the probability of the first.
    unnamed = [k for k, name in enumerate(other.classes) if name.startswith("not ")]
    missing = [name for name in first.classes if name not in places]
    if count == 2 and len(unnamed) == len(missing) == 1:
        places[missing[0]] = unnamed[0]
    order = [places[name] for name in first.classes if name in places]
    if sorted(order) != list(range(count)):
        raise ValueError(
            f"expected the same classes of every method, got {shortened(other.classes)} in "
            f"{where} and {shortened(first.classes)} in the first; give them the same names"
        )
    targets = other.targets
    if targets is not None:
        targets = torch.tensor(order).argsort()[targets]
    return replace(
        other, predictive=permuted(given, order, CLASS_AXES), targets=targets,
        classes=first.classes,
    )  # fmt: skip


def _same_labels(other: Predictions, first: Predictions, where: str) -> Predictions:
    """Predictions with the labels in the order of the first, by name where both have any."""
    given: list[Any] = [other.predictive, first.predictive]
    counts = [each.log_odds.shape[1] for each in given]
    places = match(first.classes, ClassNames(other.classes), where) if other.classes else {}
    named = bool(other.classes and first.classes)
    order = [places[name] for name in first.classes if name in places]
    if counts[0] != counts[1] or (named and sorted(order) != list(range(counts[0]))):
        raise ValueError(
            f"expected the same labels of every method, got {counts[0]} in {where} "
            f"({shortened(other.classes)}) and {counts[1]} in the first "
            f"({shortened(first.classes)}); predict the same labels with each"
        )
    if not named or order == list(range(counts[0])):
        return other
    return replace(
        other,
        predictive=permuted(other.predictive, order, {"draws": 2}, default=1),
        targets=None if other.targets is None else other.targets[:, order],
        classes=first.classes,
    )


def _same_outputs(other: Predictions, first: Predictions, where: str) -> Predictions:
    """Predictions with the outputs of real values in the order of the first, by name."""
    names = other.outputs
    if not names or not first.outputs or names == first.outputs:
        return other
    if sorted(names) != sorted(first.outputs):
        raise ValueError(
            f"expected the same outputs of every method, got {shortened(names)} in {where} and "
            f"{shortened(first.outputs)} in the first; give them the same names"
        )
    order = [names.index(name) for name in first.outputs]
    return replace(
        other,
        predictive=permuted(other.predictive, order, OUTPUT_AXES, default=1),
        targets=None if other.targets is None else other.targets[:, order],
        outputs=first.outputs,
        units=tuple(other.units[k] for k in order) if len(other.units) > 1 else other.units,
    )


def permuted(
    predictive: Any, order: Sequence[int], axes: Mapping[str, int], default: int | None = None
) -> Any:
    """A predictive whose tensors are in another order along an axis."""
    rows = torch.tensor(order)
    changed = {
        name: value.index_select(axis, rows)
        for name, value in vars(predictive).items()
        if isinstance(value, Tensor) and value.ndim > 0
        and (axis := axes.get(name, default)) is not None
    }  # fmt: skip
    return replace(predictive, **changed)
