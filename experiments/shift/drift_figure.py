"""The figure of the experiment on drift: share of windows that are rejected, by kind of shift."""

from typing import Any

import matplotlib
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES

TESTS = {"bank": "bank", "KS of features": "KS, features", "KS of outputs": "KS, outputs"}
TITLES = {
    "mnist": "MNIST, convolutional", "protein": "UCI protein, dense",
    "cifar10": "CIFAR-10, ResNet20", "digits": "digits",
}  # fmt: skip


def drawn(cases: dict[str, Any], alpha: float) -> Figure:
    """A panel for each network, a row for each shift, a dot for each test of one window."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.6), layout="constrained")
        panels = figure.subplots(1, len(cases), squeeze=False)[0]
        for axes, (name, shifts) in zip(panels, cases.items(), strict=True):
            rows = range(len(shifts))
            for number, (key, label) in enumerate(TESTS.items()):
                # Beside each other, for rates that are equal.
                heights = [row + 0.22 * (number - 1) for row in rows]
                rates = [shift[key] for shift in shifts.values()]
                axes.plot(rates, heights, "o", color=SERIES[number], markersize=4, label=label)
            axes.axvline(alpha, color="0.4", linewidth=0.8, dashes=(4, 3))
            axes.set(title=TITLES[name], xlim=(-0.04, 1.04), ylim=(len(shifts) - 0.5, -0.5),
                     xlabel="Share of windows rejected")  # fmt: skip
            axes.set_yticks(list(rows), list(shifts))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
