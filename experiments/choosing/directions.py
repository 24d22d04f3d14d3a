"""A batch size for each direction of the statistics, in place of one batch size for all.

Run: python -m experiments.choosing.directions [--fast]
(about 5 minutes on 1 core; data root in MCBN_DATA)

`CurvaturePosterior` gives every direction of a bank the batch size M_k = N g_k + 1 of its Laplace
posterior, without held-out labels. Is that better than one batch size, and does it contract with N?

Planned comparisons. Primary: held-out NLL of directions minus that of M*, the one batch size of the
best held-out log score, paired over networks: 5 splits of each of 4 UCI sets, in a hierarchy of
sets. Second: the slope of the log of the epistemic standard deviation in log N, on linear
regressions with a closed form and on networks of kin8nm, where MCBN at a fixed M should have 0 and
the posterior about -1/2. Third, at an equal number of fitted numbers: directions with one factor on
all M_k, fitted as M* is, minus M*. Others in the tables: M = 32, the M of the ELBO, large-batch
statistics (with the noise variance fitted, which is their variance scale), last-layer Laplace, and
linear draws of the same posterior. The differences from large-batch statistics were added after the
run. Networks of classes are in directions_images.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.choosing import directions_regression as regression
from experiments.choosing.directions_control import control
from experiments.choosing.directions_figure import drawn_figure
from experiments.data.uci_data import both
from experiments.intervals import interval
from experiments.record import Record, asked
from mcbn.tasks.datasets import LabeledData, uci

SETS = ("yacht", "bostonHousing", "energy", "concrete")
SEEDS = 5
LARGEST = 1000  # training examples of a set
GROWTH = (250, 1000, 4000)  # N of the networks of kin8nm
GROWTH_SEEDS = 4
HELD = 1000  # held-out examples of kin8nm, and as many of test
CONTROL = (256, 512, 1024, 2048, 4096, 8192)
REFERENCE = "M*"
COMPARED = ("directions", "directions, scaled", "directions, linear", "M = 32", "M of the ELBO",
            "limit", "running statistics", "last-layer Laplace")  # fmt: skip


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of rescaling far, which is measured here
    parts = tiny() if record.fast else full(record)
    result = {
        "seeds": SEEDS, "sets": list(parts["regression"]),
        "control": summarized_control(parts["control"]),
        "regression": summarized_sets(parts["regression"]),
        "growth": summarized_growth(parts["growth"]),
        "curves": curves(parts),
    }  # fmt: skip
    record.draw(drawn_figure(record.write(result)))


def full(record: Record) -> dict[str, Any]:
    """All parts, each stored as soon as it is there."""
    scale, part = regression.Scale(), record.part

    def of_set(name: str, seed: int) -> dict[str, Any]:
        return regression.measured(regression.set_case(name, seed, LARGEST, scale))

    def of_size(size: int, seed: int) -> dict[str, Any]:
        data = kin8nm()
        return regression.grown(regression.growth_case(size, seed, scale, data, HELD))

    return {
        "control": [part(f"control-{s}", partial(control, list(CONTROL), s, 256))
                    for s in range(SEEDS)],
        "regression": {name: [part(f"{name}-{s}", partial(of_set, name, s)) for s in range(SEEDS)]
                       for name in SETS},
        "growth": [[part(f"growth-{size}-{s}", partial(of_size, size, s)) for size in GROWTH]
                   for s in range(GROWTH_SEEDS)],
    }  # fmt: skip


def tiny() -> dict[str, Any]:
    """The same parts at a scale that proves nothing, of generated data."""
    scale = regression.Scale(steps=20, draws=16, width=6, batch_size=16)
    data = generated(400)
    sized = [[regression.grown(regression.growth_case(size, s, scale, data, 40))
              for size in (40, 160)] for s in range(2)]  # fmt: skip
    few = [regression.measured(regression.growth_case(60, s, scale, data, 40)) for s in range(2)]
    return {
        "control": [control([64, 128, 256], s, 24) for s in range(2)],
        "regression": {"generated": few, "generated again": few[::-1]},
        "growth": sized,
    }  # fmt: skip


def kin8nm() -> LabeledData:
    """All its examples, standardised, but for the test part of the first split."""
    task = uci("kin8nm")
    whole = both(task)
    targets = (whole.targets - task.target_mean) / task.target_scale
    return LabeledData(whole.inputs, targets.float()[:, None])


def generated(count: int) -> LabeledData:
    """A noisy nonlinear function of four inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 4, generator=generator)
    noise = torch.randn(count, 1, generator=generator)
    return LabeledData(inputs, inputs[:, :1].sin() + inputs[:, 1:2] + 0.3 * noise)


