"""Class indices of labels: which class a label names, or that it names none."""

import difflib
import math
import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mcbn.io.tables import MAX_NAME_CHARACTERS, shortened, texts

NUMBER = re.compile(r"([+-]?)0*(\d+)(?:[.,]0*)?")
BOOLEANS = {"true": "1", "false": "0"}
# What names of two classes, and labels, say of which is the positive one.
POLARITY = {**BOOLEANS, "t": "1", "f": "0", "yes": "1", "no": "0", "y": "1", "n": "0", "pos": "1",
            "neg": "0", "positive": "1", "negative": "0", "-1": "0"}  # fmt: skip
MISSING = ("", "nan", "none", "null", "na")  # what stands for no label
MIN_PROBABILITY = 1e-12  # in comparisons of log-probabilities
MIN_ROWS_PER_CLASS = 5  # to judge a guess of the order of classes by
STANDARD_ERRORS = 2.0  # by which shifted labels must be better
CLEAR_ERRORS = 4.0  # by which another order of the classes must be better


@dataclass(frozen=True)
class ClassNames:
    """The names of classes, and what else labels may call them.

    Attributes:
        names: of the classes, in order.
        columns: names of their columns, one per class; or empty.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...] = ()

    def exact(self) -> dict[str, int]:
        """Class indices by the texts that name a class exactly."""
        by_column = {text: index for index, text in enumerate(self.columns)}
        return by_column | {text: index for index, text in enumerate(self.names)}

    def loose(self) -> dict[str, list[int]]:
        """Class indices by what is left of their names without spaces, case and formats."""
        found: dict[str, list[int]] = {}
        for index, text in enumerate(self.names):
            found.setdefault(loose_key(text), []).append(index)
        return found

    @property
    def are_words(self) -> bool:
        """Whether no name is a whole number, so that numbers can be places of classes."""
        return not any(is_whole(loose_key(each)) for each in self.names)


def is_whole(text: str) -> bool:
    """Whether a text is a whole number of at least 0."""
    return text.isascii() and text.isdigit()


def by_number(text: str) -> tuple[float, str]:
    """The key that sorts numbers by value, and other texts after them."""
    return (float(text) if is_whole(text) else math.inf), text


def loose_key(text: str) -> str:
    """What two spellings of one name share: case, spaces, quotes and formats of numbers differ."""
    plain = unicodedata.normalize("NFKC", text).strip().strip("'\"").strip()
    if number := NUMBER.fullmatch(plain):
        return number[1].replace("+", "") + number[2]
    return re.sub(r"[\s_-]+", " ", plain.casefold())


def numbers_behind(names: Sequence[str]) -> tuple[str, ...]:
    """The numbers of names that are one word and a number, as class1, class2; else nothing."""
    found = [re.fullmatch(r"(.*?\D)(\d+)", name, re.DOTALL) for name in names]
    words = {each[1] for each in found if each}
    if len(names) < 2 or not all(found) or len(words) > 1:
        return ()
    return tuple(each[2] for each in found if each)


def match(labels: Iterable[str], classes: ClassNames, where: str) -> dict[str, int]:
    """Class indices of labels by name: exactly, else without case, spaces and formats of numbers.

    Args:
        labels: different texts.
        classes: which they may be.
        where: the labels are, in words, for the error.

    Returns:
        The indices of those labels that are names.

    Raises:
        ValueError: a label could be several classes.
    """
    exact, loose = classes.exact(), classes.loose()
    found = {}
    for label in labels:
        candidates = loose.get(loose_key(label), [])
        if label in exact:
            found[label] = exact[label]
        elif len(candidates) > 1:
            names = shortened(classes.names[k] for k in candidates)
            raise ValueError(
                f"expected labels that are one class each in {where}, got {_cut(label)}, which "
                f"could be {names}; write labels exactly as the classes are named"
            )
        elif candidates:
            found[label] = candidates[0]
    return found


def class_indices(
    values: np.ndarray,
    classes: ClassNames,
    probabilities: np.ndarray,
    name: str,
    path: object,
) -> Tensor:
    """Class indices of labels, which are names of classes, or places where the names are words.

    Numbers are a guess where the classes are words, and may be off by one in any case, so that
    the probabilities must not contradict them.

    Args:
        values: labels, axes (examples, *positions).
        classes: their names.
        probabilities: axes (examples, classes, *positions).
        name: of the column of labels.
        path: of the file.

    Raises:
        ValueError: a label is not a class, or could be several; or numbers seem to begin
            elsewhere than the classes do, or to be in another order. Names the row.
    """
    where = f"column {_cut(name)} of {path}"
    words = texts(values.ravel())
    found = resolved(words, classes, where)
    indices = np.fromiter((found[word] for word in words), np.int64, len(words))
    rows = np.moveaxis(probabilities, 1, -1).reshape(-1, probabilities.shape[1])
    if len(rows) == len(indices):
        require_fitting(indices, rows, found, classes, where)
    return torch.from_numpy(indices.reshape(values.shape))


def resolved(
    words: Sequence[str], classes: ClassNames, where: str, *, missing: Container[str] = ()
) -> dict[str, int]:
    """The class index of each different label: by name, else by place where names are words.

    Args:
        words: a label per row.
        classes: their names.
        where: the labels are, in words.
        missing: what stands for no label.

    Raises:
        ValueError: a label is no class, or could be several; names the row.
    """
    labels = [word for word in dict.fromkeys(words) if word not in missing]
    found = match(labels, classes, where) or _by_place(labels, classes, where)
    if unknown := [label for label in labels if label not in found]:
        others = set(unknown)
        bad = [row for row, word in enumerate(words) if word in others]
        near = difflib.get_close_matches(unknown[0][:MAX_NAME_CHARACTERS], classes.names, n=1)
        hint = _other_start(labels, classes) or (
            f"did you mean {near[0]!r:.{MAX_NAME_CHARACTERS}}?" if near
            else "remove rows without a label" if unknown[0].strip().casefold() in MISSING
            else "name the classes as the labels do"
        )  # fmt: skip
        raise ValueError(
            f"expected labels that are classes ({shortened(classes.names)}) in {where}, got "
            f"{_cut(unknown[0])} in row {bad[0] + 1} ({len(bad)} such rows); {hint}"
        )
    return found


def require_fitting(
    indices: np.ndarray,
    rows: np.ndarray,
    found: Mapping[str, int],
    classes: ClassNames,
    where: str,
) -> None:
    """Check that probabilities do not contradict what labels were taken for.

    Args:
        indices: of the class of each row.
        rows: its probabilities, axes (rows, classes).
        found: the class index of each label.
        classes: their names.
        where: the labels are, in words.

    Raises:
        ValueError: numbers seem to begin elsewhere than the classes do, or to be in another order.
    """
    if all(is_whole(loose_key(label)) for label in found):
        _require_same_start(indices, rows, where)
    if not match(found, classes, where):
        require_plausible_order(indices, rows, classes, where)


def _by_place(labels: Sequence[str], classes: ClassNames, where: str) -> dict[str, int]:
    """Class indices of labels that are numbers, or say which of two classes is positive."""
    count = len(classes.names)
    numbers = {label: label for label in labels}
    if count == 2:
        numbers = {label: POLARITY.get(loose_key(label), label) for label in labels}
        ends = tuple(POLARITY.get(loose_key(name), name) for name in classes.names)
        if set(ends) == {"0", "1"}:
            classes = ClassNames(ends)
    behind = numbers_behind(classes.names)
    if behind or not classes.are_words:
        named = match(numbers.values(), ClassNames(behind) if behind else classes, where)
        return {label: named[text] for label, text in numbers.items() if text in named}
    keys = {label: loose_key(text) for label, text in numbers.items()}
    # A long number is no place, and Python refuses to convert one.
    return {
        label: int(key)
        for label, key in keys.items()
        if is_whole(key) and len(key) < 10 and int(key) < count
    }


def _other_start(labels: Sequence[str], classes: ClassNames) -> str:
    """What to do if labels are numbered from another number than the classes; else empty."""
    keys = [loose_key(label) for label in labels]
    if not all(is_whole(key) and len(key) < 10 for key in keys):
        return ""
    names = [loose_key(each) for each in numbers_behind(classes.names) or classes.names]
    named = [int(name) for name in names if is_whole(name) and len(name) < 10]
    places = named or range(len(names))
    given, known = sorted(map(int, keys)), sorted(places)
    if given[0] > known[0] and given[-1] == known[-1] + 1:
        return f"labels seem to begin at {known[0] + 1}; subtract 1 from them"
    if given[0] == known[0] - 1 and given[-1] < known[-1]:
        return f"labels seem to begin at {known[0] - 1}; add 1 to them"
    return ""


def _require_same_start(indices: np.ndarray, rows: np.ndarray, where: str) -> None:
    """Check that labels are not off by one: that the next class does not fit them better."""
    if len(np.unique(indices)) < 2:  # which may well be one class of two
        return
    each = np.arange(len(rows))
    log = np.log(np.clip(rows[each, indices], MIN_PROBABILITY, None))
    for shift in (-1, 1):
        shifted = indices + shift
        if shifted.min() < 0 or shifted.max() >= rows.shape[1]:
            continue
        gain = np.log(np.clip(rows[each, shifted], MIN_PROBABILITY, None)) - log
        chosen = rows.argmax(1)
        better = float((chosen == shifted).mean() - (chosen == indices).mean())
        if better > 0 and gain.mean() > STANDARD_ERRORS * gain.std() / math.sqrt(len(gain)):
            raise ValueError(
                f"expected labels that begin where the classes do in {where}, got none of the "
                f"{'first' if shift < 0 else 'last'} class, and probabilities that fit labels "
                f"{'less' if shift < 0 else 'plus'} 1 better: labels seem to begin at "
                f"{'1' if shift < 0 else '0'}; {'subtract 1 from' if shift < 0 else 'add 1 to'} "
                "them, or write the names of the classes"
            )


def require_plausible_order(
    indices: np.ndarray, rows: np.ndarray, classes: ClassNames, where: str
) -> None:
    """Check that a guessed order of the classes is not worse than chance where another is good.

    Raises:
        ValueError: it is.
    """
    count = rows.shape[1]
    if len(rows) < MIN_ROWS_PER_CLASS * count:
        _require_no_exchange(indices, rows.argmax(1), classes, where)
        return
    totals = np.zeros((count, count))
    order = np.argsort(indices, kind="stable")
    present, starts = np.unique(indices[order], return_index=True)
    totals[present] = np.add.reduceat(rows[order], starts, axis=0)
    as_given = np.trace(totals) / len(rows)
    best = totals[linear_sum_assignment(totals, maximize=True)].sum() / len(rows)
    if as_given < 1 / count and best - as_given > CLEAR_ERRORS * 0.5 / math.sqrt(len(rows)):
        raise _other_order(classes, where)


def _require_no_exchange(
    indices: np.ndarray, chosen: np.ndarray, classes: ClassNames, where: str
) -> None:
    """Check that a few labels are not all wrong in the way of classes in another order."""
    pairs = set(zip(indices.tolist(), chosen.tolist(), strict=True))
    labels, predicted = ({pair[k] for pair in pairs} for k in (0, 1))
    one_to_one = len(pairs) == len(labels) == len(predicted) > 1
    if one_to_one and labels == predicted and all(one != two for one, two in pairs):
        raise _other_order(classes, where)


def _other_order(classes: ClassNames, where: str) -> ValueError:
    return ValueError(
        f"expected labels that are the places of the classes {shortened(classes.names)} in "
        f"{where}, got ones that fit the probabilities worse than chance, and in another order "
        "better; write the names of the classes as labels"
    )


def _cut(text: str) -> str:
    return f"{text!r:.{MAX_NAME_CHARACTERS}}"
