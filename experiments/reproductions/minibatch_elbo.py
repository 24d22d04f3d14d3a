"""Batch norm and the ELBO in networks of several layers, with all examples and with mini-batches.

Run: python -m experiments.reproductions.minibatch_elbo [--fast]
(about an hour on one core; data root in MCBN_DATA)

Planned before the run. Primary: difference of the best objective per example, with the statistics
of all examples, between a network with batch norm and the plain one, by data set and seed:
"absorbed" (the same q and prior, expected 0) and "batch norm" (mean field over the network's own
parameters, no expectation). Second: log-log slope against M of the difference between mini-batch
objective and that with all statistics, at the best q with all statistics, divided by
(N - M)/(N - 1), from M = 16 on; expected -1. All else explores. Starts and learning rates are
chosen by the training objective alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from experiments.record import Record, asked
from experiments.reproductions import minibatch_elbo_dropout as masks
from experiments.reproductions import minibatch_elbo_forms as forms
from experiments.reproductions import minibatch_elbo_model as model
from experiments.reproductions.minibatch_elbo_data import NOISE_SD, SetName, data_of
from experiments.reproductions.minibatch_elbo_figure import draw
from experiments.reproductions.minibatch_elbo_model import Form
from experiments.reproductions.minibatch_elbo_summary import summary
from experiments.reproductions.minibatch_elbo_training import (
    Schedule,
    Spreads,
    Training,
    maximize,
)

FORMS: tuple[Form, ...] = ("plain", "batch norm", "absorbed")
RATES = (0.02, 0.05)  # learning rates of the means, where no others are given
DROPOUT_RATES = (0.03, 0.1, 0.2)
NEAR = 0.1  # nats per example below the best that count as near, for the speed


@dataclass(frozen=True)
class Search:
    """Starts of the training with all statistics: `restarts` for each learning rate."""

    restarts: int = 2
    rates: tuple[float, ...] = RATES


# Starts of the toy set end in different optima, and the better half after the first cycle need not
# be the better half at the end, so it is searched twice.
AGAIN: dict[SetName, Search] = {"toy": Search(4, (0.05, 0.1))}


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        sets: names of the data sets.
        trained: those that are trained at every M.
        dropout: those with MC dropout.
        absorbed: those with the form "absorbed".
        examples: N, a multiple of every M.
        seeds: of splits and starts.
        width: units of each of the two hidden layers.
        cycles: of the training with all statistics.
        continued: of trainings that continue from its optimum, at every M.
        batch_sizes: M at which the difference is measured.
        trained_at: M of these trainings; N is the last.
        draws: of the weights, for every estimate.
    """

    sets: tuple[SetName, ...]
    trained: tuple[SetName, ...]
    dropout: tuple[SetName, ...]
    absorbed: tuple[SetName, ...]
    examples: int
    seeds: int
    width: int
    cycles: Schedule
    continued: Schedule
    batch_sizes: tuple[int, ...]
    trained_at: tuple[int, ...]
    draws: int


# What has been run. All sets in all parts, and cycles=Schedule(300, 6, kept=2), take about an hour.
FULL = Scale(
    ("toy", "yacht", "concrete", "digits"), ("concrete", "digits"), (), (),
    examples=256, seeds=5, width=20, cycles=Schedule(300, 4, kept=1),
    continued=Schedule(300, 2, kept=1), batch_sizes=(4, 8, 16, 32, 64, 128),
    trained_at=(4, 16, 256), draws=512,
)  # fmt: skip
FAST = Scale(
    ("toy", "digits"), ("toy",), ("digits",), ("toy",), examples=64, seeds=2, width=4,
    cycles=Schedule(4, 2), continued=Schedule(2, 2), batch_sizes=(4, 16, 32), trained_at=(4, 64),
    draws=16,
)  # fmt: skip


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    scale = FAST if record.fast else FULL
    parts: dict[str, dict[str, Any]] = {name: {} for name in scale.sets}
    for form, name in product(FORMS[:2], scale.sets):
        parts[name][form] = searched(record, scale, form, name)
    jobs: list[tuple[str, Callable[[SetName], Any], tuple[SetName, ...]]] = [
        ("bias", lambda name: gaps(scale, name, parts[name]["batch norm"]["free"]), scale.sets),
        ("trained", lambda name: trained(scale, name, parts[name]["batch norm"]["free"]),
         scale.trained),
        ("dropout plain", partial(dropout, scale, "plain"), scale.dropout),
        ("dropout batch norm", partial(dropout, scale, "batch norm"), scale.dropout),
        ("absorbed", lambda name: searched(record, scale, "absorbed", name), scale.absorbed),
    ]  # fmt: skip
    for key, make, names in jobs:
        for name in names:
            path = f"{name}-{key.replace(' ', '-')}"
            parts[name][key] = record.part(path, partial(make, name))
    settings = {
        "N": scale.examples, "width": scale.width, "noise_sd": NOISE_SD, "near": NEAR,
        "rates": RATES, "dropout rates": DROPOUT_RATES, "batch_sizes": scale.batch_sizes,
        "trained at": scale.trained_at, "draws": scale.draws,
        "starts": {name: sum(each.restarts * len(each.rates) for each in searches(name))
                   for name in scale.sets},
        "tolerance": scale.cycles.tolerance,
    }  # fmt: skip
    draw(record, record.write({"settings": settings, **summary(parts, settings)}))


