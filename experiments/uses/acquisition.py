"""Active learning: does the noise of batch norm choose better labels than chance and dropout do?

From 20 to 120 labels in rounds of 10, networks are trained anew on what is labelled, and each
method asks for the labels of 10 of 500 candidates. All sets of labels are judged by one plain
network trained on them, with a seed that all methods share; only the choice of labels differs.

Planned comparisons, written down before the full run: the area under the curve of accuracy (MNIST)
or of RMSE (kin8nm) over labels, paired over seeds.
1. Primary: BALD by MCBN (M = 10) minus random labels, on MNIST.
2. Second: BALD by MCBN (M = 10) minus BALD by MC Dropout, on MNIST.
3. and 4. The same two on kin8nm.
The p values are of paired t tests over seeds, adjusted for these four by Holm's method. All other
comparisons are exploratory. The labels needed are those to an accuracy of 0.75 or an RMSE of 0.75
standard deviations of the targets.

Two pilots on MNIST, with seeds that the experiment does not use, came before: of 100 training steps
(seed 0) networks of chosen labels were far from trained, unlike with 400 (seed 11), so there are
300.

Run: python -m experiments.uses.acquisition [--fast]
(about 40 minutes on one core; data root in MCBN_DATA)
"""

import statistics
import warnings
from functools import partial
from typing import Any

import torch

import mcbn
from experiments.intervals import interval
from experiments.record import Record, asked
from experiments.uses.acquisition_figure import drawn
from experiments.uses.acquisition_model import (
    BATCH_SIZE,
    DROPOUT,
    METHODS,
    NOISE_VARIANCE,
    SCORES,
    Scale,
    problem,
)
from experiments.uses.acquisition_rounds import run
from experiments.uses.acquisition_table import tables
from mcbn.evaluation.significance import holm, paired_test

DATA = ("mnist", "kin8nm")
FULL = Scale(seeds=10, pool=5000, candidates=500, test=2000, start=20, size=10, rounds=10,
             steps=300, draws=32, members=5, labellings=1000)  # fmt: skip
FAST = Scale(seeds=2, pool=100, candidates=40, test=100, start=20, size=10, rounds=2,
             steps=4, draws=4, members=2, labellings=20)  # fmt: skip
