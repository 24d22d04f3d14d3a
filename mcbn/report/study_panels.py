"""The figures of a batch-size study: curves over M, levels for methods without one, heat maps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.report import figures
from mcbn.report.figures import Curve
from mcbn.report.panels import SIZE, Group, Panel, key_of
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Study, point
from mcbn.study.slopes import expected

SPREADS = ("epistemic_sd", "mutual_information")
# One draw has no mutual information; entropy is all that these have to tell by.
SINGLE = ("Deterministic", "Population BN")


def information_group(study: Study) -> Group:
    """Mean mutual information of MCBN against M inside and outside, a line a training size."""
    places = {"Test examples": "mutual_information"}
    places |= {name: f"mutual_information_{name}" for name in study.outside}
    found = {
        title: [
            replace(_curve(study, score, "MCBN", size, style), name=str(size))
            for style, size in enumerate(study.training_batch_sizes)
        ]
        for title, score in places.items()
    }
    limits = limits_of([curve for curves in found.values() for curve in curves], log=True)
    panels = tuple(
        Panel(
            title,
            f"Mean mutual information of MCBN on {title} against the inference batch size",
            partial(_draw_spread, curves, [], study.batch_sizes, limits, "mutual_information"),
            numbers_of(curves),
        )
        for title, curves in found.items()
    )
    key = [f"trained at {size}" for size in study.training_batch_sizes]
    return Group("Mean mutual information of MCBN", key_of(key), panels)


def score_group(study: Study, score: str) -> Group | None:
    """A score against M, one figure a training batch size; None if nothing of it is known.

    The epistemic spreads have logarithmic axes, and a thin line that falls as they should.
    """
    spread = score.startswith(SPREADS)
    found = {size: _lines(study, score, size) for size in study.training_batch_sizes}
    drawn = [
        curve
        for curve in (curve for curves in found.values() for curve in curves)
        if any(math.isfinite(y) and (y > 0 or not spread) for y in curve.y)
    ]
    if not drawn:
        return None
    title, axis = score_title(score)
    values = [y for curve in drawn for y in curve.y if math.isfinite(y)]
    log = spread or (score == "nll" and min(values) > 0 and max(values) > 4 * min(values))
    limits = limits_of(drawn, log=log, score=score)
    shown = {curve.name: curve.style for curve in drawn}
    panels = []
    for size, curves in found.items():
        curves = [curve for curve in curves if curve.name in shown]
        over = [curve for curve in curves if curve.name in OVER_BATCH_SIZES]
        levels = [curve for curve in curves if curve.name not in OVER_BATCH_SIZES]
        draw = (
            partial(_draw_spread, over, levels, study.batch_sizes, limits, score)
            if spread
            else partial(_draw_score, over, levels, study.batch_sizes, limits, axis, log)
        )
        label = f"{title} against the inference batch size, trained at batch size {size}"
        panels.append(Panel(f"Trained at batch size {size}", label, draw, numbers_of(curves)))
    return Group(title, tuple(shown.items()), tuple(panels))


def heat_map(study: Study, score: str, *, method: str = "MCBN") -> Panel | None:
    """Training against inference batch size, the mean over seeds written in each cell."""
    rows, columns = study.training_batch_sizes, study.batch_sizes
    means = [list(_curve(study, score, method, size, 0).y) for size in rows]
    values = np.array(means, dtype=float).reshape(len(rows), len(columns))
    if not np.isfinite(values).any():
        return None
    title, _ = score_title(score)
    size = (min(max(SIZE[0], 1.0 + 0.6 * len(columns)), 6.0), 1.0 + 0.42 * len(rows))
    label = f"{title} of {method} by training and inference batch size"
    draw = partial(_draw_heat_map, shades(values, score), values, rows, columns)
    numbers = {"training": rows, "inference": columns, "mean": means}
    return Panel(f"{title} of {method}", label, draw, numbers, size)


def shades(values: np.ndarray, score: str) -> np.ndarray:
    """Values mapped to [0, 1], the best or largest to 1; by their logarithms if they span much."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if low > 0 and high > 4 * low:
        values, low, high = np.log(values), math.log(low), math.log(high)
    if high == low:
        return np.where(np.isfinite(values), 0.5, np.nan)
    found = (values - low) / (high - low)
    return 1 - found if BETTER.get(score) == "lower" else found


def score_title(score: str) -> tuple[str, str]:
    """A heading for a score of a study, and what stands along its axis."""
    if score.startswith("auroc_") and score not in glossary.SCORES:
        place = score.removeprefix("auroc_")
        return f"AUROC of {place} against the test examples", "AUROC"
    for name in SPREADS:
        if score.startswith(f"{name}_"):
            place = score.removeprefix(f"{name}_")
            return f"{glossary.label(name)} on {place}", score_title(name)[1]
    term = glossary.SCORES[score]
    unit = {"nll": " (nats)", "pll": " (nats)", "mutual_information": " (nats)"}.get(score, "")
    return term.label, term.label + unit


