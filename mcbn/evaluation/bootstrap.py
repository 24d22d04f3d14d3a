"""The bootstrap over examples: replicates of a score, and an interval from them."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Num, UInt8
from torch import Tensor

from mcbn.evaluation.clusters import Clusters
from mcbn.io.progress import progress_bar
from mcbn.network.isolation import derived_seed

# What scores are computed from, by name: tensors with one row per example, resampled together.
ScoreColumns = Mapping[str, Tensor]
Measure = Callable[[ScoreColumns], Mapping[str, float | Tensor]]
# How often each unit was drawn, in one resample or in several.
Counts = Num[np.ndarray, "units *resamples"]
# Of each score, or its gaps, the values of several resamples, from the counts of each group.
CountMeasure = Callable[..., Mapping[str, Any]]
CHUNK = 2**22  # counts that are held at once


def replicates(
    groups: Sequence[ScoreColumns],
    measure: Measure,
    *,
    resamples: int,
    seed: int,
    progress: bool,
    clusters: Sequence[Clusters | None] = (),
) -> dict[str, Float64[Tensor, "resamples *cells"]]:
    """Measure resamples of the examples, drawn with replacement from each group independently.

    The rows drawn depend on the seed and the numbers of rows, or of clusters, alone, so methods
    measured on the same examples are paired. Without resamples the result is empty.

    Args:
        groups: what is measured, of each group.
        measure: the scores of a resample.
        resamples: how many.
        seed: chooses them.
        progress: show a bar, on a terminal only.
        clusters: of the rows of each group, which are drawn whole; None to draw the rows.

    Raises:
        ValueError: the number of resamples is negative.
    """
    generator, rounds = _generator(seed), _rounds(resamples, progress)
    drawn_whole = clusters or [None] * len(groups)
    measured = [measure(_resampled(groups, drawn_whole, generator)) for _ in rounds]
    return {
        name: torch.stack(
            [torch.as_tensor(values[name], dtype=torch.float64) for values in measured]
        )
        for name in (measured[0] if measured else ())
    }


def counted_replicates(
    units: Sequence[int],
    measure: CountMeasure,
    *,
    resamples: int,
    seed: int,
    progress: bool = False,
) -> dict[str, Float64[Tensor, "resamples *cells"]]:
    """Measure the same resamples as `replicates`, by how often each unit was drawn.

    Many resamples are measured at once, so that sums over units are products of matrices; no more
    than `CHUNK` counts are held, however many resamples and units there are.

    Args:
        units: of each group: its rows, or its clusters of rows.
        measure: the scores of several resamples, from the counts of each group, with the axes
            (units, resamples).
        resamples: how many.
        seed: chooses them.
        progress: show a bar, on a terminal only.

    Raises:
        ValueError: the number of resamples is negative.
    """
    found: dict[str, Tensor] = {}
    done = 0
    for counts in drawn_counts(units, resamples=resamples, seed=seed, progress=progress):
        end = done + counts[0].shape[1]
        for name, values in measure(*counts).items():
            part = torch.as_tensor(values, dtype=torch.float64)
            if name not in found:
                found[name] = torch.empty((resamples, *part.shape[1:]), dtype=torch.float64)
            found[name][done:end] = part
        done = end
    return found


def drawn_counts(
    units: Sequence[int], *, resamples: int, seed: int, progress: bool = False
) -> Iterator[list[UInt8[np.ndarray, "units resamples"]]]:
    """How often each unit of each group is drawn in the resamples of `replicates`, chunk by chunk.

    As many units are drawn as there are, so a count has the mean 1: it would leave the 255 of its
    type once in 10^500 resamples.

    Raises:
        ValueError: the number of resamples is negative.
    """
    generator, rounds = _generator(seed), iter(_rounds(resamples, progress))
    size = max(1, CHUNK // max(sum(units), 1))
    for start in range(0, resamples, size):
        chunk = min(size, resamples - start)
        # One resample after another in memory, as those who rank rows read them.
        counts = [np.zeros((chunk, each), dtype=np.uint8) for each in units]
        for k, _ in enumerate(islice(rounds, chunk)):
            for each, count in zip(counts, units, strict=True):
                drawn = torch.randint(count, (count,), generator=generator)
                np.add.at(each[k], drawn.numpy(), np.uint8(1))
        yield [each.T for each in counts]


def _rounds(resamples: int, progress: bool) -> Iterable[int]:
    """One round after another, with a bar if it is to be shown."""
    if resamples < 0:
        raise ValueError(f"expected at least 0 resamples, got {resamples}; 1000 is usual")
    bar: Iterable[int] = progress_bar(
        range(resamples), label="bootstrap", unit="resample", shown=progress
    )
    return bar


def _resampled(
    groups: Sequence[ScoreColumns],
    clusters: Sequence[Clusters | None],
    generator: torch.Generator,
) -> ScoreColumns:
    chosen: dict[str, Tensor] = {}
    for columns, whole in zip(groups, clusters, strict=True):
        index = _drawn(len(next(iter(columns.values()))), whole, generator)
        chosen |= {name: values[index] for name, values in columns.items()}
    return chosen


def drawn_rows(clusters: Clusters, *, seed: int) -> Iterator[Int[Tensor, " rows"]]:
    """The rows of one resample after another, as `replicates` draws them of a single group."""
    generator = _generator(seed)
    while True:
        yield _drawn(len(clusters.of_row), clusters, generator)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed, "bootstrap"))


def _drawn(
    rows: int, clusters: Clusters | None, generator: torch.Generator
) -> Int[Tensor, " drawn"]:
    """As many rows as there are, or the rows of as many clusters, with replacement."""
    count = rows if clusters is None else len(clusters)
    index = torch.randint(count, (count,), generator=generator)
    return index if clusters is None else clusters.rows_of(index)


def percentile_interval(
    values: Float64[Tensor, "*shapes resamples"], level: float
) -> tuple[float, float]:
    """Return the interval that holds the central share `level` of the replicates.

    NaN is left out; without replicates both ends are NaN. Of several rows of replicates it spans
    the intervals of all. An end between two replicates, of which one is infinite, is the outer one.

    Its ends are the values of rank `(R + 1) p`: R values cut the line into R + 1 parts, into each
    of which another one falls with the same chance. Few replicates give their extremes.

    Reference:
        Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 5.2.
    """
    if values.ndim > 1:
        lows, highs = zip(*(percentile_interval(each, level) for each in values), strict=True)
        # Unlike Python's min and max, these give NaN where one end is NaN.
        return float(np.min(lows)), float(np.max(highs))
    known = values[~values.isnan()]
    if len(known) == 0:
        return math.nan, math.nan
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    last = max(len(known) - 1, 1)
    ranks = ((tails * (len(known) + 1) - 1) / last).clamp(0, 1)
    low, high = known.quantile(ranks).tolist()
    # Nothing lies between an infinite value and another one: then the end is the outer of the two.
    if not math.isfinite(low):
        low = float(known.quantile(ranks[0], interpolation="lower"))
    if not math.isfinite(high):
        high = float(known.quantile(ranks[1], interpolation="higher"))
    return low, high
