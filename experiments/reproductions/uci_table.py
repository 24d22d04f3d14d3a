"""Scores, tests, table and figure of the UCI evaluation.

Run: python -m experiments.reproductions.uci_table
(prints the tables of the page from the result)
"""

import json
import math
from itertools import product

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

import mcbn
from experiments.record import RESULTS, STYLE, Record
from mcbn.drawing import figures
from mcbn.predictive.gaussian import GaussianPredictive

OPTIMAL_CRPS = math.erf(
    math.sqrt(math.log(2) / 2)
)  # lowest CRPS of a Gaussian, relative to |error|

NAMES = ("rmse", "rmse_plain", "pll", "crps", "pll_normalised", "crps_normalised")
# Teye et al., table 2: normalised, 0 is a constant uncertainty and 100 the optimum, in percent;
# MCBN and MC Dropout by CRPS, then by PLL, with stars for significance.
TABLE_2 = """
yacht                      -56.39 ***  21.42 ***  45.58 *** -41.54 -
bostonHousing                8.50 ***   3.06 ***  10.49 ***   5.51 ***
energy                       5.75 ***   1.37 -    10.89 *** -14.28 *
concrete                     3.91 ***   0.93 *   -36.36 **   10.92 ***
wine-quality-red             0.26 **    2.00 ***   0.19 *     2.91 ***
kin8nm                       2.85 ***   1.82 ***   1.68 ***  -0.26 -
power-plant                  0.24 ***  -0.44 ***   0.33 **    3.52 ***
protein-tertiary-structure   2.66 ***   0.99 ***   2.56 ***   6.23 ***
"""
# Gal: from his logs, 100 times the epochs, with standard errors; from his page, 10 times.
GAL_COLUMNS = ("rmse", "rmse_error", "ll", "ll_error", "rmse_tenfold", "ll_tenfold")
GAL_ROWS = {
    "yacht": (0.666, 0.049, -1.250, 0.015, 0.72, -1.38),
    "bostonHousing": (2.904, 0.177, -2.402, 0.042, 2.80, -2.39),
    "energy": (0.539, 0.014, -1.212, 0.005, 1.09, -1.72),
    "concrete": (4.826, 0.161, -2.937, 0.025, 4.81, -2.94),
    "wine-quality-red": (0.622, 0.008, -0.928, 0.013, 0.61, -0.92),
}
GAL_PAPER = {name: dict(zip(GAL_COLUMNS, row, strict=True)) for name, row in GAL_ROWS.items()}
SERIES, DIFFERENCE = ("MCBN", "MCDO"), "MCBN - MCDO"
LABELS = {"MCBN": "MCBN", "MCDO": "MC Dropout"}
WORDS = {"crps": "CRPS", "pll": "PLL"}


def published() -> dict:
    """The published results."""
    rows = [line.split() for line in TABLE_2.strip().splitlines()]
    keys = [(score, method) for score in WORDS for method in SERIES]
    table: dict[str, dict] = {row[0]: {score: {} for score in WORDS} for row in rows}
    for name, *cells in rows:
        for index, (score, method) in enumerate(keys):
            value, stars = cells[2 * index : 2 * index + 2]
            table[name][score][method] = [float(value), stars.strip("-")]
    return {"teye": table, "gal": GAL_PAPER}


def precisions(
    held: list[GaussianPredictive], observed: list[Tensor], within: tuple[float, float]
) -> tuple[float, float]:
    """The precision with the lowest CRPS on the folds, and that of a constant uncertainty."""
    predictive = mcbn.Gaussian(precision=1.0).join([each.with_precision(1.0) for each in held])
    every = torch.cat(observed)
    best = [
        mcbn.fit_precision(each, every, criterion="crps").precision or 0.0
        for each in (predictive, constant(predictive))
    ]
    # If draws spread more than the errors, the best precision would be infinite.
    own, same = (min(max(each, within[0]), within[1]) for each in best)
    return own, same


def constant(predictive: GaussianPredictive) -> GaussianPredictive:
    """The same mean without the spread of the draws."""
    return GaussianPredictive(predictive.mean[None], predictive.variances)


def rmse(predictive: GaussianPredictive, observed: Tensor) -> float:
    """RMSE in original units."""
    return float((predictive.mean - observed).square().mean().sqrt())


