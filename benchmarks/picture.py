"""The picture of docs/performance.md: ratios by network and method, with the floors."""

from typing import Any

import matplotlib
from cases import CASES
from contenders import DROPOUT, OTHER, OWN_DROPOUT, ROUNDED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from page import PAGE

from mcbn.drawing.figures import INK, SERIES, SETTINGS

PICTURE = PAGE.parent / "_static" / "performance.svg"
# Key of each method in the results: its name, marker and colour.
METHODS = {
    "auto": ("MCBatchNorm", "o", SERIES[0]),
    ROUNDED: ("MCBatchNorm in bfloat16", "D", SERIES[1]),
    OTHER: ("torch-uncertainty", "x", SERIES[2]),
    DROPOUT: ("MC Dropout, loop", "+", SERIES[3]),
    OWN_DROPOUT: ("mcbn.MCDropout", "^", SERIES[4]),
}
FLOORS = {
    "float32": ("arithmetic floor, float32", "0.25"),
    "bfloat16": ("arithmetic floor, bfloat16", "0.65"),
}
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5)


def draw(cases: dict[str, Any]) -> None:
    """Write the picture as SVG, with the same bytes for the same results."""
    with matplotlib.rc_context({**SETTINGS, "grid.color": "#d8d8d8", "savefig.facecolor": "white"}):
        figure = drawn({case.name: cases[case.name] for case in CASES if case.name in cases})
        figure.savefig(PICTURE, metadata=dict.fromkeys(("Date", "Creator")))


def drawn(cases: dict[str, Any]) -> Figure:
    """A row for each network, the methods as markers, the floors as short lines."""
    figure = Figure(figsize=(9, 1.4 + 0.36 * len(cases)), layout="constrained")
    ax = figure.subplots()
    ax.axvline(1, color=INK, linewidth=1)
    for row, entry in enumerate(cases.values()):
        draw_row(ax, row, entry, named=row == 0)
    ax.set(xscale="log", xlabel="time, relative to T plain forward passes in float32")
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.minorticks_off()
    ax.set_yticks(range(len(cases)), [name.rsplit(", T = ", 1)[0] for name in cases])
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def draw_row(ax: Axes, row: int, entry: dict[str, Any], *, named: bool) -> None:
    """The floors and ratios of one network."""
    for kind, (name, shade) in FLOORS.items():
        ax.vlines(entry["floor"][kind], row - 0.38, row + 0.38, color=shade, linewidth=3,
                  label=name if named else None)  # fmt: skip
    for key, (name, marker, color) in METHODS.items():
        ratio = entry["ratios"].get(key, float("nan"))
        ax.plot(ratio, row, marker, color=color, markersize=6, label=name if named else None)
