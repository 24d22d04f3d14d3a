"""What people would pick instead of MCBN, on a published CIFAR-10 ResNet20, by one set of scores.

Run: python -m experiments.comparisons.alternatives [--fast]
(about 25 minutes on 1 core; MCBN_DATA)

Planned comparisons, each a paired difference with an interval over images: test-time augmentation
and MCBN at 32 passes; 4 passes of the one and 64 of the other; MCBN with augmentation and
augmentation alone, under JPEG after a temperature of clean images, and on clean images; one
temperature for the draws and one for their average; a temperature of few labels and MCBN without.
Temperatures of clean test images are fitted on one half and scored on the other.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import mcbn
from experiments.comparisons.alternatives_figure import drawn_figure
from experiments.data import cifar10
from experiments.record import Record, asked
from mcbn.evaluation.bootstrap import percentile_interval
from mcbn.evaluation.finite_draws import (
    draw_error,
    extrapolated_nll,
    mutual_information_factor,
    target_logs,
)
from mcbn.evaluation.separation import out_of_distribution
from mcbn.recalibration.temperature_labels import TemperatureBoundWarning
from mcbn.tasks.cifar10 import CROP_AND_FLIP
from mcbn.tasks.datasets import CropAndFlip, LabeledData, data_root, digits, normalize_cifar10
from mcbn.tasks.datasets import cifar10 as cifar10_task
from mcbn.tasks.networks import convnet, load_resnet20
from mcbn.tasks.training import build, train

DRAWS = 16  # T, unless more are compared
MORE = {"MCBN, M = 32": 64, "TTA": 32}  # T on the test images
JPEG = 500  # test images after the first 1,000, on which no temperature is fitted
OUTSIDE = 1_000  # images of each out-of-distribution set
KNOWN = 4_000  # training images of the features
LABELS, SUBSETS = (5, 10, 20, 50, 100), 200
RESAMPLES = 1_000
SEED = 0

# Logits of every draw, by the name of what is predicted.
Draws = dict[str, Float[Tensor, "draws batch classes"]]


@dataclass(frozen=True)
class Case:
    """The network, its training images, and what is predicted."""

    network: nn.Module
    training: Dataset  # as the network saw them, for mini-batches
    transform: mcbn.Compose  # what it saw them through
    features: LabeledData  # some of them as they are, for features
    inputs: Mapping[str, Tensor]  # test and JPEG images, and the out-of-distribution sets
    targets: Mapping[str, Tensor]  # of the first two
    resamples: int = RESAMPLES

    @property
    def outside(self) -> list[str]:
        """Names of the out-of-distribution sets."""
        return [name for name in self.inputs if name not in self.targets]


def main(record: Record) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    # Digits are in the package, so that a tiny run needs no data.
    case = digits_case() if record.fast else resnet20()
    draws = {name: drawn(sampler, case) for name, sampler in samplers(case, record.fast).items()}
    evaluations = {name: losses(case, each) for name, each in draws.items()}
    result = {
        "draws": DRAWS, "more_draws": MORE, "seed": SEED, "resamples": case.resamples,
        "images": {name: len(inputs) for name, inputs in case.inputs.items()},
        "methods": {name: scores(case, each, evaluations[name]) for name, each in draws.items()},
        "one_pass": one_pass(case, draws["plain"]),
        "differences": differences(case, draws, evaluations),
        "draws_needed": by_draws(case, draws["MCBN, M = 32"]["test"]),
        "labels": few_labels(case, draws, 5 if record.fast else SUBSETS),
    }  # fmt: skip
    record.write(result)
    record.draw(drawn_figure(result))


def resnet20() -> Case:
    """The published network, the first 1,000 test images, 500 others as JPEG, and two OOD sets."""
    train, test = cifar10.images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    labels = np.load(data_root() / "cifar10" / "test_labels.npy")
    chosen = slice(len(test), len(test) + JPEG)
    outside = cifar10_task().outside
    inputs = {
        "test": normalize_cifar10(test.inputs),
        "JPEG": normalize_cifar10(cifar10.jpeg_images(chosen.stop)[chosen]),
        "notMNIST": outside["notmnist"][:OUTSIDE],
        "Fashion-MNIST": outside["fashion_mnist"][:OUTSIDE],
    }
    targets = {"test": test.targets, "JPEG": torch.from_numpy(labels[chosen]).long()}
    known = LabeledData(normalize_cifar10(train.inputs[:KNOWN]), train.targets[:KNOWN])
    return Case(network, CropAndFlip(train), CROP_AND_FLIP, known, inputs, targets)


def digits_case() -> Case:
    """A small network of digits, for a tiny run; what is JPEG there is noise here."""
    task = digits()
    network = build(lambda: convnet(1, 10, width=4, dropout=0.0), seed=SEED)
    train(network, task.train, epochs=6, batch_size=32, seed=SEED)
    test = task.test.rows(torch.arange(120))
    noise = torch.randn(test.inputs.shape, generator=torch.Generator().manual_seed(SEED))
    inputs = {"test": test.inputs, "JPEG": test.inputs + noise / 2,
              "photographs": next(iter(task.outside.values()))[:40]}  # fmt: skip
    training = TensorDataset(task.train.inputs, task.train.targets)
    targets, known = {"test": test.targets, "JPEG": test.targets}, torch.arange(200)
    return Case(network, training, mcbn.Compose(mcbn.RandomShift(1)), task.train.rows(known),
                inputs, targets, resamples=20)  # fmt: skip


def samplers(case: Case, fast: bool) -> dict[str, Any]:
    """The methods: each with more draws than are compared with others, where these are wanted."""
    network, few = case.network, 4 if fast else None
    banks = {}
    for size in (32, 128):
        batches = mcbn.minibatches(
            case.training, batch_size=size, draws=few or MORE["MCBN, M = 32"], seed=SEED
        )
        banks[size] = mcbn.collect(network, batches, limit=None, progress=False)
    draws = few or DRAWS
    with warnings.catch_warnings():
        # The training examples are fitted so well that the prior is at its bound.
        warnings.simplefilter("ignore")
        laplace = mcbn.LastLayerLaplace.fit(
            network,
            case.features.inputs,
            case.features.targets,
            draws=draws,
            seed=SEED,
            progress=False,
        )
    wide = mcbn.MCBatchNorm(network, banks[128].thin(draws))
    return {
        "plain": mcbn.Deterministic(network),
        "MCBN, M = 32": mcbn.MCBatchNorm(network, banks[32]),
        "MCBN, M = 128": wide,
        "TTA": mcbn.Augmented(network, case.transform, draws=few or MORE["TTA"], seed=SEED),
        "TTA, flip": mcbn.Augmented(network, flips(), seed=SEED),
        "dropout put in": mcbn.MCDropout(network, insert=0.3, draws=draws, seed=SEED),
        "Laplace": laplace,
        "MCBN, M = 128, with TTA": mcbn.Augmented(wide, case.transform, seed=SEED),
    }


def flips() -> list[Any]:
    """The picture, and the picture flipped."""
    return [lambda image: image, lambda image: image.flip(-1)]


def drawn(sampler: Any, case: Case) -> Draws:
    """Logits of every draw: of the test images all, of the others as many as are compared."""
    found = {}
    for name, inputs in case.inputs.items():
        first = sampler if name == "test" else First(sampler)
        found[name] = mcbn.predict(first, inputs, keep_draws=True, progress=False).draws
    return found


@dataclass(frozen=True)
class First:
    """The first draws of a sampler, as many as methods are compared with."""

    sampler: Any

    def __len__(self) -> int:
        return min(DRAWS, len(self.sampler))

    def passes(self, inputs: Any) -> Any:
        """Yield the outputs of one draw after another."""
        return (self.sampler.draw(index, inputs) for index in range(len(self)))

    def __call__(self, inputs: Any) -> Tensor:
        """All draws stacked."""
        return torch.stack(list(self.passes(inputs)))


def predicted(draws: Tensor, rows: Any = slice(None), count: int = DRAWS) -> Any:
    """The average over the first draws."""
    return mcbn.Categorical(outputs="logits").summarize(draws[:count, rows], keep_draws=True)


def evaluated(case: Case, predictive: Any, targets: Tensor) -> mcbn.Evaluation:
    """Scores with intervals over images."""
    return mcbn.evaluate(predictive, targets, resamples=case.resamples, seed=SEED, progress=False)


def tempered(draws: Tensor, targets: Tensor, method: Any) -> Any:
    """Predictions of each half at the temperature of the other."""
    first = torch.arange(len(targets)) % 2 == 0
    parts = [
        method.fit(predicted(draws, ~half), targets[~half])(predicted(draws, half))
        for half in (first, ~first)
    ]
    joined = mcbn.Categorical().join(parts)
    order = torch.cat([first.nonzero(), (~first).nonzero()]).flatten().argsort()
    return mcbn.Categorical(outputs="logits").summarize(joined.log_probabilities[None, order])


ONE_PASS = ("max_softmax", "entropy", "energy", "max_logit")
AVERAGE, EACH = mcbn.TemperatureScaling, mcbn.TemperedCategorical


def losses(case: Case, draws: Draws) -> dict[str, mcbn.Evaluation]:
    """Scores of the test and JPEG images, with no temperature and with both kinds."""
    found = {}
    for name, method in (("", None), (" TS", AVERAGE), (" TS of each draw", EACH)):
        for part, targets in case.targets.items():
            if method is None:
                predictive = predicted(draws[part])
            elif part == "test":
                predictive = tempered(draws[part], targets, method)
            else:
                scaling = method.fit(predicted(draws["test"]), case.targets["test"])
                predictive = scaling(predicted(draws[part]))
            found[part + name] = evaluated(case, predictive, targets)
    return found


def scores(case: Case, draws: Draws, evaluations: Mapping[str, mcbn.Evaluation]) -> dict[str, Any]:
    """A row of the table."""
    shown = {name: numbers(each["nll"]) for name, each in evaluations.items()}
    inside = predicted(draws["test"])
    separation = {
        f"{name}, {kind}": numbers(
            out_of_distribution(
                inside,
                predicted(draws[name]),
                uncertainty=kind,
                resamples=case.resamples,
                seed=SEED,
            )["auroc_out_of_distribution"]
        )
        for name in case.outside
        for kind in ("entropy", "mutual_information")
        if len(draws[name]) > 1 or kind == "entropy"
    }
    clean = evaluations["test"]
    return {
        "passes": min(DRAWS, len(draws["test"])),
        "accuracy": numbers(clean["accuracy"]),
        "aurc": numbers(clean["aurc"]),
        "nll": shown,
        "auroc": separation,
    }


def numbers(score: mcbn.Score) -> list[float]:
    """Value and interval."""
    return [score.value, score.low, score.high]


def differences(
    case: Case, draws: dict[str, Draws], evaluations: Mapping[str, Mapping[str, mcbn.Evaluation]]
) -> dict[str, list[float]]:
    """The planned comparisons: NLL of the first minus that of the second."""
    targets = case.targets["test"]

    def at(name: str, count: int) -> mcbn.Evaluation:
        return evaluated(case, predicted(draws[name]["test"], count=count), targets)

    both, alone, wide = "MCBN, M = 128, with TTA", "TTA", "MCBN, M = 32"
    pairs = {
        "TTA 32 - MCBN 32": (at(alone, 32), at(wide, 32)),
        "TTA 4 - MCBN 64": (at(alone, 4), at(wide, 64)),
        "MCBN with TTA - TTA, JPEG TS": (evaluations[both]["JPEG TS"],
                                         evaluations[alone]["JPEG TS"]),
        "MCBN with TTA - TTA, test TS": (evaluations[both]["test TS"],
                                         evaluations[alone]["test TS"]),
    } | {
        f"{name}: TS of each draw - TS of the average": (
            each["test TS of each draw"], each["test TS"])
        for name, each in evaluations.items() if len(draws[name]["test"]) > 1
    }  # fmt: skip
    return {name: numbers(first.minus(second)["nll"]) for name, (first, second) in pairs.items()}


def one_pass(case: Case, plain: Draws) -> dict[str, Any]:
    """AUROC of scores that take one pass of the plain network."""
    neighbors = mcbn.NearestNeighbors.fit(case.network, case.features.inputs, progress=False)
    found: dict[str, Any] = {}
    for name in case.outside:
        sets = predicted(plain["test"]), predicted(plain[name])
        rows = {
            score: (*sets, score) for score in ("max_softmax", "entropy", "energy", "max_logit")
        }
        rows["kNN"] = (neighbors(case.inputs["test"]), neighbors(case.inputs[name]), None)
        for score, (inside, outside, kind) in rows.items():
            separation = out_of_distribution(
                inside, outside, uncertainty=kind, resamples=case.resamples, seed=SEED
            )
            found.setdefault(score, {})[name] = numbers(separation["auroc_out_of_distribution"])
    return found


def by_draws(case: Case, draws: Tensor) -> dict[str, Any]:
    """NLL and mutual information of the first draws, as they are and extrapolated."""
    targets, found = case.targets["test"], {}
    for count in (2, 4, 8, 16, 32, 64):
        logs = target_logs(draws[:count], targets)
        whole, error = predicted(draws, count=count), draw_error(logs)
        found[str(count)] = {
            "nll": float(evaluated(case, whole, targets)["nll"]),
            "extrapolated": float(extrapolated_nll(logs).mean()),
            "error": error.error,
            "mutual_information": float(whole.mutual_information.mean()),
            "corrected": float(whole.mutual_information.mean()) * mutual_information_factor(count),
        }
        if count >= len(draws):
            break
    return found


def few_labels(case: Case, draws: dict[str, Draws], subsets: int) -> dict[str, Any]:
    """NLL of a temperature of few labels minus that of MCBN without: mean over subsets of labels.

    Of the plain network, and of MCBN with a temperature for each draw. The interval is over the
    subsets and the images that are scored: whole images are resampled, and a subset with each.
    """
    targets, generator = case.targets["test"], np.random.default_rng(SEED)
    plain, noisy = draws["plain"]["test"], draws["MCBN, M = 32"]["test"][:DRAWS]
    unscaled = rows_of(predicted(noisy), targets)
    found: dict[str, Any] = {}
    warnings.simplefilter("ignore", TemperatureBoundWarning)  # of few labels without a prior
    for labels in LABELS:
        gaps: dict[str, list[Tensor]] = {}
        for _ in range(subsets):
            held = torch.from_numpy(generator.permutation(len(targets))) < labels
            for name, each, method in (("plain", plain, AVERAGE), ("MCBN", noisy, EACH)):
                for prior in (1.0, 0.0):
                    scaling = method.fit(predicted(each, held), targets[held], prior=prior)
                    scaled = rows_of(scaling(predicted(each)), targets)
                    key = f"{name}, {'prior' if prior else 'no prior'}"
                    gaps.setdefault(key, []).append((scaled - unscaled)[~held].mean())
        found[str(labels)] = {name: spread(torch.stack(each)) for name, each in gaps.items()}
    return found


def rows_of(predictive: Any, targets: Tensor) -> Tensor:
    """NLL of each image."""
    return -predictive.log_probabilities.gather(1, targets[:, None])[:, 0]


def spread(gaps: Tensor) -> dict[str, Any]:
    """Mean over subsets of labels, with the interval that holds 95% of them, and how many lose."""
    return {"gap": [float(gaps.mean()), *percentile_interval(gaps, 0.95)],
            "harm": float((gaps > 0).double().mean()), "worst": float(gaps.max())}  # fmt: skip


if __name__ == "__main__":
    main(asked("alternatives"))
