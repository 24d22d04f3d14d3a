"""Class probabilities in a file of columns: which columns they are, and their classes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mcbn import validation
from mcbn.io.tables import MAX_NAME_CHARACTERS, column, numbers, parsed, shortened, texts
from mcbn.predictive.labels import (
    BOOLEANS,
    ClassNames,
    by_number,
    is_whole,
    loose_key,
    numbers_behind,
)
from mcbn.predictive.targets import Columns
from mcbn.validation import PROBABILITY_TOLERANCE, SUM_TOLERANCE

PREFIX = "p_"
# How columns of classes are named: with what follows for the class.
FAMILIES = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"p_(.*)",
        r"prob(?:a|ability|abilities)?_(.+)",
        r"p[. -](.+)",
        r"pr?\((.+)\)",
        r"p(?:rob)?(\d+)",
        r"(\d+)",
    )
)
# What follows "p_" in columns of statistics, unless a label says otherwise.
STATISTICS = frozenset({"value", "val", "values", "adj", "adjusted", "adj value", "value adj",
                        "corrected", "fdr", "bh", "holm", "bonferroni"})  # fmt: skip
ARRAYS = ("probabilities", "probs", "prob", "proba", "probability", "p", "y_proba", "y_prob",
          "softmax", "preds", "predictions", "y_pred", "y_score", "scores", "score")  # fmt: skip
NAMES = ("classes", "class_names", "label_names")
LOGITS = re.compile(r"(?:y_)?(?:logits?|log_?prob\w*)(?:_.*)?", re.IGNORECASE | re.DOTALL)
POSITIVE = frozenset({"", "1", "pos", "positive", "hat"})
MAX_DIGITS = 7  # of rounded probabilities
ROUNDING = 1e-7  # of float32
MAX_SUM_TOLERANCE = 0.101  # 0.1 and its rounding
UNROUNDED = 1e-9  # by which sums of probabilities with every digit may differ from 1
EXACT = 1e-6  # by which a sum of unrounded probabilities may differ from 1


@dataclass(frozen=True)
class ClassColumns:
    """Probabilities of classes.

    Attributes:
        used: names of the columns, or of the array, that they stand in.
        classes: their names.
        matrix: probabilities that sum to one, axes (examples, classes, *positions).
        is_guess: whether no name says which class a single column is of.
    """

    used: tuple[str, ...]
    classes: ClassNames
    matrix: np.ndarray
    is_guess: bool = False


def read_classes(
    columns: Columns, used: Sequence[str], labels: Sequence[str], path: object
) -> ClassColumns:
    """The probabilities in some columns, or an array, divided by their sums.

    Args:
        columns: by name.
        used: names of the columns of probabilities, or of their array.
        labels: different labels, which the classes of a single column are named by.
        path: of the file.

    Raises:
        ValueError: a value is no probability, a row does not sum to one, or the classes are not
            known.
    """
    require_different(used, path)
    values = [_values(columns, name, path) for name in used]
    if len({each.shape for each in values}) > 1 or values[0].ndim == 0:
        raise ValueError(
            f"expected columns of probabilities with one value per example in {path}, got shapes "
            f"{sorted({each.shape for each in values})}; give them the same length"
        )
    array = len(used) == 1 and values[0].ndim > 1
    matrix = values[0] if array else np.stack(values, axis=1)
    if array:
        classes = _array_classes(columns, matrix, path)
    else:
        places = class_texts(used)
        if all(is_whole(each) for each in places):
            order = sorted(range(len(used)), key=lambda k: by_number(places[k]))
            used, places = [used[k] for k in order], [places[k] for k in order]
            matrix = matrix[:, order]
        classes = ClassNames(tuple(places), tuple(used))
    if matrix.shape[1] == 1 and matrix.ndim == 2:
        require_between(matrix, used, path)
        names, positive = _two_classes(used[0], array, labels, path)
        is_guess = array or not class_of(used[0])
        if is_guess and len(labels) == 2:
            _require_not_confidence(matrix, used[0], path)
        rest = 1 - matrix
        pair = (rest, matrix) if positive else (matrix, rest)
        return ClassColumns(tuple(used), ClassNames(names), np.concatenate(pair, axis=1), is_guess)
    matrix = _fractions(matrix, path)
    require_between(matrix, used, path)
    return ClassColumns(tuple(used), classes, _normalised(matrix, used, path))


def class_texts(used: Sequence[str]) -> list[str]:
    """What columns are named after: the part that tells them apart, if they are of one family."""
    for family in FAMILIES:
        matches = [family.fullmatch(name) for name in used]
        if all(matches):
            return [found[1] for found in matches if found]
    return list(numbers_behind(used) or ()) or [name.removeprefix(PREFIX) for name in used]


def class_of(name: str) -> str:
    """What a column of a usual name is named after; empty if it has another name."""
    return next((match[1] for family in FAMILIES if (match := family.fullmatch(name))), "")


def is_named(name: str) -> bool:
    """Whether a column is called a probability, of which the number alone matters."""
    return any(family.fullmatch(name) for family in FAMILIES[:-1])


def find_columns(columns: Columns, labels: Sequence[str]) -> list[str]:
    """The columns that begin with `p_` and name a class, or the array `probabilities`."""
    array = [name for name in ARRAYS[:1] if name in columns]
    return _classes_of(FAMILIES[0], columns, labels) or array


def is_distribution(columns: Columns, used: Sequence[str]) -> bool:
    """Whether the rows of columns sum to one, so that they cannot be something else."""
    arrays = [columns[name] for name in used if columns[name].ndim > 1]
    return bool(arrays) or _gap(_stacked(columns, used)) <= SUM_TOLERANCE


def find_others(columns: Columns, labels: Sequence[str]) -> list[str]:
    """Columns of probabilities by their other usual names or those of labels, or an array."""
    for family in FAMILIES[1:]:
        if found := _classes_of(family, columns, labels):
            return found
    known = {loose_key(label) for label in labels}
    named = [name for name in columns if loose_key(name) in known and columns[name].ndim == 1]
    if len(named) > 1 and _gap(_stacked(columns, named)) <= SUM_TOLERANCE:
        return named
    arrays = [name for name in ARRAYS if name in columns and _is_probabilities(columns[name])]
    return arrays[:1]


def find_logits(columns: Columns) -> list[str]:
    """Columns that are logits, or logarithms, by name."""
    return [name for name in columns if LOGITS.fullmatch(name)]


def require_different(used: Sequence[str], path: object) -> None:
    """Check that no column of probabilities is named twice.

    Raises:
        ValueError: one is.
    """
    if twice := [name for place, name in enumerate(used) if name in used[:place]]:
        raise ValueError(
            f"expected different columns of probabilities of {path}, got {shortened(twice)} more "
            "than once; name each class once"
        )


def require_between(matrix: np.ndarray, used: Sequence[str], path: object) -> None:
    """Check that all values are probabilities.

    Raises:
        ValueError: one is not; says in which row.
    """
    bad = np.argwhere((matrix < -PROBABILITY_TOLERANCE) | (matrix > 1 + PROBABILITY_TOLERANCE))
    if len(bad):
        first = tuple(bad[0])
        name = used[first[1]] if len(used) > 1 else used[0]
        remedy = (
            "take the exponential of log-probabilities" if (matrix <= 0).all()
            else "pass logits through a softmax first, and divide percentages by 100"
        )  # fmt: skip
        raise ValueError(
            f"expected probabilities from 0 to 1 in {path}, got {matrix[first]:g} in row "
            f"{first[0] + 1} of {name!r:.{MAX_NAME_CHARACTERS}}; {remedy}"
        )


def _classes_of(family: re.Pattern[str], columns: Columns, labels: Sequence[str]) -> list[str]:
    """Columns of a family whose values are one per example, without strays."""
    found = {
        name: match[1]
        for name, values in columns.items()
        if (match := family.fullmatch(name)) and values.ndim == 1
    }
    matrix = _stacked(columns, list(found))
    keys = {name: loose_key(text) for name, text in found.items()}
    empty = [name for name, values in zip(found, matrix.T, strict=True) if not values.any()]
    if _gap(matrix) <= UNROUNDED and not any(keys[name] in STATISTICS for name in empty):
        return list(found)
    known = {loose_key(label) for label in labels}
    classes = [name for name in found if keys[name] in known or keys[name] not in STATISTICS]
    numbered = [name for name in classes if is_whole(found[name])]
    # Words among numbers are strays, unless the numbers are not all classes without them.
    if all(name in numbered or keys[name] not in known for name in classes):
        among = matrix[:, [name in numbered for name in found]]
        if len(numbered) == 1 or (numbered and _gap(among) <= SUM_TOLERANCE):
            return numbered
    matrix = matrix[:, [name in classes for name in found]]
    return _without_stray(matrix, classes, [name for name in classes if keys[name] in known])


def _stacked(columns: Columns, names: Sequence[str]) -> np.ndarray:
    """Numbers of columns, percentages as fractions; NaN if they are of different lengths."""
    if len({len(columns[name]) for name in names}) != 1:
        return np.full((1, len(names)), np.nan)
    matrix = np.stack([parsed(columns[name]) for name in names], axis=1)
    return matrix / 100 if np.median(matrix.sum(1)) > 50 else matrix


def _gap(matrix: np.ndarray) -> float:
    """By how much the sum of a row differs from 1, at most; NaN without numbers."""
    return float(np.abs(matrix.sum(1) - 1).max())


def _without_stray(matrix: np.ndarray, names: list[str], named: Sequence[str]) -> list[str]:
    """Leave out a column without which the others sum to one, and with which they do not."""
    sums, gap = matrix.sum(1), _gap(matrix)
    if len(names) < 3 or not EXACT < gap < math.inf:
        return names
    if gap <= _sum_tolerance(matrix) and _digits(matrix) < 4:
        return names
    for place, name in enumerate(names):
        if name not in named and np.abs(sums - matrix[:, place] - 1).max() <= EXACT:
            return [each for each in names if each != name]
    return names


def _is_probabilities(values: np.ndarray) -> bool:
    """Whether values can be probabilities, rather than predicted classes."""
    if values.ndim > 1:
        return values.dtype.kind in "fbiu"
    given = parsed(values) if values.ndim else np.array([np.nan])
    return bool(((given >= 0) & (given <= 1)).all() and (given % 1 != 0).any())


def _array_classes(columns: Columns, matrix: np.ndarray, path: object) -> ClassNames:
    width = matrix.shape[1]
    named = next((columns[name] for name in NAMES if name in columns), np.arange(width))
    names = texts(named.ravel())
    if len(names) != width and width > 1:
        raise ValueError(
            f"expected probabilities of axes (examples, classes) in {path}, got shape "
            f"{matrix.shape} for {len(names)} classes; give one column per class"
        )
    return ClassNames(names)


def _two_classes(
    name: str, array: bool, labels: Sequence[str], path: object
) -> tuple[tuple[str, str], bool]:
    """The names of two classes of which one column has the probability; whether of the second.

    Raises:
        ValueError: the labels are more than two, or do not say which class the column is of.
    """
    keys = {loose_key(label): label.strip() for label in labels}
    if set(keys) <= set(BOOLEANS):
        keys = {BOOLEANS[key]: BOOLEANS[key] for key in keys}
    of = class_of(name)
    key = "" if array else loose_key(of)
    key = BOOLEANS.get(key, key) if set(keys) <= {"0", "1"} else key
    if len(keys) > 2:
        raise ValueError(
            f"expected probabilities of at least 2 classes in {path}, got only {name!r:.80} for "
            f"the labels {shortened(keys.values())}; give one column per class"
        )
    if set(keys) <= {"0", "1"} and (key in ("0", "1") or key in POSITIVE):
        return ("0", "1"), key != "0"
    if set(keys) <= {"0", "1"}:
        return (f"not {of}", of), True
    if "-1" in keys and set(keys) <= {"-1", "1"} and key in POSITIVE:
        return ("-1", "1"), True
    if set(keys) == {"1", "2"}:
        raise ValueError(
            f"expected labels 0 and 1 beside one column of probabilities in {path}, got 1 and 2, "
            f"so that the class of {name!r:.80} is not known; give one column per class"
        )
    others = [label for each, label in keys.items() if each != key]
    if key in keys or (key and key not in POSITIVE and len(others) == 1):
        return ((others or [f"not {of}"])[0], keys.get(key, of)), True
    wanted = shortened(PREFIX + each for each in others)
    raise ValueError(
        f"expected a column named after its class, one of {wanted}, in {path}, got "
        f"{name!r:.80}; rename it, or give one column per class"
    )


def _values(columns: Columns, name: str, path: object) -> np.ndarray:
    """Numbers of a column; where every cell ends in "%", divided by 100."""
    values = column(columns, name, path)
    if values.dtype.kind in "OU" and all(str(text).rstrip().endswith("%") for text in values.flat):
        bare = np.array([str(text).rstrip().removesuffix("%") for text in values.flat], object)
        return numbers(bare.reshape(values.shape), name, path) / 100
    return numbers(values, name, path)


def _require_not_confidence(matrix: np.ndarray, name: str, path: object) -> None:
    """Check that a column without a class is not the probability of whatever was predicted."""
    if matrix.min() >= 0.5:
        raise ValueError(
            f"expected the probability of the second of two classes in {path}, got {name!r:.80}, "
            "which is never below 0.5, as the confidence of a prediction; name it after its class, "
            "such as p_1"
        )


def _digits(matrix: np.ndarray) -> int:
    """The number of decimals that all probabilities are rounded to."""
    for digits in range(1, MAX_DIGITS):
        # The first rows tell most numbers of digits apart.
        parts = (matrix[:100], matrix)
        if all(np.abs(np.round(part, digits) - part).max() < ROUNDING for part in parts):
            return digits
    return MAX_DIGITS


def _sum_tolerance(matrix: np.ndarray) -> float:
    """By how much sums may differ from 1 because of rounding.

    The errors of C numbers are below C / 2 units of the last digit together, and their sum is a
    whole number of units.
    """
    units = (matrix.shape[1] - 1) // 2
    rounding = 1.01 * units * 10.0 ** -_digits(matrix)
    return float(max(SUM_TOLERANCE, min(MAX_SUM_TOLERANCE, rounding)))


def _fractions(matrix: np.ndarray, path: object) -> np.ndarray:
    """Percentages, whose rows all sum to 100, as fractions."""
    sums = matrix.sum(1)
    tolerance = _sum_tolerance(matrix / 100)
    if matrix.min() >= 0 and matrix.max() > 1 and (np.abs(sums / 100 - 1) <= tolerance).all():
        validation.warn(f"{path} has percentages, which are divided by 100")
        return matrix / 100
    return matrix


def _normalised(matrix: np.ndarray, used: Sequence[str], path: object) -> np.ndarray:
    """Probabilities divided by their sums, which must be 1 but for rounding."""
    sums = matrix.sum(1, keepdims=True)
    tolerance = _sum_tolerance(matrix)
    off = np.argwhere(np.abs(sums[:, 0] - 1) > tolerance)
    if len(off):
        first = tuple(off[0])
        hint = (
            "name the columns by --probabilities if others were taken for them, and pass scores "
            "through a softmax"
        )
        if matrix.ndim > 2 and np.abs(matrix.sum(-1) - 1).max() <= tolerance:
            hint = "move the axis of classes to the second place, and take the mean over draws"
        elif len(used) == 1 and np.abs(matrix.sum(0) - 1).max() <= EXACT:
            hint = "transpose the array, whose first axis is that of examples"
        raise ValueError(
            f"expected the probabilities {shortened(used)} to sum to 1 in {path}, got "
            f"{sums[:, 0][first]:g} in row {first[0] + 1} ({len(off)} such rows, rounding allows "
            f"{tolerance:g}); {hint}"
        )
    widest = float(np.abs(sums - 1).max())
    if widest > SUM_TOLERANCE / 10:
        validation.warn(
            f"{path} has rounded probabilities, whose sums differ from 1 by up to {widest:.2g}: "
            "each row is divided by its sum"
        )
    # Rounding may leave a tiny negative number where there is nothing.
    clipped = np.clip(matrix, 0, None)
    clipped /= clipped.sum(1, keepdims=True)
    return np.asarray(clipped)