def scored(
    predictive: GaussianPredictive, taus: tuple[float, float], observed: Tensor
) -> dict[str, float]:
    """Test scores, those of a constant uncertainty and of the optimum, and normalised scores."""
    own, same = predictive.with_precision(taus[0]), constant(predictive).with_precision(taus[1])
    error = (own.mean - observed).abs()
    best = -0.5 - 0.5 * math.log(2 * math.pi) - error.log()
    each = {
        "pll": (own.log_prob(observed), same.log_prob(observed), best),
        "crps": (
            own.crps_moment_matched(observed),
            same.crps_moment_matched(observed),
            OPTIMAL_CRPS * error,
        ),
    }
    row = {"rmse": rmse(own, observed), "tau": taus[0], "tau_constant": taus[1]}
    for name, values in each.items():
        mine, low, high = (float(value.mean()) for value in values)
        row |= {name: mine, f"{name}_constant": low, f"{name}_optimal": high}
        row[f"{name}_normalised"] = 100 * (mine - low) / (high - low)
    return row


def summary(splits: dict[str, list[dict]]) -> dict[str, dict]:
    """Means over runs with Student-t intervals and tests against zero; MCBN - MC Dropout.

    Args:
        splits: for each method, the runs of each split.
    """
    differences = [
        [{name: a[name] - b[name] for name in NAMES} for a, b in zip(*each, strict=True)]
        for each in zip(splits["MCBN"], splits["MCDO"], strict=True)
    ]
    return {
        method: {name: cell(each, name) for name in NAMES if name in each[0][0]}
        for method, each in (splits | {DIFFERENCE: differences}).items()
    }


def cell(splits: list[list[dict]], name: str) -> dict[str, float]:
    """Mean over all runs, 95% interval and p; `p_splits` uses one mean per split."""
    runs = [run[name] for each in splits for run in each]
    means = [float(np.mean([run[name] for run in each])) for each in splits]
    test = stats.ttest_1samp(runs, 0)
    low, high = test.confidence_interval(0.95)
    p_splits = float(stats.ttest_1samp(means, 0).pvalue)
    return {"mean": float(np.mean(runs)), "low": float(low), "high": float(high),
            "p": float(test.pvalue), "p_splits": p_splits, "runs": len(runs)}  # fmt: skip


def agreement(result: dict) -> dict[str, int]:
    """How many signs, rankings of the methods and values agree with the paper."""
    count = {"same_sign": 0, "signs": 0, "same_order": 0, "orders": 0, "inside": 0}
    for (name, each), score in product(result["sets"].items(), WORDS):
        own = [each["scores"][method][f"{score}_normalised"] for method in SERIES]
        paper = [result["paper"]["teye"][name][score][method][0] for method in SERIES]
        means = [cell["mean"] for cell in own]
        count["same_sign"] += sum(a * b > 0 for a, b in zip(means, paper, strict=True))
        count["inside"] += sum(a["low"] < b < a["high"] for a, b in zip(own, paper, strict=True))
        count["same_order"] += (means[0] > means[1]) == (paper[0] > paper[1])
        count["signs"], count["orders"] = count["signs"] + 2, count["orders"] + 1
    return count


def draw(record: Record, result: dict) -> None:
    """Draw the normalised scores with intervals; those of the paper as hollow markers."""
    names = [name for name in result["paper"]["teye"] if name in result["sets"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.2 + 0.65 * len(names)), layout="constrained")
        for ax, score in zip(figure.subplots(1, 2, sharey=True), ("pll", "crps"), strict=True):
            _panel(ax, result, names, score)
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False)
        record.draw(figure)


def _panel(ax: Axes, result: dict, names: list[str], score: str) -> None:
    """Plot one score, with one row per set from top to bottom."""
    for style, method in enumerate(SERIES):
        color, marker = figures.color(style), figures.MARKERS[style]
        place = np.arange(len(names)) + (0.18 if style else -0.18)
        cells = [result["sets"][name]["scores"][method][f"{score}_normalised"] for name in names]
        values = np.array([each["mean"] for each in cells])
        ends = np.array([[each["low"], each["high"]] for each in cells]).T
        ax.errorbar(values, place, xerr=np.abs(ends - values), fmt=marker, color=color,
                    markersize=5, elinewidth=1.4, label=f"{LABELS[method]}, ours")  # fmt: skip
        paper = [result["paper"]["teye"][name][score][method][0] for name in names]
        ax.plot(paper, place, marker, markerfacecolor="none", color=color, markersize=7,
                label=f"{LABELS[method]}, paper")  # fmt: skip
    ax.axvline(0, color=figures.INK, linewidth=0.8)
    ax.set_yticks(range(len(names)), labels=names)
    # Most scores are within a few percent of zero, some are far below it.
    ax.set_xscale("symlog", linthresh=10, linscale=1.5)
    shown = (-100, -30, -10, -5, 0, 5, 10, 30, 100)
    ax.set_xticks(shown, labels=[str(tick) for tick in shown])
    ax.minorticks_off()
    ax.set(xlim=(-200, 100), ylim=(len(names) - 0.5, -0.5))
    ax.set_xlabel(f"Normalised {WORDS[score]}, %: 0 constant, 100 optimal")


