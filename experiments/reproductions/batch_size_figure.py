"""The figure of `batch_size`: spread against M and against N, NLL against M."""

import math
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE, Record
from mcbn.drawing import figures

SETS = {"test": "test digits", "usps": "USPS", "notmnist": "notMNIST",
        "fashion_mnist": "Fashion-MNIST"}  # fmt: skip
RIVALS = {"MC Dropout": (2, 2), "ensemble": (8, 2)}  # with their dash patterns
SHOWN = 4  # number of M plotted against N
SPREAD = "Epistemic sd of probabilities"


def draw(record: Record, result: dict[str, Any]) -> None:
    """Draw three panels: all sets against M, the test digits against N, and the NLL against M."""
    networks = {int(size): network for size, network in result["networks"].items()}
    middle = sorted(networks)[len(networks) // 2]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        axes = figure.subplots(1, 3)
        draw_over_m(networks[middle]["methods"], axes[0])
        axes[0].set_title(f"Against M, N = {middle:,}")
        draw_over_n(networks, axes[1])
        axes[1].set_title("Against N, test digits")
        draw_nll(networks, axes[2])
        axes[2].set_title("Price of the wrong M")
        record.draw(figure)


def curve(values: dict[int, list[float]], style: int) -> figures.Curve:
    """A curve with its intervals; ends below 0 are raised, since the axis is logarithmic."""
    x = tuple(sorted(values))
    y, low, high = (tuple(values[each][place] for each in x) for place in range(3))
    low = tuple(max(each, 0.02 * value) for each, value in zip(low, y, strict=True))
    return figures.Curve("", tuple(map(float, x)), y, low, high, style)


def over_m(methods: dict[str, Any], key: str) -> dict[int, list[float]]:
    """One measure of MCBN at each M."""
    return {int(name): row[key] for name, row in methods.items() if name.isdigit()}


def draw_over_m(methods: dict[str, Any], ax: Axes) -> None:
    """Plot the epistemic spread of every set, a line of slope -1/2 and the methods without M."""
    curves = [curve(over_m(methods, f"epistemic_sd {name}"), style)
              for style, name in enumerate(SETS)]  # fmt: skip
    figures.draw_curves(curves, ax)
    sizes = [int(size) for size in curves[0].x]
    for rival, pattern in RIVALS.items():
        value = methods[rival]["epistemic_sd test"][0]
        ax.axhline(value, color=figures.color(0), linewidth=1, dashes=pattern)
        ax.text(sizes[-1], 1.04 * value, f"{rival}, test digits", color=figures.color(0),
                ha="right", va="bottom", fontsize=7)  # fmt: skip
    # Below all curves at the left, where nothing else is drawn.
    ends = [0.45 * curves[0].y[0], 0.45 * curves[0].y[0] * math.sqrt(sizes[0] / sizes[-1])]
    ax.plot([sizes[0], sizes[-1]], ends, color="#555555", linewidth=1)
    ax.text(sizes[0], 0.45 * ends[0], "slope -1/2", color="#555555", fontsize=7)
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    top = max(max(each.y) for each in curves)
    figures.value_axis((0.4 * min(curves[0].y), 1.6 * top), ax, label=SPREAD, log=True)
    ax.legend(ax.get_lines()[: len(curves)], list(SETS.values()), frameon=False, fontsize=7,
              loc="lower left")  # fmt: skip


def draw_over_n(networks: dict[int, Any], ax: Axes) -> None:
    """Plot the epistemic spread on the test digits: MCBN at some M, MC Dropout, the ensemble."""
    key = "epistemic_sd test"
    shared = sorted(set.intersection(*({int(name) for name in network["methods"] if name.isdigit()}
                                       for network in networks.values())))  # fmt: skip
    curves, names = [], []
    for style, size in enumerate(shared[:: max(1, len(shared) // SHOWN + 1)]):
        values = {n: network["methods"][str(size)][key] for n, network in networks.items()}
        curves.append(curve(values, style))
        names.append(f"MCBN, M = {size}")
    for style, rival in enumerate(RIVALS, start=len(curves)):
        values = {n: network["methods"][rival][key] for n, network in networks.items()}
        curves.append(curve(values, style))
        names.append(rival)
    figures.draw_curves(curves, ax)
    figures.doubling_axis(sorted(networks), ax, label="Training examples, N")
    lows, highs = ([pick(each.y) for each in curves] for pick in (min, max))
    figures.value_axis((0.6 * min(lows), 1.6 * max(highs)), ax, label=SPREAD, log=True)
    ax.legend(ax.get_lines()[: len(curves)], names, frameon=False, fontsize=7, ncols=2,
              loc="upper right")  # fmt: skip


def draw_nll(networks: dict[int, Any], ax: Axes) -> None:
    """Plot the NLL against M for every N, the chosen M as a star, the other methods as lines."""
    curves = [curve(over_m(network["methods"], "nll"), style)
              for style, network in enumerate(networks.values())]  # fmt: skip
    plain = [figures.Curve("", each.x, each.y, (math.nan,) * len(each.x),
                           (math.nan,) * len(each.x), each.style) for each in curves]  # fmt: skip
    figures.draw_curves(plain, ax)
    values = [value for each in plain for value in each.y]
    for style, network in enumerate(networks.values()):
        chosen = network["choice"]["geometric mean"], network["methods"]["chosen"]["nll"][0]
        ax.plot(*chosen, marker="*", markersize=12, color=figures.color(style), linestyle="none")
        for rival, pattern in RIVALS.items():
            value = network["methods"][rival]["nll"][0]
            values.append(value)
            if style == 0:
                ax.text(plain[0].x[-1], 1.01 * value, rival, color=figures.color(0), ha="right",
                        va="bottom", fontsize=7)  # fmt: skip
            ax.axhline(value, color=figures.color(style), linewidth=1, dashes=pattern)
    sizes = sorted({int(size) for each in plain for size in each.x})
    ax.text(sizes[-1], 0.8 * min(values), "star: M chosen on held-out digits", ha="right",
            fontsize=7)  # fmt: skip
    figures.doubling_axis(sizes, ax, label="Inference batch size, M")
    limits = 0.75 * min(values), 1.5 * max(values)
    figures.value_axis(limits, ax, label="Test NLL (nats)", log=True)
    ax.legend(ax.get_lines()[: len(plain)], [f"N = {n:,}" for n in networks], frameon=False,
              fontsize=7)  # fmt: skip
