"""One-dimensional regression with gaps: the predictive bands of each method.

Run: python -m experiments.reproductions.toy [--fast]
(about 2 minutes on 2 cores; data root in MCBN_DATA)
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import mcbn
from experiments.intervals import interval
from experiments.record import STYLE, Record, asked
from mcbn.drawing import figures
from mcbn.tasks.datasets import LabeledData
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

DEPTH, WIDTH, DRAWS = 3, 30, 500  # as in figure 1 of the paper
LEVELS = (0.5, 0.95)  # levels of the bands, as in the paper
BATCH_SIZES = (8, 32, 128)  # M of both training and MCBN
DROPOUT = 0.05  # rate after every hidden layer of the dropout network
NOISE_SD = 0.2  # of the targets, in their units
INSIDE, GAP, OUTSIDE = (0.5, 2.0), (0.0, 0.5), (2.0, 3.0)  # |x|, in input units
REGIONS = {"inside": INSIDE, "gap": GAP, "outside": OUTSIDE}
SHOWN = ("MCBN 8", "MCBN 32", "MCBN 128", "CUBN 32", "MC dropout", "CUDO")  # panels of the figure
PAPER = {
    "source": "Teye, Azizpour and Smith 2018, figure 1; pictures only, no figures given",
    "hidden layers": 3,
    "units": 30,
    "passes": 500,
    "bands": [0.95, 0.5],
}


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        examples: training examples; half as many are held out for the precision.
        test: test examples per region.
        seeds: number of seeds of data and networks.
        steps: training steps, the same for every network.
        draws: number of draws T.
        curve: points of a band in the figure.
    """

    examples: int
    test: int
    seeds: int
    steps: int
    draws: int
    curve: int


FULL = Scale(examples=256, test=300, seeds=6, steps=1600, draws=DRAWS, curve=181)
FAST = Scale(examples=128, test=40, seeds=2, steps=20, draws=20, curve=21)


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    scale = FAST if record.fast else FULL
    results = [record.part(f"seed-{s}", partial(measured, scale, s)) for s in range(scale.seeds)]
    result = {
        "paper": PAPER,
        "noise_sd": NOISE_SD,
        "examples": scale.examples,
        "draws": scale.draws,
        "dropout": DROPOUT,
        "methods": {
            name: {key: interval([each["scores"][name][key] for each in results]) for key in scores}
            for name, scores in results[0]["scores"].items()
        },
        "differences": differences([each["scores"] for each in results]),
        "epistemic sd, gap over inside": {
            name: interval(
                [
                    each["scores"][name]["epistemic sd gap"] / inside
                    for each in results
                    if (inside := each["scores"][name]["epistemic sd inside"]) > 0
                ]
            )
            for name in results[0]["scores"]
            if not name.startswith("CU")
        },
        "warned": sum(each["warned"] for each in results),
        "seeds": [each["scores"] for each in results],
        "picture": results[0]["picture"],
    }
    draw(record, record.write(result))


def truth(x: Tensor) -> Tensor:
    """The mean of the targets."""
    return torch.sin(3 * x) + x / 2


def sample(count: int, ends: tuple[float, float], generator: torch.Generator) -> LabeledData:
    """Noisy targets at inputs with |x| uniform between the ends, of either sign."""
    size = ends[0] + (ends[1] - ends[0]) * torch.rand(count, 1, generator=generator)
    x = size * (2 * torch.randint(2, (count, 1), generator=generator) - 1)
    return LabeledData(x, truth(x) + NOISE_SD * torch.randn(count, 1, generator=generator))


def dropout_net() -> nn.Module:
    """The same layers with dropout in place of batch norm, as in the paper."""
    layers: list[nn.Module] = []
    for wide in [1] + [WIDTH] * (DEPTH - 1):
        layers += [nn.Linear(wide, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1))


def samplers(scale: Scale, seed: int, data: LabeledData) -> dict[str, Any]:
    """Train the networks; return the sampler of each method."""
    made: dict[str, Any] = {}
    for size in BATCH_SIZES:
        net = build(lambda: mlp(1, 1, width=WIDTH, depth=DEPTH, dropout=0.0), seed=seed)
        fit(net, scale, data, size, seed)
        batches = mcbn.minibatches(data.inputs, batch_size=size, draws=scale.draws, seed=seed)
        made[f"MCBN {size}"] = mcbn.MCBatchNorm(net, mcbn.collect(net, batches))
    net = fit(build(dropout_net, seed=seed), scale, data, BATCH_SIZES[1], seed)
    made["MC dropout"] = mcbn.MCDropout(net, draws=scale.draws, seed=seed)
    return made


def fit(net: nn.Module, scale: Scale, data: LabeledData, batch_size: int, seed: int) -> nn.Module:
    """Train with the same number of steps at every batch size."""
    epochs = scale.steps * batch_size // len(data)
    return train(net, data, epochs=epochs, batch_size=batch_size, seed=seed, loss="mse")