def searches(name: SetName) -> list[Search]:
    """The searches of a data set, each in a part of its own."""
    return [Search(), *([AGAIN[name]] if name in AGAIN else [])]


def searched(record: Record, scale: Scale, form: Form, name: SetName) -> dict[str, Any]:
    """The best q of a form for each seed, of all searches."""
    path = f"{name}-{form.replace(' ', '-')}"
    every = [
        record.part(f"{path}-{place}", partial(optimum, scale, form, name, search))
        for place, search in enumerate(searches(name))
    ]
    values = [each["objective"] for each in every]
    best = [max(range(len(every)), key=column.__getitem__)
            for column in zip(*values, strict=True)]  # fmt: skip
    answer = {
        key: [every[place][key][seed] for seed, place in enumerate(best)]
        for key in every[0] if key not in ("steps", "best after each cycle")
    }  # fmt: skip
    return {
        **answer, "steps": every[0]["steps"],
        "apart": [max(column) - min(column) for column in zip(*values, strict=True)],
    }  # fmt: skip


def trainer(problem: forms.Problem, free: Tensor, rates: Tensor, schedule: Schedule) -> Training:
    """Training of a mean-field problem from given starts."""
    generator = torch.Generator().manual_seed(1)
    spreads = Spreads(free.shape[-1] - len(model.prior_sd(problem.drawn)), problem.data.x.shape[1])
    return maximize(
        lambda free: forms.objective(free, problem, generator).mean(0),
        free,
        rates=rates,
        schedule=schedule,
        estimate=lambda free, draws: forms.estimated(free, problem, draws=draws, seed=2).mean(0),
        spreads=spreads,
    )


def optimum(scale: Scale, form: Form, name: SetName, search: Search) -> dict[str, Any]:
    """The best q of a form with the statistics of all examples, from several starts and rates."""
    data = data_of(name, scale.examples, scale.seeds)
    problem = forms.problem(data, form, width=scale.width, depth=2)
    free = forms.start(problem, search.restarts).repeat(len(search.rates), 1, 1)
    rates = torch.tensor(search.rates).repeat_interleave(search.restarts)
    training = trainer(problem, free, rates, scale.cycles)
    values = forms.estimated(training.free[None], problem, draws=scale.draws, seed=3)[:, 0]
    mean, log_sd = forms.posterior(training.free[None], problem)
    cost = model.divergence(mean, log_sd, model.prior_sd(problem.drawn))[0] / scale.examples
    outputs = forms.predictions(training.free, problem, draws=scale.draws, seed=4)
    return {
        "objective": values.mean(0).tolist(), "error": standard_error(values).tolist(),
        "divergence": cost.tolist(), **forms.scores(outputs, data), **progress(training),
        "free": training.free.tolist(),
    }  # fmt: skip


def progress(training: Training) -> dict[str, Any]:
    """How far a training has converged, and how fast it came near its best."""
    near = training.path >= training.path.amax(0) - NEAR
    first = near.int().argmax(0)
    return {
        "last gain": training.gain.tolist(),
        "best after each cycle": training.best.tolist(),
        "best rate": training.rates.tolist(),
        "steps": training.steps[-1],
        "steps until near": [training.steps[int(place)] for place in first],
    }


