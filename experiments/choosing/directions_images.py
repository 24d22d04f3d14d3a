"""A batch size for each direction of the statistics of classifiers, in place of one for all.

Run: python -m experiments.choosing.directions_images [--fast]
(about 20 minutes on 1 core; data root in MCBN_DATA)

The planned comparisons of `directions` on 5 small networks of MNIST digits and a published CIFAR-10
ResNet20. Primary: held-out NLL of directions minus that of M*, the one batch size of the best
held-out log score. Second, at an equal number of fitted numbers: directions with one factor on all
M_k minus M*, in NLL and in the AUROC of outside data by mutual information. The sampling error of
the curvature is shown by the posteriors of two halves of its examples.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import mcbn
from experiments.choosing.directions import SEEDS, summarized
from experiments.choosing.directions_figure import size_figure
from experiments.choosing.directions_regression import at_limit, described
from experiments.data import cifar10, cifar10_networks
from experiments.intervals import interval
from experiments.record import Record, asked
from mcbn.samplers.curvature_posterior import CurvaturePosterior
from mcbn.tasks.datasets import (
    CropAndFlip,
    LabeledData,
    Task,
    digits,
    mnist,
    normalize_cifar10,
)
from mcbn.tasks.datasets import cifar10 as cifar10_task
from mcbn.tasks.networks import convnet
from mcbn.tasks.training import build, train


@dataclass(frozen=True)
class Scale:
    """Size of a part with classes.

    Attributes:
        training: training examples.
        epochs: passes over them.
        width: of the first block of the network.
        draws: T of the bank that gives the directions.
        passes: draws that predictions are made of.
        curved: training examples of the curvature.
        held_out: examples that batch sizes, factors and temperatures are fitted on.
        test: test examples.
        outside: examples of each out-of-distribution set.
    """

    training: int = 2000
    epochs: int = 12
    width: int = 8
    draws: int = 256
    passes: int = 32
    curved: int = 500
    held_out: int = 300
    test: int = 1000
    outside: int = 400


FULL = Scale()
RESNET = Scale(draws=128, passes=16, curved=200, held_out=200, test=400, outside=100)
TINY = Scale(training=160, epochs=2, width=4, draws=12, passes=4, curved=40, held_out=30,
             test=40, outside=20)  # fmt: skip


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of rescaling far, which is measured here
    if record.fast:
        networks = [measured(digits_case(TINY, seed)) for seed in range(2)]
        resnet = networks[0]
    else:
        networks = [
            record.part(f"mnist-{seed}", lambda seed=seed: measured(mnist_case(FULL, seed)))
            for seed in range(SEEDS)
        ]
        resnet = record.part("resnet20", lambda: measured(resnet_case(RESNET)))
    curves = {
        name: {key: part["chosen"][key] for key in ("M_k", "M*", "mean M_k")}
        for name, part in (("MNIST", networks[0]), ("ResNet20", resnet))
    }
    halves = [part["halves"] for part in networks]
    result = {"mnist": summarized(networks), "minus M = 32": added_later(networks),
              "halves": halves, "resnet20": resnet, "curves": curves}  # fmt: skip
    record.draw(size_figure(record.write(result)["curves"]))


def added_later(networks: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Directions minus the batch size of training, a comparison that was not planned."""
    scores = [part["scores"] for part in networks]
    return {
        name: interval([each["directions"][name] - each["M = 32"][name] for each in scores])
        for name in scores[0]["directions"]
    }


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network, its bank, and what is predicted."""

    network: nn.Module
    bank: mcbn.Bank
    training: LabeledData  # without augmentation
    held_out: LabeledData
    test: LabeledData
    outside: Mapping[str, Tensor]
    scale: Scale


def digits_case(scale: Scale, seed: int) -> Case:
    """The digits of the package, for a tiny run."""
    return small_case(digits(seed=seed), scale, seed)


def mnist_case(scale: Scale, seed: int) -> Case:
    """A small convolutional network of some MNIST digits, other ones with each seed."""
    return small_case(mnist(seed=seed, train_size=scale.training), scale, seed)


def small_case(task: Task, scale: Scale, seed: int) -> Case:
    """Train on the first examples of a task."""
    training = task.train.rows(torch.arange(min(scale.training, len(task.train))))
    network = build(lambda: convnet(1, 10, width=scale.width, dropout=0.0), seed=seed)
    train(network, training, epochs=scale.epochs, batch_size=32, seed=seed)
    batches = mcbn.minibatches(training.inputs, batch_size=32, draws=scale.draws, seed=seed)
    bank = mcbn.collect(network, batches, progress=False)
    # USPS has digits as well.
    outside = {name: x[: scale.outside] for name, x in task.outside.items() if name != "usps"}
    held_out, test = (
        part.rows(torch.arange(min(count, len(part))))
        for part, count in ((task.validation, scale.held_out), (task.test, scale.test))
    )
    return Case(network, bank, training, held_out, test, outside, scale)


def resnet_case(scale: Scale) -> Case:
    """The published ResNet20; it was trained on all images, so test images are held out."""
    network = cifar10_networks.network("ResNet20, published")
    images, test = cifar10.images()
    batches = mcbn.minibatches(CropAndFlip(images), batch_size=32, draws=scale.draws, seed=0)
    bank = mcbn.collect(network, batches, progress=False)
    few = images.rows(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[
        : scale.curved])  # fmt: skip
    parts = (few, test.rows(torch.arange(scale.held_out)),
             test.rows(scale.held_out + torch.arange(scale.test)))  # fmt: skip
    outside = cifar10_task().outside
    return Case(
        network, bank,
        *(LabeledData(normalize_cifar10(part.inputs), part.targets) for part in parts),
        {name: outside[name][: scale.outside] for name in ("notmnist", "fashion_mnist")}, scale,
    )  # fmt: skip


def posterior_of(case: Case, rows: Tensor) -> CurvaturePosterior:
    """Fit to some of the training examples."""
    inputs = case.training.inputs[rows]
    return CurvaturePosterior.fit(
        case.network, case.bank, TensorDataset(inputs), batch_size=100, progress=False
    )


def chosen_size(case: Case, bank: mcbn.Bank, bounds: tuple[float, float]) -> float:
    """The batch size of the best held-out log score, by rescaling."""
    few = bank.first(case.scale.passes)
    choice = mcbn.choose_batch_size(
        case.network, few, case.held_out.inputs, case.held_out.targets, bounds=bounds, points=9,
        resamples=2, progress=False,
    )  # fmt: skip
    return choice.best


def elbo_size(case: Case, posterior: CurvaturePosterior, population: int) -> float:
    """The one batch size of the ELBO, on as many training examples as are held out."""
    rows = torch.arange(min(case.scale.held_out, len(case.training)))
    few = case.bank.first(case.scale.passes)
    choice = mcbn.choose_batch_size(
        case.network, few, case.training.inputs[rows], case.training.targets[rows],
        criterion=mcbn.ELBO(dimensions=len(posterior.curvatures)), points=9, resamples=2,
        bounds=(2, population), progress=False,
    )  # fmt: skip
    return choice.best


def measured(case: Case) -> dict[str, Any]:
    """Scores of all methods, and what was chosen, for one network."""
    scale, network = case.scale, case.network
    count = min(scale.curved, len(case.training))
    posterior = posterior_of(case, torch.arange(count))
    rescaled = posterior.rescaled()
    population = posterior.population
    best = chosen_size(case, case.bank, (2, population))
    bounds = max(1.0, rescaled.size * 2.0**-6), rescaled.size * 2.0**6
    size = chosen_size(case, rescaled, bounds)
    elbo = elbo_size(case, posterior, population)
    banks = {
        "M = 32": case.bank,
        "M*": case.bank.rescale(best, warn=False),
        "M of the ELBO": case.bank.rescale(elbo, warn=False),
        "directions": rescaled,
        "directions, scaled": rescaled.rescale(size, warn=False),
    }
    few = {name: bank.first(scale.passes) for name, bank in banks.items()}
    center = at_limit(network, case.bank, population)
    samplers: dict[str, Any] = {
        "running statistics": mcbn.Deterministic(network),
        "limit": mcbn.Deterministic(center),
        **{name: mcbn.MCBatchNorm(network, bank) for name, bank in few.items()},
        "directions, linear": mcbn.LinearizedBatchNorm(network, few["directions"], exact=0),
        "last-layer Laplace": laplace_of(case, center),
    }
    return {
        "scores": {name: scored(each, case) for name, each in samplers.items()},
        "chosen": {"N": population, "M*": best, "factor": size / rescaled.size,
                   "M of the ELBO": elbo} | described(posterior),
        "halves": halves(case, count),
    }  # fmt: skip


def laplace_of(case: Case, center: nn.Module) -> mcbn.LastLayerLaplace:
    """Last-layer Laplace with all covariances, on top of the statistics of large batches."""
    return mcbn.LastLayerLaplace.fit(
        center, case.training.inputs, case.training.targets, structure="full",
        draws=case.scale.passes, progress=False,
    )  # fmt: skip


def halves(case: Case, count: int) -> dict[str, float]:
    """What the posteriors of two halves of the examples of the curvature have in common."""
    first, second = (
        posterior_of(case, torch.arange(start, count, 2)).rescaled() for start in (0, 1)
    )
    part = case.test.inputs[:200]
    spreads = [
        predicted(mcbn.MCBatchNorm(case.network, bank.first(case.scale.passes)), part)
        .mutual_information
        for bank in (first, second)
    ]  # fmt: skip
    ranks = torch.stack([each.argsort().argsort().double() for each in spreads])
    return {
        "ratio of mutual information": float(spreads[0].mean() / spreads[1].mean()),
        "rank correlation": float(torch.corrcoef(ranks)[0, 1]),
    }


def predicted(sampler: Any, inputs: Tensor) -> mcbn.CategoricalPredictive:
    """Predictions of inputs that have no labels here."""
    predictive = mcbn.predict(sampler, inputs, batch_size=100, progress=False)
    if not isinstance(predictive, mcbn.CategoricalPredictive):
        raise TypeError(f"expected probabilities of classes, got {type(predictive).__name__}")
    return predictive


def nll(predictive: mcbn.CategoricalPredictive, targets: Tensor) -> Float[Tensor, " batch"]:
    """Negative log-likelihood of each example."""
    return -predictive.log_probabilities.gather(1, targets[:, None])[:, 0]


def scored(sampler: Any, case: Case) -> dict[str, float]:
    """Test scores, also after one temperature, and how well outside data are told apart."""
    held_out, test = (predicted(sampler, part.inputs) for part in (case.held_out, case.test))
    scaling = mcbn.TemperatureScaling.fit(held_out, case.held_out.targets)
    targets = case.test.targets
    hits = test.log_probabilities.argmax(1) == targets
    found = {
        "nll": float(nll(test, targets).mean()),
        "nll_ts": float(nll(scaling(test), targets).mean()),
        "accuracy": float(hits.double().mean()),
        "mutual_information": float(test.mutual_information.mean()),
    }
    for name, inputs in case.outside.items():
        other = predicted(sampler, inputs)
        found[f"auroc_entropy_{name}"] = auroc(test.entropy, other.entropy)
        found[f"auroc_mi_{name}"] = auroc(test.mutual_information, other.mutual_information)
    return found


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The chance that an outside example has the larger score; ties count one half."""
    gap = outside[:, None] - inside[None]
    return float(((gap > 0).double() + (gap == 0).double() / 2).mean())


if __name__ == "__main__":
    main(asked("directions_images"))
