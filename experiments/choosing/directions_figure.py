"""The figure of the experiment on directions: their batch sizes, and growth with N."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES


def drawn_figure(result: dict[str, Any]) -> Figure:
    """M_k of one network of each kind, and the epistemic standard deviation against N."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        draw_sizes(left, result["curves"])
        draw_growth(right, result["growth"])
    return figure


def size_figure(curves: dict[str, Any]) -> Figure:
    """M_k of one network of each kind."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 3.8), layout="constrained")
        draw_sizes(figure.subplots(), curves)
    return figure


def draw_sizes(axes: Axes, curves: dict[str, Any]) -> None:
    """The batch size of each direction, from the largest, with a mark at the one M*."""
    for number, (name, curve) in enumerate(curves.items()):
        values, color = curve["M_k"], SERIES[number % len(SERIES)]
        axes.plot(range(1, len(values) + 1), values, color=color, label=name)
        above = sum(value > curve["M*"] for value in values)
        axes.plot(max(above, 1), curve["M*"], "o", color=color, markersize=5)
    axes.set(xscale="log", yscale="log", xlabel="Direction k", ylabel="Batch size of the direction",
             title="Batch size per direction; dot: one M* for all")  # fmt: skip
    axes.legend(frameon=False)


def draw_growth(axes: Axes, growth: dict[str, Any]) -> None:
    """Mean over seeds of the epistemic standard deviation on kin8nm."""
    for number, (name, values) in enumerate(growth["sd"].items()):
        slope = growth["slopes"][name][0]
        axes.plot(growth["N"], values, "o-", color=SERIES[number], markersize=4,
                  label=f"{name}, slope {slope:.2f}")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="Training examples N",
             ylabel="Epistemic standard deviation", title="Growth with N")  # fmt: skip
    axes.set_xticks(growth["N"], [str(size) for size in growth["N"]])
    axes.minorticks_off()
    lowest = min(min(values) for values in growth["sd"].values())
    axes.set_ylim(bottom=lowest / 5)  # room for the names
    ticks = (0.01, 0.03, 0.1, 0.3)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.legend(frameon=False, loc="lower left")
