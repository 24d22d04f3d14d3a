"""Scores of real targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mcbn import validation
from mcbn.evaluation import formulas, intervals
from mcbn.evaluation.bootstrap import Counts, ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.weighted import MeanScores
from mcbn.network.targets import Targets
from mcbn.predictive import mixture
from mcbn.predictive.gaussian import GaussianPredictive

# The columns whose means the scores are computed from.
REAL_MEANS = ("error", "log_prob", "crps", "crps_moment_matched", "inside", "width")


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
    means = {name: columns[name].mean() for name in REAL_MEANS}
    return {name: float(value) for name, value in _scores_of_means(means).items()}


@dataclass(frozen=True, eq=False)
class WeightedRealScores:
    """The same of resamples, from how often each cluster was drawn.

    Attributes:
        means: what they are computed from.
    """

    means: MeanScores

    @classmethod
    def of(cls, columns: ScoreColumns, clusters: Clusters) -> "WeightedRealScores":
        """Add up what every cluster has; the arguments are those of `MeanScores.of`."""
        return cls(MeanScores.of({name: columns[name] for name in REAL_MEANS}, clusters))

    def __call__(self, counts: Counts) -> dict[str, Any]:
        """The scores of resamples in which each cluster was drawn so often."""
        return _scores_of_means(self.means(counts))


def real_replicates(
    columns: ScoreColumns, clusters: Clusters | None, **options: Any
) -> dict[str, Tensor]:
    """Replicates of all scores of real targets."""
    whole = clusters or Clusters.alone(len(columns["error"]))
    return intervals.weighted_replicates(
        columns, whole, WeightedRealScores.of(columns, whole),
        kind=lambda rows, _: intervals.pit_gaps(rows, clusters), **options,
    )  # fmt: skip


def _scores_of_means(means: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rmse": means["error"] ** 0.5,
        "pll": means["log_prob"],
        "crps": means["crps"],
        "crps_moment_matched": means["crps_moment_matched"],
        "coverage_90": means["inside"],
        "width_90": means["width"],
    }
