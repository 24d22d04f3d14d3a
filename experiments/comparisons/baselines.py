"""MCBN beside what people would use instead, on networks for images.

Run: python -m experiments.comparisons.baselines [--fast]
(25 to 60 minutes a CIFAR-10 network and about 5 a digit network on 1 core; MCBN_DATA)

Planned comparisons, each a paired difference per network with a t-interval over networks, CIFAR-10
and MNIST apart, and p values by Holm's method over all of them. T = 16 unless said otherwise; a
temperature is of each draw where there are several, fitted on clean test images, never on one that
is scored:

1. MCBN (M = 128) with TTA minus TTA, NLL under shift (mean over all shifts) after a temperature.
   On one network the gain under JPEG had been -0.0145 [-0.029, -0.004] over images.
2. MCBN (M = 32) minus the plain network, NLL under shift, both after a temperature.
3. The same on clean images.
4. MCBN (M = 32) without labels minus the plain network after a temperature of 500 labels, clean.
5. TTA with 4 passes minus MCBN (M = 32) with 64, clean, without labels.
6. Mutual information of MCBN (M = 32) minus energy of the plain network, AUROC, mean over the sets
   of no class.
7. Entropy of MCBN (M = 32) minus energy of the plain network, the same.

All else is described with intervals over networks and tests nothing. Draws are in bfloat16 where
the processor has units for it and rounding is far below the Monte Carlo error
(docs/performance.md), and in float32 elsewhere.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from experiments.comparisons.baselines_cases import (
    SEED,
    TEST,
    Case,
    cifar10_case,
    digits_case,
    mnist_case,
)
from experiments.comparisons.baselines_draws import Scale, draws_of
from experiments.comparisons.baselines_figure import drawn_figure
from experiments.comparisons.baselines_scores import AS_IT_IS, COMPARED, TEMPERED, scores_of
from experiments.data import cifar10_networks
from experiments.intervals import interval, tested
from experiments.record import RESULTS, Record, asked

SEEDS = range(5)  # of the digit networks
SUBSETS = 20  # of labels
WIDE, NARROW = "MCBN, M = 128", "MCBN, M = 32"


def main(record: Record) -> None:
    """Measure each network, and write."""
    torch.set_num_threads(1)
    kinds = tiny_cases() if record.fast else cases()
    scale, subsets = Scale(64, COMPARED, RESULTS / "draws"), SUBSETS
    if record.fast:
        scale, subsets = Scale(4, 2, record.folder / "draws"), 1
    networks = {
        kind: {
            name: record.part(name, partial(measured, name, case, scale, subsets))
            for name, case in named.items()
        }
        for kind, named in kinds.items()
    }
    rows = {kind: list(each.values()) for kind, each in networks.items()}
    result = {
        "draws": scale.few, "more_draws": scale.many, "images": TEST, "seed": SEED,
        "subsets": subsets,
        "networks": networks,
        "over_networks": {kind: over(each) for kind, each in rows.items()},
        "minus_plain": {kind: minus_plain(each) for kind, each in rows.items()},
        "planned": planned(rows),
    }  # fmt: skip
    record.write(result)
    record.draw(drawn_figure(result))


def cases() -> dict[str, dict[str, Callable[[], Case]]]:
    """The networks by kind."""
    return {
        "CIFAR-10": {name: partial(cifar10_case, name) for name in cifar10_networks.NAMES},
        "MNIST": {f"convnet, seed {seed}": partial(mnist_case, seed) for seed in SEEDS},
    }


def tiny_cases() -> dict[str, dict[str, Callable[[], Case]]]:
    """Networks of the digits that are in the package."""
    return {
        kind: {f"{kind}, seed {seed}": partial(digits_case, seed) for seed in seeds}
        for kind, seeds in {"CIFAR-10": (0, 1), "MNIST": (2, 3)}.items()
    }


def measured(name: str, case: Callable[[], Case], scale: Scale, subsets: int) -> dict[str, Any]:
    """Scores of one network."""
    made = case()
    return scores_of(made, draws_of(name, made, scale), subsets=subsets)


def over(rows: Sequence[Any]) -> Any:
    """Replace each number by its mean over networks and the interval."""
    first = rows[0]
    if isinstance(first, dict):
        return {key: over([row[key] for row in rows if key in row]) for key in first}
    if isinstance(first, list):
        return [over(column) for column in zip(*rows, strict=True)]
    return interval(rows)


def shifted(row: dict[str, Any], method: str, form: int = TEMPERED) -> float:
    """NLL, mean over the shifts, as it is or after a temperature of clean images."""
    values = [each[method][form] for part, each in row["nll"].items() if part != "clean"]
    return sum(values) / len(values)


def clean(row: dict[str, Any], method: str, form: int) -> float:
    """NLL of clean images, as it is or after a temperature."""
    return float(row["nll"]["clean"][method][form])


def passed(row: dict[str, Any], method: str, count: int) -> float:
    """NLL of clean images with some passes, or with all there are where these are fewer."""
    curve = row["passes"][method]
    return float(curve.get(str(count), list(curve.values())[-1])[AS_IT_IS])


def detected(row: dict[str, Any], score: str) -> float:
    """AUROC of a score, mean over the sets of no class."""
    values = [each[score] for each in row["auroc"].values()]
    return sum(values) / len(values)


def minus_plain(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """NLL of each method minus that of the plain network, both in the same form."""
    found: dict[str, dict[str, list[float]]] = {}
    for method in rows[0]["aurc"]:
        if method != "plain":
            for part, score in (("clean", clean), ("shifted", shifted)):
                for form, word in ((AS_IT_IS, ""), (TEMPERED, ", TS")):
                    gaps = [score(row, method, form) - score(row, "plain", form) for row in rows]
                    found.setdefault(method, {})[f"{part}{word}"] = interval(gaps)
    return found


# By the numbers of the plan.
PLANNED: dict[str, Callable[[dict[str, Any]], float]] = {
    "MCBN with TTA - TTA, shifted, TS":
        lambda row: shifted(row, f"{WIDE}, with TTA") - shifted(row, "TTA"),
    "MCBN - plain, shifted, TS": lambda row: shifted(row, NARROW) - shifted(row, "plain"),
    "MCBN - plain, clean, TS":
        lambda row: clean(row, NARROW, TEMPERED) - clean(row, "plain", TEMPERED),
    "MCBN - plain TS, clean":
        lambda row: clean(row, NARROW, AS_IT_IS) - clean(row, "plain", TEMPERED),
    "TTA 4 - MCBN 64, clean": lambda row: passed(row, "TTA", 4) - passed(row, NARROW, 64),
    "AUROC, MI of MCBN - energy of plain":
        lambda row: detected(row, f"{NARROW}, mutual_information") - detected(row, "plain, energy"),
    "AUROC, entropy of MCBN - energy of plain":
        lambda row: detected(row, f"{NARROW}, entropy") - detected(row, "plain, energy"),
}  # fmt: skip


def planned(kinds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The planned differences by kind of network and name, tested together."""
    return tested({
        f"{kind}: {name}": [difference(row) for row in rows]
        for kind, rows in kinds.items() for name, difference in PLANNED.items()
    })  # fmt: skip


if __name__ == "__main__":
    main(asked("baselines"))
