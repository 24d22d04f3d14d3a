"""How epistemic spread goes with the inference batch size: log-log slopes with their intervals."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point

# Spreads below this share of the largest are rounding: at M = N all draws are equal.
VANISHED = 1e-6

Replicate = tuple[int, int]  # split and seed


@dataclass(frozen=True)
class Slope:
    """The slope of the logarithm of a spread against log M, a mean over splits and seeds.

    Attributes:
        score: the spread: `epistemic_sd` or `mutual_information`.
        method: which.
        training_batch_size: of the networks; None for the mean over all of them.
        batch_sizes: the M it was fitted over.
        expected: to first order, for N far above M.
        estimate: the slope with its Student-t interval over replicates.
        corrected: the same without the finite-population factor; None where N is not known.
        replicates: how many splits and seeds it is from.
    """

    score: str
    method: str
    training_batch_size: int | None
    batch_sizes: tuple[int, ...]
    expected: float
    estimate: Point
    corrected: Point | None
    replicates: int


@dataclass(frozen=True)
class Spreads:
    """A spread at each M of each whole replicate, where it has not vanished.

    Attributes:
        batch_sizes: M, ascending.
        factors: the finite-population factor of a variance at each M; None where N is not known.
        values: at each M, by replicate.
    """

    batch_sizes: tuple[int, ...]
    factors: tuple[float, ...] | None
    values: Mapping[Replicate, tuple[float, ...]]


def expected(score: str) -> float:
    """The exponent of M to first order: a standard deviation, or what goes as a variance."""
    return -0.5 if score.startswith("epistemic_sd") else -1.0


def slopes(study: Study, score: str) -> tuple[Slope, ...]:
    """Slopes of every method over M: for each training batch size and, last, for all of them.

    The last one takes the mean over training batch sizes within each replicate first: networks of
    one seed share their mini-batches and first weights, so they do not count as independent.

    Args:
        study: of one part.
        score: `epistemic_sd` or `mutual_information`, also of an outside set.
    """
    found = []
    for method in study.methods:
        if method not in OVER_BATCH_SIZES:
            continue
        made = {
            size: spreads(study, score, method, size) for size in study.training_batch_sizes
        }  # fmt: skip
        known = {size: rows for size, rows in made.items() if rows}
        sets: dict[int | None, list[Spreads]] = {size: [rows] for size, rows in known.items()}
        if len(known) > 1:
            sets[None] = list(known.values())
        found += [
            slope
            for size, rows in sets.items()
            if (slope := _slope(score, method, size, rows)) is not None
        ]
    return tuple(found)


def spreads(study: Study, score: str, method: str, training_batch_size: int) -> Spreads | None:
    """What a slope is fitted to; None without two batch sizes at which anything is left.

    A replicate that lacks a batch size of the others is left out: its slope would be of another
    range.
    """
    found: dict[Replicate, dict[int, float]] = {}
    factors: dict[int, float] = {}
    for size in study.batch_sizes:
        chosen = study.values(
            score, method, training_batch_size=training_batch_size, batch_size=size
        )
        for replicate, value in chosen.items():
            found.setdefault(replicate, {})[size] = value
        factors[size] = _factor(study, method, training_batch_size, size)
    measured = sorted({size for row in found.values() for size in row})
    whole = {
        replicate: row
        for replicate, row in found.items()
        if len(row) == len(measured) and all(math.isfinite(value) for value in row.values())
    }
    sizes = tuple(
        size
        for size in measured
        if factors[size] != 0
        and all(row[size] > VANISHED * max(row.values()) for row in whole.values())
    )
    if len(sizes) < 2 or not whole:
        return None
    known = tuple(factors[size] for size in sizes)
    return Spreads(
        sizes,
        None if any(math.isnan(factor) for factor in known) else known,
        {replicate: tuple(row[size] for size in sizes) for replicate, row in whole.items()},
    )


def log_log_slope(x: tuple[int, ...], y: tuple[float, ...]) -> float:
    """The least-squares slope of log y against log x."""
    logs = [math.log(value) for value in x], [math.log(value) for value in y]
    return statistics.linear_regression(*logs).slope


def _factor(study: Study, method: str, training_batch_size: int, batch_size: int) -> float:
    """(N - M) / (N - 1) of the mini-batches really drawn; NaN where N is not known."""
    for result in study.select(method, training_batch_size, batch_size):
        count = result.cell.network.train_size
        drawn = result.cell.bank_batch_size or batch_size
        if count is not None:
            return max(count - drawn, 0) / (count - 1)
    return math.nan


def _slope(score: str, method: str, size: int | None, rows: list[Spreads]) -> Slope | None:
    power = -expected(score)
    shared = set(rows[0].values).intersection(*(row.values for row in rows))
    if not shared:
        return None
    plain, corrected = [], []
    for replicate in sorted(shared):
        plain.append(
            statistics.fmean(log_log_slope(row.batch_sizes, row.values[replicate]) for row in rows)
        )
        corrected.append(
            statistics.fmean(
                log_log_slope(row.batch_sizes, _without(row, replicate, power)) for row in rows
            )
        )
    known = all(row.factors is not None for row in rows)
    sizes = tuple(sorted({each for row in rows for each in row.batch_sizes}))
    return Slope(
        score,
        method,
        size,
        sizes,
        expected(score),
        point(plain),
        point(corrected) if known else None,
        len(plain),
    )


def _without(row: Spreads, replicate: Replicate, power: float) -> tuple[float, ...]:
    """The spread that draws with replacement would have, to first order."""
    factors = row.factors or (1.0,) * len(row.batch_sizes)
    return tuple(
        value / factor**power for value, factor in zip(row.values[replicate], factors, strict=True)
    )
