"""Figure of the image experiment: NLL against draws and batch size, and temperature scaling."""

import math
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE, Record
from mcbn.drawing import figures

PLAIN = "#555555"  # the network without draws
INFORMATION = 2  # line style of the mutual information


def draw(record: Record, result: dict[str, Any]) -> None:
    """Draw the NLL against T, NLL and mutual information against M, and temperature scaling."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        draw_draws(result, left)
        draw_sizes(result["sizes"]["rows"], middle)
        draw_temperatures(result["temperature"], right)
        record.draw(figure)


def draw_draws(result: dict[str, Any], ax: Axes) -> None:
    """Plot the curves of both batch sizes with two standard errors, and the paper's curve."""
    for style, (size, rows) in enumerate(result["curve"].items()):
        ends = [(row["nll"][0], 2 * (row["nll"][1] or math.nan)) for row in rows]
        curve = figures.Curve(
            f"M = {size}",
            tuple(row["draws"] for row in rows),
            tuple(value for value, _ in ends),
            tuple(value - half for value, half in ends),
            tuple(value + half for value, half in ends),
            style,
        )
        figures.draw_curves([curve], ax)
        ax.annotate(curve.name, (curve.x[-1], curve.y[-1]), xytext=(0, 5), ha="right",
                    textcoords="offset points", color=figures.color(style))  # fmt: skip
    paper = result["paper"]
    ax.plot(paper["draws"], paper["nll"], color=figures.color(3), dashes=(3, 2), marker="^",
            markersize=3.5, linewidth=1.2)  # fmt: skip
    ax.annotate("paper, ResNet-32", (paper["draws"][-1], paper["nll"][-1]), xytext=(0, -11),
                ha="right", textcoords="offset points", color=figures.color(3))  # fmt: skip
    levels = (
        ("plain network", result["plain"]["nll"][0], PLAIN, "-"),
        ("paper's plain", paper["nll of running statistics"], figures.color(3), ":"),
    )
    for name, level, color, line in levels:
        ax.axhline(level, color=color, linewidth=1, linestyle=line)
        ax.annotate(name, (1.0, level), xytext=(0, 3), textcoords="offset points", color=color,
                    ha="right", xycoords=("axes fraction", "data"))  # fmt: skip
    ax.set_ylim(bottom=ax.get_ylim()[0] - 0.015)
    figures.doubling_axis(paper["draws"], ax, label="Draws T")
    ax.set(ylabel="NLL (nats)", title="More draws")


def draw_sizes(rows: dict[str, Any], ax: Axes) -> None:
    """Plot the paired NLL difference from the plain network, and mutual information."""
    sizes = tuple(int(size) for size in rows)
    y, low, high = zip(*(row["nll minus plain"] for row in rows.values()), strict=True)
    figures.draw_curves([figures.Curve("NLL", sizes, y, low, high, 0)], ax)
    ax.axhline(0, color=PLAIN, linewidth=1)
    figures.doubling_axis(sizes, ax, label="Inference batch size M")
    ax.set_ylabel("NLL minus plain network (nats)", color=figures.color(0))
    ax.set_title("Larger mini-batches")
    other = ax.twinx()
    information = [row["mutual information"] for row in rows.values()]
    other.plot(sizes, information, marker="D", markersize=3.5, color=figures.color(INFORMATION),
               linewidth=1.4, dashes=(6, 2))  # fmt: skip
    other.set(yscale="log")
    other.grid(visible=False)
    other.set_ylabel("Mutual information (nats)", color=figures.color(INFORMATION))


def draw_temperatures(rows: dict[str, Any], ax: Axes) -> None:
    """Plot the NLL before (hollow) and after (filled) temperature scaling, with intervals."""
    names = ["plain", *sorted(rows.keys() - {"plain"}, key=lambda name: -int(name.split()[1]))]
    for place, name in enumerate(names):
        for style, (key, shift) in enumerate((("before", 0.14), ("after", -0.14))):
            value, low, high = rows[name][key]["nll"]
            color, ends = figures.color(style), [[max(value - low, 0)], [max(high - value, 0)]]
            ax.errorbar(value, -place + shift, xerr=ends, fmt="o", color=color, markersize=5,
                        elinewidth=1.2, markerfacecolor=("white", color)[style])  # fmt: skip
            if place == 0:
                ax.annotate(f"{key} scaling", (value, -place + shift), xytext=(0, (6, -13)[style]),
                            ha="center", textcoords="offset points", color=color)  # fmt: skip
    labels = [name if name == "plain" else f"M = {name.split()[1]}" for name in names]
    ax.set_yticks([-place for place in range(len(names))], labels=labels)
    ax.set(xlabel="NLL (nats), 95 %", ylim=(0.6 - len(names), 0.6), title="Temperature")
