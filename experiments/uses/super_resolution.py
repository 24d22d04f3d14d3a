"""MCBN for super-resolution: does its map of uncertainty show where an image is wrong?

Kar and Biswas 2021, "Fast Bayesian uncertainty estimation and reduction of batch normalized single
image super-resolution network" (arXiv 1903.09410), read from MCBN a map of uncertainty that
"strongly relates to the quality of reconstruction". Here it is measured against what costs as much,
and against what costs nothing. Grey patches of CamVid street scenes, upsampled twofold by a small
residual network with batch norm, five networks; Student-t 95% intervals over networks.

Planned, before the run. A method is ranked by Spearman's correlation, over the pixels of a test
image, of its standard deviation with the absolute error of its own mean; the mean over images.
1. Primary: MCBN (M chosen) minus test-time augmentation by the eight flips and quarter turns,
   both with 8 passes.
2. MCBN (M chosen, 8 passes) minus the magnitude of the gradient of the upsampled image, which is
   ranked against the absolute error of the plain network.
3. Partial rank correlation of MCBN (M chosen, 8 passes) with its error, given that magnitude: does
   MCBN add to it?
M, and the rate of the dropout, are those of the best log score on validation images. A log score is
that of a Gaussian with variance `factor * sd**2 + floor`, both fitted on validation images for
every method alike; "one scale" has one factor instead, on the variance with that of the
quantisation of grey levels. There are only eight flips and turns, so that augmentation has no
more to give with 16 passes; MCBN with augmentation, one draw for each turn, has.

Run: python -m experiments.uses.super_resolution [--fast]
(about 5 minutes on one core; data root in MCBN_DATA)
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mcbn
from experiments.intervals import interval
from experiments.record import Record, asked
from experiments.uses.super_resolution_figure import draw
from experiments.uses.super_resolution_model import (
    FAST,
    FULL,
    Scale,
    Upsampler,
    augmented,
    batch_norm,
    dropped,
    gradient_magnitude,
    held_out,
    trained,
    training_data,
    upsampled,
)
from experiments.uses.super_resolution_scores import (
    Map,
    Scaled,
    fit_scale,
    fit_scale_and_floor,
    log_score,
    psnr,
    scores,
)
from mcbn.samplers.sampler import Sampler
from mcbn.tasks.datasets import LabeledData
from mcbn.tasks.training import build

PASSES = (8, 16)
SIZES = (8, 32)  # M beside the chosen one
PLAIN, GRADIENT, ENSEMBLE = "plain network", "gradient", "ensemble of the networks"
CHOSEN, TURNS, DROPOUT, BOTH = "MCBN, M chosen", "augmentation", "MC Dropout", "MCBN, augmented"
RANK = "rank_correlation"
PAPER = {
    "source": "Kar and Biswas 2021, arXiv 1903.09410, abstract",
    "claim": "the uncertainty map strongly relates to the quality of reconstruction",
}


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    scale = FAST if record.fast else FULL
    files = [record.folder / "parts" / f"{record.name}-{n}.pt" for n in range(scale.seeds)]
    parts = [
        record.part(str(seed), partial(measured, scale, seed, path))
        for seed, path in enumerate(files)
    ]
    networks = [restored(scale, path) for path in files]
    together = record.part("ensemble", partial(ensemble_scores, networks, scale))
    columns = {
        name: {key: [part["methods"][name][key] for part in parts] for key in measures}
        for name, measures in parts[0]["methods"].items()
    }
    result = record.write(
        {
            "paper": PAPER,
            "set_up": set_up(networks[0], scale),
            "chosen": {key: [part["chosen"][key] for part in parts] for key in parts[0]["chosen"]},
            "scales": {name: scales_of(name, parts) for name in columns},
            "comparisons": comparisons(columns),
            "methods": {
                name: {key: interval(values) for key, values in measures.items()}
                for name, measures in columns.items()
            },
            "ensemble": together,
            "networks": columns,
        }
    )
    record.draw(draw(result, maps_of_one(networks, scale, result["chosen"])))
    for path in files:
        path.unlink()


def scales_of(name: str, parts: list[dict[str, Any]]) -> dict[str, list[float]]:
    """What the map of a method was multiplied by, and the floor, over networks."""
    fitted = [part["scales"][name] for part in parts]
    return {
        "multiplier": interval([each["factor"] ** 0.5 for each in fitted]),
        "floor_sd": interval([each["floor_sd"] for each in fitted]),
    }


def restored(scale: Scale, path: Path) -> nn.Module:
    """A trained network from the file of its weights."""
    network = build(lambda: Upsampler(scale.channels, scale.blocks), seed=0)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def set_up(network: nn.Module, scale: Scale) -> dict[str, Any]:
    """What was run, and the quality of bicubic upsampling alone."""
    test = held_out("test", scale)
    inner, target = within(scale)(upsampled(test.inputs)), within(scale)(test.targets)
    count = sum(weights.numel() for weights in network.parameters())
    return {
        **asdict(scale),
        "weights": count,
        "bicubic_psnr": psnr(inner, target),
        "quantisation_sd": scale.step / 12**0.5,
    }


def within(scale: Scale) -> Callable[[Tensor], Tensor]:
    """What takes the scored pixels out of a batch of images, in float64."""

    def cut(images: Tensor) -> Tensor:
        edge = scale.border
        return images[:, 0, edge:-edge, edge:-edge].double()

    return cut


def maps_of(sampler: Sampler, inputs: Tensor, scale: Scale) -> dict[int, Map]:
    """Mean and standard deviation of the first draws, for every number of passes it has."""
    predictive = mcbn.predict(sampler, inputs, mcbn.Gaussian(precision=1.0), progress=False)
    few = {count: predictive.means[:count] for count in {*PASSES, len(sampler)}}
    cut = within(scale)
    return {
        count: Map(cut(means.mean(0)), cut(means.std(0, correction=0)))
        for count, means in few.items()
        if count <= len(sampler)
    }


def measured(scale: Scale, seed: int, path: Path) -> dict[str, Any]:
    """Train a network, choose M and the rate of dropout, and score every method."""
    data = training_data(scale, seed)
    network = trained(data, scale, seed)
    torch.save(network.state_dict(), path)
    validation, test = held_out("val", scale), held_out("test", scale)
    few, most = PASSES
    bank = partial(batch_norm, network, data, seed=seed)
    size_scores = held_out_scores(
        {str(size): bank(size, draws=few) for size in scale.batch_sizes}, validation, scale
    )
    rate_scores = held_out_scores(
        {str(rate): dropped(network, rate, draws=few, seed=seed) for rate in scale.rates},
        validation,
        scale,
    )
    size, rate = (max(each, key=each.__getitem__) for each in (size_scores, rate_scores))
    chosen = bank(int(size), draws=most)
    samplers: dict[str, Sampler] = {
        CHOSEN: chosen,
        **{f"MCBN, M = {each}": bank(each, draws=most) for each in SIZES},
        DROPOUT: dropped(network, float(rate), draws=most, seed=seed),
        TURNS: augmented(network, few),
        BOTH: augmented(chosen, most),
    }
    found, scales = method_scores(network, samplers, (validation, test), scale)
    return {
        "chosen": {
            "batch_size": int(size),
            "rate": float(rate),
            "log_score_of_sizes": size_scores,
            "log_score_of_rates": rate_scores,
        },
        "methods": found,
        "scales": scales,
    }


def held_out_scores(
    samplers: Mapping[str, Sampler], validation: LabeledData, scale: Scale
) -> dict[str, float]:
    """Log score on the validation images, scaled on the same, with 8 passes."""
    target, found = within(scale)(validation.targets), {}
    for name, sampler in samplers.items():
        prediction = maps_of(sampler, validation.inputs, scale)[PASSES[0]]
        found[name] = log_score(prediction, target, fit_scale_and_floor(prediction, target))
    return found


def method_scores(
    network: nn.Module,
    samplers: Mapping[str, Sampler],
    data: tuple[LabeledData, LabeledData],
    scale: Scale,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Test scores of every method at every number of passes, and the factors of its variance."""
    plain = [plain_map(network, part.inputs, scale) for part in data]
    slopes = [within(scale)(gradient_magnitude(part.inputs)) for part in data]
    pairs = {
        PLAIN: plain,
        GRADIENT: [Map(one.mean, slope) for one, slope in zip(plain, slopes, strict=True)],
    }
    for name, sampler in samplers.items():
        both = [maps_of(sampler, part.inputs, scale) for part in data]
        for passes in both[0]:
            pairs[f"{name}, {passes} passes"] = [maps[passes] for maps in both]
    found, scales = {}, {}
    for name, (fitted_on, prediction) in pairs.items():
        found[name], scales[name] = scored(fitted_on, prediction, data, plain=plain[1], scale=scale)
    return found, scales


