"""Scores of the image experiment: intervals, paired differences, temperatures, detection."""

import math
import statistics
from dataclasses import replace
from typing import Any

from scipy.optimize import minimize_scalar
from torch import Tensor

import mcbn
from mcbn import CategoricalPredictive as Predictive
from mcbn.evaluation import bootstrap, detection, scores

LEVEL = 0.95  # of intervals
SCORES = ("accuracy", "nll", "ece", "ece_debiased")
DOUBTS = ("entropy", "mutual_information", "maximum probability")


def averaged(draws: Tensor) -> Predictive:
    """The predictive of several draws of logits."""
    return mcbn.Categorical().summarize(draws.unbind(0))


def scored(
    predictive: Predictive, targets: Tensor, *, resamples: int, seed: int
) -> mcbn.Evaluation:
    """All scores, with intervals."""
    return mcbn.evaluate(predictive, targets, resamples=resamples, seed=seed, progress=False)


def row(evaluation: mcbn.Evaluation) -> dict[str, list[float]]:
    """The scores of the experiment as lists of value and interval."""
    return {name: interval(evaluation[name]) for name in SCORES}


def interval(score: mcbn.Score) -> list[float]:
    """Value and interval."""
    return [score.value, score.low, score.high]


def gap(one: mcbn.Evaluation, other: mcbn.Evaluation, name: str = "nll") -> list[float]:
    """Paired difference of a score, with its interval."""
    return interval(one.minus(other)[name])


def mean_and_error(values: list[float]) -> list[float | None]:
    """Mean and standard error; the latter is None for a single value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return [statistics.fmean(values), error]


def mean_interval(values: Tensor, *, resamples: int, seed: int) -> list[float]:
    """Mean over images with its bootstrap interval."""
    replicates = bootstrap.replicates(
        [{"values": values}], lambda rows: {"mean": float(rows["values"].mean())},
        resamples=resamples, seed=seed, progress=False,
    )  # fmt: skip
    return [float(values.mean()), *bootstrap.percentile_interval(replicates["mean"], LEVEL)]


def part(predictive: Predictive, images: slice) -> Predictive:
    """The predictive of some of the images alone."""
    names = ("log_probabilities", "expected_entropy", "variance", "variation_ratio")
    return replace(predictive, **{name: getattr(predictive, name)[images] for name in names})


def against_plain(
    pairs: dict[str, tuple[Predictive, Predictive]], *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """AUROC of each uncertainty of each method, and less the plain network's by its entropy.

    Pairs are predictives of images from inside and from outside; the plain network's come first.
    """
    rows: dict[str, dict[str, Any]] = {}
    base = None
    for name, pair in pairs.items():
        rows[name] = {}
        for doubt in DOUBTS:
            value, resampled = auroc(pair, doubt, resamples=resamples, seed=seed)
            base = base or (value, resampled)
            if name == "plain" and doubt == "mutual_information":
                continue  # a single draw has none
            ends = bootstrap.percentile_interval(resampled, LEVEL)
            gaps = bootstrap.percentile_interval(resampled - base[1], LEVEL)
            rows[name][doubt] = [value, *ends]
            rows[name][f"{doubt}, minus plain entropy"] = [value - base[0], *gaps]
    return rows


def auroc(
    pair: tuple[Predictive, Predictive], doubt: str, *, resamples: int, seed: int
) -> tuple[float, Tensor]:
    """AUROC and its bootstrap replicates, the same images resampled for every method."""
    inside, outside = pair
    if doubt != "maximum probability":
        separation = mcbn.out_of_distribution(
            inside, outside, uncertainty=doubt, resamples=resamples, seed=seed
        )["auroc_out_of_distribution"]
        return separation.value, separation.replicates

    def measure(rows: bootstrap.ScoreColumns) -> dict[str, float]:
        separation = detection.out_of_distribution(rows["inside"], rows["outside"])
        return {"auroc": separation.auroc}

    # Surprise, not one minus confidence, which is rounded to 0 where the network is sure.
    groups = [{"inside": -inside.log_probabilities.amax(1)},
              {"outside": -outside.log_probabilities.amax(1)}]  # fmt: skip
    separation = bootstrap.replicates(
        groups, measure, resamples=resamples, seed=seed, progress=False
    )
    return measure({**groups[0], **groups[1]})["auroc"], separation["auroc"]


def temperature(predictive: Predictive, targets: Tensor) -> float:
    """The temperature of the averaged probabilities with the lowest mean NLL."""

    def loss(power: float) -> float:
        logs = tempered(predictive, math.exp(power)).log_probabilities
        return float(scores.negative_log_likelihood(logs, targets).mean())

    return math.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)


def tempered(predictive: Predictive, by: float) -> Predictive:
    """The predictive with its log-probabilities divided by a temperature."""
    return replace(predictive, log_probabilities=(predictive.log_probabilities / by).log_softmax(1))
