"""Scores of real targets."""

from mcbn import validation
from mcbn.evaluation import formulas
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.network.targets import Targets
from mcbn.predictive import mixture
from mcbn.predictive.gaussian import GaussianPredictive


def real_columns(predictive: GaussianPredictive, targets: Targets) -> ScoreColumns:
    """Check real targets, and return what their scores are computed from, one row per example.

    Raises:
        ValueError: targets that do not fit or are not finite.
    """
    aligned = predictive.aligned(targets)
    mean = predictive.mean
    columns = mixture.forecast_scores(
        predictive.means, predictive.variances, aligned,
        mean=mean, variance=predictive.variance, level=0.9,
    )  # fmt: skip
    low, high = columns.pop("low"), columns.pop("high")
    columns |= {
        "error": formulas.squared_error(mean, aligned),
        "inside": ((aligned >= low) & (aligned <= high)).double(),
        "width": high - low,
    }
    return {name: values.cpu() for name, values in columns.items()}


def real_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return all scores of real targets."""
    pit = validation.unit_interval(columns["pit"].flatten(), "pit")
    return {
        **plain_real_scores(columns),
        "pit_error": formulas.quantile_calibration_error(pit),
    }


def plain_real_scores(columns: ScoreColumns) -> dict[str, float]:
    """Return the scores whose replicates are those of resamples: all but the PIT error."""
    return {
        "rmse": float(columns["error"].mean().sqrt()),
        "pll": float(columns["log_prob"].mean()),
        "crps": float(columns["crps"].mean()),
        "crps_moment_matched": float(columns["crps_moment_matched"].mean()),
        "coverage_90": float(columns["inside"].mean()),
        "width_90": float(columns["width"].mean()),
    }
