"""How epistemic spread scales with the inference batch size: log-log slopes with intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcbn.io.display import Display, Displayed
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point

# A spread below this share of the largest is rounding error: at M = N all draws are equal.
MIN_RELATIVE_SPREAD = 1e-6

Replicate = tuple[int, int]  # split and seed


@dataclass(frozen=True)
class Slope:
    """The slope of the logarithm of a spread against log M, a mean over splits and seeds.

    Attributes:
        score: `epistemic_sd` or `mutual_information`.
        method: name of the method.
        training_batch_size: mini-batch size of training; None for the mean over all of them.
        batch_sizes: the values of M it is fitted to.
        expected: the slope to first order, for N much larger than M.
        estimate: the slope with its interval: see `mean_of_networks`.
        corrected: the slope without the finite-population factor; None if N is not known.
        replicates: number of splits and seeds.
        networks: number of trained networks, one for each replicate and training batch size.
    """

    score: str
    method: str
    training_batch_size: int | None
    batch_sizes: tuple[int, ...]
    expected: float
    estimate: Point
    corrected: Point | None
    replicates: int
    networks: int


@dataclass(frozen=True, repr=False)
class Spreads(Displayed):
    """The spread at each M of each complete replicate, without those that are rounding error.

    Attributes:
        batch_sizes: M, ascending.
        factors: the finite-population factor of a variance at each M; None if N is not known.
        values: the spread at each M, by replicate.
    """

    batch_sizes: tuple[int, ...]
    factors: tuple[float, ...] | None
    values: Mapping[Replicate, tuple[float, ...]]

    def display(self) -> Display:
        """The spread at each M of every replicate."""
        rows = [
            (str(replicate), *(f"{value:.3g}" for value in values))
            for replicate, values in self.values.items()
        ]
        sizes = (f"M = {size}" for size in self.batch_sizes)
        return Display(f"Spreads of {len(rows)} replicates", ("replicate", *sizes), rows)


def expected(score: str) -> float:
    """The exponent of M to first order: -1/2 for a standard deviation, -1 for a variance."""
    return -0.5 if score.startswith("epistemic_sd") else -1.0


def slopes(study: Study, score: str) -> tuple[Slope, ...]:
    """Slopes of every method with an M: for each training batch size and, last, for all of them.

    The last one is the mean over all networks, with the interval of `mean_of_networks`.

    Args:
        study: a study of one part.
        score: `epistemic_sd` or `mutual_information`, also of an out-of-distribution set.
    """
    estimates = []
    for method in study.methods:
        if method not in OVER_BATCH_SIZES:
            continue
        by_size = {
            size: spreads(study, score, method, size) for size in study.training_batch_sizes
        }  # fmt: skip
        known = {size: rows for size, rows in by_size.items() if rows}
        sets: dict[int | None, list[Spreads]] = {size: [rows] for size, rows in known.items()}
        if len(known) > 1:
            sets[None] = list(known.values())
        estimates += [
            slope
            for size, rows in sets.items()
            if (slope := _slope(score, method, size, rows)) is not None
        ]
    return tuple(estimates)


def spreads(study: Study, score: str, method: str, training_batch_size: int) -> Spreads | None:
    """The spreads that a slope is fitted to; None without two batch sizes with a spread.

    A replicate that lacks a batch size of the others is left out, since its slope would be of
    another range.
    """
    by_replicate: dict[Replicate, dict[int, float]] = {}
    factors: dict[int, float] = {}
    for size in study.batch_sizes:
        chosen = study.values(
            score, method, training_batch_size=training_batch_size, batch_size=size
        )
        for replicate, value in chosen.items():
            by_replicate.setdefault(replicate, {})[size] = value
        factors[size] = _factor(study, method, training_batch_size, size)
    measured = sorted({size for row in by_replicate.values() for size in row})
    complete = {
        replicate: row
        for replicate, row in by_replicate.items()
        if len(row) == len(measured) and all(math.isfinite(value) for value in row.values())
    }
    sizes = tuple(
        size
        for size in measured
        if factors[size] != 0
        and all(row[size] > MIN_RELATIVE_SPREAD * max(row.values()) for row in complete.values())
    )
    if len(sizes) < 2 or not complete:
        return None
    known = tuple(factors[size] for size in sizes)
    return Spreads(
        sizes,
        None if any(math.isnan(factor) for factor in known) else known,
        {replicate: tuple(row[size] for size in sizes) for replicate, row in complete.items()},
    )


def log_log_slope(x: tuple[int, ...], y: tuple[float, ...]) -> float:
    """The least-squares slope of log y against log x."""
    logs = [math.log(value) for value in x], [math.log(value) for value in y]
    return statistics.linear_regression(*logs).slope


def _factor(study: Study, method: str, training_batch_size: int, batch_size: int) -> float:
    """(N - M) / (N - 1); NaN if N is not known. A rescaled bank has that of its own M, too."""
    for result in study.select(method, training_batch_size, batch_size):
        count = result.cell.network.train_size
        if count is not None:
            return max(count - batch_size, 0) / (count - 1)
    return math.nan


def _slope(score: str, method: str, size: int | None, rows: list[Spreads]) -> Slope | None:
    power = -expected(score)
    shared = set(rows[0].values).intersection(*(row.values for row in rows))
    if not shared:
        return None
    plain = [
        [log_log_slope(row.batch_sizes, row.values[replicate]) for row in rows]
        for replicate in sorted(shared)
    ]
    corrected = [
        [log_log_slope(row.batch_sizes, _without(row, replicate, power)) for row in rows]
        for replicate in sorted(shared)
    ]
    known = all(row.factors is not None for row in rows)
    sizes = tuple(sorted({each for row in rows for each in row.batch_sizes}))
    return Slope(
        score, method, size, sizes, expected(score), mean_of_networks(plain),
        mean_of_networks(corrected) if known else None, len(plain), len(plain) * len(rows),
    )  # fmt: skip


def mean_of_networks(by_replicate: Sequence[Sequence[float]]) -> Point:
    """The mean over networks, with an interval that counts what networks of one seed share.

    Of two Student-t intervals the wider one: over the replicates, by the means of their networks,
    and over all networks. Networks of one seed share mini-batches and initial weights; where that
    makes them alike, the second is too narrow and the first is right. Where it does not, both are
    right, and the first, of few degrees of freedom, may by chance be much narrower than what the
    networks themselves show; it also leaves out that training batch sizes differ. So the chance
    that the wider one holds the mean is at least the level. With one replicate there is none.

    Args:
        by_replicate: a value for each network, by split and seed; as many of each.
    """
    seeds = point([statistics.fmean(values) for values in by_replicate])
    if math.isnan(seeds.low):
        return seeds
    networks = point([value for values in by_replicate for value in values])
    half = max(seeds.high - seeds.low, networks.high - networks.low) / 2
    return Point(seeds.mean, seeds.mean - half, seeds.mean + half)


def _without(row: Spreads, replicate: Replicate, power: float) -> tuple[float, ...]:
    """The spread that draws with replacement would have, to first order."""
    factors = row.factors or (1.0,) * len(row.batch_sizes)
    return tuple(
        value / factor**power for value, factor in zip(row.values[replicate], factors, strict=True)
    )
