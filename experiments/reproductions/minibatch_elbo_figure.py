"""Figure of the experiment on mini-batches and the ELBO."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.record import STYLE, Record
from mcbn.drawing import figures


def draw(record: Record, result: dict[str, Any]) -> None:
    """Differences of the optima, the bias against M, and what training with mini-batches loses."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        draw_optima(result, left)
        draw_bias(result, middle)
        draw_loss(result, right)
        record.draw(figure)


def draw_optima(result: dict[str, Any], ax: Axes) -> None:
    """Intervals of the best objective minus that of the plain network."""
    sets = result["sets"]
    for style, form in enumerate(("batch norm", "absorbed")):
        known = [(place, each) for place, each in enumerate(sets.values())
                 if f"{form} minus plain" in each["optimum"]]  # fmt: skip
        for place, each in known:
            mean, low, high = each["optimum"][f"{form} minus plain"]["objective"]
            ax.errorbar(
                [mean], [place + 0.16 * (1 - 2 * style)], xerr=[[mean - low], [high - mean]],
                fmt=figures.MARKERS[style], color=figures.color(style), markersize=4.5,
                label=form if place == known[0][0] else None,
            )  # fmt: skip
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(
        title="Best objective found,\nminus plain",
        xlabel="Nats per example",
        ylim=(-0.6, len(sets)),
    )
    ax.set_yticks(range(len(sets)), list(sets))
    ax.legend(frameon=False, loc="lower right")


def draw_bias(result: dict[str, Any], ax: Axes) -> None:
    """The difference of the objectives at the same q against M; dotted, slope -1."""
    sizes = result["settings"]["batch_sizes"]
    top = 0.0
    for style, (name, each) in enumerate(result["sets"].items()):
        gaps = [-row[0] / size for row, size in zip(each["bias"]["coefficient"], sizes,
                                                    strict=True)]  # fmt: skip
        if min(gaps) <= 0:
            continue
        top = max(top, gaps[-1] * sizes[-1])
        ax.plot(sizes, gaps, color=figures.color(style), marker=figures.MARKERS[style],
                markersize=3.5, linewidth=1.4, label=name)  # fmt: skip
    ax.plot(sizes, [1.5 * top / size for size in sizes], color="black",
            linestyle=":", linewidth=1, label="slope -1")  # fmt: skip
    ax.set(yscale="log", title="Lost by mini-batches at the same q,\nover (N - M)/(N - 1)",
           ylabel="Nats per example")  # fmt: skip
    figures.doubling_axis(sizes, ax, label="Batch size M of the statistics")
    ax.legend(frameon=False)


def draw_loss(result: dict[str, Any], ax: Axes) -> None:
    """What the optimum at M loses of the objective with all statistics."""
    known = {name: (style, each["trained"]) for style, (name, each)
             in enumerate(result["sets"].items()) if "trained" in each}  # fmt: skip
    for name, (style, rows) in known.items():
        sizes = [row["M"] for row in rows]
        y, low, high = zip(*(row["lost"] for row in rows), strict=True)
        curve = figures.Curve(name, tuple(sizes), y, low, high, style)
        figures.draw_curves([curve], ax)
        ax.annotate(name, (sizes[0], y[0]), xytext=(8, 4), textcoords="offset points",
                    color=figures.color(style))  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(title="ELBO with all statistics lost\nby training at M", ylabel="Nats per example")
    figures.doubling_axis(sizes, ax, label="Batch size M of training")
