"""Figures of a report: drawn on given axes, and written as SVG that follows the page's colours.

Names of methods and classes never enter a figure: keys and titles belong to the page around it.
"""

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from mcbn.evaluation.detection import RiskCoverage
from mcbn.evaluation.reliability import Reliability

INK, GRID = "#010203", "#040506"  # stand-ins; the page says what they look like
# Okabe and Ito's colours, which colour-blind readers tell apart, without the two faintest.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2))
MOST_POINTS = 300  # of one line: more cannot be seen and would only make the page heavy
SETTINGS: Any = {  # the keys are a Literal type of matplotlib, newer than the oldest we take
    "svg.fonttype": "none",
    "svg.hashsalt": "mcbn",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Curve:
    """A line over numbers x, with the ends of its interval (NaN where there is none).

    Attributes:
        name: for the key beside the figure.
        x: where it was measured.
        y: the values.
        low: lower ends.
        high: upper ends.
        style: which colour, marker and dashes.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    style: int


def color(style: int) -> str:
    """The colour of a series."""
    return SERIES[style % len(SERIES)]


def dashes(style: int) -> tuple[int, ...]:
    """The dashes of a series in points; none for a full line."""
    return DASHES[style % len(DASHES)]


def draw_reliability(reliability: Reliability, ax: Axes, *, level: float = 0.95) -> Axes:
    """Accuracy against confidence, with each bin's interval and a calibrated forecaster's band."""
    full = (reliability.counts > 0).cpu().numpy()
    edges = reliability.edges.cpu().numpy()
    ends = [end.cpu().numpy() for end in reliability.consistency_band(level=level)]
    for index in np.flatnonzero(full):
        width, height = edges[index + 1] - edges[index], ends[1][index] - ends[0][index]
        corner = (edges[index], ends[0][index])
        ax.add_patch(Rectangle(corner, width, height, facecolor=INK, alpha=0.15, linewidth=0))
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 3))
    confidence = reliability.confidence.cpu().numpy()[full]
    accuracy = reliability.accuracy.cpu().numpy()[full]
    low, high = (end.cpu().numpy()[full] for end in reliability.interval(level=level))
    # Rounding may leave an end a hair inside the value it belongs to.
    errors = np.maximum([accuracy - low, high - accuracy], 0)
    ax.errorbar(confidence, accuracy, yerr=errors, fmt="o", color=SERIES[0], markersize=4,
                elinewidth=1.2, capsize=0)  # fmt: skip
    # A little room, so that a point at 0 or 1 is not cut in half.
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel="Accuracy")
    return ax


def draw_counts(reliability: Reliability, ax: Axes) -> Axes:
    """How many examples each bin holds, on a logarithmic axis."""
    edges = reliability.edges.cpu().numpy()
    counts = reliability.counts.cpu().numpy()
    # Filled by hand from 0.5, not from 1: a bin of a single example is then seen too.
    ax.bar(edges[:-1], np.maximum(counts - 0.5, 0), width=np.diff(edges), bottom=0.5, align="edge",
           color=SERIES[0], alpha=0.6, linewidth=0)  # fmt: skip
    top = max(int(counts.max(initial=1)), 10)
    ax.set(yscale="log", ylim=(0.5, 2 * top), xlabel="Confidence", ylabel="Examples")
    # The few powers of ten that fit a low panel.
    powers = range(0, int(math.log10(top)) + 1, max(1, round(math.log10(top) / 3)))
    ax.set_yticks([10.0**power for power in powers], labels=[f"{10**power:,}" for power in powers])
    ax.minorticks_off()
    return ax


def draw_risk_coverage(curves: Sequence[RiskCoverage], ax: Axes) -> Axes:
    """Error rate among the accepted examples against their share, one line a method."""
    for style, curve in enumerate(curves):
        chosen = thinned(len(curve.coverage))
        ax.plot(curve.coverage.cpu().numpy()[chosen], curve.risk.cpu().numpy()[chosen],
                color=color(style), linewidth=1.4,
                dashes=dashes(style) or (None, None))  # fmt: skip
    ax.set(xlim=(0, 1), xlabel="Share of examples answered", ylabel="Error rate among them")
    ax.set_ylim(bottom=0)
    return ax


def thinned(count: int) -> np.ndarray:
    """Indices of at most `MOST_POINTS` of `count` points, ends kept."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def draw_histograms(shares: Sequence[np.ndarray], edges: np.ndarray, ax: Axes, *,
                    label: str) -> Axes:  # fmt: skip
    """Shares of several sets in the same logarithmic bins, as outlines over each other."""
    for style, share in enumerate(shares):
        ax.stairs(share, edges, color=color(style), fill=True, alpha=0.18, linewidth=0)
        ax.stairs(share, edges, color=color(style), linewidth=1.4,
                  linestyle=(0, dashes(style)) if dashes(style) else "-")  # fmt: skip
    ax.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel=label, ylabel="Share of examples")
    ax.set_ylim(bottom=0)
    return ax


