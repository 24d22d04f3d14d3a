"""Figures of a report: drawn on given axes, and written as SVG in the colours of the page.

Of names only those of groups enter a figure: legends and titles belong to the page around it, or to
the file of its own.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from mcbn.drawing import svg
from mcbn.drawing.plotted import Plotted
from mcbn.evaluation.detection import RiskCoverage
from mcbn.evaluation.reliability import Reliability
from mcbn.network.isolation import own_warnings

INK, GRID = "#010203", "#040506"  # placeholders, replaced by colours of the page
# Okabe and Ito's colours, distinct to colour-blind readers, without the two faintest.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f4aa0",
          "#7a5a35")  # fmt: skip
MARKERS = "osD^vP"
DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2))
LETTERS = 9.5  # points: at least 11 pixels where a figure of 3.6 inches is 300 pixels wide
MAX_POINTS = 300  # of one line: more cannot be seen and only make the page larger
MAX_NAME = 24  # characters of a name that are drawn
MAX_LEGEND_NAME = 40
# The keys have a type of their own only in versions of matplotlib newer than the oldest supported.
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mcbn",
    "font.size": LETTERS,
    "path.simplify": False,
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
    """A line with an interval at each of its points.

    Attributes:
        name: for the legend beside the figure.
        x: where it was measured.
        y: the values.
        low: lower ends of the intervals; NaN where there is none.
        high: upper ends.
        style: index of its colour, marker and dashes.
        dots: single values behind each point, such as those of seeds; none if they are many.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    style: int
    dots: tuple[tuple[float, ...], ...] = ()

    def plotted(self, *names: str) -> Plotted:
        """Its numbers, with the names of what x and y are."""
        x, y = names
        columns = {x: self.x, y: self.y, "low": self.low, "high": self.high}
        return Plotted(self.name, columns, (x, y), self.style)


def color(style: int) -> str:
    """The colour of a series."""
    return SERIES[style % len(SERIES)]


def dashes(style: int) -> tuple[int, ...]:
    """The dashes of a series in points; none for a solid line."""
    return DASHES[style % len(DASHES)]


def draw_reliability(
    reliability: Reliability,
    ax: Axes,
    *,
    level: float = 0.95,
    ylabel: str = "Accuracy",
    notes: Sequence[str] = (),
) -> Axes:
    """Draw accuracy against confidence, with intervals and the band of a calibrated forecaster.

    Points are the fainter the fewer examples are in their bins. The notes stand where points of a
    forecaster that is off the diagonal as this one is do not lie.
    """
    filled = (reliability.counts > 0).cpu().numpy()
    edges = reliability.edges.cpu().numpy()
    ends = [end.cpu().numpy() for end in reliability.consistency_band(level=level)]
    for index in np.flatnonzero(filled):
        width, height = edges[index + 1] - edges[index], ends[1][index] - ends[0][index]
        corner = (edges[index], ends[0][index])
        ax.add_patch(Rectangle(corner, width, height, facecolor=INK, alpha=0.12, linewidth=0))
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 3))
    confidence = reliability.confidence.cpu().numpy()[filled]
    accuracy = reliability.accuracy.cpu().numpy()[filled]
    low, high = (end.cpu().numpy()[filled] for end in reliability.interval(level=level))
    colors = faded(SERIES[0], reliability.counts.cpu().numpy()[filled])
    ax.vlines(confidence, low, high, colors=colors, linewidth=1.2)
    ax.scatter(confidence, accuracy, c=colors, s=18, linewidth=0)
    over = mean_gap(reliability) >= 0
    for line, note in enumerate(notes):
        # At the top on the left, or at the bottom on the right.
        x, y = (0.02, 0.98 - 0.09 * line) if over else (0.98, 0.09 * (len(notes) - 1 - line))
        ax.text(x, y, note, ha="left" if over else "right", va="top" if over else "bottom")
    # A margin, so that a point at 0 or 1 is not cut in half.
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel=ylabel)
    return ax


def faded(color: str, counts: np.ndarray) -> list[tuple[str, float]]:
    """A colour for each bin: the fainter the fewer examples it has."""
    shares = np.sqrt(counts / counts.max(initial=1))
    return [(color, round(0.25 + 0.75 * float(share), 2)) for share in shares]


def mean_gap(reliability: Reliability) -> float:
    """Mean confidence minus accuracy: above 0 where a forecaster is over-confident."""
    filled = reliability.counts > 0
    gaps = (reliability.confidence - reliability.accuracy)[filled] * reliability.counts[filled]
    return float(gaps.sum() / reliability.counts.sum())


