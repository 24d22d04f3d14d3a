"""Figures of a study against N or T, where it varies them, at fixed M."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes

from mcbn.drawing import figures
from mcbn.drawing.figures import Curve
from mcbn.report.panels import Panel, PanelGroup
from mcbn.report.study_panels import (
    above_noise,
    curve_of,
    drawable,
    limits_of,
    numbers_of,
    plotted,
    score_title,
)
from mcbn.study.summary import place as place_name
from mcbn.study.trends import Axis, Place, Sweep, values_at

LABELS: Mapping[Axis, str] = {"N": "Training examples, N", "T": "Draws averaged, T"}


def sweep_group(sweep: Sweep, score: str) -> PanelGroup | None:
    """A score against N or T, one figure per training batch size; None if no value is known."""
    title, axis = score_title(score)
    curves_by_size = {
        size: [_curve(sweep, score, place, size, style) for style, place in
               enumerate(sweep.places)]
        for size in sweep.training_batch_sizes
    }  # fmt: skip
    log = score == "epistemic_sd"
    drawn = drawable([c for curves in curves_by_size.values() for c in curves], log=log)
    if not drawn:
        return None
    limits = limits_of(drawn, log=log, score=score)
    key = {curve.name: curve.style for curve in drawn}
    labels = (LABELS[sweep.axis], axis)
    panels = []
    for size, curves in curves_by_size.items():
        curves = [curve for curve in curves if curve.name in key]
        label = f"{title} against {LABELS[sweep.axis]}, trained at batch size {size}"
        drawn_here = above_noise(curves) if log else curves
        draw = partial(_draw, drawn_here, list(sweep.studies), limits, labels, log)
        panels.append(
            Panel(f"Trained at batch size {size}", label, draw, numbers_of(curves),
                  plotted=plotted(curves, score, sweep.axis))
        )  # fmt: skip
    name = f"{title}, {sweep.name}" if sweep.name else title
    return PanelGroup(name, tuple(key.items()), tuple(panels))


def _curve(sweep: Sweep, score: str, place: Place, training_batch_size: int, style: int) -> Curve:
    values = values_at(sweep, score, place, training_batch_size)
    return curve_of(place_name(*place), score, list(sweep.studies), values, style)


def _draw(
    curves: Sequence[Curve],
    values: Sequence[int],
    limits: tuple[float, float],
    labels: tuple[str, str],
    log: bool,
    ax: Axes,
) -> None:
    figures.draw_curves(curves, ax)
    figures.doubling_axis(values, ax, label=labels[0])
    figures.value_axis(limits, ax, label=labels[1], log=log)
