"""Noise in the early, the middle or the late layers: which is good for what?

Run: python -m experiments.choosing.which_layers [--fast]
(about 15 minutes a network on 1 core; MCBN_DATA)

Five CIFAR-10 networks, T = 16, M = 8 and 32; a third of the batch-norm layers is drawn, in the
order of the network, and the others keep their running statistics. Temperatures are of each draw,
fitted on clean test images that are not scored. Planned, per network with t-intervals over
networks:

1. (primary) Early layers minus all layers, M = 8, NLL of clean images after a temperature. On one
   network it had been -0.038 [-0.054, -0.022] over images.
2. Early layers minus the plain network, both after a temperature: clean, and under shift.
3. Late layers minus all layers, the same.

The AUROC of errors and of sets of no class, by mutual information, is described.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

import mcbn
from experiments.comparisons.baselines import over, shifted, tiny_cases
from experiments.comparisons.baselines_cases import SEED, Case, cifar10_case
from experiments.comparisons.baselines_draws import Scale, drawn
from experiments.comparisons.baselines_scores import (
    TEMPERED,
    accuracies,
    log_scores,
    predicted,
    separations,
)
from experiments.data import cifar10_networks
from experiments.intervals import tested
from experiments.record import RESULTS, STYLE, Record, asked
from mcbn.drawing.figures import SERIES

DRAWS, SIZES = 16, (8, 32)
STAGES = ("early", "middle", "late", "all")
SHIFTS = ("JPEG files", "noise, strong")


def main(record: Record) -> None:
    """Measure each network, and write."""
    torch.set_num_threads(1)
    scale = Scale(DRAWS, DRAWS, RESULTS / "draws")
    cases: dict[str, Callable[[], Case]]
    cases = {name: partial(cifar10_case, name) for name in cifar10_networks.NAMES}
    if record.fast:
        scale = Scale(2, 2, record.folder / "draws")
        cases = tiny_cases()["CIFAR-10"]
    networks = {
        name: record.part(name, partial(measured, case, scale)) for name, case in cases.items()
    }
    rows = list(networks.values())
    record.write({
        "draws": scale.few, "batch_sizes": SIZES, "networks": networks,
        "over_networks": over(rows), "planned": planned(rows),
    })  # fmt: skip
    record.draw(drawn_figure(over(rows)))


def measured(make: Callable[[], Case], scale: Scale) -> dict[str, Any]:
    """Scores of one network by which layers are drawn."""
    case = make()
    shifts = {name: case.shifted[name] for name in SHIFTS if name in case.shifted} or case.shifted
    case = replace(case, shifted=shifts)
    samplers: dict[str, Any] = {"plain": mcbn.Deterministic(case.network)}
    for size in SIZES:
        batches = mcbn.minibatches(case.training, batch_size=size, draws=scale.few, seed=SEED)
        bank = mcbn.collect(case.network, batches, limit=None, progress=False)
        for stage, layers in stages(layers_of(bank)).items():
            samplers[f"{stage}, M = {size}"] = mcbn.MCBatchNorm(
                case.network, bank, layers=layers, precision="auto"
            )
    draws = {
        name: {part: each.float() for part, each in drawn(sampler, case, scale).items()}
        for name, sampler in samplers.items()
    }
    return {
        "accuracy": accuracies(case, draws),
        "nll": log_scores(case, draws),
        "mutual_information": {
            name: float(predicted(each["clean"]).mutual_information.mean())
            for name, each in draws.items()
        },
        "auroc": separations(case, draws),
    }


def layers_of(bank: mcbn.Bank) -> list[str]:
    """Names of the batch-norm layers in the order of the network."""
    end = ".running_mean"
    return [name.removesuffix(end) for name in bank.statistics if name.endswith(end)]


def stages(layers: list[str]) -> dict[str, list[str]]:
    """The names of the layers by stage: thirds in the order of the network, and all of them."""
    first, second = round(len(layers) / 3), round(2 * len(layers) / 3)
    return {
        "early": layers[:first], "middle": layers[first:second], "late": layers[second:],
        "all": layers,
    }  # fmt: skip


# First and second method of the planned differences at M = 8.
PLANNED = (("early", "all"), ("early", "plain"), ("late", "all"))


def planned(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The planned differences in NLL after a temperature, clean and under shift."""
    found = {}
    for one, other in PLANNED:
        first, second = (
            stage if stage == "plain" else f"{stage}, M = {SIZES[0]}" for stage in (one, other)
        )
        for part, score in (("clean", unshifted), ("shifted", shifted)):
            values = [score(row, first) - score(row, second) for row in rows]
            found[f"{one} - {other}, {part}"] = values
    return tested(found)


def unshifted(row: dict[str, Any], method: str) -> float:
    """NLL of clean images after a temperature."""
    return float(row["nll"]["clean"][method][TEMPERED])


def drawn_figure(found: dict[str, Any]) -> Figure:
    """NLL after a temperature minus that of the plain network, by stage and batch size."""
    parts = list(found["nll"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        panels = figure.subplots(1, len(parts), sharex=True)
        for axes, part in zip(panels, parts, strict=True):
            plain = found["nll"][part]["plain"][TEMPERED][0]
            for number, size in enumerate(SIZES):
                values = [
                    found["nll"][part][f"{stage}, M = {size}"][TEMPERED][0] - plain
                    for stage in STAGES
                ]
                axes.plot(STAGES, values, "o", color=SERIES[number], label=f"M = {size}")
            axes.axhline(0, color="0.4", linewidth=0.8, dashes=(4, 3))
            axes.set_title(part)
        panels[0].set_ylabel("NLL minus that of the plain network")
        panels[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main(asked("which_layers"))