def standard_error(values: Tensor) -> Tensor:
    """Standard error of the mean over draws; the halves of `antithetic` are not independent."""
    chunks = values.unflatten(0, (-1, min(forms.CHUNK, len(values))))
    pairs = chunks.unflatten(1, (2, -1)).mean(1).flatten(0, 1)
    return pairs.std(0) / len(pairs) ** 0.5


def gaps(scale: Scale, name: SetName, free: list[list[float]]) -> dict[str, Any]:
    """Mini-batch objective minus that with all statistics, at the best q, for every M."""
    data = data_of(name, scale.examples, scale.seeds)
    problem = forms.problem(data, "batch norm", width=scale.width, depth=2)
    rows = forms.bias(torch.tensor(free), problem, scale.batch_sizes, draws=scale.draws, seed=5)
    pairs = rows.unflatten(1, (-1, 2)).mean(2)
    error = pairs.std(1) / pairs.shape[1] ** 0.5
    return {"gap": rows.mean(1).T.tolist(), "error": error.T.tolist()}


def trained(scale: Scale, name: SetName, free: list[list[float]]) -> list[dict[str, Any]]:
    """Optima at every M, from the best q with all statistics and from another start."""
    data = data_of(name, scale.examples, scale.seeds)
    problem = forms.problem(data, "batch norm", width=scale.width, depth=2)
    known = torch.tensor(free)[None]
    starts = torch.cat([known, known, forms.start(problem, 1)])
    rates = torch.tensor([RATES[0], RATES[1], RATES[1]])
    rows = []
    for size in scale.trained_at:
        own = problem.at(size if size < scale.examples else None)
        training = trainer(own, starts, rates, scale.continued)
        found = training.free[None]
        values, whole = (
            forms.estimated(found, each, draws=scale.draws, seed=6)[:, 0] for each in (own, problem)
        )
        outputs = forms.predictions(training.free, problem, draws=scale.draws, seed=4)
        rows.append({
            "M": size, "objective": values.mean(0).tolist(), "whole": whole.mean(0).tolist(),
            "error": standard_error(whole).tolist(), **forms.scores(outputs, data),
            "last gain": training.gain.tolist(),
        })  # fmt: skip
    return rows


def dropout(scale: Scale, form: Form, name: SetName) -> dict[str, Any]:
    """Optima of MC dropout at every rate, with the statistics of all examples."""
    data = data_of(name, scale.examples, scale.seeds)
    problem = forms.problem(data, form, width=scale.width, depth=2)
    rows: list[dict[str, Any]] = []
    for rate in DROPOUT_RATES:
        training = dropout_training(scale, problem, rate)
        one = masks.Dropout(data, problem.shape, torch.tensor([rate]))
        found = training.free[None]
        values = masks.estimated(found, one, draws=scale.draws // 4, seed=3)[:, 0]
        outputs = masks.predictions(found, one, draws=scale.draws // 4, seed=4)[:, 0]
        error = values.std(0) / len(values) ** 0.5
        rows.append({
            "objective": values.mean(0).tolist(), "error": error.tolist(),
            **forms.scores(outputs, data), **progress(training),
        })  # fmt: skip
    return {"rows": rows}


def dropout_training(scale: Scale, problem: forms.Problem, rate: float) -> Training:
    """Training at one dropout rate, from one start for every learning rate."""
    start = forms.start(problem, 1)
    start = start[..., : len(model.prior_sd(problem.shape))]
    free = start.repeat(len(RATES), 1, 1)
    generator = torch.Generator().manual_seed(1)

    def at(count: int) -> masks.Dropout:
        return masks.Dropout(problem.data, problem.shape, torch.full((count,), rate))

    return maximize(
        lambda free: masks.objective(free, at(len(free)), generator).mean(0),
        free,
        rates=torch.tensor(RATES) / 2,
        schedule=scale.continued,
        estimate=lambda free, draws: masks.estimated(
            free, at(len(free)), draws=draws // 2, seed=2
        ).mean(0),
    )


if __name__ == "__main__":
    main(asked("minibatch_elbo"))
