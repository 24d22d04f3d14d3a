"""Several labels an example in a file of columns: a probability and a target of each."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mcbn.io.tables import numbers, texts
from mcbn.predictive.bernoulli import BernoulliPredictive, log_odds
from mcbn.predictive.class_columns import (
    MAX_SUM_TOLERANCE,
    NAMES,
    class_texts,
    require_between,
    require_different,
)
from mcbn.predictive.labels import loose_key
from mcbn.predictive.targets import Columns
from mcbn.predictive.uncertainty_columns import draw_count, expected_entropy, variation_ratio

# What is known of each label, as columns.
LABEL_COLUMNS = ("prediction", "probabilities", "entropy", "expected_entropy",
                 "mutual_information", "variation_ratio")  # fmt: skip
OF_DRAWS = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")


def are_labels(columns: Columns, used: Sequence[str], targets: Mapping[str, str]) -> bool:
    """Whether there is a target for each probability, and the latter are no distribution.

    Args:
        columns: by name.
        used: names of the columns of probabilities, or of their array.
        targets: names of the columns of targets by what tells them apart.
    """
    matrix = _probabilities(columns, used)
    if matrix is None or matrix.ndim < 2 or matrix.shape[1] < 2:
        return False
    if np.abs(matrix.sum(1) - 1).max(initial=0) <= MAX_SUM_TOLERANCE:
        return False
    if "" in targets:
        return columns[targets[""]].shape == matrix.shape
    return sorted(map(loose_key, targets)) == sorted(map(loose_key, class_texts(used)))


def read_labels(
    columns: Columns, used: Sequence[str], targets: Mapping[str, str], path: object
) -> tuple[BernoulliPredictive, Tensor, tuple[str, ...]]:
    """The predictive, the targets and the names of labels, which `are_labels` has recognised.

    Raises:
        ValueError: a value is no probability, or what is told of the draws contradicts it.
    """
    require_different(used, path)
    array = len(used) == 1
    matrix = _probabilities(columns, used)
    if matrix is None:
        raise ValueError(f"expected probabilities of labels in {path}, got none; write p_<label>")
    require_between(matrix, used, path)
    names = class_texts(used)
    if array:
        names = next((list(texts(columns[each])) for each in NAMES if each in columns), [])
    odds = log_odds(torch.from_numpy(matrix), f"probabilities in {path}")
    total = BernoulliPredictive(odds, odds, odds, odds, 0).entropy
    known = {name: columns[name] if array else _stacked(columns, name, names)
             for name in OF_DRAWS
             if name in columns or all(f"{name}_{each}" in columns for each in names)}  # fmt: skip
    predictive = BernoulliPredictive(
        odds, expected_entropy(known, total, path), torch.full_like(odds, torch.nan),
        variation_ratio(known, tuple(odds.shape), 2, path), draw_count(columns, path),
    )  # fmt: skip
    if "" in targets:
        truth = numbers(columns[targets[""]], targets[""], path)
    else:
        places = {loose_key(tag): name for tag, name in targets.items()}
        truth = np.stack(
            [numbers(columns[places[loose_key(each)]], places[loose_key(each)], path)
             for each in names], axis=1,
        )  # fmt: skip
    plain = names == [str(k) for k in range(matrix.shape[1])]
    return predictive, torch.from_numpy(truth).long(), () if plain else tuple(names)


def used_columns(
    columns: Columns, used: Sequence[str], targets: Mapping[str, str]
) -> tuple[str, ...]:
    """The names of all columns that belong to the predictions of labels."""
    names = class_texts(used)
    of_draws = (f"{name}_{each}" for name in (*OF_DRAWS, "prediction") for each in names)
    return (*used, *targets.values(), *(name for name in of_draws if name in columns))


def _probabilities(columns: Columns, used: Sequence[str]) -> np.ndarray | None:
    """The probabilities as numbers, axes (examples, labels, *positions); None if they are not."""
    if any(name not in columns for name in used):
        return None
    try:
        values = [np.asarray(columns[name], dtype=np.float64) for name in used]
    except ValueError:
        return None
    if len(values) == 1:
        return values[0]
    return np.stack(values, axis=1) if len({each.shape for each in values}) == 1 else None


def _stacked(columns: Columns, name: str, labels: Sequence[str]) -> np.ndarray:
    return np.stack([columns[f"{name}_{each}"] for each in labels], axis=1)
