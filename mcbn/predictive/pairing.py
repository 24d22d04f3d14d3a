"""Predictions from several files: rows joined by what identifies them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcbn.io.tables import shortened, texts
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.joining import EXAMPLE_AXES
from mcbn.predictive.labels import by_number, is_whole, loose_key
from mcbn.predictive.name_order import permuted, same_classes
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.stored import StoredPredictive

# Columns that identify examples, as they are usually called.
KEYS = frozenset({
    "id", "ids", "idx", "uid", "uuid", "guid", "key", "name", "image", "image id", "image name",
    "imageid", "img", "file", "filename", "file name", "path", "filepath", "file path",
    "image path", "sample", "sample id", "example", "example id", "row", "row id", "case",
    "case id",
})  # fmt: skip
# Columns that say what several examples may share.
SHARED_KEYS = frozenset({
    "patient", "patient id", "patientid", "subject", "subject id", "person", "person id",
    "participant", "speaker", "speaker id", "user", "user id", "video", "video id", "clip",
    "scene", "study id", "group", "group id", "cluster", "family", "id", "image id", "imageid",
})  # fmt: skip
MIN_DISTINCT = 0.9  # share of the predictions, for equal ones to be of equal examples
TARGET_TOLERANCE = 1e-6  # relative, of real targets that went through float32


def same_examples(
    predictions: Sequence[Predictions], names: Sequence[str], *, groups: Iterable[str] = ()
) -> list[Predictions]:
    """Predictions with rows and classes in the order of the first.

    Rows are joined by the index, or by a column such as `id` or `filename`, if both have one.

    Args:
        predictions: of the same examples by several methods.
        names: what to call each in an error, such as its path.
        groups: columns that the examples are grouped by.

    Raises:
        ValueError: they are not of the same examples and classes, or whether they are cannot be
            told: rows that only one has, ids that repeat in another order, or other targets or
            groups.
    """
    first = predictions[0]
    joined = [first]
    for other, name in zip(predictions[1:], names[1:], strict=True):
        both = (names[0], name)
        _require_kind(first, other, both)
        renamed = same_classes(other, first, name)
        rows = _same_rows(first, renamed, both, frozenset(groups))
        # The same but for rounding: every method is scored against the same bits.
        joined.append(replace(rows, targets=first.targets))
    return joined


def repeating_columns(predictions: Predictions) -> list[str]:
    """Columns of identifiers whose values repeat, so that examples may not be independent."""
    return [
        name
        for name, values in predictions.columns.items()
        if loose_key(name) in SHARED_KEYS and 1 < len(set(texts(values))) < len(values)
    ]


def in_rows_of(values: Tensor, predictions: Predictions) -> Tensor:
    """Inputs in the order of predictions, whose index is the row of each where it is known.

    Raises:
        ValueError: there is no input for some predictions.
    """
    index = texts(predictions.index) if predictions.index is not None else ()
    count = len(predictions.predictive)
    if not index or not all(is_whole(each) and len(each) < 18 for each in index):
        return values
    rows = torch.tensor([int(each) for each in index])
    if len(values) == count and sorted(rows.tolist()) != list(range(count)):
        return values  # the index numbers the rows of something else
    if int(rows.max()) >= len(values):
        raise ValueError(
            f"expected an input for every index of {predictions.method!r:.80}, got {len(values)} "
            f"inputs and the index {int(rows.max())}; give the inputs that were predicted"
        )
    return values[rows]


def shared_rows(one: Predictions, other: Predictions) -> str:
    """Examples that two sets of predictions share, in words; empty if none are known.

    They are known by a column that identifies them, or by equal predictions of them.
    """
    keys = _keys(one), _keys(other)
    for name in sorted(set(keys[0]) & set(keys[1]) - {"index"}):
        words = keys[0][name], keys[1][name]
        # The rows of every file may be numbered, and what repeats identifies no example.
        if all(map(_are_row_numbers, words)) or any(len(set(each)) < len(each) for each in words):
            continue
        if shared := sorted(set(words[0]) & set(words[1]), key=by_number):
            return f"{name} {shortened(shared)}"
    rows = [Counter(_rows(each)) for each in (one, other)]
    equal, fewer = rows[0].keys() & rows[1].keys(), min(rows, key=len)
    # Saturated or rounded predictions may be equal by chance.
    if len(fewer) > MIN_DISTINCT * fewer.total() and 2 * len(equal) > len(fewer):
        return f"{len(equal)} examples with equal predictions"
    return ""


def _are_row_numbers(words: Sequence[str]) -> bool:
    return any(list(words) == [str(k + start) for k in range(len(words))] for start in (0, 1))


def _rows(predictions: Predictions) -> list[bytes]:
    given: Any = predictions.predictive
    values = next(
        getattr(given, name)
        for name in ("log_probabilities", "log_odds", "mean")
        if hasattr(given, name)
    )
    return [row.tobytes() for row in np.ascontiguousarray(values.cpu().numpy())]


def _require_kind(first: Predictions, other: Predictions, names: tuple[str, str]) -> None:
    kinds = [_kind(each.predictive) for each in (first, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"expected predictions of the same examples and of the same kind, got {kinds[0]} and "
            f"{kinds[1]} in {list(names)}; write two reports"
        )


def _kind(predictive: StoredPredictive) -> str:
    """What is predicted, in words."""
    words = {CategoricalPredictive: "classes", BernoulliPredictive: "labels"}
    return words.get(type(predictive), "real values")


def _keys(predictions: Predictions) -> dict[str, tuple[str, ...]]:
    """The columns that identify examples, by name without case."""
    keys = {} if predictions.index is None else {"index": texts(predictions.index)}
    for name, values in predictions.columns.items():
        words = texts(values) if loose_key(name) in KEYS else ()
        # Columns of other names than id may be of the method, or of groups.
        if words and (loose_key(name) == "id" or 2 * len(set(words)) > len(words)):
            keys[loose_key(name)] = words
    return keys


def _same_rows(
    first: Predictions, other: Predictions, names: tuple[str, str], groups: frozenset[str]
) -> Predictions:
    """The other predictions in the order of the first, checked by targets and groups."""
    keys, numbered = (_keys(first), _keys(other)), _row_numbers(first)
    shared = {key: (keys[0][key], keys[1][key]) for key in sorted(set(keys[0]) & set(keys[1]))}
    if len(shared) > 1 and shared.get("index") == (numbered, numbered):
        shared.pop("index")  # which pandas writes anew whatever the order
    where = f"{names[1]} than in {names[0]}"
    if shared:
        orders = [_joined(*pair, key, names) for key, pair in shared.items()]
        if any(order != orders[0] for order in orders):
            raise ValueError(
                f"expected {shortened(shared)} of {names[1]} and {names[0]} to pair the same rows, "
                "got other pairs by each; remove those that do not identify an example"
            )
        joined = _with_rows(other, orders[0])
        _require_agreement(first, joined, groups, where)
        return joined
    return _by_agreement(first, other, _possible_orders(keys, numbered), groups, where)


def _row_numbers(predictions: Predictions) -> tuple[str, ...]:
    return tuple(map(str, range(len(predictions.predictive))))


def _possible_orders(
    keys: tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]],
    numbered: tuple[str, ...],
) -> list[list[int]]:
    """Orders by keys of different names with the same values, or by the numbers of rows."""
    orders: list[list[int]] = []
    for one in keys[0].values() or [numbered]:
        for two in keys[1].values() or [numbered]:
            if one != two and set(one) == set(two) and len(set(one)) == len(one) == len(two):
                rows = {word: row for row, word in enumerate(two)}
                orders.append([rows[word] for word in one])
    return [order for place, order in enumerate(orders) if order not in orders[:place]]


def _by_agreement(
    first: Predictions, other: Predictions, orders: Sequence[list[int]], groups: frozenset[str],
    where: str,
) -> Predictions:  # fmt: skip
    """The other predictions as they are, or in the one order that targets and groups agree with."""
    fitting, reason = [], None
    for candidate in (other, *(_with_rows(other, order) for order in orders)):
        try:
            _require_agreement(first, candidate, groups, where)
            fitting.append(candidate)
        except ValueError as error:
            reason = reason or error
    if len(fitting) > 1:
        raise ValueError(
            f"expected one order of rows in {where.replace(' than', ' and')}, got an index in one "
            "file alone that allows two; give every row its index in a column index of both"
        )
    if not fitting:
        raise reason or ValueError("expected predictions of the same examples, got others")
    return fitting[0]


def _require_agreement(
    first: Predictions, other: Predictions, groups: frozenset[str], where: str
) -> None:
    _require_targets(first, other, where)
    _require_columns(first, other, groups, where)


def _joined(
    first: Sequence[str], other: Sequence[str], key: str, names: tuple[str, str]
) -> list[int]:
    """Rows joined by what identifies them: exactly, else without case and formats of numbers."""
    if first == other:
        return list(range(len(first)))
    loose = [[loose_key(word) for word in words] for words in (first, other)]
    exact = set(first) == set(other) or any(len(set(each)) < len(each) for each in loose)
    one, two = (first, other) if exact else loose
    for words, name in zip((one, two), names, strict=True):
        if twice := [word for word, count in Counter(words).items() if count > 1]:
            raise ValueError(
                f"expected rows that {key!r} identifies in {name}, got {shortened(twice)} more "
                f"than once, in another order or number than in the other of {list(names)}; give "
                "every row an index of its own"
            )
    alone = [sorted(set(one) - set(two), key=by_number), sorted(set(two) - set(one), key=by_number)]
    if any(alone):
        got = " and ".join(
            f"{key} {shortened(words)} in {name} alone"
            for words, name in zip(alone, names, strict=True)
            if words
        )
        raise ValueError(
            f"expected predictions of the same examples, got {got}; predict the same data with "
            f"each, or remove {key!r} from a file where it does not identify the example"
        )
    rows = {word: row for row, word in enumerate(two)}
    return [rows[word] for word in one]


def _require_targets(first: Predictions, other: Predictions, where: str) -> None:
    """Check that targets are the same, but for the rounding of float32."""
    if first.targets is None or other.targets is None:
        return
    one, two = first.targets, other.targets
    if one.shape != two.shape:
        raise ValueError(
            f"expected predictions of the same examples, got other targets in {where}, of shape "
            f"{tuple(two.shape)} and {tuple(one.shape)}; predict the same file with each"
        )
    if torch.equal(one, two):
        return
    wrong = one != two
    if one.is_floating_point() and bool(wrong.any()):
        wrong = (one - two).abs() > TARGET_TOLERANCE * one.abs().clamp_min(float(one.abs().mean()))
    if bool(wrong.any()):
        row = int(wrong.reshape(len(one), -1).any(1).nonzero()[0])
        remedy = "predict the same file with each"
        if torch.equal(one.flatten().sort().values, two.flatten().sort().values):
            remedy = "if only the order differs, give every row its index in a column index"
        raise ValueError(
            f"expected predictions of the same examples, got other targets in {where}, first in "
            f"row {row + 1}; {remedy}"
        )


def _require_columns(
    first: Predictions, other: Predictions, groups: frozenset[str], where: str
) -> None:
    """Check that no column says that rows are paired wrongly."""
    for name in first.columns.keys() & other.columns.keys():
        one, two = (list(texts(each.columns[name])) for each in (first, other))
        if one != two:
            one, two = ([loose_key(text) for text in words] for words in (one, two))
        if one == two or (name not in groups and Counter(one) != Counter(two)):
            continue
        row = next(row for row, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"expected the same column {name!r:.80} of every method, got other values in {where}, "
            f"first in row {row + 1}, as where rows are in another order; give every row its index "
            "in a column index, or rename the column if it is of the method"
        )


def _with_rows(predictions: Predictions, order: Sequence[int]) -> Predictions:
    """Predictions of some rows, in that order."""
    if list(order) == list(range(len(predictions.predictive))):
        return predictions
    index = predictions.index
    return replace(
        predictions,
        predictive=permuted(predictions.predictive, order, EXAMPLE_AXES, default=0),
        targets=None if predictions.targets is None else predictions.targets[list(order)],
        columns={name: values[list(order)] for name, values in predictions.columns.items()},
        index=None if index is None else index[list(order)],
    )