def plain_map(network: nn.Module, inputs: Tensor, scale: Scale) -> Map:
    """The network with running statistics, and the same uncertainty everywhere."""
    mean = maps_of(mcbn.Deterministic(network), inputs, scale)[1].mean
    return Map(mean, torch.zeros_like(mean))


def scored(
    fitted_on: Map,
    prediction: Map,
    data: tuple[LabeledData, LabeledData],
    *,
    plain: Map,
    scale: Scale,
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores on the test images after scaling on the validation images, and the scales."""
    known, target = (within(scale)(part.targets) for part in data)
    scalings = scalings_of(fitted_on, known, scale)
    found = scores(
        prediction,
        target,
        gradient=within(scale)(gradient_magnitude(data[1].inputs)),
        plain_error=(plain.mean - target).abs(),
        scalings=scalings,
    )
    fitted = scalings["scaled"]
    return found, {"factor": fitted.factor, "floor_sd": fitted.floor**0.5}


def scalings_of(prediction: Map, target: Tensor, scale: Scale) -> dict[str, Scaled]:
    """A scale with a floor, and one scale alone."""
    if not bool(prediction.spread.any()):
        constant = Scaled(0.0, float((prediction.mean - target).square().mean()))
        return {"scaled": constant, "one_scale": constant}
    quantisation = scale.step**2 / 12  # variance of rounding to grey levels
    return {
        "scaled": fit_scale_and_floor(prediction, target),
        "one_scale": fit_scale(prediction, target, quantisation=quantisation),
    }


def ensemble_scores(networks: list[nn.Module], scale: Scale) -> dict[str, Any]:
    """Scores of all networks together: one ensemble, so without an interval."""
    data = held_out("val", scale), held_out("test", scale)
    sampler = mcbn.DeepEnsemble(networks)
    fitted_on, prediction = (maps_of(sampler, part.inputs, scale)[len(networks)] for part in data)
    plain = plain_map(networks[0], data[1].inputs, scale)
    found, factors = scored(fitted_on, prediction, data, plain=plain, scale=scale)
    return {"passes": len(networks), **found, **factors}


def comparisons(columns: Mapping[str, Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """The planned comparisons, then others; differences within a network."""
    first, most = PASSES

    def difference(one: str, other: str, score: str = RANK) -> list[float]:
        pairs = zip(columns[one][score], columns[other][score], strict=True)
        return interval([value - base for value, base in pairs])

    ours = f"{CHOSEN}, {first} passes"
    both_more = f"{BOTH}, {most} passes"
    turns, drop, both = (f"{name}, {first} passes" for name in (TURNS, DROPOUT, BOTH))
    found = {
        "1 rank: MCBN - augmentation": difference(ours, turns),
        "2 rank: MCBN - gradient": difference(ours, GRADIENT),
        "3 partial rank given gradient: MCBN": interval(columns[ours]["partial_given_gradient"]),
        "rank: MCBN - MC Dropout": difference(ours, drop),
        "rank: augmentation - gradient": difference(turns, GRADIENT),
        "rank: MCBN with augmentation - augmentation": difference(both, turns),
        f"rank: MCBN with augmentation, {most} passes - augmentation": difference(both_more, turns),
        f"rank: MCBN with augmentation, {most} passes - gradient": difference(both_more, GRADIENT),
        "log score: MCBN with augmentation - augmentation": difference(
            both, turns, "log_score_scaled"
        ),
        f"log score: MCBN with augmentation, {most} passes - augmentation": difference(
            both_more, turns, "log_score_scaled"
        ),
        f"rank: MCBN, {most} - {first} passes": difference(f"{CHOSEN}, {most} passes", ours),
        f"rank: MCBN with {most} passes - augmentation": difference(
            f"{CHOSEN}, {most} passes", turns
        ),
        "partial rank given gradient: MCBN - augmentation": difference(
            ours, turns, "partial_given_gradient"
        ),
        "partial rank given gradient: MCBN - MC Dropout": difference(
            ours, drop, "partial_given_gradient"
        ),
    }
    for score in ("sparsification_area", "log_score_scaled", "log_score_one_scale", "psnr"):
        for other in (turns, drop, GRADIENT, PLAIN):
            if other != PLAIN or score != "sparsification_area":
                name = other.removesuffix(f", {first} passes")
                found[f"{score}: MCBN - {name}"] = difference(ours, other, score)
    return found


def maps_of_one(
    networks: list[nn.Module], scale: Scale, chosen: Mapping[str, list[Any]]
) -> dict[str, Tensor]:
    """The picture in the middle of the test images, its error and the maps of each method."""
    network, data, test = networks[0], training_data(scale, 0), held_out("test", scale)
    inputs, target = (each[scale.test // 2, None] for each in (test.inputs, test.targets))
    cut, passes = within(scale), PASSES[0]
    samplers: dict[str, Sampler] = {
        f"MCBN, M = {chosen['batch_size'][0]}": batch_norm(
            network, data, chosen["batch_size"][0], draws=passes, seed=0
        ),
        TURNS: augmented(network, passes),
        DROPOUT: dropped(network, chosen["rate"][0], draws=passes, seed=0),
        ENSEMBLE: mcbn.DeepEnsemble(networks),
    }
    plain = plain_map(network, inputs, scale)
    return {
        "image": cut(target)[0],
        "prediction": plain.mean[0],
        "error": (plain.mean - cut(target)).abs()[0],
        GRADIENT: cut(gradient_magnitude(inputs))[0],
    } | {name: maps_of(each, inputs, scale)[len(each)].spread[0] for name, each in samplers.items()}


if __name__ == "__main__":
    main(asked("super_resolution"))
