"""Pictures of drift: distances of mini-batches beside those of a bank's draws, and an e value."""

from typing import Any

from matplotlib.axes import Axes

from mcbn.drawing.figures import INK, SERIES
from mcbn.drift.drift_test import DriftTest
from mcbn.drift.monitor import DriftMonitor

LINE: Any = {"color": INK, "linewidth": 1, "dashes": (4, 3)}


def draw_test(test: DriftTest, ax: Axes) -> Axes:
    """Draw the distance of each mini-batch, over the histogram of the calibration draws."""
    ax.hist(test.calibration, bins="auto", color="0.5", alpha=0.35, label="draws of the bank")
    # A row above the axis, since a few mini-batches make no histogram.
    top = ax.get_ylim()[1]
    ax.plot(test.distances, [top * 1.05] * len(test.distances), "|", color=SERIES[1], markersize=12,
            label="mini-batches")  # fmt: skip
    if test.threshold < float("inf"):
        ax.axvline(test.threshold, label=f"one alone at alpha = {test.alpha:g}", **LINE)
    ax.set(xlabel="Distance (mean squared z)", ylabel="Draws", ylim=(0, top * 1.15))
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def draw_monitor(monitor: DriftMonitor, ax: Axes) -> Axes:
    """Draw the e value after each mini-batch, and where the alarm is."""
    values = monitor.e_values
    ax.plot(range(len(values) + 1), (1.0, *values), color=SERIES[0], label="e value")
    ax.axhline(1 / monitor.alpha, label=f"alarm (alpha = {monitor.alpha:g})", **LINE)
    if monitor.alarm_at is not None:
        ax.plot(monitor.alarm_at, values[monitor.alarm_at - 1], "o", color=SERIES[1])
    ax.set(xlabel="Mini-batches", ylabel="e value", yscale="log", xlim=(0, max(1, len(values))))
    ax.legend(frameon=False)
    return ax