def stars(p: float) -> str:
    """Stars for a p-value, as in the paper."""
    return next(
        (mark for level, mark in ((1e-3, "***"), (1e-2, "**"), (0.05, "*")) if p < level), ""
    )


def tables(result: dict) -> str:
    """The tables of the page, in Markdown."""
    paper = result["paper"]["teye"]
    names = [name for name in paper if name in result["sets"]]
    lines: list[str] = []
    for score in ("pll", "crps"):
        lines += [
            f"{WORDS[score]}, normalised:\n",
            "| set | MCBN | MC Dropout | MCBN - MC Dropout | paper: MCBN | paper: MC Dropout |",
            "|---|---|---|---|---|---|",
        ]
        for name in names:
            scores, theirs = result["sets"][name]["scores"], paper[name][score]
            row = [_cell(scores[method][f"{score}_normalised"]) for method in [*SERIES, DIFFERENCE]]
            row += [f"{theirs[method][0]:.2f}{escaped(theirs[method][1])}" for method in SERIES]
            lines.append("| " + " | ".join([name, *row]) + " |")
        lines.append("")
    return "\n".join([*lines, *_plain(result, names), "", *_gal(result)])


def escaped(mark: str) -> str:
    """Escape stars for Markdown."""
    return mark.replace("*", "\\*")


def _cell(measure: dict[str, float]) -> str:
    value = f"{measure['mean']:.1f}{escaped(stars(measure['p']))}"
    return f"{value} [{measure['low']:.1f}, {measure['high']:.1f}]"


def _plain(result: dict, names: list[str]) -> list[str]:
    """Tables in original units: RMSE with and without draws, and scores with the ensemble."""
    errors = [
        "| set | MCBN | one pass, full statistics | MC Dropout | one pass, no dropout | ensemble |",
        "|---|---|---|---|---|---|",
    ]
    scores = [
        "| set | PLL: MCBN | MC Dropout | ensemble | ensemble, normalised PLL "
        "| CRPS: MCBN | MC Dropout | ensemble | ensemble, normalised CRPS |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        measures = result["sets"][name]["scores"]
        pairs = [(method, key) for method in SERIES for key in ("rmse", "rmse_plain")]
        row = [measures[method][key] for method, key in [*pairs, ("ensemble", "rmse")]]
        errors.append("| " + " | ".join([name, *(f"{each['mean']:.3f}" for each in row)]) + " |")
        cells = [name]
        for key in ("pll", "crps"):
            cells += [f"{measures[method][key]['mean']:.3f}" for method in (*SERIES, "ensemble")]
            cells.append(_cell(measures["ensemble"][f"{key}_normalised"]))
        scores.append("| " + " | ".join(cells) + " |")
    return ["RMSE:\n", *errors, "\nScores in original units:\n", *scores]


def _gal(result: dict) -> list[str]:
    """Table of MC Dropout by Gal's protocol, with the published results."""
    lines = [
        "| set | RMSE | log-likelihood | published, 10 times the epochs | published, 100 times |",
        "|---|---|---|---|---|",
    ]
    for name, measures in result["gal"].get("sets", {}).items():
        paper = result["paper"]["gal"][name]
        cells = [
            f"{measures[key]['mean']:.2f} ± {measures[key]['error']:.2f}" for key in ("rmse", "ll")
        ]
        cells.append(f"{paper['rmse_tenfold']:.2f}, {paper['ll_tenfold']:.2f}")
        pairs = [f"{paper[key]:.2f} ± {paper[key + '_error']:.2f}" for key in ("rmse", "ll")]
        lines.append("| " + " | ".join([name, *cells, ", ".join(pairs)]) + " |")
    return lines


if __name__ == "__main__":
    print(tables(json.loads((RESULTS / "uci.json").read_text())))
