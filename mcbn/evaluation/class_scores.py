"""Scores of classes of which an example, or a position, has one."""

import math
from typing import Any

import torch
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import formulas, intervals, scores
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.reliability import equal_mass, equal_width
from mcbn.evaluation.weighted import MEANS, WeightedClassScores
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import CategoricalPredictive


def class_columns(predictive: CategoricalPredictive, targets: Targets) -> ScoreColumns:
    """Check predictions and class indices, and return what their scores are computed from.

    Each column has one row per example.

    Raises:
        TypeError: targets of the wrong kind.
        ValueError: probabilities that are none, or targets that do not fit.
    """
    targets = as_targets(targets).to(predictive.log_probabilities.device)
    # This checks the probabilities and the targets; what follows trusts them.
    nll = scores.negative_log_likelihood(predictive.log_probabilities, targets)
    probabilities, confidence = predictive.probabilities, predictive.confidence
    validation.unit_interval(confidence.flatten(), "confidence")
    columns = {
        "nll": nll,
        "brier": formulas.brier(probabilities, targets),
        "correct": formulas.correct(probabilities, targets),
        "confidence": confidence,
        "probabilities": probabilities,
        "targets": targets,
    }
    return {name: values.cpu() for name, values in columns.items()}


def rows_of_positions(columns: ScoreColumns) -> ScoreColumns:
    """What the scores of classes are computed from, with a row for each position."""
    return {
        name: values.movedim(1, -1).flatten(0, -2) if name == "probabilities" else values.flatten()
        for name, values in columns.items()
    }


def class_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return all scores of classes."""
    plain = plain_class_scores(columns)
    first = {name: plain.pop(name) for name in MEANS if name in plain}
    return {**first, **_calibration_errors(columns), **plain}


def plain_class_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return the scores whose replicates are those of resamples: all but calibration errors."""
    correct, confidence = columns["correct"].flatten(), columns["confidence"].flatten()
    _, _, area, excess, generalized = formulas.risk_coverage(1 - confidence, ~correct)
    # Without a single error, or a single success, there is nothing to detect.
    mixed = bool(correct.any()) and not bool(correct.all())
    return {
        **{
            name: float(columns[column].double().mean())
            for name, column in MEANS.items()
            if column in columns
        },
        "aurc": area,
        "e_aurc": excess,
        "augrc": generalized,
        "auroc_of_errors": formulas.auroc(1 - confidence, ~correct) if mixed else math.nan,
    }


def _calibration_errors(columns: ScoreColumns) -> dict[str, float]:
    # Rounding may lift a confidence over 1.
    flags = columns["confidence"].flatten().clamp(max=1), columns["correct"].flatten()
    width, mass = equal_width(*flags), equal_mass(*flags)
    return {
        "ece": width.expected_error,
        "ece_equal_mass": mass.expected_error,
        "ece_debiased": mass.debiased_error,
        "ece_classwise": formulas.classwise_calibration_error(
            columns["probabilities"], columns["targets"]
        ),
        "ece_smooth": formulas.smooth_calibration_error(*flags),
        "mce": width.maximum_error,
    }


def class_replicates(
    columns: ScoreColumns, clusters: Clusters | None, **options: Any
) -> dict[str, Tensor]:
    """Replicates of all scores of classes; positions are rows of the cluster of their example."""
    cases = columns["nll"]
    whole = clusters or Clusters.alone(len(cases))
    if cases.ndim > 1:
        whole = whole.spread(torch.arange(len(cases)).repeat_interleave(cases[0].numel()))
        columns = rows_of_positions(columns)
    measure = WeightedClassScores.of(columns, whole)
    # Where every row is drawn by itself, all resamples have as many.
    drawn_whole = None if clusters is None and cases.ndim == 1 else whole
    return intervals.weighted_replicates(
        columns, whole, measure, kind=lambda rows, _: intervals.class_gaps(rows, drawn_whole),
        **options,
    )  # fmt: skip