REACHED = 0.75  # accuracy, or RMSE in standard deviations of the targets
PLANNED = (("mnist", "random"), ("mnist", "dropout"), ("kin8nm", "random"), ("kin8nm", "dropout"))
# Exploratory differences between methods other than random, of the area.
PAIRS = (("mcbn", "dropout"), ("mcbn", "plain"), ("mcbn", "ensemble"), ("mcbn", "mcbn_half"),
         ("batch_mcbn", "mcbn"), ("batch_dropout", "dropout"), ("batch_mcbn", "batch_dropout"),
         ("ensemble", "dropout"))  # fmt: skip


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    scale = FAST if record.fast else FULL
    ranks_in = tuple(sorted({0, scale.rounds // 2, scale.rounds}))
    found: dict[str, list[Any]] = {name: [] for name in DATA}
    for seed in range(1, scale.seeds + 1):  # others were those of pilots
        for name in DATA:
            one = partial(measured, name, scale, seed, ranks_in, fast=record.fast)
            found[name].append(record.part(f"{name}-{seed}", one))
    written = record.write(assembled(scale, found, ranks_in))
    record.draw(drawn(written))
    print(tables(written))


def assembled(
    scale: Scale, found: dict[str, list[Any]], ranks_in: tuple[int, ...]
) -> dict[str, Any]:
    """The result, from the parts of all seeds."""
    runs = {
        name: {method: [each["methods"][method] for each in of] for method in METHODS}
        for name, of in found.items()
    }
    ranked = {name: [each["ranks"] for each in of] for name, of in found.items()}
    areas = {
        name: {method: [area(each["score"]) for each in every] for method, every in of.items()}
        for name, of in runs.items()
    }
    return {
        "scale": {
            **vars(scale), "reached": REACHED, "batch size": BATCH_SIZE, "dropout": DROPOUT,
            "noise variance": NOISE_VARIANCE,
        },
        "labels": scale.labels,
        "planned": planned(areas),
        "data": {name: summary(scale, runs[name], areas[name]) for name in DATA},
        "differences": {
            name: {f"{a} minus {b}": paired(areas[name][a], areas[name][b]) for a, b in PAIRS}
            for name in DATA
        },
        "rank correlation": {
            "labels": [scale.labels[number] for number in ranks_in],
            **{name: {key: [interval(list(column)) for column in
                            zip(*(each[key] for each in ranked[name]), strict=True)]
                      for key in SCORES} for name in DATA},
        },
        "areas by seed": areas,
        "warnings": {name: {key: sum(each[key] for each in of)
                            for key in ("inconsistent banks", "other warnings")}
                     for name, of in found.items()},
    }  # fmt: skip


def measured(
    name: str, scale: Scale, seed: int, ranks_in: tuple[int, ...], *, fast: bool
) -> dict[str, Any]:
    """All methods of one seed; the warnings of few labels are counted instead of shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = run(problem(name, scale, seed, fast=fast), ranks_in)
    kinds = [issubclass(each.category, mcbn.InconsistentBankWarning) for each in caught]
    return {**found, "inconsistent banks": sum(kinds), "other warnings": len(kinds) - sum(kinds)}


def area(curve: list[float]) -> float:
    """Area under a curve over equal steps of labels, divided by their range."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


def labels_to(curve: list[float], labels: list[int], bound: float) -> float:
    """Labels at which a straight line between rounds first reaches a bound; NaN if it never does.

    Args:
        curve: of accuracy, which rises, or with a minus sign of RMSE.
        labels: of each round.
        bound: to be reached from below.
    """
    if curve[0] >= bound:
        return float(labels[0])
    for number in range(1, len(curve)):
        low, high = curve[number - 1], curve[number]
        if high >= bound:
            share = (bound - low) / (high - low)
            return labels[number - 1] + share * (labels[number] - labels[number - 1])
    return float("nan")


def summary(
    scale: Scale, runs: dict[str, list[Any]], areas: dict[str, list[float]]
) -> dict[str, Any]:
    """The table of one data set: means over seeds with intervals."""
    found: dict[str, Any] = {}
    rising = "nll" in runs["random"][0]
    bound, end = (REACHED if rising else -REACHED), scale.labels[-1]
    needed = {
        method: [labels_to([value if rising else -value for value in each["score"]],
                           scale.labels, bound) for each in every]
        for method, every in runs.items()
    }  # fmt: skip
    # A run that does not reach the bound is counted with all the labels that it had.
    capped = {m: [end if each != each else each for each in every] for m, every in needed.items()}
    for method, every in runs.items():
        columns = zip(*(each["score"] for each in every), strict=True)
        row: dict[str, Any] = {
            "curve": [interval(list(column)) for column in columns],
            "area": interval(areas[method]),
            "labels needed": interval(capped[method]),
            "not reached": sum(each != each for each in needed[method]),
        }
        for key in every[0]:
            if key != "score":
                row[key] = interval([statistics.fmean(each[key]) for each in every])
        if method != "random":
            row["area minus random"] = paired(areas[method], areas["random"])
            row["labels minus random"] = paired(capped[method], capped["random"])
        found[method] = row
    return found


def planned(areas: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """The planned comparisons, with p values as they are and adjusted."""
    gaps = {
        f"{name}: mcbn minus {other}": [
            a - b for a, b in zip(areas[name]["mcbn"], areas[name][other], strict=True)
        ]
        for name, other in PLANNED
    }
    values = [paired_test(each) for each in gaps.values()]
    return {
        name: {"difference": interval(each), "p": value, "adjusted": adjusted}
        for (name, each), value, adjusted in zip(gaps.items(), values, holm(values), strict=True)
    }


def paired(first: list[float], second: list[float]) -> list[float]:
    """Mean of the first minus the second over seeds, with its interval."""
    return interval([a - b for a, b in zip(first, second, strict=True)])


if __name__ == "__main__":
    main(asked("acquisition"))
