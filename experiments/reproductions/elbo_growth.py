"""The best batch size by the ELBO against N, for one unit and for trained networks."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import nn

import mcbn
from experiments.intervals import interval
from mcbn.study.slopes import log_log_slope
from mcbn.tasks.datasets import LabeledData
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

UNIT = {"tau": 2.0, "gamma": 0.7, "sigma2": 1.5, "s": 3.0}  # of the closed form
CHECKED_AT = 1000  # N of the worked example of the closed form
SIZES = (100, 1000, 10_000, 100_000)  # N of the closed form
NOISE_SD = 0.5  # of the regression task of the trained networks
TRAINED_AT = 64  # M of training
EXAMPLES, POINTS = 256, 9  # training examples and grid points of the curve over M


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        population: training set sizes N.
        seeds: number of seeds of data and network.
        steps: training steps, the same for every N.
        draws: T of a bank.
    """

    population: tuple[int, ...]
    seeds: int
    steps: int
    draws: int


def closed_form() -> dict[str, Any]:
    """The best batch size of one unit, by search and by the formula."""
    sizes = sorted({*SIZES, CHECKED_AT})
    formula = [count * UNIT["tau"] * UNIT["gamma"] ** 2 + UNIT["sigma2"] / UNIT["s"] ** 2
               for count in sizes]  # fmt: skip
    optima = [searched(count) for count in sizes]
    return {
        **UNIT,
        "N": sizes,
        "formula": formula,
        "search": optima,
        "worked example": round(optima[sizes.index(CHECKED_AT)], 2),
        "largest relative gap": max(abs(a / b - 1) for a, b in zip(optima, formula, strict=True)),
        "slope": log_log_slope(tuple(sizes), tuple(optima)),
    }


def searched(count: int) -> float:
    """M at the numeric maximum of the ELBO of one unit with N examples."""
    weight = UNIT["tau"] * count * UNIT["gamma"] ** 2 + UNIT["sigma2"] / UNIT["s"] ** 2
    optimum = minimize_scalar(
        lambda log: weight / (2 * math.exp(log)) + log / 2,
        bounds=(0.0, math.log(100 * count)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return math.exp(optimum.x)


def trained(scale: Scale, seed: int) -> list[dict[str, Any]]:
    """M* of a network for each N; and of the largest N's network with each N in the ELBO only."""
    rows = []
    for count in scale.population:
        data = regression(count, seed)
        net = build(lambda: mlp(4, 1, width=16, depth=2, dropout=0.0).double(), seed=seed)
        train(net, data, epochs=scale.steps * TRAINED_AT // count, batch_size=TRAINED_AT,
              seed=seed, loss="mse")  # fmt: skip
        fresh = regression(2000, 100 + seed)
        errors = {"rmse, training": rmse(net, data), "rmse, new": rmse(net, fresh)}
        row = {"seed": seed, "kind": "trained", **chosen(net, data, count, scale), **errors}
        rows.append(row)
    for count in scale.population:
        rows.append({"seed": seed, "kind": "told", **chosen(net, data, count, scale)})
    return rows


def regression(count: int, seed: int) -> LabeledData:
    """Four inputs, uniform in [-1, 1], and a smooth function of them with noise."""
    generator = torch.Generator().manual_seed(1000 + seed)
    x = 2 * torch.rand(count, 4, generator=generator, dtype=torch.float64) - 1
    y = torch.sin(3 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + x[:, 3:] / 2
    noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return LabeledData(x, y + NOISE_SD * noise)


def chosen(net: nn.Module, data: LabeledData, count: int, scale: Scale) -> dict[str, Any]:
    """M* by the ELBO for N = count; if it is at a bound, collect a bank there and choose again."""
    size = count // 8
    for again in range(5):
        batches = mcbn.minibatches(
            data.inputs, batch_size=size, draws=scale.draws, seed=again, replacement=True
        )
        bank = mcbn.collect(net, batches)
        rank = dimensions(bank)
        choice = mcbn.choose_batch_size(
            net, bank, data.inputs[:EXAMPLES], data.targets[:EXAMPLES], points=POINTS,
            criterion=mcbn.ELBO(population=count, dimensions=rank),
            likelihood=mcbn.Gaussian(precision=NOISE_SD**-2),
        )  # fmt: skip
        if not choice.at_bound or round(choice.best) in (1, count):
            break
        size = round(choice.best)
    # To first order M* = 2 N c / K + 1, where c / M is the increase of the loss by batch noise.
    return {
        "N": count, "best": choice.best, "interval": choice.to_dict()["interval"],
        "banks": again + 1,
        "at_bound": choice.at_bound, "extrapolated": choice.extrapolated, "K": rank,
        "cost": rank * (choice.best - 1) / (2 * count),
    }  # fmt: skip


def rmse(net: nn.Module, data: LabeledData) -> float:
    """RMSE of the network with running statistics, in target units."""
    likelihood = mcbn.Gaussian(precision=NOISE_SD**-2)
    predictive = mcbn.predict(mcbn.Deterministic(net), data.inputs, likelihood)
    return mcbn.evaluate(predictive, data.targets, resamples=0)["rmse"].value


def dimensions(bank: mcbn.Bank) -> int:
    """K: the number of directions in which the statistics vary."""
    rows = torch.cat(list(bank.coordinates().values()), 1)
    return int(torch.linalg.matrix_rank(rows - rows.mean(0)))


def growth(scale: Scale, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """M* against N with its log-log slope, and all single choices."""
    sizes, answer = scale.population, {}
    for kind in ("trained", "told"):
        curves, costs = (
            [[row[key] for row in rows if (row["kind"], row["seed"]) == (kind, seed)]
             for seed in range(scale.seeds)]
            for key in ("best", "cost")
        )  # fmt: skip
        logs = [interval([math.log(best) for best in column])
                for column in zip(*curves, strict=True)]  # fmt: skip
        answer[kind] = {
            "best": [[math.exp(end) for end in ends] for ends in logs],
            "cost": [interval(list(column)) for column in zip(*costs, strict=True)],
            "slope": interval([log_log_slope(sizes, tuple(curve)) for curve in curves]),
            "slope by step": [
                interval([log_log_slope(pair, tuple(curve[i : i + 2])) for curve in curves])
                for i, pair in enumerate(pairwise(sizes))
            ],
            "share of N": [
                math.exp(ends[0]) / count for ends, count in zip(logs, sizes, strict=True)
            ],
        }
    for key in ("rmse, training", "rmse, new"):
        answer[key] = [
            interval([row[key] for row in rows if key in row and row["N"] == count])
            for count in sizes
        ]
    ranks = [row["K"] for row in rows]
    return {
        "N": sizes, **answer, "K": [min(ranks), max(ranks)], "noise_sd": NOISE_SD,
        "at a bound": sum(row["at_bound"] is not None for row in rows),
        "extrapolated": sum(row["extrapolated"] for row in rows),
        "choices": rows,
    }  # fmt: skip
