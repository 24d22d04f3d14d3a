"""The figure of the baselines: log scores over passes and labels, under shift, and detection."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE
from mcbn.drawing.figures import SERIES

KIND = "CIFAR-10"
SHOWN = {
    "plain": SERIES[0], "MCBN, M = 32": SERIES[1], "TTA": SERIES[2],
    "MCBN, M = 128, with TTA": SERIES[3], "dropout": SERIES[4], "Laplace": SERIES[5],
}  # fmt: skip


def drawn_figure(result: dict[str, Any]) -> Figure:
    """Four panels, means over the CIFAR-10 networks with their intervals."""
    found = result["over_networks"][KIND]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        passes, labels, shift = figure.subplots(1, 3)
        for name, color in SHOWN.items():
            draw_curve(passes, {k: v[0] for k, v in found["passes"][name].items()}, name, color)
            draw_curve(labels, found["labels"][name], name, color)
        passes.set(title="Clean, no labels", xlabel="Passes", ylabel="NLL (nats)")
        labels.set(title="Clean, after a temperature", xlabel="Labels")
        draw_shift(shift, found["nll"])
        figure.legend(*passes.get_legend_handles_labels(), loc="outside lower center",
                      ncols=len(SHOWN), frameon=False)  # fmt: skip
    return figure


def draw_curve(axes: Axes, curve: dict[str, list[float]], name: str, color: str) -> None:
    """Means over a logarithmic count; no labels are drawn at 1."""
    counts = [max(int(count), 1) for count in curve]
    means = [value[0] for value in curve.values()]
    axes.plot(counts, means, "o-", color=color, label=name, markersize=3)
    axes.set_xscale("log")
    axes.set_xticks(counts, list(curve))
    axes.minorticks_off()


def draw_shift(axes: Axes, found: dict[str, Any]) -> None:
    """Differences from the plain network under each shift, after a temperature."""
    names = [name for name in found if name != "clean"]
    for name, color in SHOWN.items():
        if name == "plain":
            continue
        gaps = [found[part][name][1][0] - found[part]["plain"][1][0] for part in names]
        axes.plot(gaps, range(len(names)), "o", color=color, markersize=4)
    axes.axvline(0, color="0.4", linewidth=0.8, dashes=(4, 3))
    axes.set_yticks(range(len(names)), names)
    axes.set(title="Shifted, after a temperature", xlabel="NLL minus that of the plain network")
    axes.invert_yaxis()
