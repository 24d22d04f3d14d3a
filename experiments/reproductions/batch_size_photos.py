"""CIFAR-10 and its JPEG images against people's votes: the published ResNet20 and our networks."""

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import mcbn
from experiments.data import cifar10
from experiments.intervals import interval
from mcbn.evaluation.bootstrap import ScoreColumns, percentile_interval, replicates
from mcbn.evaluation.scores import negative_log_likelihood
from mcbn.study.slopes import log_log_slope
from mcbn.tasks.datasets import (
    CropAndFlip,
    LabeledData,
    data_root,
    normalize_cifar10,
)
from mcbn.tasks.networks import convnet, load_resnet20
from mcbn.tasks.training import build, train

LEVEL = 0.95

Sampler = mcbn.MCBatchNorm | mcbn.MCDropout | mcbn.Deterministic | mcbn.DeepEnsemble


@dataclass(frozen=True)
class Photos:
    """Settings of the measurements on CIFAR-10.

    Attributes:
        sizes: inference batch sizes M.
        count: number of CIFAR-10 test images.
        draws: number of draws T.
        resamples: number of bootstrap resamples of the test images.
    """

    sizes: tuple[int, ...]
    count: int
    draws: int
    resamples: int


@dataclass(frozen=True)
class Training:
    """Training settings of our own networks, one per seed.

    Attributes:
        images: N; the first N training images are used.
        epochs: number of epochs.
        batch_size: training batch size.
        width: channels of the network's first block.
        rates: dropout rates; one of them is chosen on the first network.
        held_out: further training images that it is chosen on.
        seeds: number of networks.
    """

    images: int
    epochs: int
    batch_size: int
    width: int
    rates: tuple[float, ...]
    held_out: int
    seeds: int


def published(photos: Photos) -> dict:
    """Measure the published ResNet20, with mini-batches cropped and flipped as in its training."""
    data, _ = cifar10.images()
    net = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    return measured(photos, samplers_of(photos, net, CropAndFlip(data)))


def trained_here(photos: Photos, training: Training) -> dict:
    """Measure small networks trained here, with MCBN, MC Dropout and as an ensemble."""
    images, _ = cifar10.images()
    used = images.rows(torch.arange(training.images + training.held_out))
    data = LabeledData(normalize_cifar10(used.inputs), used.targets)
    held_out = data.rows(torch.arange(training.images, len(data)))
    data = data.rows(torch.arange(training.images))
    first = {rate: one_trained(training, data, rate, seed=0) for rate in training.rates}
    rate = min(first, key=lambda rate: dropout_nll(first[rate], held_out, photos.draws, seed=0))
    nets, results = [], []
    for seed in range(training.seeds):
        net = one_trained(training, data, 0, seed=seed)
        nets.append(net)
        samplers = samplers_of(photos, net, data.inputs)
        dropped = first[rate] if seed == 0 else one_trained(training, data, rate, seed=seed)
        samplers["MC Dropout"] = mcbn.MCDropout(dropped, draws=photos.draws, seed=seed)
        results.append(measured(photos, samplers))
    plain = {"plain": mcbn.Deterministic(nets[0]), "ensemble": mcbn.DeepEnsemble(nets)}
    return {
        "training": asdict(training),
        "dropout": rate,
        "seeds": results,
        "over seeds": over_seeds(results),
        "ensemble": measured(photos, plain),
    }


def one_trained(training: Training, data: LabeledData, dropout: float, *, seed: int) -> nn.Module:
    """One network."""
    net = build(partial(convnet, 3, 10, width=training.width, dropout=dropout), seed=seed)
    return train(net, data, epochs=training.epochs, batch_size=training.batch_size, seed=seed)


def dropout_nll(net: nn.Module, held_out: LabeledData, draws: int, *, seed: int) -> float:
    """Held-out NLL of MC Dropout."""
    predictive = mcbn.predict(mcbn.MCDropout(net, draws=draws, seed=seed), held_out.inputs)
    losses = negative_log_likelihood(predictive.log_probabilities, held_out.targets)
    return float(losses.mean())


def samplers_of(photos: Photos, net: nn.Module, data: Tensor | CropAndFlip) -> dict[str, Sampler]:
    """The plain network, and MCBN at each M."""
    samplers: dict[str, Sampler] = {"plain": mcbn.Deterministic(net)}
    for size in photos.sizes:
        batches = mcbn.minibatches(data, batch_size=size, draws=photos.draws)
        samplers[str(size)] = mcbn.MCBatchNorm(net, mcbn.collect(net, batches))
    return samplers


