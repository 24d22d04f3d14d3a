"""The figure of the experiment on active learning: test scores over labels, and their gain."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES

NAMES = {
    "random": "random", "plain": "plain network", "mcbn": "BALD, MCBN, M = 10",
    "mcbn_half": "BALD, MCBN, M = N/2", "dropout": "BALD, dropout",
    "ensemble": "BALD, ensemble", "batch_mcbn": "BatchBALD, MCBN",
    "batch_dropout": "BatchBALD, dropout",
}  # fmt: skip
CURVES = ("random", "mcbn", "dropout", "ensemble")  # more would hide each other
TITLES = {"mnist": "MNIST", "kin8nm": "kin8nm"}
SCORE = {"mnist": "Test accuracy", "kin8nm": "Test RMSE (in sd of targets)"}


def drawn(result: dict[str, Any]) -> Figure:
    """Curves with intervals over seeds, and the difference of each area from that of random."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 6.4), layout="constrained")
        axes = figure.subplots(2, 2, height_ratios=(1.25, 1))
        for column, (name, data) in enumerate(result["data"].items()):
            draw_curves(axes[0, column], result["labels"], data)
            axes[0, column].set(title=TITLES[name], xlabel="Labels", ylabel=SCORE[name])
            draw_areas(axes[1, column], data)
            better = "right" if name == "mnist" else "left"
            axes[1, column].set_xlabel(f"Area minus that of random labels (better: {better})")
        axes[1, 1].set_yticklabels([])
        key = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].legend(*key, frameon=False, loc="lower right")
    return figure


def draw_curves(ax: Axes, labels: list[int], data: dict[str, Any]) -> None:
    """A line with its band for some of the methods."""
    for number, method in enumerate(CURVES):
        mean, low, high = zip(*data[method]["curve"], strict=True)
        color = "0.35" if method == "random" else SERIES[number - 1]
        dashes = (4, 2) if method == "random" else (None, None)
        ax.plot(labels, mean, color=color, linewidth=1.5, dashes=dashes, label=NAMES[method])
        ax.fill_between(labels, low, high, color=color, alpha=0.13, linewidth=0)
    # By the lines: the intervals of a few seeds reach far beyond them.
    means = [mean for method in CURVES for mean, _, _ in data[method]["curve"]]
    margin = 0.3 * (max(means) - min(means))
    ax.set_ylim(min(means) - margin, max(means) + margin)


def draw_areas(ax: Axes, data: dict[str, Any]) -> None:
    """A dot with its interval for each method."""
    methods = [method for method in data if method != "random"]
    for row, method in enumerate(methods):
        mean, low, high = data[method]["area minus random"]
        color = SERIES[CURVES.index(method) - 1] if method in CURVES else "0.35"
        ax.plot([low, high], [row, row], color=color, linewidth=1.6)
        ax.plot([mean], [row], "o", color=color, markersize=5)
    ax.axvline(0, color="0.4", linewidth=0.8, dashes=(4, 3))
    ax.set_yticks(range(len(methods)), [NAMES[method] for method in methods])
    ax.set_ylim(len(methods) - 0.5, -0.5)
