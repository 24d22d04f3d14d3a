"""MCBN beside what people would use instead, on tables, where there is nothing to augment.

Run: python -m experiments.comparisons.tabular [--fast]
(about 20 minutes on 1 core; MCBN_DATA)

Seven UCI sets, five splits each, at most 2,000 training examples; a dense network of two layers of
50 units with batch norm and without dropout. The noise precision of every method is fitted on the
same validation examples, all of them or 20, so each has as many labels as another. NLL is in nats
per example of standardised targets, lower is better. Planned, each a difference per set (mean over
its splits) with a t-interval over sets, p values by Holm's method:

1. MCBN, M chosen on the validation examples, minus a constant noise: NLL.
2. minus dropout put in, its rate chosen on the same examples.
3. minus last-layer Laplace.
4. minus an ensemble of five.
5. MCBN (M = 32) minus a constant noise, both with 20 labels.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import matplotlib
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import mcbn
from experiments.intervals import interval, tested
from experiments.record import STYLE, Record, asked
from mcbn.drawing.figures import SERIES
from mcbn.tasks.datasets import LabeledData, uci
from mcbn.tasks.names import Regression
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

SPLITS, MOST = 5, 2_000
SETS = [name for name in get_args(Regression) if name != "protein-tertiary-structure"]
WIDTH, STEPS, BATCH_SIZE = 50, 2_000, 32
MEMBERS, DRAWS, FEW = 5, 64, 20
SIZES, RATES = (8, 32, 128), (0.02, 0.05, 0.1, 0.2)
SCORES = ("nll", "crps", "rmse", "coverage")
UNIT = mcbn.Gaussian(precision=1.0)


def main(record: Record) -> None:
    """Measure each set, and write."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # of banks at other batch sizes, and of few draws
    tasks: Mapping[str, Callable[..., mcbn.Task]] = {name: partial(uci, name) for name in SETS}
    splits, steps = SPLITS, STEPS
    if record.fast:
        tasks = {"one": diabetes, "other": lambda split: diabetes(split + 1)}
        splits, steps = 1, 60
    sets = {}
    for name, task in tasks.items():
        rows = [
            record.part(
                f"{name}-{split}", partial(of_split, partial(task, split=split), split, steps)
            )
            for split in range(splits)
        ]
        sets[name] = {method: mean_scores([row[method] for row in rows]) for method in rows[0]}
    result = {
        "splits": splits, "draws": DRAWS, "few_labels": FEW, "members": MEMBERS, "most": MOST,
        "sets": sets, "over_sets": over_sets(sets), "planned": planned(sets),
    }  # fmt: skip
    record.write(result)
    record.draw(drawn_figure(result))


def diabetes(split: int) -> mcbn.Task:
    """A small set that is in scikit-learn, for a run in seconds."""
    inputs, targets = map(torch.from_numpy, load_diabetes(return_X_y=True))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(split))
    data = LabeledData(inputs[order].float() * 21, (targets[order, None].float() - 152) / 77)
    parts = torch.arange(len(order)).tensor_split([160, 240])
    return mcbn.Task(*(data.rows(part) for part in parts), name="diabetes")


def of_split(make: Callable[[], mcbn.Task], split: int, steps: int) -> dict[str, dict[str, float]]:
    """Scores of each method, with all validation labels and with few."""
    task = make()
    data = task.train.rows(torch.arange(min(len(task.train), MOST)))
    seeds = range(MEMBERS * split, MEMBERS * (split + 1))
    networks = [trained(data, seed=seed, steps=steps) for seed in seeds]
    found: dict[str, dict[str, float]] = {}
    for name, sampler in samplers(networks, data, task.validation).items():
        test = predicted(sampler, task.test)
        for word, count in (("all", len(task.validation)), ("few", FEW)):
            known = task.validation.rows(torch.arange(min(count, len(task.validation))))
            noise = mcbn.fit_precision(predicted(sampler, known), known.targets)
            scores = scored(test.with_precision(noise.precision), task.test.targets)
            found.setdefault(name, {}).update({f"{key}, {word}": v for key, v in scores.items()})
    return found


def trained(data: LabeledData, *, seed: int, steps: int) -> nn.Module:
    """A network of about as many steps on every set."""
    model = build(lambda: mlp(data.inputs.shape[1], 1, width=WIDTH, dropout=0.0), seed=seed)
    epochs = max(1, round(steps * BATCH_SIZE / len(data)))
    return train(model, data, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, loss="mse")