def measured(photos: Photos, samplers: dict[str, Sampler]) -> dict:
    """Uncertainty and scores of each sampler on the first test images and on their JPEGs."""
    _, test = cifar10.images()
    count = photos.count
    sets = {"lossless": test.inputs[:count], "JPEG": cifar10.jpeg_images(count)}
    votes = np.load(data_root() / "cifar10" / "cifar10h_counts.npy")[:count]
    votes = torch.from_numpy(votes).double()
    votes = votes / votes.sum(1, keepdim=True)
    inputs = {name: normalize_cifar10(images) for name, images in sets.items()}
    predictives = {
        method: {name: mcbn.predict(sampler, images) for name, images in inputs.items()}
        for method, sampler in samplers.items()
    }
    result: dict = {"entropy of votes": float(torch.special.entr(votes).sum(1).mean())}
    for name in sets:
        mine = {method: each[name] for method, each in predictives.items()}
        result[name] = against_people(mine, test.targets[:count], votes, photos.resamples)
    for method, each in predictives.items():
        for kind in ("mutual_information", "entropy") if method != "plain" else ("entropy",):
            separation = mcbn.out_of_distribution(
                each["lossless"], each["JPEG"], uncertainty=kind, resamples=photos.resamples
            )["auroc_out_of_distribution"]
            row = result["JPEG"]["methods"][method]
            row[f"auroc by {kind}"] = [separation.value, separation.low, separation.high]
    return result


def over_seeds(results: list[dict]) -> dict:
    """Mean and Student-t interval over networks of every value."""

    def means(rows: list) -> dict | list[float]:
        if isinstance(rows[0], dict):
            return {key: means([row[key] for row in rows]) for key in rows[0]}
        return interval([row[0] if isinstance(row, list) else row for row in rows])

    return means(results)


def against_people(
    predictives: dict[str, mcbn.CategoricalPredictive],
    targets: Tensor,
    votes: Tensor,
    resamples: int,
) -> dict:
    """Scores with bootstrap intervals over images; paired differences from the plain network."""
    values, drawn, errors = {}, {}, {}
    for method, predictive in predictives.items():
        logs = predictive.log_probabilities
        columns = {
            "accuracy": (predictive.prediction == targets).double(),
            "nll": negative_log_likelihood(logs, targets),
            "nll of votes": -(votes * logs).sum(1),
            "confidence": predictive.confidence,
            "entropy": predictive.entropy,
            "human": torch.special.entr(votes).sum(1),
        }
        if predictive.draw_count > 1:
            share = predictive.draw_count / (predictive.draw_count - 1)
            columns["epistemic_sd"] = (predictive.variance * share).sqrt().mean(1)
            columns["mutual_information"] = predictive.mutual_information * share
        values[method] = of_columns(columns)
        drawn[method] = replicates(
            [columns], of_columns, resamples=resamples, seed=0, progress=False
        )
        errors[method] = mcbn.evaluate(predictive, targets, resamples=0)["ece"].value
    with_interval = {
        method: {key: [value, *percentile_interval(drawn[method][key], LEVEL)]
                 for key, value in row.items()} | {"ece": errors[method]}
        for method, row in values.items()
    }  # fmt: skip
    return {
        "methods": with_interval,
        "minus plain": {
            method: {
                key: [value - values["plain"][key],
                      *percentile_interval(drawn[method][key] - drawn["plain"][key], LEVEL)]
                for key, value in row.items() if key in values["plain"]
            }
            for method, row in values.items() if method != "plain"
        },
        "slopes over M": slopes_of(values, drawn),
    }  # fmt: skip


def of_columns(columns: ScoreColumns) -> dict[str, float]:
    """Means, and rank correlations with the entropy of people's votes."""
    measures = {name: float(values.mean()) for name, values in columns.items() if name != "human"}
    measures["confidence less accuracy"] = measures["confidence"] - measures["accuracy"]
    for name in ("entropy", "mutual_information"):
        if name in columns:
            measures[f"rank correlation {name}"] = float(
                spearmanr(columns[name], columns["human"]).statistic
            )
    return measures


def slopes_of(values: dict, drawn: dict) -> dict[str, list[float]]:
    """Log-log slopes over M with bootstrap intervals over images."""
    intervals = {}
    sizes = tuple(int(method) for method in values if method.isdigit())
    if not sizes:
        return {}
    for key in ("epistemic_sd", "mutual_information"):
        rows = torch.stack([drawn[str(size)][key] for size in sizes], 1).tolist()
        slopes = torch.tensor([log_log_slope(sizes, tuple(row)) for row in rows]).double()
        middle = log_log_slope(sizes, tuple(values[str(size)][key] for size in sizes))
        intervals[key] = [middle, *percentile_interval(slopes, LEVEL)]
    return intervals