def column(parts: list[dict[str, Any]], method: str, score: str) -> np.ndarray:
    """A score of one method on each network."""
    return np.array([part["scores"][method][score] for part in parts])


def summarized(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores over networks, differences from M*, and what was chosen."""
    methods, scores = list(parts[0]["scores"]), list(parts[0]["scores"][REFERENCE])
    chosen = [key for key, value in parts[0]["chosen"].items() if not isinstance(value, list)]
    return {
        "scores": {m: {s: interval(column(parts, m, s)) for s in scores} for m in methods},
        "minus M*": {
            m: {s: interval(column(parts, m, s) - column(parts, REFERENCE, s)) for s in scores}
            for m in methods if m != REFERENCE
        },
        "minus limit": {
            m: interval(column(parts, m, "nll") - column(parts, "limit", "nll"))
            for m in methods if m != "limit"
        },
        "chosen": {key: interval([part["chosen"][key] for part in parts]) for key in chosen},
        "networks": [part["scores"] for part in parts],
    }  # fmt: skip


def summarized_sets(sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each set, and the mean of its differences over all sets."""
    each = {name: summarized(parts) for name, parts in sets.items()}
    scores = next(iter(each.values()))["minus M*"][COMPARED[0]]
    over_sets = {
        method: {score: interval([one["minus M*"][method][score][0] for one in each.values()])
                 for score in scores}
        for method in COMPARED
    }  # fmt: skip
    from_limit = {
        method: interval([one["minus limit"][method][0] for one in each.values()])
        for method in (*COMPARED, REFERENCE) if method != "limit"
    }  # fmt: skip
    return {"sets": each, "over sets, minus M*": over_sets, "over sets, minus limit": from_limit}


def summarized_control(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Slopes over seeds, and the largest error of a variance."""
    worst = "largest error of a variance"
    return {
        "N": list(CONTROL),
        "slopes": {name: interval([part["slopes"][name] for part in parts])
                   for name in parts[0]["slopes"]},
        worst: max(part[worst] for part in parts),
    }  # fmt: skip


def summarized_growth(seeds: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Slopes over seeds of the epistemic standard deviation, as it is and in units of the noise."""
    methods = list(seeds[0][0]["scores"])
    logs = [np.log([part["N"] for part in parts]) for parts in seeds]

    def slopes(values: list[np.ndarray]) -> list[float]:
        pairs = zip(logs, values, strict=True)
        return interval([np.polyfit(x, np.log(y), 1)[0] for x, y in pairs])

    spread = {m: [column(parts, m, "epistemic_sd") for parts in seeds] for m in methods}
    noise = {m: [column(parts, m, "noise_sd") for parts in seeds] for m in methods}
    sizes = {key: [np.array([part[key] for part in parts]) for parts in seeds]
             for key in ("M*", "mean M_k", "determined")}  # fmt: skip
    return {
        "N": [part["N"] for part in seeds[0]],
        "slopes": {m: slopes(spread[m]) for m in methods},
        "slopes, in units of the noise": {
            m: slopes([a / b for a, b in zip(spread[m], noise[m], strict=True)]) for m in methods
        },
        "slopes of sizes": {key: slopes(values) for key, values in sizes.items()},
        "sd": {m: np.mean(spread[m], axis=0).tolist() for m in methods},
        "nll, directions minus M*": [
            interval([parts[i]["scores"]["directions"]["nll"] - parts[i]["scores"]["M*"]["nll"]
                      for parts in seeds]) for i in range(len(seeds[0]))
        ],
    }  # fmt: skip


def curves(parts: dict[str, Any]) -> dict[str, Any]:
    """The batch sizes of all directions of one network of each kind, with its M*."""
    chosen = {name: each[0]["chosen"] for name, each in parts["regression"].items()}
    return {
        name: {"M_k": each["M_k"], "M*": each["M*"], "mean M_k": each["mean M_k"]}
        for name, each in chosen.items()
    }


if __name__ == "__main__":
    main(asked("directions"))