def _lines(study: Study, score: str, size: int) -> list[Curve]:
    """Every method's curve or level, in a style that is the same in all figures of a study."""
    return [
        _curve(study, score, method, size, style) for style, method in enumerate(study.methods)
    ]  # fmt: skip


def _curve(study: Study, score: str, method: str, size: int, style: int) -> Curve:
    """A method's points over M (or its one point), NaN where the study has none."""
    wanted = score
    if score.startswith("auroc_") and score not in glossary.SCORES:
        wanted += "_by_entropy" if method in SINGLE else "_by_mutual_information"
    sizes = study.batch_sizes if method in OVER_BATCH_SIZES else (None,)
    points = []
    for batch_size in sizes:
        found = study.values(wanted, method, training_batch_size=size, batch_size=batch_size)
        at = point(list(found.values()) or [math.nan])
        points.append((at.mean, at.low, at.high))
    y, low, high = zip(*points, strict=True) if points else ((), (), ())
    return Curve(method, tuple(float(each or 0) for each in sizes), y, low, high, style)


def numbers_of(curves: Sequence[Curve]) -> Mapping[str, Any]:
    """What curves show, by name."""
    return {
        curve.name: {"x": curve.x, "y": curve.y, "low": curve.low, "high": curve.high}
        for curve in curves
    }


def limits_of(curves: Sequence[Curve], *, log: bool, score: str = "") -> tuple[float, float]:
    """Ends of an axis that holds every mean and the nearer part of the bands.

    They end a little outside of what the score can be, so that a line there is seen.
    """
    values = [y for curve in curves for y in curve.y if math.isfinite(y) and (y > 0 or not log)]
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        # What has vanished, as all draws being equal, is not worth decades of empty axis.
        low = max(low, high * 1e-5)
        return low / 1.6, high * 1.6
    halves = sorted(
        (b - a) / 2
        for curve in curves
        for a, b in zip(curve.low, curve.high, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    )
    usual = halves[len(halves) // 2] if halves else 0.0
    span = high - low
    # Bands of two seeds are so wide that axes which held them would flatten every curve.
    room = max(0.4 * span, min(1.3 * usual, span)) or usual or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    least, most = _possible(score)
    margin = 0.03 * (min(high, most) - max(low, least))
    return max(low, least - margin), min(high, most + margin)


def _possible(score: str) -> tuple[float, float]:
    """The least and the most that a score can be."""
    if score in ("accuracy", "coverage_90") or score.startswith("auroc"):
        return 0.0, 1.0
    return (0.0, math.inf) if BETTER.get(score) == "lower" else (-math.inf, math.inf)


def _draw_spread(
    curves: Sequence[Curve],
    levels: Sequence[Curve],
    sizes: Sequence[int],
    limits: tuple[float, float],
    score: str,
    figure: Figure,
) -> None:
    ax = figures.draw_levels(
        [level for level in levels if not level.y[0] <= 0], figure.subplots()
    )  # fmt: skip
    figures.draw_curves(curves, ax)
    starts = [curve.y[0] for curve in curves if curve.y and curve.y[0] > 0]
    if starts:
        top = float(np.exp(np.mean(np.log(starts))))
        fall = [top * (size / sizes[0]) ** expected(score) for size in sizes]
        ax.plot(sizes, fall, color=figures.INK, linewidth=0.9, dashes=(4, 3))
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    figures.value_axis(limits, ax, label=score_title(score)[1], log=True)


def _draw_score(
    curves: Sequence[Curve],
    levels: Sequence[Curve],
    sizes: Sequence[int],
    limits: tuple[float, float],
    axis: str,
    log: bool,
    figure: Figure,
) -> None:
    ax = figures.draw_levels(levels, figure.subplots())
    figures.draw_curves(curves, ax)
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    figures.value_axis(limits, ax, label=axis, log=log)


def _draw_heat_map(
    tints: np.ndarray,
    values: np.ndarray,
    rows: Sequence[int],
    columns: Sequence[int],
    figure: Figure,
) -> None:
    texts = [[glossary.significant(value) for value in row] for row in values]
    ax = figures.draw_heat_map(tints, texts, figure.subplots())
    ax.set_xticks(range(len(columns)), labels=[str(size) for size in columns])
    ax.set_yticks(range(len(rows)), labels=[str(size) for size in rows])
    ax.set(xlabel="Inference batch size, M", ylabel="Training batch size")