def draw_curves(curves: Sequence[Curve], ax: Axes) -> Axes:
    """Lines with their bands, fainter the more there are; a band that is NaN is not drawn."""
    alpha = min(0.18, 0.54 / max(len(curves), 1))
    for curve in curves:
        ax.plot(curve.x, curve.y, color=color(curve.style), linewidth=1.4, markersize=3.5,
                marker=MARKERS[curve.style % len(MARKERS)],
                dashes=dashes(curve.style) or (None, None))  # fmt: skip
        known = np.isfinite(curve.low) & np.isfinite(curve.high)
        if known.any():
            ax.fill_between(curve.x, curve.low, curve.high, where=known.tolist(),
                            color=color(curve.style), alpha=alpha, linewidth=0)  # fmt: skip
    return ax


def draw_levels(levels: Sequence[Curve], ax: Axes) -> Axes:
    """Values that do not depend on x, as horizontal lines with their bands; none for NaN."""
    alpha = min(0.12, 0.36 / max(len(levels), 1))
    for level in levels:
        if not math.isfinite(level.y[0]):
            continue
        ax.axhline(level.y[0], color=color(level.style), linewidth=1.2,
                   dashes=dashes(level.style) or (None, None))  # fmt: skip
        if math.isfinite(level.low[0]) and math.isfinite(level.high[0]):
            ax.axhspan(level.low[0], level.high[0], color=color(level.style), alpha=alpha,
                       linewidth=0)  # fmt: skip
    return ax


def draw_groups(curves: Sequence[Curve], ax: Axes) -> Axes:
    """Points with intervals to the side, one row a number of x and one colour a curve."""
    for place, curve in enumerate(curves):
        rows = np.array(curve.x) + 0.6 * ((place + 0.5) / len(curves) - 0.5)
        ax.hlines(rows, curve.low, curve.high, color=color(curve.style), linewidth=1.2)
        ax.plot(curve.y, rows, MARKERS[curve.style % len(MARKERS)], color=color(curve.style),
                markersize=4)  # fmt: skip
    ax.set_yticks(curves[0].x, labels=[f"{number:g}" for number in curves[0].x])
    ax.set(ylim=(len(curves[0].x) + 0.5, 0.5), ylabel="Group")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return ax


def draw_heat_map(shades: np.ndarray, texts: Sequence[Sequence[str]], ax: Axes) -> Axes:
    """A grid of written values, each on a tint that grows with its shade in [0, 1]; NaN is bare."""
    for row, column in np.ndindex(shades.shape):
        shade = shades[row, column]
        if math.isfinite(shade):
            # Tints stay so light that the letters on them can be read in either theme.
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=SERIES[0],
                                   alpha=0.06 + 0.5 * shade, linewidth=0))  # fmt: skip
        ax.text(column, row, texts[row][column], ha="center", va="center", color=INK)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, shades.shape[1] - 0.5), ylim=(-0.5, shades.shape[0] - 0.5))
    return ax


def doubling_axis(values: Sequence[int], ax: Axes, *, label: str) -> Axes:
    """A base-2 axis with plain numbers at the values, or at those that there is room for."""
    ax.set_xscale("log", base=2)
    shown = _apart(values)
    ax.set_xticks(shown, labels=[str(value) for value in shown])
    ax.minorticks_off()
    ax.set_xlabel(label)
    return ax


def _apart(values: Sequence[int]) -> list[int]:
    """Ascending values whose numbers do not touch each other on a logarithmic axis."""
    shown: list[int] = []
    length = math.log(values[-1] / values[0]) if values[0] < values[-1] else 1.0
    for value in values:
        if shown:
            gap = math.log(value / shown[-1]) / length
            # A digit takes about 1/40 of the axis of an ordinary figure.
            if gap < (len(str(value)) + len(str(shown[-1]))) / 80 + 0.02:
                continue
        shown.append(value)
    return shown


def value_axis(limits: tuple[float, float], ax: Axes, *, label: str, log: bool) -> Axes:
    """A y axis between limits with plain numbers, also on a logarithmic scale."""
    if log:
        ax.set_yscale("log")
        few = limits[1] / limits[0] < 100
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        ax.yaxis.set_minor_locator(LogLocator(subs=()))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.set_ylim(limits)
    ax.set_ylabel(label)
    return ax


def render(
    draw: Callable[[Figure], None],
    *,
    name: str,
    label: str,
    size: tuple[float, float],
) -> str:
    """Draw a figure of `size` inches and return it as SVG, equal to the last byte each time.

    Args:
        draw: draws on an empty figure.
        name: put before every id, so that figures on one page do not share any.
        label: what the figure shows, for those who cannot see it; any text.
        size: width and height in inches.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # what a user set for other figures is not for this one
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _themed(buffer.getvalue(), name, label)


def _themed(text: str, name: str, label: str) -> str:
    found = re.search(r'viewBox="([^"]*)"', text)
    box = found.group(1) if found else ""
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    colors: Mapping[str, str] = {
        INK: "var(--ink)",
        GRID: "var(--grid)",
        **{value: f"var(--series-{index})" for index, value in enumerate(SERIES)},
    }
    for value, variable in colors.items():
        body = body.replace(value, variable)
    # Words take the page's font, and so its size steps; matplotlib names its own.
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--figure-font)", body)
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{box}" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body.strip()}'
    )
