"""How far a bank can be rescaled, and how much of it parametric posteriors retain.

Run: python -m experiments.choosing.rescaling [digits] [cifar] [digits_fits]
(about 30 minutes on one core for all; data root in MCBN_DATA)
"""

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import mcbn
from experiments.record import RESULTS, STYLE, rounded
from mcbn.drawing import figures
from mcbn.io.tensors import write_whole
from mcbn.tasks.datasets import (
    CropAndFlip,
    LabeledData,
    cifar10_images,
    data_root,
    digits,
    normalize_cifar10,
)
from mcbn.tasks.networks import load_resnet20, mlp
from mcbn.tasks.training import build, train

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # M' over M
FITTED = 64  # draws that the posteriors are fitted on
FITS, FIT_DRAWS = 16, 256  # disjoint sets of such draws, and draws of each posterior
RESAMPLES = 500  # resamples of draws, for the Monte Carlo intervals
LEVEL = 0.95
RESULT = RESULTS / "rescaling.json"
FIGURE = RESULT.with_suffix(".svg")


@dataclass(frozen=True)
class Case:
    """A trained network, the data of its mini-batches and its test data."""

    network: nn.Module
    dataset: Dataset
    inputs: Tensor
    targets: Tensor
    batch_size: int
    draws: int

    def bank(self, batch_size: int, seed: int) -> mcbn.Bank:
        """Collect a bank with replacement, so that its spread has no finite-population factor."""
        batches = mcbn.minibatches(
            self.dataset, batch_size=batch_size, draws=self.draws, seed=seed, replacement=True
        )
        return mcbn.collect(self.network, batches)

    def probabilities(self, bank: mcbn.Bank) -> Tensor:
        """Class probabilities for every draw."""
        return mcbn.MCBatchNorm(self.network, bank)(self.inputs).double().softmax(-1)


def digits_case() -> Case:
    """Three dense layers trained on 8x8 digits at M = 128."""
    task = digits()
    data = LabeledData(task.train.inputs.flatten(1), task.train.targets)
    network = build(lambda: mlp(64, 10, width=64, depth=3, dropout=0.0), seed=0)
    train(network, data, epochs=20, batch_size=128)
    inputs, targets = task.test.inputs.flatten(1), task.test.targets
    return Case(network, TensorDataset(data.inputs), inputs, targets, batch_size=128, draws=1024)


def cifar_case() -> Case:
    """The published ResNet20, trained at M = 128 with random crops and flips; 200 test images."""
    data, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    inputs = normalize_cifar10(test.inputs[:200])
    dataset = CropAndFlip(data)
    return Case(network, dataset, inputs, test.targets[:200], batch_size=128, draws=128)


def rescaled_against_real(case: Case) -> dict:
    """Ratios rescaled / real for each M', and posterior / real for posteriors fitted at M."""
    origin = case.bank(case.batch_size, seed=0)
    rows, real = [], {}
    for index, factor in enumerate(FACTORS):
        size = round(case.batch_size * factor)
        real[size] = case.bank(size, seed=1 + index)
        rows.append({"batch_size": size, "factor": factor})
        rows[-1] |= compared(case, origin.rescale(size), real[size])
        print(rows[-1], flush=True)
    exact = real[case.batch_size]
    posteriors = {}
    for kind in (mcbn.JointPosterior, mcbn.FactorizedPosterior):
        drawn = kind.from_bank(origin.first(FITTED)).sample(case.draws)
        posteriors[kind.__name__] = compared(case, drawn, exact)
        print(kind.__name__, posteriors[kind.__name__], flush=True)
    return {
        "trained_at": case.batch_size,
        "draws": case.draws,
        "inputs": len(case.inputs),
        "fitted_on": FITTED,
        "running_statistics_nll": nll(
            mcbn.Deterministic(case.network)(case.inputs).double().softmax(-1), case.targets
        ),
        "rescaled": rows,
        "posteriors": posteriors,
    }


def compared(case: Case, made: mcbn.Bank, real: mcbn.Bank) -> dict:
    """Compare a bank with a real one: ratios with 95% Monte Carlo intervals."""
    first, second = case.probabilities(made), case.probabilities(real)
    return {
        "statistics": spread_of_statistics(made, real),
        "probability_sd": ratio(first, second, probability_sd),
        "mutual_information": ratio(first, second, mutual_information),
        "real_mutual_information": float(mutual_information(second, evenly(second))),
        "made_mutual_information": float(mutual_information(first, evenly(first))),
        "real_nll": nll(second, case.targets),
        "made_nll": nll(first, case.targets),
    }


def spread_of_statistics(made: mcbn.Bank, real: mcbn.Bank) -> dict:
    """Ratio of standard deviations per layer, geometric mean over channels."""
    layers: dict[str, list[float]] = {"mean": [], "variance": [], "log_variance": []}
    for name, rows in real.statistics.items():
        if name.endswith("mean"):
            layers["mean"].append(typical(made.statistics[name], rows))
        else:
            layers["variance"].append(typical(made.statistics[name], rows))
            layers["log_variance"].append(
                typical(made.coordinates()[name], real.coordinates()[name])
            )
    average = {
        name: float(torch.tensor(ratios, dtype=torch.float64).log().mean().exp())
        for name, ratios in layers.items()
    }
    return {"network": average, "layers": layers}


def typical(made: Tensor, real: Tensor) -> float:
    """Ratio of standard deviations over draws, geometric mean over non-constant channels."""
    first, second = made.double().std(0), real.double().std(0)
    living = (first > 0) & (second > 1e-7)
    return float((first[living] / second[living]).log().mean().exp())


