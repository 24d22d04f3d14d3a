"""The figures of a study: curves over M, level lines of methods without an M, heat maps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mcbn.drawing import figures
from mcbn.drawing.figures import Curve
from mcbn.drawing.plotted import Plotted
from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.report.panels import SIZE, Panel, PanelGroup, key_of
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Study, bounded, point
from mcbn.study.slopes import Replicate, expected

# A spread below this share of the largest has vanished (all draws are equal).
NOISE = 1e-5
FEW_COLUMNS = 5  # of a heat map, whose cells have room for a zero before the point
ROOM = 36  # letters in a row of a heat map
MAX_DOTS = 10  # replicates that are shown one by one
SPREADS = ("epistemic_sd", "mutual_information")
# Methods of a single draw have no mutual information and no spread.
SINGLE_DRAW = ("Deterministic", "Population BN")


def information_group(study: Study) -> PanelGroup:
    """Mean mutual information of MCBN against M, on test and out-of-distribution examples."""
    scores = {"Test examples": "mutual_information"}
    scores |= {name: f"mutual_information_{name}" for name in study.outside}
    curves_by_set = {
        title: [
            replace(_curve(study, score, "MCBN", size, style), name=str(size))
            for style, size in enumerate(study.training_batch_sizes)
        ]
        for title, score in scores.items()
    }
    curves_by_set = {title: above_noise(curves) for title, curves in curves_by_set.items()}
    limits = limits_of([c for curves in curves_by_set.values() for c in curves], log=True)
    panels = tuple(
        Panel(
            title,
            f"Mean mutual information of MCBN on {title} against the inference batch size",
            partial(_draw_spread, curves, [], study.batch_sizes, limits, "mutual_information"),
            numbers_of(curves),
            plotted=plotted(curves, "mutual_information"),
        )
        for title, curves in curves_by_set.items()
    )
    key = [f"trained at {size}" for size in study.training_batch_sizes]
    return PanelGroup("Mean mutual information of MCBN", key_of(key), panels)


def score_group(study: Study, score: str) -> PanelGroup | None:
    """A score against M, one figure per training batch size; None if no value is known.

    The epistemic spreads have logarithmic axes, and a thin line that falls as theory says.
    """
    is_spread = score.startswith(SPREADS)
    curves_by_size = {size: _curves(study, score, size) for size in study.training_batch_sizes}
    drawn = drawable([c for curves in curves_by_size.values() for c in curves], log=is_spread)
    if not drawn:
        return None
    title, axis = score_title(score)
    values = [y for curve in drawn for y in curve.y if math.isfinite(y)]
    log = is_spread or (score == "nll" and min(values) > 0 and max(values) > 4 * min(values))
    limits = limits_of(drawn, log=log, score=score)
    key = {curve.name: curve.style for curve in drawn}
    panels = []
    for size, curves in curves_by_size.items():
        curves = [curve for curve in curves if curve.name in key]
        drawn_here = above_noise(curves) if is_spread else curves
        over = [curve for curve in drawn_here if curve.name in OVER_BATCH_SIZES]
        levels = [curve for curve in drawn_here if curve.name not in OVER_BATCH_SIZES]
        draw = (
            partial(_draw_spread, over, levels, study.batch_sizes, limits, score)
            if is_spread
            else partial(_draw_score, over, levels, study.batch_sizes, limits, axis, log)
        )
        label = f"{title} against the inference batch size, trained at batch size {size}"
        panels.append(
            Panel(f"Trained at batch size {size}", label, draw, numbers_of(curves),
                  plotted=plotted(curves, score))
        )  # fmt: skip
    return PanelGroup(title, tuple(key.items()), tuple(panels))


def heat_map(study: Study, score: str, *, method: str = "MCBN") -> Panel | None:
    """Mean of a score over seeds by training and inference batch size; None if none is known."""
    rows, columns = study.training_batch_sizes, study.batch_sizes
    means = [list(_curve(study, score, method, size, 0).y) for size in rows]
    values = np.array(means, dtype=float).reshape(len(rows), len(columns))
    if not np.isfinite(values).any():
        return None
    title, _ = score_title(score)
    size = (SIZE[0], 1.0 + 0.42 * len(rows))
    label = f"{title} of {method} by training and inference batch size"
    draw = partial(_draw_heat_map, shades(values, score), values, rows, columns)
    numbers = {"training": rows, "inference": columns, "mean": means}
    tables = tuple(
        Plotted(f"trained at {row}", {"M": columns, title: each, "column": range(len(columns))},
                ("column", ""), rows=[index] * len(columns))
        for index, (row, each) in enumerate(zip(rows, means, strict=True))
    )  # fmt: skip
    return Panel(f"{title} of {method}", label, draw, numbers, size, plotted=tables)


def shades(values: np.ndarray, score: str) -> np.ndarray:
    """Map values to [0, 1], the best or largest to 1; by logarithm if they span a factor of 4."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if low > 0 and high > 4 * low:
        values, low, high = np.log(values), math.log(low), math.log(high)
    if high == low:
        return np.where(np.isfinite(values), 0.5, np.nan)
    scaled = (values - low) / (high - low)
    return 1 - scaled if BETTER.get(score) == "lower" else scaled


