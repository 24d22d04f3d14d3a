"""The figure of the experiment on alternatives: log scores, and labels that a temperature needs."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES

PANELS = {"test": "Test", "test TS": "Test, after TS", "JPEG TS": "JPEG, after TS"}
CURVES = {"plain, prior": "plain", "MCBN, prior": "MCBN, each draw"}


def drawn_figure(result: dict[str, Any]) -> Figure:
    """A panel for each log score with its interval, and one for few labels."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        *panels, last = figure.subplots(1, len(PANELS) + 1, width_ratios=[1, 1, 1, 1.2])
        for axes, (key, title) in zip(panels, PANELS.items(), strict=True):
            draw_scores(axes, result["methods"], key, title, named=axes is panels[0])
        draw_labels(last, result["labels"])
    return figure


def draw_scores(axes: Axes, methods: dict[str, Any], key: str, title: str, *, named: bool) -> None:
    """The NLL of each method."""
    for row, method in enumerate(methods.values()):
        value, low, high = method["nll"][key]
        axes.plot([low, high], [row, row], color=SERIES[0], linewidth=1.5)
        axes.plot(value, row, "o", color=SERIES[0], markersize=4)
    axes.axvline(methods["plain"]["nll"][key][0], color="0.4", linewidth=0.8, dashes=(4, 3))
    axes.set(title=title, xlabel="NLL (nats)", ylim=(len(methods) - 0.5, -0.5))
    axes.set_yticks(range(len(methods)), list(methods) if named else [""] * len(methods))


def draw_labels(axes: Axes, labels: dict[str, Any]) -> None:
    """A temperature of few labels against MCBN without any."""
    counts = [int(count) for count in labels]
    for number, (key, name) in enumerate(CURVES.items()):
        rows = [each[key] for each in labels.values()]
        means, low, high = zip(*(row["gap"] for row in rows), strict=True)
        axes.plot(counts, means, "o-", color=SERIES[number], label=name)
        axes.fill_between(counts, low, high, color=SERIES[number], alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.4", linewidth=0.8, dashes=(4, 3))
    axes.set(title="Temperature minus MCBN", xlabel="Labels", ylabel="NLL (nats)", xscale="log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(frameon=False)
