"""The figures of a batch-size study: curves over M, levels for methods that do not know M."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mcbn import figures, glossary
from mcbn.figures import Curve
from mcbn.panels import Group, Panel, key_of
from mcbn.study import Study


def information_group(study: Study) -> Group:
    """Mean mutual information against M inside and outside, a line a training batch size."""
    places = {"Test examples": "mutual_information"}
    places |= {name: f"mutual_information_{name}" for name in study.outside}
    found = {
        title: [
            _curve(study, score, "MCBN", size, style, name=str(size))
            for style, size in enumerate(study.training_batch_sizes)
        ]
        for title, score in places.items()
    }
    limits = _limits([curve for curves in found.values() for curve in curves], log=True)
    panels = tuple(
        Panel(
            title,
            f"Mean mutual information of MCBN on {title} against the inference batch size",
            partial(_draw_information, curves, study.batch_sizes, limits),
            _numbers(curves),
        )
        for title, curves in found.items()
    )
    key = [f"trained at {size}" for size in study.training_batch_sizes]
    return Group("Mean mutual information of MCBN", key_of(key), panels)


def score_group(study: Study, score: str) -> Group | None:
    """A score against M, one figure a training batch size; the other methods are levels."""
    panels: list[tuple[int, Curve, list[Curve]]] = []
    for size in study.training_batch_sizes:
        line = _curve(study, score, "MCBN", size, 0)
        others = [name for name in study.methods if name != "MCBN"]
        levels = [
            _curve(study, score, name, size, style) for style, name in enumerate(others, start=1)
        ]
        panels.append((size, line, levels))
    drawn = [curve for _, line, levels in panels for curve in (line, *levels)]
    if not any(math.isfinite(y) for curve in drawn for y in curve.y):
        return None
    title, axis = _score_title(score)
    values = [y for curve in drawn for y in curve.y if math.isfinite(y)]
    log = title == "NLL" and min(values) > 0 and max(values) > 4 * min(values)
    limits = _limits(drawn, log=log)
    made = tuple(
        Panel(
            f"Trained at batch size {size}",
            f"{title} against the inference batch size of MCBN, trained at batch size {size}",
            partial(_draw_score, line, levels, study.batch_sizes, limits, axis, log),
            _numbers([line, *levels]),
        )
        for size, line, levels in panels
    )
    return Group(title, tuple((curve.name, curve.style) for curve in (line, *levels)), made)


def _score_title(score: str) -> tuple[str, str]:
    if score.startswith("auroc_") and score not in glossary.SCORES:
        place = score.removeprefix("auroc_")
        return f"AUROC of {place} against the test examples", "AUROC"
    unit = " (nats)" if score == "nll" else ""
    return glossary.label(score), glossary.label(score) + unit


def _curve(
    study: Study, score: str, method: str, size: int, style: int, *, name: str = ""
) -> Curve:
    """A method's points over M (or its one point), NaN where the study has none."""
    wanted = score
    if score.startswith("auroc_") and score not in glossary.SCORES:
        # One draw has no mutual information; entropy is all it has to tell by.
        wanted += "_by_entropy" if method == "Deterministic" else "_by_mutual_information"
    sizes = study.batch_sizes if method == "MCBN" else (None,)
    points = []
    for batch_size in sizes:
        try:
            point = study.point(wanted, method, training_batch_size=size, batch_size=batch_size)
            points.append((point.mean, point.low, point.high))
        except KeyError:
            points.append((math.nan,) * 3)
    y, low, high = zip(*points, strict=True) if points else ((), (), ())
    x = tuple(float(batch_size or 0) for batch_size in sizes)
    return Curve(name or method, x, y, low, high, style)


def _numbers(curves: Sequence[Curve]) -> dict[str, Any]:
    return {
        curve.name: {"x": curve.x, "y": curve.y, "low": curve.low, "high": curve.high}
        for curve in curves
    }


def _limits(curves: Sequence[Curve], *, log: bool) -> tuple[float, float]:
    """Ends of an axis that holds every mean and the nearer part of the bands."""
    values = [y for curve in curves for y in curve.y if math.isfinite(y) and (y > 0 or not log)]
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return low / 1.6, high * 1.6
    halves = sorted(
        (b - a) / 2
        for curve in curves
        for a, b in zip(curve.low, curve.high, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    )
    usual = halves[len(halves) // 2] if halves else 0.0
    room = max(0.4 * (high - low), 1.3 * usual) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _draw_information(
    curves: Sequence[Curve], sizes: Sequence[int], limits: tuple[float, float], figure: Figure
) -> None:
    ax = figures.draw_curves(curves, figure.subplots())
    starts = [curve.y[0] for curve in curves if curve.y and curve.y[0] > 0]
    if starts:
        top = float(np.exp(np.mean(np.log(starts))))
        ax.plot(sizes, [top * sizes[0] / size for size in sizes], color=figures.INK,
                linewidth=0.9, dashes=(4, 3))  # fmt: skip
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    figures.value_axis(limits, ax, label="Mutual information (nats)", log=True)


def _draw_score(
    line: Curve,
    levels: Sequence[Curve],
    sizes: Sequence[int],
    limits: tuple[float, float],
    axis: str,
    log: bool,
    figure: Figure,
) -> None:
    ax = figures.draw_levels(levels, figure.subplots())
    figures.draw_curves([line], ax)
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    figures.value_axis(limits, ax, label=axis, log=log)
