"""Labels in several columns: one-hot, votes per class, or one label per annotator.

Votes are soft labels: as many labels per example as it takes to have each class in its share, each
of which counts equally. Scores are then the mean over the votes, and examples are resampled whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcbn import validation
from mcbn.io.tables import parsed, shortened, texts
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.labels import MISSING, ClassNames, is_whole, loose_key, match, resolved

MAX_VOTES = 100  # labels per example
MAX_VALUES = 10**8  # of probabilities, one per example, class and vote
ROUNDING = 1e-6  # of a share times the number of votes
BOOLEANS = {"true": 1.0, "false": 0.0}


def vote_shares(columns: Mapping[str, np.ndarray], classes: ClassNames, path: object) -> np.ndarray:
    """The share of the votes that each class has, axes (examples, classes).

    Args:
        columns: votes by class, or labels by annotator.
        classes: that labels may be.
        path: of the file.

    Raises:
        ValueError: a row has no vote, a vote is no class, or it cannot be told whether numbers
            are votes for a class or labels by an annotator.
    """
    names = list(columns)
    where = f"the columns of targets {shortened(names)} in {path}"
    places = match(names, classes, where)
    given = _counts(columns)
    if given is None or len(set(places.values())) < len(names):
        _require_no_votes(given, where)
        counts = _labels_as_votes(columns, classes, path)
    else:
        _require_votes(given, names, classes, where)
        counts = np.zeros((len(given), len(classes.names)))
        counts[:, [places[name] for name in names]] = given
    sums = counts.sum(1, keepdims=True)
    if (sums == 0).any():
        raise ValueError(
            f"expected at least one vote in every row of {where}, got none in row "
            f"{int(np.argmax(sums == 0)) + 1}; remove rows without a label"
        )
    return np.asarray(counts / sums)


def with_votes(
    predictive: CategoricalPredictive, shares: np.ndarray, path: object
) -> tuple[CategoricalPredictive, Tensor]:
    """Predictions and labels with a last axis of votes; without it where one vote is enough.

    Raises:
        ValueError: the shares need too many votes.
    """
    count = next(
        (n for n in range(1, MAX_VOTES + 1) if _is_near_whole(shares * n)), MAX_VOTES + 1
    )  # fmt: skip
    if count > MAX_VOTES or shares.size * count > MAX_VALUES:
        raise ValueError(
            f"expected shares of votes that at most {MAX_VOTES} votes per example give in {path}, "
            "got others; give one label per example, such as that with the most votes"
        )
    whole = np.rint(shares * count).astype(np.int64)
    targets = torch.from_numpy(
        np.repeat(np.tile(np.arange(shares.shape[1]), len(shares)), whole.ravel())
    ).reshape(len(shares), count)
    if count == 1:
        return predictive, targets[:, 0]
    validation.warn(
        f"{path} has several labels per example: scores are means over {count} votes per example, "
        "in the shares that the classes have"
    )
    tensors: dict[str, Any] = {
        name: value.unsqueeze(-1).expand(*value.shape, count)
        for name, value in vars(predictive).items()
        if isinstance(value, Tensor)
    }
    return replace(predictive, **tensors), targets


def _is_near_whole(values: np.ndarray) -> bool:
    return bool(np.abs(values - np.rint(values)).max() < ROUNDING)


def _counts(columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Columns as votes, at least 0; None if one holds something else."""
    values = np.stack([_numbers(each) for each in columns.values()], axis=1)
    return values if bool((values >= 0).all() and np.isfinite(values).all()) else None


def _numbers(values: np.ndarray) -> np.ndarray:
    numbers = parsed(values)
    if not np.isfinite(numbers).all():
        words = (word.strip().casefold() for word in texts(values))
        numbers = np.array([BOOLEANS.get(word, np.nan) for word in words])
    return numbers


def _require_votes(
    counts: np.ndarray, names: Sequence[str], classes: ClassNames, where: str
) -> None:
    """Check that numbers are votes: shares, or counts that are not as well labels."""
    sums = counts.sum(1)
    if np.ptp(sums) <= ROUNDING * sums.max():
        return
    if (counts % 1 != 0).any():
        row = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(
            f"expected votes, or shares of them that sum to 1, in {where}, got {sums[row]:g} in "
            f"row {row + 1}; divide each row by its sum"
        )
    if all(map(is_whole, map(loose_key, names))) and counts.max() < len(classes.names):
        raise ValueError(
            f"expected votes for each class, or labels by each annotator, in {where}, got numbers "
            "that could be both; divide votes by the sum of their row, or name the columns of "
            "annotators by letters"
        )


def _require_no_votes(counts: np.ndarray | None, where: str) -> None:
    """Check that labels of annotators are not votes for classes of other names: of equal sums."""
    if counts is None or (counts == counts[:, :1]).all():
        return
    sums = counts.sum(1)
    if np.ptp(sums) == 0 and (len(counts) > 1 or sums[0] == 1):
        raise ValueError(
            f"expected the names of classes behind those of {where}, whose rows all sum to "
            f"{sums[0]:g}, as votes do, got others; name them target_<class>, as the columns of "
            "probabilities"
        )


def _labels_as_votes(
    columns: Mapping[str, np.ndarray], classes: ClassNames, path: object
) -> np.ndarray:
    """Votes per class from columns of labels, of which missing ones do not count."""
    counts = np.zeros((len(next(iter(columns.values()))), len(classes.names)))
    for name, values in columns.items():
        words = texts(values)
        missing = {word for word in words if word.strip().casefold() in MISSING}
        where = f"the column of targets {name!r:.80} in {path}"
        found = resolved(words, classes, where, missing=missing)
        rows = [row for row, word in enumerate(words) if word in found]
        counts[rows, [found[words[row]] for row in rows]] += 1
    return counts