def draw_counts(
    reliability: Reliability, ax: Axes, *, xlabel: str = "Confidence", unit: str = "examples"
) -> Axes:
    """Draw the number of examples in each bin, on a logarithmic axis."""
    edges = reliability.edges.cpu().numpy()
    counts = reliability.counts.cpu().numpy()
    # Bars start at 0.5, not at 1, so that a bin of a single example is visible.
    ax.bar(edges[:-1], np.maximum(counts - 0.5, 0), width=np.diff(edges), bottom=0.5, align="edge",
           color=SERIES[0], alpha=0.6, linewidth=0)  # fmt: skip
    top = max(int(counts.max(initial=1)), 10)
    ax.set(yscale="log", ylim=(0.5, 2 * top), xlabel=xlabel, ylabel=unit.capitalize())
    # At most about four powers of ten fit a low panel.
    powers = range(0, int(math.log10(top)) + 1, max(1, round(math.log10(top) / 3)))
    ax.set_yticks([10.0**power for power in powers], labels=[f"{10**power:,}" for power in powers])
    ax.minorticks_off()
    return ax


def draw_risk_coverage(curves: Sequence[RiskCoverage], ax: Axes, *, unit: str = "examples") -> Axes:
    """Draw the error rate among answered examples against their share, one line per method."""
    for style, curve in enumerate(curves):
        chosen = thinned(len(curve.coverage))
        ax.plot(curve.coverage.cpu().numpy()[chosen], curve.risk.cpu().numpy()[chosen],
                color=color(style), linewidth=1.4, gid=f"{svg.SERIES}{style}",
                dashes=dashes(style) or (None, None))  # fmt: skip
    ax.set(xlim=(0, 1), xlabel=f"Share of {unit} answered", ylabel="Error rate among them")
    ax.set_ylim(bottom=0)
    return ax


