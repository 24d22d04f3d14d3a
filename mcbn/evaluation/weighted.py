"""Scores of classes in a resample, from how often each cluster of rows was drawn.

The rows are sorted once, and no row is copied: of a million pixels a resample by rows would sort
them all again. The numbers are those of `formulas` for the drawn rows, one after another.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from scipy.special import digamma
from torch import Tensor

from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters

Counts = Float64[np.ndarray, " clusters"]
# Scores that are means, and the columns that they are means of. Not all are always known.
MEANS = {
    "accuracy": "correct", "nll": "nll", "nll_calibrated": "nll_calibrated",
    "nll_extrapolated": "nll_extrapolated", "brier": "brier",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class WeightedClassScores:
    """The scores of a resample of clusters, all but the calibration errors.

    Attributes:
        sums: of each mean score, what every cluster adds to it.
        sizes: rows of every cluster.
        cluster: of each row, the most certain row first.
        rows: how many rows of the data each stands for, in that order; usually one.
        errors: how many of them are errors.
        ends: where each run of equally certain rows ends.
    """

    sums: dict[str, Float64[np.ndarray, " clusters"]]
    sizes: Float64[np.ndarray, " clusters"]
    cluster: Int[np.ndarray, " rows"]
    rows: Float64[np.ndarray, " rows"]
    errors: Float64[np.ndarray, " rows"]
    ends: Int[np.ndarray, " runs"]

    @classmethod
    def of(cls, columns: ScoreColumns, clusters: Clusters) -> "WeightedClassScores":
        """Sort the rows, and add up what every cluster has.

        Args:
            columns: what the scores are computed from, one row each, without positions.
            clusters: of the rows.
        """

        def total(values: Tensor) -> np.ndarray:
            sums = torch.zeros(len(clusters), dtype=torch.float64)
            added: np.ndarray = sums.index_add(0, clusters.of_row, values.double()).numpy()
            return added

        sums = {name: total(columns[column]) for name, column in MEANS.items() if column in columns}
        # As `risk_coverage` is given it, so that ties are the same.
        return cls.of_ranks(1 - columns["confidence"], columns["correct"], clusters, sums)

    @classmethod
    def of_ranks(
        cls,
        uncertainty: Float64[Tensor, " rows"],
        correct: Bool[Tensor, " rows"],
        clusters: Clusters,
        sums: dict[str, Float64[np.ndarray, " clusters"]],
    ) -> "WeightedClassScores":
        """Sort the rows by any uncertainty.

        Args:
            uncertainty: of each row.
            correct: whether its answer is right.
            clusters: of the rows.
            sums: of mean scores; none for the areas alone.
        """
        ranked, order = uncertainty.sort()
        last = torch.cat([ranked.diff() != 0, torch.ones(1, dtype=torch.bool)])
        return cls(
            sums,
            clusters.sizes.double().numpy(),
            clusters.of_row[order].numpy(),
            np.ones(len(order)),
            (~correct[order]).double().numpy(),
            last.nonzero()[:, 0].numpy(),
        )

    def __call__(self, counts: Counts) -> dict[str, float]:
        """The scores of a resample in which each cluster was drawn so often."""
        rows = float(self.sizes @ counts)
        means = {name: float(sums @ counts) / rows for name, sums in self.sums.items()}
        times = counts[self.cluster]
        drawn = self._in_runs(times * self.rows)
        losses = self._in_runs(times * self.errors)
        kept = drawn > 0
        return {**means, **_areas(drawn[kept], losses[kept])}

    def _in_runs(self, values: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " runs"]:
        sums: np.ndarray = np.diff(values.cumsum()[self.ends], prepend=0.0)
        return sums


def _areas(
    drawn: Float64[np.ndarray, " runs"], losses: Float64[np.ndarray, " runs"]
) -> dict[str, float]:
    """The areas under risk-coverage curves, from the rows and errors of each run of ties.

    Every row of a run costs the mean of the run. With n rows and A errors before a run of W rows
    whose mean is m, the risks of the run add up to `sum_j (A + j m) / (n + j)`, j from 1 to W,
    which is `m W + (A - m n) (H(n + W) - H(n))` with the harmonic numbers H.
    """
    number, errors = drawn.cumsum(), losses.cumsum()
    before, wrong_before = number - drawn, errors - losses
    rows, wrong = number[-1], errors[-1]
    mean = losses / drawn
    steps = _harmonic(number) - _harmonic(before)
    area = float((losses + (wrong_before - mean * before) * steps).sum()) / rows
    right = rows - wrong
    best = (wrong - right * float(_harmonic(rows) - _harmonic(right))) / rows
    accepted = float((wrong_before * drawn + mean * drawn * (drawn + 1) / 2).sum())
    found = {
        "aurc": area,
        "e_aurc": area - best,
        "augrc": (accepted - wrong / 2) / rows**2,
        "auroc_of_errors": math.nan,
    }
    if 0 < wrong < rows:
        right_below = before - wrong_before
        pairs = losses * (right_below + (drawn - losses) / 2)
        found["auroc_of_errors"] = float(pairs.sum()) / float(wrong * right)
    return {name: float(value) for name, value in found.items()}


def _harmonic(numbers: Any) -> Any:
    """Harmonic numbers, but for Euler's constant, which differences do not have."""
    return digamma(numbers + 1.0)
