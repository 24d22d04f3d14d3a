"""The figures of a report of regression: where the true values lie in their forecasts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import stats

from mcbn.report.figures import INK, SERIES
from mcbn.report.panels import Group, Panel

BINS = 20
LEVELS = tuple(k / 20 for k in range(1, 20))


def pit_group(transforms: Mapping[str, np.ndarray], *, level: float) -> Group:
    """A histogram of the probability integral transforms of each method, with its band.

    Args:
        transforms: the forecasts' distribution functions at the true values, by method.
        level: of the band.
    """
    panels = []
    for name, values in transforms.items():
        counts = np.histogram(values, BINS, (0, 1))[0]
        ends = _binomial_band(len(values), np.array([1 / BINS]), level)
        low, high = (float(end[0]) * BINS for end in ends)
        heights = counts * BINS / len(values)
        numbers = {"height": heights.tolist(), "band_low": low, "band_high": high}
        label = f"Histogram of the probability integral transforms of {name}: level if calibrated"
        panels.append(Panel(name, label, partial(_draw_pit, heights, low, high), numbers))
    return Group("", (), tuple(panels))


def quantile_group(transforms: Mapping[str, np.ndarray], *, level: float) -> Group:
    """How often the true value lies under each quantile, for each method, with its band."""
    panels = []
    for name, values in transforms.items():
        shares = np.array([(values <= point).mean() for point in LEVELS])
        low, high = _binomial_band(len(values), np.array(LEVELS), level)
        numbers = {"level": list(LEVELS), "share": shares.tolist(), "band_low": low.tolist(),
                   "band_high": high.tolist()}  # fmt: skip
        label = f"Share of true values under each quantile of {name}: the diagonal if calibrated"
        panels.append(Panel(name, label, partial(_draw_quantiles, shares, low, high), numbers))
    return Group("", (), tuple(panels))


def _binomial_band(count: int, shares: np.ndarray, level: float) -> tuple[Any, Any]:
    """Ends between which the share found among `count` lies, point by point."""
    tail = (1 - level) / 2
    low, high = (stats.binom.ppf(end, count, shares) / count for end in (tail, 1 - tail))
    return low, high


def _draw_pit(heights: np.ndarray, low: float, high: float, figure: Figure) -> None:
    ax: Axes = figure.subplots()
    ax.add_patch(Rectangle((0, low), 1, high - low, facecolor=INK, alpha=0.15, linewidth=0))
    ax.axhline(1, color=INK, linewidth=0.8, dashes=(4, 3))
    ax.bar(np.arange(BINS) / BINS, heights, width=1 / BINS, align="edge", color=SERIES[0],
           alpha=0.6, linewidth=0)  # fmt: skip
    ax.set(xlim=(0, 1), xlabel="Forecast distribution at the true value", ylabel="Density")


def _draw_quantiles(shares: np.ndarray, low: np.ndarray, high: np.ndarray, figure: Figure) -> None:
    ax: Axes = figure.subplots()
    ax.fill_between(LEVELS, low, high, color=INK, alpha=0.15, linewidth=0)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 3))
    ax.plot(LEVELS, shares, "o", color=SERIES[0], markersize=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Quantile of the forecast",
           ylabel="Share of true values under it")  # fmt: skip
