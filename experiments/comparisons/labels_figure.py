"""The figure of the labels: what a temperature and MCBN gain, over the number of labels."""

from typing import Any

import matplotlib
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES

CURVES = {
    "plain, TS, prior": "temperature, plain",
    "MCBN, M = 32, TS, prior": "MCBN, M = 32, temperature of each draw",
    "MCBN, M chosen": "MCBN, M chosen",
    "MCBN, M chosen, TS, prior": "MCBN, M and temperature chosen",
}
LEVELS = {"MCBN, M = 32": (0, (1, 2)), "MCBN, M = 128": (0, (4, 2))}


def drawn_figure(result: dict[str, Any]) -> Figure:
    """NLL minus that of the plain network, and how often a temperature does harm."""
    found = result["over_networks"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        gains, harm = figure.subplots(1, 2, width_ratios=[1.4, 1])
        for number, (name, label) in enumerate(CURVES.items()):
            counts = [int(count) for count in found[name]]
            middle, low, high = zip(*(row["gap"] for row in found[name].values()), strict=True)
            gains.plot(counts, middle, "o-", color=SERIES[number], label=label, markersize=3)
            gains.fill_between(counts, low, high, color=SERIES[number], alpha=0.12, linewidth=0)
        for name, dashes in LEVELS.items():
            level = found[name]["0"]["gap"][0]
            gains.axhline(level, color="0.35", linewidth=1, linestyle=dashes)
            gains.text(counts[-1], level, f"{name}, no labels", va="bottom", ha="right", fontsize=8)
        for number, word in enumerate(("prior", "no prior")):
            rows = found[f"plain, TS, {word}"].values()
            shares = [row["harm"][0] for row in rows]
            harm.plot(counts, shares, "o-", color=SERIES[3 * number], label=word, markersize=3)
        gains.set(xlabel="Labels", ylabel="NLL minus that of the plain network")
        harm.set(xlabel="Labels", ylabel="Temperatures that do harm", ylim=(0, None))
        for axes in (gains, harm):
            axes.set_xscale("log")
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.minorticks_off()
            axes.legend(frameon=False, fontsize=8)
    return figure
