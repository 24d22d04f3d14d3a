"""The published ResNet20 on CIFAR-10 images, as they are and as JPEG, against people's votes."""

import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

import mcbn
from mcbn.bootstrap import Columns, percentile_interval, replicates
from mcbn.data import CropAndFlip, cifar10_images, data_root, normalise_cifar10
from mcbn.networks import load_resnet20
from mcbn.scores import negative_log_likelihood
from mcbn.slopes import log_log_slope

LEVEL = 0.95


def photographs(sizes: tuple[int, ...], *, count: int, draws: int, resamples: int) -> dict:
    """Uncertainty of the plain network and of MCBN at each M, on the first `count` test images."""
    data, test = cifar10_images()
    net = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    folder = data_root() / "cifar10"
    sets = {"lossless": test.inputs[:count], "JPEG": jpegs(folder / "test_jpeg.tar.xz", count)}
    targets = test.targets[:count]
    votes = torch.from_numpy(np.load(folder / "cifar10h_counts.npy")[:count]).double()
    votes = votes / votes.sum(1, keepdim=True)
    samplers: dict[str, mcbn.MCBatchNorm | mcbn.Deterministic] = {"plain": mcbn.Deterministic(net)}
    for size in sizes:
        batches = mcbn.minibatches(CropAndFlip(data), batch_size=size, draws=draws)
        samplers[str(size)] = mcbn.MCBatchNorm(net, mcbn.collect(net, batches))
    inputs = {name: normalise_cifar10(images) for name, images in sets.items()}
    found = {
        method: {name: mcbn.predict(sampler, images) for name, images in inputs.items()}
        for method, sampler in samplers.items()
    }
    result: dict = {"entropy of votes": float(torch.special.entr(votes).sum(1).mean())}
    for name in sets:
        mine = {method: each[name] for method, each in found.items()}
        result[name] = against_people(mine, targets, votes, resamples)
    for method, each in found.items():
        for kind in ("mutual_information", "entropy") if method != "plain" else ("entropy",):
            separation = mcbn.out_of_distribution(
                each["lossless"], each["JPEG"], uncertainty=kind, resamples=resamples
            )["auroc_out_of_distribution"]
            row = result["JPEG"]["methods"][method]
            row[f"auroc by {kind}"] = [separation.value, separation.low, separation.high]
    return result


def jpegs(path: Path, count: int) -> Tensor:
    """The first test images after JPEG."""
    with tarfile.open(path) as archive:
        found = [np.array(Image.open(archive.extractfile(f"{i:05d}.jpg")).convert("RGB"))
                 for i in range(count)]  # fmt: skip
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def against_people(found: dict[str, mcbn.CategoricalPredictive], targets: Tensor, votes: Tensor,
                   resamples: int) -> dict:  # fmt: skip
    """Scores with bootstrap intervals over images, paired differences to the plain network."""
    values, drawn, errors = {}, {}, {}
    for method, predictive in found.items():
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
            columns["mutual_information"] = predictive.mutual_information
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


def of_columns(columns: Columns) -> dict[str, float]:
    """Means, and rank correlations with the entropy of the votes."""
    found = {name: float(values.mean()) for name, values in columns.items() if name != "human"}
    found["confidence less accuracy"] = found["confidence"] - found["accuracy"]
    for name in ("entropy", "mutual_information"):
        if name in columns:
            found[f"rank correlation {name}"] = float(
                spearmanr(columns[name], columns["human"]).statistic
            )
    return found


def slopes_of(values: dict, drawn: dict) -> dict[str, list[float]]:
    """Log-log slopes over M with bootstrap intervals over images."""
    found = {}
    sizes = tuple(int(method) for method in values if method != "plain")
    for key in ("epistemic_sd", "mutual_information"):
        rows = torch.stack([drawn[str(size)][key] for size in sizes], 1).tolist()
        slopes = torch.tensor([log_log_slope(sizes, tuple(row)) for row in rows]).double()
        middle = log_log_slope(sizes, tuple(values[str(size)][key] for size in sizes))
        found[key] = [middle, *percentile_interval(slopes, LEVEL)]
    return found
