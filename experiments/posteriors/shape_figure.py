"""Figure of `shape`: standard deviations over x as they are, and rescaled to one mean."""

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.record import STYLE, Record

REFERENCE = "posterior, batch norm"
SIZES = ("MCBN, M = 8", "MCBN, M = 16", "MCBN, M = 32", "MCBN, M = 3N/4")
SHOWN = (REFERENCE, "ensemble of 5", "last-layer Laplace", *SIZES)
STYLES: dict[str, dict[str, Any]] = {
    REFERENCE: {"color": "black", "linewidth": 2.2, "label": "posterior (HMC)"},
    "ensemble of 5": {"color": "#b35806", "linewidth": 1.4, "dashes": (5, 2)},
    "last-layer Laplace": {"color": "#7b3294", "linewidth": 1.4, "dashes": (1.5, 1.5)},
    **{
        name: {"color": color, "linewidth": 1.4}
        for name, color in zip(SIZES, ("#08306b", "#2171b5", "#6baed6", "#9ecae1"), strict=True)
    },
}


def draw(record: Record, result: dict[str, Any]) -> None:
    """Draw both panels, with the gap shaded."""
    picture = result["picture"]
    x, region = np.array(picture["x"]), np.array(picture["region"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, title, scaled in zip(
            axes, ("As they are: the scale", "With one factor each: the shape"), (0, 1), strict=True
        ):
            gap = x[region == 1]
            ax.axvspan(gap.min(), gap.max(), color="#eeeeee", linewidth=0)
            for side in (-1, 1):
                edge = x[(region == 0) & (np.sign(x) == side)]
                ax.axvline(side * abs(edge).max(), color="#bbbbbb", linewidth=0.8)
            for name in SHOWN:
                sd = np.array(picture["sd"][name])
                near = region < 2
                reference = np.array(picture["sd"][REFERENCE])
                factor = math.exp(np.log(reference[near] / sd[near]).mean()) if scaled else 1.0
                ax.plot(x, factor * sd, **({"label": name} | STYLES[name]))
            ax.set(title=title, xlabel="Input x", yscale="log")
            ax.text(gap.mean(), 0.98, "gap", transform=ax.get_xaxis_transform(), ha="center",
                    va="top", color="#555555", fontsize=8)  # fmt: skip
        axes[0].set_ylabel("Epistemic sd of the mean")
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )
        record.draw(figure)