def ratio(first: Tensor, second: Tensor, measure: Callable[[Tensor, Tensor], Tensor]) -> list:
    """Ratio of a measure for two sets of draws, with a bootstrap interval over draws."""
    generator = torch.Generator().manual_seed(0)
    weights: tuple[list[Tensor], list[Tensor]] = ([], [])
    for _ in range(RESAMPLES):
        for probabilities, rows in zip((first, second), weights, strict=True):
            count = len(probabilities)
            chosen = torch.randint(count, (count,), generator=generator)
            rows.append(chosen.bincount(minlength=count).double() / count)
    drawn = measure(first, torch.stack(weights[0])) / measure(second, torch.stack(weights[1]))
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    value = measure(first, evenly(first)) / measure(second, evenly(second))
    return [float(value), *drawn.quantile(tails).tolist()]


def evenly(probabilities: Tensor) -> Tensor:
    """Equal weights of all draws, as one row."""
    return torch.full((1, len(probabilities)), 1 / len(probabilities), dtype=torch.float64)


def probability_sd(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Standard deviation over draws, averaged over inputs and classes; one value per weighting."""
    values, count = probabilities.flatten(1), len(probabilities)
    variance = weights @ values.square() - (weights @ values).square()
    return (variance.clamp_min(0) * count / (count - 1)).sqrt().mean(1)


def mutual_information(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Mutual information averaged over inputs, in nats; one value per weighting."""
    mean = (weights @ probabilities.flatten(1)).unflatten(1, probabilities.shape[1:])
    return (entropy(mean) - weights @ entropy(probabilities)).mean(1)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats."""
    return -torch.special.xlogy(probabilities, probabilities).sum(-1)


def nll(probabilities: Tensor, targets: Tensor) -> float:
    """NLL of the probabilities averaged over draws, in nats."""
    chosen = probabilities.mean(0).gather(1, targets[:, None])
    return -float(chosen.log().mean())


def repeated_fits() -> dict:
    """Ratios for posteriors fitted to disjoint sets of mini-batches: how much the fit varies."""
    case = digits_case()
    origin, exact = case.bank(case.batch_size, seed=0), case.bank(case.batch_size, seed=4)
    real = case.probabilities(exact)
    results: dict[str, dict[str, list[float]]] = {}
    for kind in (mcbn.JointPosterior, mcbn.FactorizedPosterior):
        ratios: dict[str, list[float]] = {"probability_sd": [], "mutual_information": []}
        for start in range(0, FITS * FITTED, FITTED):
            rows = {k: v[start : start + FITTED] for k, v in origin.statistics.items()}
            drawn = kind.from_bank(replace(origin, statistics=rows)).sample(FIT_DRAWS)
            made = case.probabilities(drawn)
            for measure in (probability_sd, mutual_information):
                value = measure(made, evenly(made)) / measure(real, evenly(real))
                ratios[measure.__name__].append(float(value))
        results[kind.__name__] = ratios
        means = {name: sum(values) / len(values) for name, values in ratios.items()}
        print(kind.__name__, means, flush=True)
    return results


PARTS: dict[str, Callable[[], dict]] = {
    "digits": lambda: rescaled_against_real(digits_case()),
    "cifar": lambda: rescaled_against_real(cifar_case()),
    "digits_fits": repeated_fits,
}


def main(names: Iterable[str]) -> None:
    """Measure the named parts, all by default; other results are kept."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in names or PARTS:
        print(name, flush=True)
        results[name] = PARTS[name]()
        write_whole(RESULT, (json.dumps(rounded(results), indent=1) + "\n").encode())
    draw(json.loads(RESULT.read_text()))


LINES = {
    "sd of means": ("statistics", "network", "mean"),
    "sd of variances": ("statistics", "network", "variance"),
    "sd of probabilities": ("probability_sd",),
    "mutual information": ("mutual_information",),
}
TITLES = {"digits": "Dense net, 3 layers, M = 128", "cifar": "ResNet20, M = 128"}


def draw(results: dict) -> None:
    """Draw the ratios of both networks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        panels = figure.subplots(1, 2)
        for name, ax in zip(TITLES, panels, strict=False):
            if name in results:
                draw_ratios(results[name], ax)
                ax.set_title(TITLES[name])
        figure.savefig(FIGURE, metadata=dict.fromkeys(("Date", "Creator")))


def draw_ratios(result: dict, ax: Axes) -> None:
    """Plot the ratios against M', with tolerances of 5% and 15% from M / 4 to 4 M."""
    sizes = tuple(row["batch_size"] for row in result["rescaled"])
    curves = []
    for style, (name, keys) in enumerate(LINES.items()):
        values = [nested(row, keys) for row in result["rescaled"]]
        ratios = [each if isinstance(each, list) else [each, math.nan, math.nan] for each in values]
        y, low, high = (tuple(column) for column in zip(*ratios, strict=True))
        curves.append(figures.Curve(name, sizes, y, low, high, style))
    figures.draw_curves(curves, ax)
    for bar in (0.05, 0.15):
        for value in (1 - bar, 1 + bar):
            ax.plot(
                [sizes[1], sizes[-2]], [value, value], color=figures.INK, linewidth=0.8, alpha=0.6
            )
    figures.doubling_axis(sizes, ax, label="Batch size rescaled to")
    figures.value_axis((0.7, 1.35), ax, label="Rescaled / real", log=False)
    ax.legend(ax.get_lines()[: len(curves)], [curve.name for curve in curves], frameon=False)


def nested(row: dict, keys: tuple[str, ...]) -> object:
    """The value at a path of keys."""
    return reduce(lambda value, key: value[key], keys, row)


if __name__ == "__main__":
    main(sys.argv[1:])
