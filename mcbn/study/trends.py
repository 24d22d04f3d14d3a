"""Scores of a study against N or T, where it varies them, at fixed M."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mcbn.study.cell import Cell
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study
from mcbn.study.slopes import MIN_RELATIVE_SPREAD, Replicate, log_log_slope, mean_of_networks

Axis = Literal["N", "T"]
MAX_LINES = 4  # of one method: lines of more M would hide each other

Place = tuple[str, int | None]  # a method, and its M where it has one


@dataclass(frozen=True)
class Sweep:
    """Studies that differ only in N or only in T.

    Attributes:
        axis: which of the two.
        name: what distinguishes it from other sweeps of the study; empty if it is the only one.
        studies: by N or T, ascending.
    """

    axis: Axis
    name: str
    studies: Mapping[int, Study]

    @property
    def places(self) -> tuple[Place, ...]:
        """Methods without an M, and MCBN (or the first method over M) at some of its M."""
        first = next(iter(self.studies.values()))
        over = [name for name in first.methods if name in OVER_BATCH_SIZES]
        chosen = "MCBN" if "MCBN" in over else over[0] if over else ""
        sizes = first.batch_sizes[:: max(1, math.ceil(len(first.batch_sizes) / MAX_LINES))]
        lines: list[Place] = [(chosen, size) for size in sizes] if chosen else []
        return (*lines, *((name, None) for name in first.methods if name not in over))

    @property
    def training_batch_sizes(self) -> tuple[int, ...]:
        """The training batch sizes of all its studies, ascending."""
        sizes = {size for study in self.studies.values() for size in study.training_batch_sizes}
        return tuple(sorted(sizes))


@dataclass(frozen=True)
class Trend:
    """The log-log slope of the epistemic sd against N or T at fixed M.

    Attributes:
        axis: N or T.
        sweep: name of the sweep.
        method: name of the method.
        batch_size: its M, where it has one.
        estimate: mean slope over networks, with the interval of `mean_of_networks`.
        replicates: number of splits and seeds.
    """

    axis: Axis
    sweep: str
    method: str
    batch_size: int | None
    estimate: Point
    replicates: int


def sweeps(study: Study, axis: Axis) -> tuple[Sweep, ...]:
    """Sweeps over N or T for each part of a study; none if the study does not vary it.

    N that is only known as "all" has no place on an axis and is left out.
    """
    plan = study.plan
    declared = plan.data.train_sizes if axis == "N" else plan.inference.draws
    values = sorted({value for value in declared if value is not None})
    sweep_parts: dict[str, dict[int, Study]] = {}
    for value in values if len(values) > 1 else ():
        results = tuple(each for each in study.results if _is_at(axis, value, each.cell))
        if axis == "N":
            fixed = replace(plan, data=replace(plan.data, train_sizes=(value,)))
        else:
            fixed = replace(plan, inference=replace(plan.inference, draws=(value,)))
        at_value = replace(study, plan=fixed, results=results, failures={}, missing=0)
        for name, part in at_value.parts().items():
            sweep_parts.setdefault(name, {})[value] = part
    return tuple(Sweep(axis, name, parts) for name, parts in sweep_parts.items() if len(parts) > 1)


def _is_at(axis: Axis, value: int, cell: Cell) -> bool:
    """Whether a cell has this N or T; a method without a choice of T has every T."""
    if axis == "N":
        return cell.network.train_size == value
    return cell.chosen_draws in (None, value)


def trends(sweep: Sweep) -> tuple[Trend, ...]:
    """The slope of the epistemic sd of each method at each M, where it is above 0 everywhere."""
    return tuple(trend for place in sweep.places if (trend := _trend(sweep, place)))


def _trend(sweep: Sweep, place: Place) -> Trend | None:
    slopes: dict[Replicate, list[float]] = {}
    for size in sweep.training_batch_sizes:
        values = values_at(sweep, "epistemic_sd", place, size)
        for replicate in values[0]:
            spreads = [each.get(replicate, math.nan) for each in values]
            if math.isfinite(sum(spreads)) and min(spreads) > MIN_RELATIVE_SPREAD * max(spreads):
                slope = log_log_slope(tuple(sweep.studies), tuple(spreads))
                slopes.setdefault(replicate, []).append(slope)
    # Replicates that lack a training batch size of the others are left out.
    count = max(map(len, slopes.values()), default=0)
    whole = [each for each in slopes.values() if len(each) == count]
    if not whole:
        return None
    method, batch_size = place
    estimate = mean_of_networks(whole)
    return Trend(sweep.axis, sweep.name, method, batch_size, estimate, len(whole))


def values_at(
    sweep: Sweep, score: str, place: Place, training_batch_size: int
) -> list[dict[Replicate, float]]:
    """A score by split and seed, at each N or T of a sweep."""
    method, batch_size = place
    return [
        study.values(score, method, training_batch_size=training_batch_size, batch_size=batch_size)
        for study in sweep.studies.values()
    ]
