"""What is measured of predictions against targets: columns of examples, and scores of them."""

import math

from torch import Tensor

from mcbn import validation
from mcbn.evaluation import calibration, detection, scores
from mcbn.evaluation.bootstrap import Columns
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive


def class_columns(predictive: CategoricalPredictive, targets: Tensor) -> Columns:
    """What the scores of classes are made from, one row an example."""
    device = predictive.log_probabilities.device
    targets = validation.tensor(targets, "targets").to(device)
    found = {
        "nll": scores.negative_log_likelihood(predictive.log_probabilities, targets),
        "brier": scores.brier(predictive.probabilities, targets),
        "correct": scores.correct(predictive.probabilities, targets),
        "confidence": predictive.confidence,
        "probabilities": predictive.probabilities,
        "targets": targets,
    }
    return {name: values.cpu() for name, values in found.items()}


def class_scores(columns: Columns) -> dict[str, float]:
    """All scores of classes."""
    others = class_other_scores(columns)
    first = {name: others.pop(name) for name in ("accuracy", "nll", "brier")}
    return {**first, **_calibration_errors(columns), **others}


def class_other_scores(columns: Columns) -> dict[str, float]:
    """The scores of classes that are resampled as they are: all but calibration errors."""
    correct, confidence = columns["correct"].flatten(), columns["confidence"].flatten()
    selective = detection.risk_coverage(1 - confidence, ~correct)
    # Without a single error, or a single success, there is nothing to tell apart.
    mixed = bool(correct.any()) and not bool(correct.all())
    return {
        "accuracy": float(correct.double().mean()),
        "nll": float(columns["nll"].mean()),
        "brier": float(columns["brier"].mean()),
        "aurc": selective.area,
        "e_aurc": selective.excess_area,
        "augrc": selective.generalised_area,
        "auroc_of_errors": detection.auroc(1 - confidence, ~correct) if mixed else math.nan,
    }


def _calibration_errors(columns: Columns) -> dict[str, float]:
    flags = columns["confidence"].flatten(), columns["correct"].flatten()
    reliability = calibration.Reliability.from_predictions(*flags)
    return {
        "ece": reliability.expected_error,
        "ece_equal_mass": calibration.expected_calibration_error(*flags, binning="mass"),
        "ece_debiased": calibration.debiased_calibration_error(*flags),
        "ece_classwise": calibration.classwise_calibration_error(
            columns["probabilities"], columns["targets"]
        ),
        "ece_smooth": calibration.smooth_calibration_error(*flags),
        "mce": reliability.maximum_error,
    }


def real_columns(predictive: GaussianPredictive, targets: Tensor) -> Columns:
    """What the scores of real targets are made from, one row an example."""
    aligned = predictive.aligned(targets)
    low, high = predictive.interval(0.9)
    found = {
        "error": scores.squared_error(predictive.mean, aligned),
        "log_prob": predictive.log_prob(aligned),
        "crps": predictive.crps(aligned),
        "crps_moment_matched": predictive.crps_moment_matched(aligned),
        "inside": ((aligned >= low) & (aligned <= high)).double(),
        "width": high - low,
        "pit": predictive.cdf(aligned),
    }
    return {name: values.cpu() for name, values in found.items()}


def real_scores(columns: Columns) -> dict[str, float]:
    """All scores of real targets."""
    return {
        "rmse": float(columns["error"].mean().sqrt()),
        "pll": float(columns["log_prob"].mean()),
        "crps": float(columns["crps"].mean()),
        "crps_moment_matched": float(columns["crps_moment_matched"].mean()),
        "coverage_90": float(columns["inside"].mean()),
        "width_90": float(columns["width"].mean()),
        "pit_error": calibration.quantile_calibration_error(columns["pit"].flatten()),
    }
