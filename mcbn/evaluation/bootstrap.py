"""Resampling examples: the spread of a score, and an interval from it."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.io.progress import progress_bar
from mcbn.network.isolation import derived_seed

# Columns of one group have one row an example and are resampled together.
Columns = Mapping[str, Tensor]
Measure = Callable[[Columns], Mapping[str, float | Tensor]]


def replicates(
    groups: Sequence[Columns], measure: Measure, *, resamples: int, seed: int, progress: bool
) -> dict[str, Float64[Tensor, "resamples *cells"]]:
    """Measure `resamples` resamples, drawn with replacement from each group on its own.

    The rows drawn depend on the seed and the numbers of rows alone, so methods measured on the
    same examples are paired. Without resamples there is nothing, not even names.

    Raises:
        ValueError: the number of resamples is negative.
    """
    if resamples < 0:
        raise ValueError(f"expected at least 0 resamples, got {resamples}; 1000 is usual")
    generator = torch.Generator().manual_seed(derived_seed(seed, "bootstrap"))
    rounds = progress_bar(range(resamples), label="bootstrap", unit="resample", shown=progress)
    found = [measure(_resampled(groups, generator)) for _ in rounds]
    return {
        name: torch.stack([torch.as_tensor(values[name], dtype=torch.float64) for values in found])
        for name in (found[0] if found else ())
    }


def _resampled(groups: Sequence[Columns], generator: torch.Generator) -> Columns:
    chosen = []
    for columns in groups:
        rows = len(next(iter(columns.values())))
        index = torch.randint(rows, (rows,), generator=generator)
        chosen.append({name: values[index] for name, values in columns.items()})
    return _merged(chosen)


def _merged(groups: Sequence[Columns]) -> Columns:
    return {name: values for columns in groups for name, values in columns.items()}


def percentile_interval(
    values: Float64[Tensor, "*ways resamples"], level: float
) -> tuple[float, float]:
    """The central share `level` of the replicates, NaN left out; NaN if there are none.

    Of replicates that were had in several ways it spans the intervals of all.

    Its ends are the values of rank `(R + 1) p`: R values cut the line into R + 1 parts, into each
    of which another one falls with the same chance. Few replicates give their extremes.

    Reference:
        Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 5.2.
    """
    if values.ndim > 1:
        lows, highs = zip(*(percentile_interval(each, level) for each in values), strict=True)
        return min(lows), max(highs)
    known = values[~values.isnan()]
    if len(known) == 0:
        return float("nan"), float("nan")
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    last = max(len(known) - 1, 1)
    low, high = known.quantile(((tails * (len(known) + 1) - 1) / last).clamp(0, 1)).tolist()
    return low, high