def score_title(score: str) -> tuple[str, str]:
    """The heading of a score of a study, and the label of its axis."""
    if score.startswith("auroc_") and score not in glossary.SCORES:
        ood_set, _, by = score.removeprefix("auroc_").partition("_by_")
        words = glossary.uncertainty(by or "entropy")
        return f"AUROC of {ood_set} against the test examples by {words}", "AUROC"
    for name in SPREADS:
        if score.startswith(f"{name}_"):
            ood_set = score.removeprefix(f"{name}_")
            return f"{glossary.label(name)} on {ood_set}", score_title(name)[1]
    term = glossary.SCORES[score]
    unit = {"nll": " (nats)", "pll": " (nats)", "mutual_information": " (nats)"}.get(score, "")
    return term.label, term.label + unit


def _curves(study: Study, score: str, training_batch_size: int) -> list[Curve]:
    """The curve of every method, in a style that is the same in all figures of a study.

    A single draw has no spread: what is computed of it is rounding error, of some 1e-17, and would
    add decades of empty axis.
    """
    return [
        _curve(study, score, method, training_batch_size, style)
        for style, method in enumerate(study.methods)
        if not (score.startswith(SPREADS) and method in SINGLE_DRAW)
        and not (score.endswith("_by_mutual_information") and method in SINGLE_DRAW)
    ]


def detection_scores(study: Study) -> list[str]:
    """How well each out-of-distribution set is detected by entropy, and by mutual information."""
    by = ("entropy", "mutual_information")
    return [f"auroc_{name}_by_{score}" for name in study.outside for score in by]


def _curve(study: Study, score: str, method: str, training_batch_size: int, style: int) -> Curve:
    """A score of a method at each M, or its one value; NaN where the study has none."""
    name = score
    if score.removeprefix("auroc_") in study.outside and score not in glossary.SCORES:
        name += "_by_entropy"  # which every method has
    sizes = study.batch_sizes if method in OVER_BATCH_SIZES else (None,)
    values = [
        study.values(name, method, training_batch_size=training_batch_size, batch_size=size)
        for size in sizes
    ]
    return curve_of(method, name, [size or 0 for size in sizes], values, style)


def curve_of(
    name: str, score: str, x: Sequence[int], values: Sequence[Mapping[Replicate, float]], style: int
) -> Curve:
    """A curve of means over splits and seeds, NaN where there is no value.

    Args:
        name: of the curve.
        score: whose means they are.
        x: where the values were measured.
        values: at each x, by split and seed.
        style: of the curve.
    """
    points = [bounded(point(list(each.values()) or [math.nan]), score) for each in values]
    return Curve(
        name,
        tuple(float(each) for each in x),
        tuple(each.mean for each in points),
        tuple(each.low for each in points),
        tuple(each.high for each in points),
        style,
        tuple(_dots(each) for each in values),
    )


def _dots(values: Mapping[Replicate, float]) -> tuple[float, ...]:
    """The values behind a mean, where they are few enough to be told apart."""
    known = tuple(value for value in values.values() if math.isfinite(value))
    return known if 1 < len(known) <= MAX_DOTS else ()


def drawable(curves: Sequence[Curve], *, log: bool) -> list[Curve]:
    """The curves with at least one value that can be drawn."""
    return [
        curve for curve in curves if any(math.isfinite(y) and (y > 0 or not log) for y in curve.y)
    ]


def above_noise(curves: Sequence[Curve]) -> list[Curve]:
    """Curves of spreads that end where the spread has vanished: its rounding error is no value."""
    top = max((y for curve in curves for y in curve.y if math.isfinite(y)), default=0.0)
    return [
        replace(curve, y=tuple(y if y > NOISE * top else math.nan for y in curve.y))
        for curve in curves
    ]


