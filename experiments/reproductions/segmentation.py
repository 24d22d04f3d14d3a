"""MCBN and MC Dropout in a U-Net on street scenes: calibration, and uncertainty at boundaries.

Run: python -m experiments.reproductions.segmentation [--fast]
(about 20 minutes on 2 cores; data root in MCBN_DATA)
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import mcbn
from experiments.data.camvid import (
    CLASSES,
    IGNORED,
    boundary_distance,
    camvid,
    standardised,
    with_mirror_images,
)
from experiments.record import Record, asked
from experiments.reproductions.pixels import (
    UNCERTAINTIES,
    calibration_replicates,
    image_row,
    measure,
    uncertainty_maps,
)
from experiments.reproductions.segmentation_figure import draw, draw_maps
from mcbn.evaluation import bootstrap, intervals
from mcbn.samplers.sampler import Sampler
from mcbn.tasks.datasets import LabeledData
from mcbn.tasks.networks import unet
from mcbn.tasks.training import build, train

WIDTH, DROPOUT = 16, 0.1
TRAINED_AT = 8  # examples a batch
SIZES = (6, 16)  # M, the first as in the paper
PLAIN, MCBN, DROPPED = "plain network", f"MCBN, M = {SIZES[0]}", "MC Dropout"
AGAIN = ", again"  # suffix of the same method with other mini-batches or masks
LEVEL = 0.95
PAPER = {
    "source": "Teye et al. 2018, figure 3: a trained Bayesian SegNet on CamVid",
    "mini_batches": 10,
    "batch_size": 6,
    "finding": "uncertainty at object boundaries; pictures without figures",
}


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        train_every: step between training images.
        test_every: step between test images.
        passes: epochs over the training images and their mirror images.
        draws: T of every method.
        resamples: bootstrap resamples of each interval.
    """

    train_every: int
    test_every: int
    passes: int
    draws: int
    resamples: int


FULL = Scale(train_every=1, test_every=2, passes=16, draws=20, resamples=1000)
FAST = Scale(train_every=46, test_every=90, passes=1, draws=2, resamples=20)


def main(record: Record) -> None:
    """Measure, write the result and draw the figures."""
    torch.set_num_threads(1)
    # The consistency of the banks is part of the result.
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    scale = FAST if record.fast else FULL
    data, test = streets(scale)
    weights = record.folder / "parts" / f"{record.name}-weights.pt"
    network = trained(data, scale, weights)
    banks = {
        **{f"MCBN, M = {size}": bank(network, data, size, scale, seed=size) for size in SIZES},
        MCBN + AGAIN: bank(network, data, SIZES[0], scale, seed=1),
    }
    samplers = samplers_of(network, banks, scale)
    methods, similarity = measured(samplers, test)
    result = record.write(
        {
            "paper": PAPER,
            "set_up": set_up(network, data, test, scale),
            "consistency": {name: consistency_of(each) for name, each in banks.items()},
            **findings(methods, scale.resamples),
            "similarity": rank_correlations(similarity, scale.resamples),
        }
    )
    record.draw(draw(result))
    shown = torch.arange(1, 6, 2) * len(test) // 6  # three images, evenly apart
    photographs = camvid("test", every=scale.test_every).inputs[shown]
    predictives = [
        (name, mcbn.predict(samplers[name], test.inputs[shown], progress=False))
        for name in (MCBN, DROPPED)
    ]
    path = record.folder / f"{record.name}_maps.jpg"
    draw_maps(path, photographs, test.targets[shown], predictives)
    weights.unlink()


def streets(scale: Scale) -> tuple[LabeledData, LabeledData]:
    """Training images with their mirror images, and test images, standardised alike."""
    data = camvid("train", every=scale.train_every)
    test = camvid("test", every=scale.test_every)
    inputs, test_inputs = (
        standardised(part.inputs, data.inputs).to(memory_format=torch.channels_last)
        for part in (data, test)
    )
    mirrored = with_mirror_images(LabeledData(inputs, data.targets))
    return mirrored, LabeledData(test_inputs, test.targets)


def trained(data: LabeledData, scale: Scale, path: Path) -> nn.Module:
    """Train the network, or load it from `path` if an interrupted run has stored it there."""
    network = build(lambda: unet(3, len(CLASSES), width=WIDTH, dropout=DROPOUT), seed=0)
    # On CPUs this trains in a third of the time.
    network = network.to(memory_format=torch.channels_last)
    if path.is_file():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    train(network, data, epochs=scale.passes, batch_size=TRAINED_AT)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


def bank(network: nn.Module, data: LabeledData, size: int, scale: Scale, *, seed: int) -> mcbn.Bank:
    """Collect a bank from training images and mirror images."""
    size = min(size, len(data))
    batches = mcbn.minibatches(data.inputs, batch_size=size, draws=scale.draws, seed=seed)
    return mcbn.collect(network, batches, progress=False)


def consistency_of(drawn: mcbn.Bank) -> dict[str, float]:
    """Distance of a bank from the running statistics of the network."""
    check = mcbn.consistency(drawn)
    return {"gap over noise": check.excess, "variance over running variance": check.variance_ratio}


