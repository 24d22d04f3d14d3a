"""What a study finds against N or T, where it varies them: at fixed M, all else alike."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from matplotlib.figure import Figure

from mcbn.report import figures
from mcbn.report.figures import Curve
from mcbn.report.panels import Group, Panel
from mcbn.report.study_panels import limits_of, numbers_of, score_title
from mcbn.study.cell import Cell
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point
from mcbn.study.slopes import VANISHED, log_log_slope

Axis = Literal["N", "T"]
LABELS: Mapping[Axis, str] = {"N": "Training examples, N", "T": "Draws averaged, T"}
MOST_LINES = 4  # of one method: more than so many M would hide each other

Place = tuple[str, int | None]  # a method, and its M where it has one


@dataclass(frozen=True)
class Sweep:
    """Studies that differ in one number.

    Attributes:
        axis: which.
        name: what sets it apart from other sweeps of the study; empty for the only one.
        studies: by the number, ascending.
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
        sizes = first.batch_sizes[:: max(1, math.ceil(len(first.batch_sizes) / MOST_LINES))]
        found: list[Place] = [(chosen, size) for size in sizes] if chosen else []
        return (*found, *((name, None) for name in first.methods if name not in over))

    @property
    def training_batch_sizes(self) -> tuple[int, ...]:
        """Training batch sizes of all its studies, ascending."""
        sizes = {size for study in self.studies.values() for size in study.training_batch_sizes}
        return tuple(sorted(sizes))


@dataclass(frozen=True)
class Trend:
    """The log-log slope of the epistemic sd against N or T at fixed M, over splits and seeds.

    Attributes:
        axis: N or T.
        sweep: its name.
        method: which.
        batch_size: its M, where it has one.
        estimate: the slope, a mean over training batch sizes within each split and seed first.
        replicates: how many splits and seeds.
    """

    axis: Axis
    sweep: str
    method: str
    batch_size: int | None
    estimate: Point
    replicates: int


def sweeps(study: Study, axis: Axis) -> tuple[Sweep, ...]:
    """The study cut by everything but batch sizes, methods and one axis; none if it is not varied.

    N that is only known as "all" has no place on an axis and is left out.
    """
    plan = study.plan
    known = plan.data.train_sizes if axis == "N" else plan.inference.draws
    values = sorted({value for value in known if value is not None})
    found: dict[str, dict[int, Study]] = {}
    for value in values if len(values) > 1 else ():
        chosen = [r for r in study.results if _at(axis, value, r.cell) == value]
        if axis == "N":
            fixed = replace(plan, data=replace(plan.data, train_sizes=(value,)))
        else:
            fixed = replace(plan, inference=replace(plan.inference, draws=(value,)))
        at = replace(study, plan=fixed, results=tuple(chosen), failures={}, missing=0)
        for name, part in at.parts().items():
            found.setdefault(name, {})[value] = part
    return tuple(Sweep(axis, name, parts) for name, parts in found.items() if len(parts) > 1)


def _at(axis: Axis, value: int, cell: Cell) -> int | None:
    """Where a cell lies on an axis; a method without a choice of T lies everywhere on it."""
    if axis == "N":
        return cell.network.train_size
    return cell.chosen_draws or value


def sweep_group(sweep: Sweep, score: str) -> Group | None:
    """A score against N or T, one figure a training batch size; None if nothing is known."""
    title, axis = score_title(score)
    found = {
        size: [_curve(sweep, score, place, size, style) for style, place in
               enumerate(sweep.places)]
        for size in sweep.training_batch_sizes
    }  # fmt: skip
    spread = score == "epistemic_sd"
    drawn = [
        curve
        for curves in found.values()
        for curve in curves
        if any(math.isfinite(y) and (y > 0 or not spread) for y in curve.y)
    ]
    if not drawn:
        return None
    limits = limits_of(drawn, log=spread, score=score)
    shown = {curve.name: curve.style for curve in drawn}
    values = list(sweep.studies)
    panels = []
    for size, curves in found.items():
        kept = [curve for curve in curves if curve.name in shown]
        label = f"{title} against {LABELS[sweep.axis]}, trained at batch size {size}"
        draw = partial(_draw, kept, values, limits, (LABELS[sweep.axis], axis), spread)
        panels.append(Panel(f"Trained at batch size {size}", label, draw, numbers_of(kept)))
    name = f"{title}, {sweep.name}" if sweep.name else title
    return Group(name, tuple(shown.items()), tuple(panels))


def trends(sweep: Sweep) -> tuple[Trend, ...]:
    """The slope of the epistemic sd of each method at each M, where it is above 0 everywhere."""
    found = []
    for method, batch_size in sweep.places:
        slopes: dict[tuple[int, int], list[float]] = {}
        for size in sweep.training_batch_sizes:
            for replicate, row in _rows(sweep, "epistemic_sd", (method, batch_size), size).items():
                if len(row) == len(sweep.studies) and _left(row):
                    slope = log_log_slope(tuple(sweep.studies), tuple(row))
                    slopes.setdefault(replicate, []).append(slope)
        most = max(map(len, slopes.values()), default=0)
        whole = [statistics.fmean(each) for each in slopes.values() if len(each) == most]
        if whole:
            trend = Trend(sweep.axis, sweep.name, method, batch_size, point(whole), len(whole))
            found.append(trend)
    return tuple(found)


def _left(row: Sequence[float]) -> bool:
    """Whether a spread is known and has not vanished anywhere."""
    return math.isfinite(sum(row)) and min(row) > VANISHED * max(row)


def _rows(
    sweep: Sweep, score: str, place: Place, training_batch_size: int
) -> dict[tuple[int, int], list[float]]:
    """A score at every number of a sweep, by split and seed."""
    method, batch_size = place
    found: dict[tuple[int, int], list[float]] = {}
    for study in sweep.studies.values():
        values = study.values(
            score, method, training_batch_size=training_batch_size, batch_size=batch_size
        )
        for replicate, value in values.items():
            found.setdefault(replicate, []).append(value)
    return found


def _curve(sweep: Sweep, score: str, place: Place, size: int, style: int) -> Curve:
    method, batch_size = place
    points = []
    for study in sweep.studies.values():
        values = study.values(score, method, training_batch_size=size, batch_size=batch_size)
        at = point(list(values.values()) or [math.nan])
        points.append((at.mean, at.low, at.high))
    y, low, high = zip(*points, strict=True)
    name = method if batch_size is None else f"{method}, M = {batch_size}"
    return Curve(name, tuple(map(float, sweep.studies)), y, low, high, style)


def _draw(
    curves: Sequence[Curve],
    values: Sequence[int],
    limits: tuple[float, float],
    labels: tuple[str, str],
    log: bool,
    figure: Figure,
) -> None:
    ax = figures.draw_curves(curves, figure.subplots())
    figures.doubling_axis(values, ax, label=labels[0])
    figures.value_axis(limits, ax, label=labels[1], log=log)