def thinned(count: int, most: int = MAX_POINTS) -> np.ndarray:
    """Indices of at most so many of `count` points, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def draw_histograms(shares: Sequence[np.ndarray], edges: np.ndarray, ax: Axes, *,
                    label: str) -> Axes:  # fmt: skip
    """Draw histograms of several sets in the same bins, as overlaid outlines.

    The axis is logarithmic where the bins are above 0.
    """
    for style, share in enumerate(shares):
        gid = f"{svg.SERIES}{style}"
        ax.stairs(share, edges, color=color(style), fill=True, alpha=0.18, linewidth=0, gid=gid)
        ax.stairs(share, edges, color=color(style), linewidth=1.4, gid=gid,
                  linestyle=(0, dashes(style)) if dashes(style) else "-")  # fmt: skip
    ax.set(
        xscale="log" if edges[0] > 0 else "linear",
        xlim=(edges[0], edges[-1]),
        xlabel=label,
        ylabel="Share of examples",
    )
    if edges[0] > 0:
        ax.xaxis.set_major_locator(LogLocator(numticks=6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(bottom=0)
    return ax


def draw_curves(curves: Sequence[Curve], ax: Axes) -> Axes:
    """Draw lines with their bands, fainter the more there are; NaN bands are not drawn.

    The single values behind a line are faint dots.
    """
    alpha = min(0.18, 0.54 / max(len(curves), 1))
    for curve in curves:
        gid = f"{svg.SERIES}{curve.style}"
        ax.plot(curve.x, curve.y, color=color(curve.style), linewidth=1.4, markersize=3.5, gid=gid,
                marker=MARKERS[curve.style % len(MARKERS)],
                dashes=dashes(curve.style) or (None, None))  # fmt: skip
        known = np.isfinite(curve.low) & np.isfinite(curve.high)
        if known.any():
            ax.fill_between(curve.x, curve.low, curve.high, where=known.tolist(), gid=gid,
                            color=color(curve.style), alpha=alpha, linewidth=0)  # fmt: skip
        _draw_dots(curve, ax)
    return ax


def _draw_dots(curve: Curve, ax: Axes) -> None:
    """Draw single values: as lines without a length, whose round ends are the dots."""
    dots = [(x, y) for x, each in zip(curve.x, curve.dots, strict=False) for y in each]
    if dots:
        x, y = (
            [end for dot in dots for end in (dot[side], dot[side], math.nan)] for side in (0, 1)
        )
        ax.plot(x, y, color=color(curve.style), alpha=0.4, linewidth=3, solid_capstyle="round",
                gid=f"{svg.SERIES}{curve.style}")  # fmt: skip


def draw_levels(levels: Sequence[Curve], ax: Axes) -> Axes:
    """Draw values that do not depend on x as horizontal lines with bands; NaN is not drawn."""
    alpha = min(0.12, 0.36 / max(len(levels), 1))
    for level in levels:
        if not math.isfinite(level.y[0]):
            continue
        gid = f"{svg.SERIES}{level.style}"
        ax.axhline(level.y[0], color=color(level.style), linewidth=1.2, gid=gid,
                   dashes=dashes(level.style) or (None, None))  # fmt: skip
        if math.isfinite(level.low[0]) and math.isfinite(level.high[0]):
            ax.axhspan(level.low[0], level.high[0], color=color(level.style), alpha=alpha,
                       linewidth=0, gid=gid)  # fmt: skip
    return ax


def draw_groups(names: Sequence[str], curves: Sequence[Curve], ax: Axes) -> Axes:
    """Draw points with horizontal intervals: one named row per x and one colour per curve.

    Infinite values are not drawn.
    """
    for index, curve in enumerate(curves):
        rows, gid = group_rows(curve, index, len(curves)), f"{svg.SERIES}{curve.style}"
        value, low, high = (
            np.where(np.isfinite(each), each, np.nan) for each in (curve.y, curve.low, curve.high)
        )
        ax.hlines(rows, low, high, color=color(curve.style), linewidth=1.2, gid=gid)
        ax.plot(value, rows, MARKERS[curve.style % len(MARKERS)], color=color(curve.style),
                markersize=4, gid=gid)  # fmt: skip
    # A dollar sign in a name does not begin a formula.
    ax.set_yticks(curves[0].x, labels=[drawable(name) for name in names], parse_math=False)
    ax.set(ylim=(len(curves[0].x) + 0.5, 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    return ax


def group_rows(curve: Curve, index: int, count: int) -> np.ndarray:
    """The heights of the points of one of several curves, which stand below each other."""
    rows: np.ndarray = np.array(curve.x) + 0.6 * ((index + 0.5) / count - 0.5)
    return rows


def draw_legend(on: Axes | Figure, key: Sequence[tuple[str, int]], **place: Any) -> None:
    """Draw the legend of lines: their names and styles, which a page has beside its figures."""
    lines = [
        Line2D([], [], color=color(style), linewidth=1.4,
               linestyle=(0, dashes(style)) if dashes(style) else "-")
        for _, style in key
    ]  # fmt: skip
    # The names come afterwards: of those that begin with an underscore a legend has no line.
    legend = on.legend(lines, ["-"] * len(key), frameon=False, fontsize="small", **place)
    for text, (name, _) in zip(legend.get_texts(), key, strict=True):
        text.set(text=drawable(name, MAX_LEGEND_NAME), parse_math=False)


def drawable(name: str, most: int = MAX_NAME) -> str:
    """A name as text of a figure: of at most so many characters, each of which can be seen."""
    if len(name) > most:
        name = f"{name[: most - 8]}\N{HORIZONTAL ELLIPSIS}{name[-7:]}"
    visible = (each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)
    return "".join(visible)


def draw_heat_map(shades: np.ndarray, texts: Sequence[Sequence[str]], ax: Axes) -> Axes:
    """Draw a grid of texts, each on a tint as strong as its shade in [0, 1]; none for NaN."""
    for row, column in np.ndindex(shades.shape):
        shade = shades[row, column]
        if math.isfinite(shade):
            # Tints are light enough for the text on them to be legible in either theme.
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=SERIES[0],
                                   alpha=0.06 + 0.5 * shade, linewidth=0))  # fmt: skip
        ax.text(column, row, texts[row][column], ha="center", va="center", color=INK)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, shades.shape[1] - 0.5), ylim=(-0.5, shades.shape[0] - 0.5))
    return ax


def doubling_axis(values: Sequence[int], ax: Axes, *, label: str) -> Axes:
    """Make x a base-2 axis with plain numbers at the values, or at those that fit."""
    ax.set_xscale("log", base=2)
    shown = _labelled(values)
    # Not by `set_xticks`, which makes ticks that are made again when they are drawn.
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(FixedFormatter([str(value) for value in shown]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(label)
    return ax


def _labelled(values: Sequence[int]) -> list[int]:
    """Those of some ascending values whose labels do not overlap on a logarithmic axis."""
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
    """Give y an axis between limits with plain numbers, also on a logarithmic scale."""
    if log:
        ax.set_yscale("log")
        subs = (1.0, 2.0, 5.0) if limits[1] / limits[0] < 100 else (1.0,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.set_ylim(limits)
    ax.set_ylabel(label)
    return ax


@contextmanager
def settings(changed: Any = None) -> Iterator[None]:
    """Draw in a `with` block as in a report, whatever the user has set.

    Args:
        changed: settings that are not those of a report.
    """
    with matplotlib.rc_context(), own_warnings():
        # Letters that matplotlib's font does not have are written in that of the page.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        matplotlib.rcParams.update(changed or {})
        yield
