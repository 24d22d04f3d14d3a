"""The figure of the labels: where a temperature breaks even with MCBN, what both gain, and harm."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES

SCALED = "plain, TS, prior"
CURVES = {
    SCALED: "temperature, plain",
    "MCBN, M = 32, TS, prior": "MCBN, M = 32, temperature",
    "MCBN, M chosen": "MCBN, M chosen",
    "MCBN, M chosen, TS, prior": "MCBN, both chosen",
}
LEVELS = {"MCBN, M = 32": (0, (1, 2)), "MCBN, M = 128": (0, (4, 2))}


def drawn_figure(result: dict[str, Any]) -> Figure:
    """Three panels over the number of labels."""
    found = result["over_networks"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        even, gains, harm = figure.subplots(1, 3)
        draw_break_even(even, result)
        draw_gains(gains, found)
        for number, word in enumerate(("prior", "no prior")):
            rows = found[f"plain, TS, {word}"].values()
            shares = [row["harm"][0] for row in rows]
            harm.plot(counts_of(found), shares, "o-", color=SERIES[3 * number], label=word,
                      markersize=3)  # fmt: skip
        harm.set(title="How often a temperature does harm", ylabel="Share of subsets",
                 ylim=(0, None))  # fmt: skip
        for axes in (even, gains, harm):
            axes.set_xscale("log")
            axes.set_xticks(counts_of(found), list(found[SCALED]))
            axes.minorticks_off()
            axes.set_xlabel("Labels")
            axes.legend(frameon=False, fontsize=7)
    return figure


def counts_of(found: dict[str, Any]) -> list[int]:
    """The numbers of labels."""
    return [int(count) for count in found[SCALED]]


def draw_break_even(axes: Axes, result: dict[str, Any]) -> None:
    """A temperature of each network minus MCBN without labels, and the means over networks."""
    counts = counts_of(result["over_networks"])
    for number, (name, dashes) in enumerate(LEVELS.items(), start=1):
        curves = [
            [value - row["nll"][name]["0"] for value in row["nll"][SCALED].values()]
            for row in result["networks"].values()
        ]
        if number == 1:
            for curve in curves:
                axes.plot(counts, curve, color=SERIES[number], linewidth=0.7, alpha=0.5)
        means = [sum(values) / len(values) for values in zip(*curves, strict=True)]
        axes.plot(counts, means, color=SERIES[number], linewidth=2, linestyle=dashes,
                  label=f"minus {name}")  # fmt: skip
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set(title="A temperature minus MCBN without labels", ylabel="NLL (nats)")


def draw_gains(axes: Axes, found: dict[str, Any]) -> None:
    """Means over networks, minus the plain network."""
    for number, (name, label) in enumerate(CURVES.items()):
        middle = [row["gap"][0] for row in found[name].values()]
        axes.plot(counts_of(found), middle, "o-", color=SERIES[number], label=label, markersize=3)
    for name, dashes in LEVELS.items():
        level = found[name]["0"]["gap"][0]
        axes.axhline(level, color="0.35", linewidth=1, linestyle=dashes, label=f"{name}, no labels")
    axes.set(title="Minus the plain network", ylabel="NLL (nats)")
