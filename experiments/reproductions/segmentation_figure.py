"""Figures of the segmentation experiment: curves over distance, calibration, and maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

import mcbn
from experiments.data.camvid import CLASSES, IGNORED
from experiments.record import STYLE
from experiments.reproductions.pixels import BOUNDS, GROUPS
from mcbn.drawing import figures

# One colour per class, in the order of the classes, similar to the usual colours of CamVid.
COLORS = (
    "#8ab4d8", "#8c2f2f", "#d9d3b0", "#7d5f8f", "#3f3fb0", "#7d8c1f", "#d98c8c", "#5a5f96",
    "#4a1f8c", "#f08030", "#20b0c0",
)  # fmt: skip
UNLABELED = "#202020"
WRONG = "#d55e00"


def draw(result: dict[str, Any]) -> Figure:
    """Draw uncertainty and errors against distance to a boundary, and the error of each class."""
    methods = result["methods"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        (one, two), (three, four) = figure.subplots(2, 2)
        along(methods, "entropy", one).set(ylabel="Mean predictive entropy (nats)")
        along(methods, "mutual information", two).set(ylabel="Mean mutual information (nats)")
        along(methods, "error", three).set(ylabel="Share of pixels wrong")
        class_errors(methods, result["set_up"]["class_shares"], four)
        figure.legend(
            one.get_lines(), list(methods), loc="outside upper center", ncols=4, frameon=False
        )
    return figure


def along(methods: Mapping[str, dict[str, list[float]]], name: str, ax: Axes) -> Axes:
    """Plot one curve per method over groups of distance, with bands."""
    curves = []
    for style, (method, measures) in enumerate(methods.items()):
        if f"{name} at {GROUPS[0]}" in measures:
            triples = [measures[f"{name} at {group}"] for group in GROUPS]
            y, low, high = (tuple(each) for each in zip(*triples, strict=True))
            x = tuple(float(place) for place in range(len(GROUPS)))
            curves.append(figures.Curve(method, x, y, low, high, style))
    figures.draw_curves(curves, ax)
    ax.set_xticks(range(len(GROUPS)), labels=[*(str(bound) for bound in BOUNDS), "more"])
    ax.set_xlabel("Distance to a label boundary (up to, pixels)")
    ax.set_ylim(bottom=0)
    return ax


def class_errors(
    methods: Mapping[str, dict[str, list[float]]], shares: Mapping[str, float], ax: Axes
) -> None:
    """Plot the one-against-rest calibration error of each class, most frequent class on top."""
    order = sorted(shares, key=lambda label: shares[label])
    places = np.arange(len(order))
    for style, measures in enumerate(methods.values()):
        values = np.array([measures[f"ECE of {label}"] for label in order])
        # A mirrored interval of a biased score may leave its value outside.
        errors = np.maximum([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0)
        shift = 0.18 * ((len(methods) - 1) / 2 - style)
        ax.errorbar(values[:, 0], places + shift, xerr=errors, color=figures.color(style),
                    fmt=figures.MARKERS[style], markersize=3, elinewidth=1)  # fmt: skip
    ax.set_yticks(places, labels=[f"{label}, {100 * shares[label]:.1f}%" for label in order])
    ax.set_xlim(left=0)
    ax.set_xlabel("Calibration error, class against the rest")


def draw_maps(
    path: Path,
    photographs: Tensor,
    labels: Tensor,
    predictives: Sequence[tuple[str, mcbn.CategoricalPredictive]],
) -> None:
    """Write images, labels and the uncertainty maps of two methods as a JPEG file.

    Args:
        path: path of the file.
        photographs: images with values from 0 to 1.
        labels: class of every pixel, -100 if it has none.
        predictives: name and predictive of the first method, shown in full, and of the other.
    """
    (name, first), (other_name, other) = predictives
    known = labels != IGNORED
    prediction = torch.where(known, first.prediction, IGNORED)
    wrong = known & (prediction != labels)
    maps = {
        f"entropy,\n{name}": first.entropy,
        f"mutual information,\n{name}": first.mutual_information,
        f"mutual information,\n{other_name}": other.mutual_information,
    }
    columns = {"image": photographs.permute(0, 2, 3, 1), "label": colored(labels)}
    columns |= {f"prediction,\n{name}": colored(prediction)}
    columns |= {title: shaded(values, known) for title, values in maps.items()}
    columns |= {f"error,\n{name}": wrong_pixels(wrong, known)}
    with matplotlib.rc_context({**STYLE, "font.size": 7, "axes.grid": False}):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        grid = figure.subplots(len(labels), len(columns), squeeze=False)
        for column, (title, pictures) in enumerate(columns.items()):
            if title in maps:
                title = f"{title},\n0 to {top(maps[title], known):.2f} nats"
            grid[0, column].set_title(title, fontsize=7)
            for ax, picture in zip(grid[:, column], pictures, strict=True):
                ax.imshow(picture.numpy())
                ax.set_axis_off()
        keys = [
            Patch(color=shade, label=label) for shade, label in zip(COLORS, CLASSES, strict=True)
        ]
        keys.append(Patch(color=UNLABELED, label="no label"))
        figure.legend(handles=keys, loc="outside lower center", ncols=12, frameon=False)
        figure.savefig(path, dpi=150, pil_kwargs={"quality": 85})


def colored(labels: Tensor) -> Tensor:
    """The colour of every pixel's class."""
    table = torch.tensor([matplotlib.colors.to_rgb(each) for each in (*COLORS, UNLABELED)])
    return table[torch.where(labels == IGNORED, len(COLORS), labels.long())]


def top(values: Tensor, known: Tensor) -> float:
    """The value shown as the brightest shade; a few pixels exceed it."""
    return float(np.quantile(values[known].numpy(), 0.995))


def shaded(values: Tensor, known: Tensor) -> Tensor:
    """Values as shades, larger ones brighter, on one scale for all images."""
    shares = (values / top(values, known)).clamp(0, 1).numpy()
    return torch.from_numpy(matplotlib.colormaps["magma"](shares))


def wrong_pixels(wrong: Tensor, known: Tensor) -> Tensor:
    """Orange where wrong, white where correct, dark where unlabelled."""
    table = torch.tensor([matplotlib.colors.to_rgb(each) for each in ("white", WRONG, UNLABELED)])
    return table[torch.where(known, wrong.long(), 2)]
