"""A choice of batch size held to draws really collected there, and at both ends of its search."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.bank.full_batches import mini_batches
from mcbn.bank.minibatches import MiniBatches, minibatches
from mcbn.evaluation.bootstrap import drawn_rows, percentile_interval
from mcbn.evaluation.clusters import Clusters
from mcbn.network.isolation import derived_seed, own_warnings
from mcbn.study.criterion import Objective

COLUMNS = ("batch_sizes", "values", "gaps", "low", "high")


@dataclass(frozen=True, eq=False)
class Confirmation:
    """What the criterion is with draws really collected, beside as many rescaled ones.

    Attributes:
        batch_sizes: the sizes at which draws were collected.
        values: the criterion with the collected draws, in nats per example.
        gaps: these values minus those with as many rescaled draws.
        low: lower ends of the intervals of the gaps, by the bootstrap over draws, and over groups
            of examples where there are any.
        high: upper ends of them.
        draws: the number of draws at each size.
    """

    batch_sizes: tuple[int, ...]
    values: tuple[float, ...]
    gaps: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    draws: int

    @property
    def disagreeing(self) -> tuple[int, ...]:
        """The sizes at which collected draws give significantly other values than rescaled ones."""
        rows = zip(self.batch_sizes, self.low, self.high, strict=True)
        return tuple(size for size, low, high in rows if not low <= 0 <= high)

    def __str__(self) -> str:
        rows = zip(self.batch_sizes, self.values, self.gaps, self.low, self.high, strict=True)
        return "\n".join(
            f"collected at {size}: {value:.4g}, {gap:+.2g} [{low:+.2g}, {high:+.2g}] from rescaled"
            for size, value, gap, low, high in rows
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Confirmation":
        """Make it from the values of `to_dict`, which may have been through JSON.

        Raises:
            KeyError: values are missing.
        """
        return cls(draws=values["draws"], **{name: tuple(values[name]) for name in COLUMNS})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"draws": self.draws} | {name: list(getattr(self, name)) for name in COLUMNS}


def source_of_batches(batches: Any) -> MiniBatches:
    """Mini-batches of any size from the examples of these.

    Raises:
        TypeError: they are neither mini-batches nor a loader of a data set with a length.
    """
    if isinstance(batches, DataLoader) and (drawn := mini_batches(batches)) is not None:
        return drawn
    if isinstance(batches, MiniBatches):
        return batches
    if isinstance(batches, DataLoader) and not isinstance(batches.dataset, IterableDataset):
        collate = batches.collate_fn
        return minibatches(batches.dataset, batch_size=1, draws=1, collate=collate)
    raise TypeError(
        "expected batches to be mcbn.minibatches(...) or a DataLoader of a data set with a length, "
        f"got {type(batches).__name__}, from which no other size can be drawn; leave it out"
    )


def whole_sizes(sizes: Iterable[float], population: int) -> tuple[int, ...]:
    """These sizes as whole numbers of examples, in order, between 2 and the population."""
    return tuple(sorted({min(max(2, round(size)), population) for size in sizes}))


def confirm(
    objective: Objective,
    batches: MiniBatches,
    sizes: Sequence[int],
    *,
    draws: int,
    resamples: int,
    level: float,
    seed: int,
    clusters: Clusters | None = None,
) -> tuple[Confirmation, Float64[Tensor, "sizes resamples"]]:
    """Collect draws at these sizes, and compare the criterion with that of as many rescaled ones.

    Args:
        objective: the criterion, with the bank that is rescaled.
        batches: where the mini-batches are drawn from.
        sizes: at which to draw.
        draws: the number of draws at each size; no more than the bank has.
        resamples: number of bootstrap resamples of the draws.
        level: level of the intervals.
        seed: of the resamples.
        clusters: of the examples, which are drawn whole: in each resample those of the curve, so
            that the two can be added. None to draw no examples.

    Returns:
        The confirmation, and the replicates of its gaps.
    """
    draws = min(draws, len(objective.bank))
    generator = torch.Generator().manual_seed(derived_seed(seed, "confirm"))
    values, gaps, replicates = [], [], []
    for size in sizes:
        # Other mini-batches than those of the bank.
        own = replace(batches, batch_size=size, draws=draws, seed=derived_seed(batches.seed, size))
        with own_warnings():
            # It was said of the bank, and few draws of small sizes say it without cause.
            warnings.simplefilter("ignore", InconsistentBankWarning)
            collected = collect(objective.model, own, limit=None, progress=False)
        pair = [
            objective.by_draw(bank) for bank in (collected, _rescaled(objective.bank, draws, size))
        ]
        values.append(objective.value(pair[0], size))
        gaps.append(values[-1] - objective.value(pair[1], size))
        resampled = []
        for examples in islice(_examples(clusters, seed), resamples):
            chosen = [
                rows[torch.randint(draws, (draws,), generator=generator)][:, examples]
                for rows in pair
            ]
            resampled.append(objective.value(chosen[0], size) - objective.value(chosen[1], size))
        replicates.append(torch.tensor(resampled, dtype=torch.float64))
    spans = [percentile_interval(row, level) for row in replicates]
    low, high = (tuple(ends) for ends in zip(*spans, strict=True))
    found = Confirmation(tuple(sizes), tuple(values), tuple(gaps), low, high, draws)
    return found, torch.stack(replicates)


def _examples(clusters: Clusters | None, seed: int) -> Iterator[slice | Tensor]:
    """The examples of one resample after another: all of them, or those of drawn clusters."""
    return repeat(slice(None)) if clusters is None else drawn_rows(clusters, seed=seed)


def _rescaled(bank: Bank, draws: int, size: int) -> Bank:
    return bank.first(draws).rescale(size, warn=False)


def interpolated(
    gaps: Float64[Tensor, "sizes resamples"], sizes: Sequence[int], grid: Float64[Tensor, " points"]
) -> Float64[Tensor, "points resamples"]:
    """Gaps on a grid of log sizes: the polynomial through those at the sizes, by Lagrange."""
    logs = [math.log(size) for size in sizes]
    curves = torch.zeros(len(grid), gaps.shape[1], dtype=torch.float64)
    for index, row in enumerate(gaps):
        others = [at for at in logs if at != logs[index]]
        weights = torch.ones_like(grid)
        for at in others:
            weights = weights * (grid - at) / (logs[index] - at)
        curves += weights[:, None] * row
    return curves