def plotted(curves: Sequence[Curve], score: str, x: str = "M") -> tuple[Plotted, ...]:
    """The numbers of curves as a table; a method without an M has its one value."""
    y = score_title(score)[1]
    tables = []
    for curve in curves:
        table = curve.plotted(x, y)
        if curve.x == (0.0,):
            columns = {name: table.columns[name] for name in (y, "low", "high")}
            table = Plotted(curve.name, columns, ("", y), curve.style)
        tables.append(table)
    return tuple(tables)


def numbers_of(curves: Sequence[Curve]) -> Mapping[str, Any]:
    """The numbers behind curves, by name."""
    return {
        curve.name: {"x": curve.x, "y": curve.y, "low": curve.low, "high": curve.high}
        for curve in curves
    }


def limits_of(curves: Sequence[Curve], *, log: bool, score: str = "") -> tuple[float, float]:
    """Ends of an axis that holds every mean, and the bands as far as they are not too wide.

    They lie a little beyond the range of the score, so that a line at its end is visible.
    """
    values = [y for curve in curves for y in curve.y if math.isfinite(y) and (y > 0 or not log)]
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        low = max(low, high * NOISE)
        return low / 1.6, high * 1.6
    halves = sorted(
        (b - a) / 2
        for curve in curves
        for a, b in zip(curve.low, curve.high, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    )
    median = halves[len(halves) // 2] if halves else 0.0
    span = high - low
    # Bands over two seeds are so wide that an axis which held them would flatten every curve.
    padding = max(0.4 * span, min(1.3 * median, span)) or median or 0.1 * abs(high) or 1.0
    low, high = low - padding, high + padding
    lowest, highest = _score_range(score)
    margin = 0.03 * (min(high, highest) - max(low, lowest))
    return max(low, lowest - margin), min(high, highest + margin)


def _score_range(score: str) -> tuple[float, float]:
    """The lowest and the highest value that a score can have."""
    if score in ("accuracy", "coverage_90") or score.startswith("auroc"):
        return 0.0, 1.0
    is_positive = score == "width_90" or BETTER.get(score) == "lower"
    return (0.0 if is_positive else -math.inf), math.inf


def _draw_spread(
    curves: Sequence[Curve],
    levels: Sequence[Curve],
    sizes: Sequence[int],
    limits: tuple[float, float],
    score: str,
    ax: Axes,
) -> None:
    positive = [level for level in levels if not level.y[0] <= 0]
    figures.draw_levels(positive, ax)
    figures.draw_curves(curves, ax)
    starts = [curve.y[0] for curve in curves if curve.y and curve.y[0] > 0]
    if starts:
        start = float(np.exp(np.mean(np.log(starts))))
        theory = [start * (size / sizes[0]) ** expected(score) for size in sizes]
        ax.plot(sizes, theory, color=figures.INK, linewidth=0.9, dashes=(4, 3))
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    figures.value_axis(limits, ax, label=score_title(score)[1], log=True)


def _draw_score(
    curves: Sequence[Curve],
    levels: Sequence[Curve],
    sizes: Sequence[int],
    limits: tuple[float, float],
    axis: str,
    log: bool,
    ax: Axes,
) -> None:
    figures.draw_levels(levels, ax)
    figures.draw_curves(curves, ax)
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    figures.value_axis(limits, ax, label=axis, log=log)


def _cell_texts(values: np.ndarray) -> list[list[str]]:
    """The means of a heat map with as many digits as cells have room for, or none of them."""
    columns = values.shape[1]
    room = int(ROOM / columns)
    for digits in (3, 2, 1):
        texts = [[glossary.significant(value, digits) for value in row] for row in values]
        if columns > FEW_COLUMNS:
            texts = [[text.replace("0.", ".", 1) for text in row] for row in texts]
        if max(len(text) for row in texts for text in row) <= room:
            return texts
    return [[""] * columns for _ in values]


def _draw_heat_map(
    tints: np.ndarray,
    values: np.ndarray,
    rows: Sequence[int],
    columns: Sequence[int],
    ax: Axes,
) -> None:
    texts = _cell_texts(values)
    figures.draw_heat_map(tints, texts, ax)
    ax.set_xticks(range(len(columns)), labels=[str(size) for size in columns])
    ax.set_yticks(range(len(rows)), labels=[str(size) for size in rows])
    ax.set(xlabel="Inference batch size, M", ylabel="Training batch size")