def samplers_of(
    network: nn.Module, banks: Mapping[str, mcbn.Bank], scale: Scale
) -> dict[str, Sampler]:
    """The sampler of every method, by name."""
    # For single large images no engine is much faster than the loop.
    return {
        PLAIN: mcbn.Deterministic(network),
        **{name: mcbn.MCBatchNorm(network, each, engine="loop") for name, each in banks.items()},
        DROPPED: mcbn.MCDropout(network, draws=scale.draws, seed=0),
        DROPPED + AGAIN: mcbn.MCDropout(network, draws=scale.draws, seed=1),
    }


def set_up(
    network: nn.Module, data: LabeledData, test: LabeledData, scale: Scale
) -> dict[str, Any]:
    """Settings and data of the run."""
    known = test.targets[test.targets != IGNORED].long()
    shares = known.bincount(minlength=len(CLASSES)) / len(known)
    return {
        **asdict(scale),
        "height_width": list(test.targets.shape[1:]),
        "train_images": len(data) // 2,
        "training_batch_size": TRAINED_AT,
        "steps": scale.passes * (len(data) // TRAINED_AT),
        "parameters": sum(each.numel() for each in network.parameters()),
        "test_images": len(test),
        "labelled_share": len(known) / test.targets.numel(),
        "class_shares": dict(zip(CLASSES, shares.tolist(), strict=True)),
        "level": LEVEL,
        "interval": "bootstrap over test images; of calibration errors by test inversion",
    }


def measured(
    samplers: Mapping[str, Sampler], test: LabeledData
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Measures of every method, and similarities of their uncertainty maps, one row per image."""
    streams = (mcbn.predict_batches(each, test.inputs, batch_size=1) for each in samplers.values())
    rows: dict[str, list[dict[str, Tensor]]] = {
        name: [] for name in samplers if not name.endswith(AGAIN)
    }
    alike = []
    for labels, *predictives in zip(test.targets, *streams, strict=True):
        distance, by_name = boundary_distance(labels), dict(zip(samplers, predictives, strict=True))
        for name, columns in rows.items():
            columns.append(image_row(by_name[name], labels, distance))
        alike.append(likeness(by_name, labels != IGNORED))
    return {name: stacked(each) for name, each in rows.items()}, stacked(alike)


def stacked(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack rows into columns."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def likeness(
    predictives: Mapping[str, mcbn.CategoricalPredictive], known: Tensor
) -> dict[str, Tensor]:
    """Rank correlations over the labelled pixels of one image."""
    maps = {name: uncertainty_maps(each, known) for name, each in predictives.items()}
    entropy, information = UNCERTAINTIES
    pairs = [
        ((entropy, MCBN), (entropy, DROPPED)),
        ((entropy, MCBN), (entropy, PLAIN)),
        ((entropy, DROPPED), (entropy, PLAIN)),
        ((information, MCBN), (information, DROPPED)),
        ((information, MCBN), (information, f"MCBN, M = {SIZES[-1]}")),
        ((information, MCBN), (information, MCBN + AGAIN)),
        ((information, DROPPED), (information, DROPPED + AGAIN)),
        ((information, MCBN), (entropy, PLAIN)),
        ((information, DROPPED), (entropy, PLAIN)),
    ]
    return {
        f"{one} of {first} / {other} of {second}": torch.tensor(
            spearmanr(maps[first][one], maps[second][other]).statistic
        )
        for (one, first), (other, second) in pairs
    }


def findings(methods: Mapping[str, dict[str, Tensor]], resamples: int) -> dict[str, Any]:
    """Every score with its interval; differences from the plain network and from MC Dropout."""
    values = {name: measure(columns) for name, columns in methods.items()}
    drawn = {
        name: bootstrap.replicates([columns], measure, resamples=resamples, seed=0, progress=False)
        | calibration_replicates(columns, resamples=resamples, seed=0)
        for name, columns in methods.items()
    }
    pairs = [(name, PLAIN) for name in methods if name != PLAIN]
    pairs += [(name, DROPPED) for name in methods if name not in (PLAIN, DROPPED)]
    return {
        "methods": {
            name: {key: interval(value, drawn[name][key]) for key, value in measures.items()}
            for name, measures in values.items()
        },
        "differences": {
            f"{name} - {other}": {
                key: interval(
                    values[name][key] - base,
                    intervals.difference(drawn[name][key], drawn[other][key], LEVEL),
                )
                for key, base in values[other].items()
                if key in values[name] and " at " not in key and " of " not in key
            }
            for name, other in pairs
        },
    }


def interval(value: float, replicates: Tensor) -> list[float]:
    """Value and interval ends."""
    return [value, *bootstrap.percentile_interval(replicates, LEVEL)]


def rank_correlations(columns: dict[str, Tensor], resamples: int) -> dict[str, list[float]]:
    """Rank correlations averaged over images, with intervals."""

    def means(chosen: bootstrap.ScoreColumns) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in chosen.items()}

    drawn = bootstrap.replicates([columns], means, resamples=resamples, seed=0, progress=False)
    return {name: interval(value, drawn[name]) for name, value in means(columns).items()}


if __name__ == "__main__":
    main(asked("segmentation"))
