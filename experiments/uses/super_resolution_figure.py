"""Figure of the super-resolution experiment: one patch with every map, and the scores."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from experiments.record import STYLE
from mcbn.drawing import figures

GREY_LEVELS = ("image", "prediction")
TOP = 0.99  # quantile of a map that is shown as the brightest shade
# Name on the axis and key of the methods, best known last so that it is on top.
SHOWN = {
    "gradient": "gradient",
    "MC Dropout, 8": "MC Dropout, 8 passes",
    "augmentation, 8": "augmentation, 8 passes",
    "MCBN, 8": "MCBN, M chosen, 8 passes",
    "MCBN, 16": "MCBN, M chosen, 16 passes",
    "MCBN, augmented, 16": "MCBN, augmented, 16 passes",
}
PANELS = {
    "rank_correlation": "Rank correlation with error\n(higher is better)",
    "partial_given_gradient": "The same, given the gradient\n(higher is better)",
    "log_score_scaled": "Log score (nats per pixel,\nhigher is better)",
}


def draw(result: Mapping[str, Any], maps: Mapping[str, Tensor]) -> Figure:
    """Draw the maps of one patch, and three scores of every method below."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 6.6), layout="constrained")
        rows: Any = figure.subfigures(2, 1, height_ratios=(2, 1.15))
        above, below = rows
        for ax, (name, values) in zip(above.subplots(2, 4).flat, maps.items(), strict=True):
            show(name, values, ax)
        axes = below.subplots(1, len(PANELS), sharey=True)
        for ax, (score, label) in zip(axes, PANELS.items(), strict=True):
            compare(result, score, ax)
            ax.set_xlabel(label)
        axes[0].set_ylabel("Method, passes")
    return figure


def show(name: str, values: Tensor, ax: Axes) -> None:
    """Show a picture in grey, or a map in shades of its own range."""
    picture = values.numpy()
    if name in GREY_LEVELS:
        ax.imshow(picture, cmap="gray", interpolation="none")
        ax.set_title(name)
    else:
        top = float(np.quantile(picture, TOP))
        ax.imshow(picture, cmap="magma", vmin=0, vmax=top, interpolation="none")
        ax.set_title(f"{name}\n(0 to {top:.2g})")
    ax.set_axis_off()


def compare(result: Mapping[str, Any], score: str, ax: Axes) -> None:
    """One score of every method with its interval over networks; the ensemble has none."""
    for place, name in enumerate(SHOWN.values()):
        if score in result["methods"][name]:
            mean, low, high = result["methods"][name][score]
            ax.errorbar(
                mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=figures.color(0)
            )
    place = len(SHOWN)
    ax.plot(result["ensemble"][score], place, "s", color=figures.color(1))
    ax.set_yticks(range(place + 1), labels=[*SHOWN, f"ensemble, {result['ensemble']['passes']}"])
    if score == "log_score_scaled":
        constant = result["methods"]["plain network"][score][0]
        ax.axvline(constant, color="#808080", linestyle=":")
        ax.annotate("constant", (constant, place - 1), (3, 0), textcoords="offset points",
                    rotation=90, va="top", fontsize=7, color="#606060")  # fmt: skip
