"""Scores of dense predictions, from sums over the labelled pixels of each image."""

import numpy as np
import torch
from torch import Tensor

import mcbn
from experiments.data.camvid import CLASSES, IGNORED
from mcbn.evaluation import bootstrap, intervals, scores
from mcbn.evaluation.bootstrap import Counts, ScoreColumns
from mcbn.evaluation.calibration import Reliability
from mcbn.evaluation.detection import auroc, risk_coverage

COUNT = len(CLASSES)
BINS = 15  # of confidence
BOUNDS = (0, 1, 2, 4, 6, 10, 16, 32)  # upper ends of the groups, in pixels; the last has none
GROUPS = ("0", "1", "2", "3-4", "5-6", "7-10", "11-16", "17-32", "33 and more")  # of pixels
NEAR, FAR = 2, 10  # pixels: up to NEAR is the boundary, beyond FAR the interior
UNCERTAINTIES = ("entropy", "mutual information")


def image_row(
    predictive: mcbn.CategoricalPredictive, labels: Tensor, distance: Tensor
) -> dict[str, Tensor]:
    """Sums over the labelled pixels of one image, from which sets of images are scored."""
    known = labels != IGNORED
    truth, logs = labels[known].long(), predictive.log_probabilities[0][:, known].T
    probabilities, chosen = logs.exp(), logs.argmax(1)
    wrong = chosen != truth
    forecasts = [(probabilities.amax(1), ~wrong)]
    forecasts += [(probabilities[:, label], truth == label) for label in range(COUNT)]
    bins = [Reliability.from_predictions(*each, bins=BINS) for each in forecasts]
    maps = uncertainty_maps(predictive, known)
    group = torch.bucketize(distance[known], torch.tensor(BOUNDS))
    confidence = torch.stack([each.confidence for each in bins]).nan_to_num(0.0)  # of empty bins
    row = {
        "confusion": (COUNT * truth + chosen).bincount(minlength=COUNT**2),
        "nll": scores.negative_log_likelihood(logs, truth).sum(),
        "counts": torch.stack([each.counts for each in bins]),
        "correct": torch.stack([each.correct_counts for each in bins]),
        "confidence": torch.stack([each.confidence_parts for each in bins]),
    }
    row["gaps"] = row["correct"] - row["counts"] * confidence
    summed = {"pixels": torch.ones_like(wrong), "error": wrong, **maps}
    for name, values in summed.items():
        row[f"{name} by distance"] = group.bincount(values.double(), minlength=len(BOUNDS) + 1)
    for name, values in maps.items():
        row[f"AUROC by {name}"] = torch.tensor(auroc(values, wrong))
        row[f"AURC by {name}"] = torch.tensor(risk_coverage(values, wrong).area)
    return row


def uncertainty_maps(predictive: mcbn.CategoricalPredictive, known: Tensor) -> dict[str, Tensor]:
    """Uncertainty measures of the labelled pixels; a single draw has no mutual information."""
    both = (predictive.entropy, predictive.mutual_information)
    names = UNCERTAINTIES if predictive.draw_count > 1 else UNCERTAINTIES[:1]
    return {name: values[0][known] for name, values in zip(names, both, strict=False)}


def measure(columns: ScoreColumns) -> dict[str, float]:
    """The scores of a set of images."""
    confusion = columns["confusion"].sum(0).view(COUNT, COUNT).double()
    pixels, hits = confusion.sum(), confusion.diagonal()
    # NaN for a class that is neither present nor predicted.
    overlaps = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    sums = (columns[name].sum(0) for name in ("counts", "correct", "confidence"))
    edges = torch.arange(BINS + 1, dtype=torch.float64) / BINS
    gaps = [Reliability(*each, edges).expected_error for each in zip(*sums, strict=True)]
    measures = {
        "mean IoU": float(overlaps.nanmean()),
        "pixel accuracy": float(hits.sum() / pixels),
        "pixel NLL": float(columns["nll"].sum() / pixels),
        "ECE": gaps[0],
        "class-wise ECE": sum(gaps[1:]) / COUNT,
        **{name: float(each.mean()) for name, each in columns.items() if name.startswith("AU")},
    }
    measures |= {f"IoU of {name}": float(overlaps[i]) for i, name in enumerate(CLASSES)}
    measures |= {f"ECE of {name}": gaps[1 + i] for i, name in enumerate(CLASSES)}
    return measures | along_distance(columns)


def calibration_replicates(
    columns: ScoreColumns, *, resamples: int, seed: int
) -> dict[str, Tensor]:
    """Replicates of the calibration errors by the method of `mcbn.evaluate`, of whole images.

    Each has a leading axis of two shapes.
    """
    gaps, pixels = columns["gaps"], columns["pixels by distance"].sum(1)

    def measured(counts: Counts) -> dict[str, Tensor]:
        drawn = torch.from_numpy(counts.T).double()
        shares = torch.tensordot(drawn, gaps, 1) / (drawn @ pixels)[..., None, None]
        by_class = {f"ECE of {name}": shares[..., 1 + i, :] for i, name in enumerate(CLASSES)}
        classwise = shares[..., 1:, :].flatten(-2) / COUNT
        return {"ECE": shares[..., 0, :], "class-wise ECE": classwise, **by_class}

    observed = {name: each[0] for name, each in measured(np.ones((len(gaps), 1))).items()}
    drawn = bootstrap.counted_replicates([len(gaps)], measured, resamples=resamples, seed=seed)
    return {name: intervals.errors(observed[name], each, 1.0) for name, each in drawn.items()}


def along_distance(columns: ScoreColumns) -> dict[str, float]:
    """Errors and uncertainty by distance to the nearest boundary, and ratios near / far.

    The epistemic share is mean mutual information divided by mean entropy.
    """
    counts = columns["pixels by distance"].sum(0)
    upper = torch.tensor([*BOUNDS, float("inf")])
    near, far = upper <= NEAR, upper > FAR
    measures = {"share of pixels near": float(counts[near].sum() / counts.sum())}
    measures["share of pixels far"] = float(counts[far].sum() / counts.sum())
    for name in ("error", *UNCERTAINTIES):
        if f"{name} by distance" not in columns:
            continue
        sums = columns[f"{name} by distance"].sum(0)
        close, away = sums[near].sum() / counts[near].sum(), sums[far].sum() / counts[far].sum()
        measures |= {f"mean {name}": float(sums.sum() / counts.sum()), f"{name} near": float(close)}
        measures |= {f"{name} far": float(away), f"{name} near over far": float(close / away)}
        means = (sums / counts).tolist()
        measures |= {f"{name} at {group}": mean for group, mean in zip(GROUPS, means, strict=True)}
    total, epistemic = UNCERTAINTIES
    if f"{epistemic} near" in measures:
        for place in ("near", "far"):
            measures[f"epistemic share {place}"] = (
                measures[f"{epistemic} {place}"] / measures[f"{total} {place}"]
            )
    return measures
