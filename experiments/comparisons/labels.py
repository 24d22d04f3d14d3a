"""How many labels a temperature needs to be ahead of MCBN, over networks.

Run: python -m experiments.comparisons.labels [--fast]
(about 5 minutes a network on 1 core, after the draws of `baselines`; MCBN_DATA)

Five CIFAR-10 networks, clean test images: n labels are drawn from one random half of them, NLL is
of the other half, mean over subsets of labels. T = 16. Planned, each a difference per network with
a t-interval over networks:

1. (primary) A temperature of the plain network from n = 20 labels, with the prior, minus MCBN at
   the batch size of training (M = 128) without labels; the same for n = 50.
2. The same minus MCBN at M = 32.
3. At n = 50 labels for both: the plain network's temperature minus MCBN at M = 32 with a
   temperature of each draw; and minus MCBN at the M, among three, that these labels prefer.
4. At n = 5: with the prior minus without it.

The break-even is the n at which the mean difference of 1. and 2. changes its sign for good, by
interpolation in log n; per network, since it may not exist.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from experiments.comparisons.baselines import tiny_cases
from experiments.comparisons.baselines_cases import SEED, Case, cifar10_case
from experiments.comparisons.baselines_draws import SIZES, Scale, draws_of
from experiments.comparisons.baselines_scores import COMPARED, fitted, nll, predicted
from experiments.comparisons.labels_figure import drawn_figure
from experiments.data import cifar10_networks
from experiments.intervals import interval
from experiments.record import RESULTS, Record, asked
from mcbn.recalibration.temperature_labels import TemperatureBoundWarning

LABELS = (5, 10, 20, 50, 100, 200, 500)
SUBSETS = 100
PRIORS = {"prior": 1.0, "no prior": 0.0}  # precision of the prior on log T
TRAINED_AT, FEW = "MCBN, M = 128", "MCBN, M = 32"

# Draws of clean images by method.
Clean = Mapping[str, Tensor]


def main(record: Record) -> None:
    """Measure each network, and write."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TemperatureBoundWarning)  # of few labels without a prior
    scale, subsets = Scale(64, COMPARED, RESULTS / "draws"), SUBSETS
    cases: dict[str, Callable[[], Case]]
    cases = {name: partial(cifar10_case, name) for name in cifar10_networks.NAMES}
    if record.fast:
        scale, subsets = Scale(4, 2, record.folder / "draws"), 2
        cases = tiny_cases()["CIFAR-10"]
    networks = {
        name: record.part(name, partial(measured, name, case, scale, subsets))
        for name, case in cases.items()
    }
    rows = list(networks.values())
    result = {
        "draws": scale.few, "subsets": subsets, "seed": SEED,
        "networks": networks,
        "over_networks": {name: over_networks(rows, name) for name in rows[0]["nll"]},
        "planned": {name: interval([gap(row) for row in rows]) for name, gap in PLANNED.items()},
        "break_even": {name: [break_even(row, name) for row in rows] for name in UNLABELED},
    }  # fmt: skip
    record.write(result)
    record.draw(drawn_figure(result))


def measured(
    name: str, case: Callable[[], Case], scale: Scale, subsets: int
) -> dict[str, dict[str, Any]]:
    """NLL of one network by form and number of labels: mean over subsets, and how many lose."""
    made = case()
    draws = {
        method: each["clean"][:COMPARED] for method, each in draws_of(name, made, scale).items()
    }
    targets, found = made.clean.targets, {}
    for subset in range(subsets):
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(SEED + subset))
        for key, value in of_subset(draws, targets, order).items():
            found.setdefault(key, []).append(value)
    return summarized(found)


def of_subset(
    draws: Clean, targets: Tensor, order: Int[Tensor, " batch"]
) -> dict[tuple[str, int], float]:
    """NLL of one half by form and number of labels, which are the first of the other."""
    half = len(order) // 2
    held = {name: predicted(each[:, order[half:]]) for name, each in draws.items()}
    wanted = targets[order[half:]]
    found = {(name, 0): nll(held[name], wanted) for name in UNLABELED}
    sizes = [f"MCBN, M = {size}" for size in SIZES]
    for count in (count for count in LABELS if count <= half):
        fit = order[:count]
        for name in ("plain", FEW):
            for word, prior in PRIORS.items():
                scaling = fitted(draws[name][:, fit], targets[fit], prior=prior)
                found[f"{name}, TS, {word}", count] = nll(scaling(held[name]), wanted)
        known = {name: predicted(draws[name][:, fit]) for name in sizes}
        best = min(sizes, key=lambda name: nll(known[name], targets[fit]))
        found["MCBN, M chosen", count] = nll(held[best], wanted)
        scalings = {name: fitted(draws[name][:, fit], targets[fit]) for name in sizes}
        best = min(sizes, key=lambda name: nll(scalings[name](known[name]), targets[fit]))
        found["MCBN, M chosen, TS, prior", count] = nll(scalings[best](held[best]), wanted)
    return found


def summarized(found: Mapping[tuple[str, int], list[float]]) -> dict[str, dict[str, Any]]:
    """Means over subsets, and the share of them on which the plain network was ahead."""
    plain = torch.tensor(found["plain", 0])
    rows: dict[str, dict[str, Any]] = {"nll": {}, "harm": {}}
    for (name, count), values in found.items():
        each = torch.tensor(values)
        rows["nll"].setdefault(name, {})[str(count)] = float(each.mean())
        rows["harm"].setdefault(name, {})[str(count)] = float((each > plain).double().mean())
    return rows


def over_networks(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """By number of labels: NLL minus that of the plain network, and how often it is ahead."""
    return {
        count: {
            "gap": interval([row["nll"][name][count] - row["nll"]["plain"]["0"] for row in rows]),
            "harm": interval([row["harm"][name][count] for row in rows]),
        }
        for count in rows[0]["nll"][name]
    }


def gap_between(first: tuple[str, str], second: tuple[str, str]) -> Callable[[Any], float]:
    """The difference of two forms, each with a number of labels."""

    def gap(row: dict[str, Any]) -> float:
        return float(row["nll"][first[0]][first[1]] - row["nll"][second[0]][second[1]])

    return gap


SCALED = "plain, TS, prior"
UNLABELED = ("plain", TRAINED_AT, FEW)
PLANNED = {
    f"TS of {count} - {name}": gap_between((SCALED, count), (name, "0"))
    for name in (TRAINED_AT, FEW) for count in ("20", "50")
} | {
    f"TS of 50 - {name} of 50": gap_between((SCALED, "50"), (name, "50"))
    for name in (f"{FEW}, TS, prior", "MCBN, M chosen")
} | {"prior - no prior, 5": gap_between((SCALED, "5"), ("plain, TS, no prior", "5"))}  # fmt: skip


def break_even(row: dict[str, Any], name: str) -> float | None:
    """Labels from which on a temperature is ahead of a method without any; None if it never is."""
    gaps = {
        int(count): value - row["nll"][name]["0"] for count, value in row["nll"][SCALED].items()
    }
    counts = sorted(gaps)
    if gaps[counts[-1]] >= 0:
        return None
    crossings = [(low, high) for low, high in pairwise(counts) if gaps[low] >= 0 > gaps[high]]
    if not crossings:
        return float(counts[0])
    low, high = crossings[-1]
    share = gaps[low] / (gaps[low] - gaps[high])
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


if __name__ == "__main__":
    main(asked("labels"))