def samplers(
    networks: list[nn.Module], data: LabeledData, validation: LabeledData
) -> dict[str, Any]:
    """The methods; M and the rate of dropout are also chosen on the validation examples."""
    network, dataset = networks[0], TensorDataset(data.inputs)
    banks = {}
    for size in SIZES:
        batches = mcbn.minibatches(dataset, batch_size=size, draws=DRAWS, seed=0)
        banks[size] = mcbn.collect(network, batches, progress=False)
    noise = mcbn.fit_precision(
        predicted(mcbn.Deterministic(network), validation), validation.targets
    )
    choice = mcbn.choose_batch_size(
        network, banks[32], validation.inputs, validation.targets,
        likelihood=noise, resamples=2, progress=False,
    )  # fmt: skip
    rate = min(RATES, key=lambda rate: held_nll(network, rate, validation))
    return {
        "constant": mcbn.Deterministic(network),
        **{f"MCBN, M = {size}": mcbn.MCBatchNorm(network, bank) for size, bank in banks.items()},
        "MCBN, M chosen": mcbn.MCBatchNorm(network, banks[32].rescale(choice.best)),
        "dropout": mcbn.MCDropout(network, insert=rate, draws=DRAWS, seed=0),
        "Laplace": mcbn.LastLayerLaplace.fit(
            network, data.inputs, data.targets, likelihood=noise, draws=DRAWS, progress=False
        ),
        "ensemble": mcbn.DeepEnsemble(networks),
    }


def predicted(sampler: Any, part: LabeledData) -> mcbn.GaussianPredictive:
    """Predictions at a noise of 1, to be replaced."""
    return mcbn.predict(sampler, part.inputs, likelihood=UNIT, progress=False)


def held_nll(network: nn.Module, rate: float, validation: LabeledData) -> float:
    """NLL of validation examples with dropout put in, at the precision that is best for them."""
    sampler = mcbn.MCDropout(network, insert=rate, draws=DRAWS, seed=0)
    predictive = predicted(sampler, validation)
    best = mcbn.fit_precision(predictive, validation.targets)
    return scored(predictive.with_precision(best.precision), validation.targets)["nll"]


def scored(predictive: mcbn.GaussianPredictive, targets: Tensor) -> dict[str, float]:
    """Mean scores, and the share of targets in the central 95% intervals."""
    low, high = predictive.interval(0.95)
    return {
        "nll": -float(predictive.log_prob(targets).mean()),
        "crps": float(predictive.crps(targets).mean()),
        "rmse": float((predictive.mean - targets).square().mean().sqrt()),
        "coverage": float(((low <= targets) & (targets <= high)).double().mean()),
    }


def mean_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the splits of a set."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def over_sets(sets: Mapping[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Each score minus that of a constant noise, over sets; of the coverage, as it is."""
    methods, scores = next(iter(sets.values())), next(iter(next(iter(sets.values())).values()))
    return {
        method: {
            score: interval([
                each[method][score]
                - (0 if score.startswith("coverage") else each["constant"][score])
                for each in sets.values()
            ])
            for score in scores
        }
        for method in methods
    }  # fmt: skip


# Method, the one that it is compared with, and the labels of both.
PLANNED = (
    ("MCBN, M chosen", "constant", "all"),
    ("MCBN, M chosen", "dropout", "all"),
    ("MCBN, M chosen", "Laplace", "all"),
    ("MCBN, M chosen", "ensemble", "all"),
    ("MCBN, M = 32", "constant", "few"),
)


def planned(sets: Mapping[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """The planned differences in NLL, over sets."""
    return tested({
        f"{one} - {other}, {labels} labels": [
            each[one][f"nll, {labels}"] - each[other][f"nll, {labels}"] for each in sets.values()
        ]
        for one, other, labels in PLANNED
    })  # fmt: skip


def drawn_figure(result: dict[str, Any]) -> Figure:
    """NLL minus that of a constant noise: a dot for each set, and the mean with its interval."""
    methods = [name for name in result["over_sets"] if name != "constant"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, labels in zip(panels, ("all", "few"), strict=True):
            key = f"nll, {labels}"
            for row, method in enumerate(methods):
                dots = [
                    each[method][key] - each["constant"][key] for each in result["sets"].values()
                ]
                mean, low, high = result["over_sets"][method][key]
                axes.plot(dots, [row] * len(dots), "o", color="0.6", markersize=3)
                axes.plot([low, high], [row + 0.2] * 2, color=SERIES[0], linewidth=1.5)
                axes.plot(mean, row + 0.2, "o", color=SERIES[0], markersize=4)
            axes.axvline(0, color="0.4", linewidth=0.8, dashes=(4, 3))
            axes.set_xlabel("NLL minus that of a constant noise")
            axes.set_title(f"Noise fitted on {labels} labels")
        panels[0].set_yticks(range(len(methods)), methods)
        panels[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main(asked("tabular"))