def measured(scale: Scale, seed: int) -> dict[str, Any]:
    """Scores of every method on one data set; for the first also the bands of the figure."""
    generator = torch.Generator().manual_seed(seed)
    data, held_out = (sample(n, INSIDE, generator) for n in (scale.examples, scale.examples // 2))
    tests = {name: sample(scale.test, ends, generator) for name, ends in REGIONS.items()}
    scores: dict[str, dict[str, float]] = {}
    far = OUTSIDE[1]
    grid = torch.linspace(-far, far, scale.curve)[:, None]
    bands: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", mcbn.InconsistentBankWarning)
        made = samplers(scale, seed, data)
    everything = torch.cat([held_out.inputs, *(test.inputs for test in tests.values()), grid])
    parts = [len(held_out), *(len(test) for test in tests.values()), len(grid)]
    for name, sampler in made.items():
        outputs = torch.stack(list(sampler.passes(everything))).double().split(parts, 1)
        twin = name.replace("MCBN", "CUBN").replace("MC dropout", "CUDO")
        for label, constant in ((name, False), (twin, True)):
            held, *predictions, curve = (gaussian(means, constant) for means in outputs)
            tau = mcbn.fit_precision(held, held_out.targets, criterion="crps").precision or 0.0
            scores[label] = {"noise sd fitted": tau**-0.5}
            for (region, test), predictive in zip(tests.items(), predictions, strict=True):
                row = scored(predictive.with_precision(tau), test.targets)
                scores[label] |= {f"{key} {region}": value for key, value in row.items()}
            if seed == 0 and label in SHOWN:
                bands[label] = band(curve.with_precision(tau))
    picture = {"x": grid[:, 0].tolist(), "bands": bands, "data": [
        data.inputs[:, 0].tolist(), data.targets[:, 0].tolist()]}  # fmt: skip
    return {"scores": scores, "picture": picture if seed == 0 else {}, "warned": len(caught)}


def gaussian(means: Tensor, constant: bool) -> mcbn.GaussianPredictive:
    """The draws as a mixture, or only their mean; the noise is fitted later."""
    means = means.mean(0, keepdim=True) if constant else means
    return mcbn.GaussianPredictive(means, torch.ones((), dtype=torch.float64))


def scored(predictive: mcbn.GaussianPredictive, targets: Tensor) -> dict[str, float]:
    """Scores, coverage of the bands, and mean epistemic standard deviation."""
    measures = {
        "pll": float(predictive.log_prob(targets).mean()),
        "crps": float(predictive.crps_moment_matched(targets).mean()),
        "rmse": float((predictive.mean - targets).square().mean().sqrt()),
    }
    for level in LEVELS:
        low, high = predictive.interval(level)
        measures[f"coverage {level:.0%}"] = float(
            ((low <= targets) & (targets <= high)).double().mean()
        )
    measures["epistemic sd"] = float(predictive.epistemic_variance.sqrt().mean())
    return measures


def band(predictive: mcbn.GaussianPredictive) -> dict[str, list[float]]:
    """Mean and ends of the bands over the inputs."""
    ends = {"mean": predictive.mean[:, 0].tolist()}
    for level in LEVELS:
        low, high = predictive.interval(level)
        ends |= {f"low {level:.0%}": low[:, 0].tolist(), f"high {level:.0%}": high[:, 0].tolist()}
    return ends


def differences(seeds: list[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Paired differences of scores, with intervals over seeds."""
    pairs = [(f"MCBN {size}", f"CUBN {size}") for size in BATCH_SIZES]
    pairs += [("MC dropout", "CUDO")] + [(f"MCBN {size}", "MC dropout") for size in BATCH_SIZES]
    return {
        f"{one} minus {other}": {
            key: interval([scores[one][key] - scores[other][key] for scores in seeds])
            for key in ("pll inside", "crps inside", "pll gap", "crps gap", "pll outside")
        }
        for one, other in pairs
    }


def draw(record: Record, result: dict[str, Any]) -> None:
    """Draw one panel per method, all with the same axes."""
    picture = result["picture"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5.2), layout="constrained")
        axes = figure.subplots(2, len(SHOWN) // 2, sharex=True, sharey=True)
        for ax, name in zip(axes.flat, SHOWN, strict=True):
            draw_bands(picture, name, ax)
        for ax in axes[-1]:
            ax.set_xlabel("Input x")
        for ax in axes[:, 0]:
            ax.set_ylabel("Target y")
        axes[0, 0].set(ylim=(-4.2, 3.6), xlim=(-OUTSIDE[1], OUTSIDE[1]))
        label(axes[0, 0])
        record.draw(figure)


def draw_bands(picture: dict[str, Any], name: str, ax: Axes) -> None:
    """Plot the mean, the bands, the training data and the true function."""
    x, bands = picture["x"], picture["bands"][name]
    style = 1 if name in ("MC dropout", "CUDO") else 0
    for level, alpha in zip(reversed(LEVELS), (0.22, 0.38), strict=True):
        low, high = bands[f"low {level:.0%}"], bands[f"high {level:.0%}"]
        ax.fill_between(x, low, high, color=figures.color(style), alpha=alpha, linewidth=0)
    ax.scatter(*picture["data"], s=3, color="#555555", linewidths=0)
    ax.plot(x, truth(torch.tensor(x)), color="black", linewidth=1, dashes=(4, 2))
    ax.plot(x, bands["mean"], color=figures.color(style), linewidth=1.4)
    kind, _, size = name.rpartition(" ")
    ax.set_title(f"{kind}, M = {size}" if size.isdigit() else name)


def label(ax: Axes) -> None:
    """Label the regions and lines in the first panel."""
    for text, x in (("outside", -2.45), ("data", -1.25), ("gap", 0), ("data", 1.25)):
        ax.text(x, 3.1, text, ha="center", color="#555555", fontsize=8)
    ax.text(2.95, -3.9, "dashed: truth; bands: 50% and 95%", ha="right", fontsize=8)


if __name__ == "__main__":
    main(asked("toy"))
