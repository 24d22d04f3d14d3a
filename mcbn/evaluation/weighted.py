"""Scores of classes in resamples, from how often each cluster of rows was drawn.

The rows are sorted once, and no row is copied: of a million pixels a resample by rows would sort
them all again. The numbers are those of `formulas` for the drawn rows, one after another.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Num
from scipy.sparse import csr_array
from scipy.special import digamma
from torch import Tensor

from mcbn.evaluation.bootstrap import Counts, ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.sums import dense_if_filled

# Scores that are means, and the columns that they are means of. Not all are always known.
MEANS = {
    "accuracy": "correct", "nll": "nll", "nll_calibrated": "nll_calibrated",
    "nll_extrapolated": "nll_extrapolated", "brier": "brier",
}  # fmt: skip
AREAS = ("aurc", "e_aurc", "augrc", "auroc_of_errors")


def one_by_one(
    measure: Callable[[Counts], Mapping[str, Any]],
) -> Callable[[Counts], dict[str, Tensor]]:
    """Measures several resamples, one after another, by the measure of a single one."""

    def measured(counts: Counts) -> dict[str, Tensor]:
        every = [measure(column) for column in counts.T]
        return {
            name: torch.stack([torch.as_tensor(each[name], dtype=torch.float64) for each in every])
            for name in every[0]
        }

    return measured


@dataclass(frozen=True, eq=False)
class MeanScores:
    """Scores that are means over the rows of a resample.

    Attributes:
        sums: of each, what every cluster adds to it.
        sizes: rows of every cluster.
    """

    sums: dict[str, Float64[np.ndarray, " clusters"]]
    sizes: Float64[np.ndarray, " clusters"]

    @classmethod
    def of(cls, columns: ScoreColumns, clusters: Clusters) -> "MeanScores":
        """Add up what the rows of every cluster have.

        Args:
            columns: of each score, one row each; further axes are of values of a row.
            clusters: of the rows.
        """

        def total(values: Tensor) -> np.ndarray:
            of_rows = values.double().reshape(len(values), -1).mean(1).cpu()
            sums = torch.zeros(len(clusters), dtype=torch.float64)
            added: np.ndarray = sums.index_add(0, clusters.of_row, of_rows).numpy()
            return added

        sums = {name: total(values) for name, values in columns.items()}
        return cls(sums, clusters.sizes.double().numpy())

    @cached_property
    def _finite(self) -> Float64[np.ndarray, "scores clusters"]:
        """The finite sums, with 0 for others, and the sizes."""
        sums = [np.where(np.isfinite(each), each, 0.0) for each in self.sums.values()]
        return np.stack([*sums, self.sizes])

    @cached_property
    def _infinite(self) -> dict[str, list[tuple[float, Int[np.ndarray, " some"]]]]:
        """The other sums, by score, and the clusters that have them; most scores have none."""
        values: dict[float, Any] = {
            math.inf: np.isposinf,
            -math.inf: np.isneginf,
            math.nan: np.isnan,
        }
        return {
            name: [(value, has(sums).nonzero()[0]) for value, has in values.items()]
            for name, sums in self.sums.items()
            if not np.isfinite(sums).all()
        }

    def __call__(self, counts: Counts) -> dict[str, Any]:
        """The means of resamples in which each cluster was drawn so often.

        One is infinite only where a cluster with an infinite value was drawn.
        """
        *totals, rows = self._finite @ counts
        means = {name: total / rows for name, total in zip(self.sums, totals, strict=True)}
        for name, places in self._infinite.items():
            for value, clusters in places:
                if len(clusters):
                    drawn = counts[clusters].any(0)
                    means[name] = means[name] + np.where(drawn, value, 0.0)
        return means


@dataclass(frozen=True, eq=False)
class WeightedClassScores:
    """The scores of resamples of clusters, all but the calibration errors.

    Attributes:
        means: the scores that are means.
        cluster: of each row, the most certain row first.
        wrong: the places of the errors in that order.
        starts: where each run of equally certain rows that has an error begins.
        ends: where it ends, beyond its last row.
        until: how many of the places of errors there are up to its end.
    """

    means: MeanScores
    cluster: Int[np.ndarray, " rows"]
    wrong: Int[np.ndarray, " errors"]
    starts: Int[np.ndarray, " runs"]
    ends: Int[np.ndarray, " runs"]
    until: Int[np.ndarray, " runs"]

    @classmethod
    def of(cls, columns: ScoreColumns, clusters: Clusters) -> "WeightedClassScores":
        """Sort the rows, and add up what every cluster has.

        Args:
            columns: what the scores are computed from, one row each, without positions.
            clusters: of the rows.
        """
        known = {name: columns[column] for name, column in MEANS.items() if column in columns}
        # As `risk_coverage` is given it, so that ties are the same.
        uncertainty = 1 - columns["confidence"]
        means = MeanScores.of(known, clusters)
        return cls.of_ranks(uncertainty, columns["correct"], clusters, means)

    @classmethod
    def of_ranks(
        cls,
        uncertainty: Float64[Tensor, " rows"],
        correct: Bool[Tensor, " rows"],
        clusters: Clusters,
        means: MeanScores | None = None,
    ) -> "WeightedClassScores":
        """Sort the rows by any uncertainty.

        Args:
            uncertainty: of each row.
            correct: whether its answer is right.
            clusters: of the rows.
            means: the mean scores; None for the areas alone.
        """
        ranked, order = uncertainty.sort()
        ends = torch.cat([ranked.diff() != 0, torch.ones(1, dtype=torch.bool)])
        last = ends.nonzero()[:, 0].numpy()
        wrong = (~correct[order]).numpy().nonzero()[0]
        # Runs that hold an error, and the number of errors up to the end of each: on these alone
        # the areas depend.
        run, places = np.unique(np.searchsorted(last, wrong), return_counts=True)
        starts = np.where(run > 0, last[run - 1] + 1, 0)
        return cls(
            means or MeanScores.of({}, clusters), clusters.of_row[order].numpy(), wrong, starts,
            last[run] + 1, places.cumsum(),
        )  # fmt: skip

    def __call__(self, counts: Counts) -> dict[str, Any]:
        """The scores of resamples in which each cluster was drawn so often."""
        return {**self.means(counts), **self.areas(counts)}

    def areas(self, counts: Counts) -> dict[str, Any]:
        """The areas under risk-coverage curves alone."""
        if counts.ndim == 1:
            return self._areas(counts)
        every = [self._areas(column) for column in counts.T]
        return {name: np.array([each[name] for each in every]) for name in AREAS}

    def _areas(self, counts: Counts) -> dict[str, float]:
        """The areas of one resample."""
        times = counts.take(self.cluster)
        until, wrong_until = _running(times), _running(times.take(self.wrong))
        before, number = until.take(self.starts), until.take(self.ends)
        wrong_before = wrong_until.take(self.until[:-1], mode="clip")
        wrong_before = np.concatenate([np.zeros(min(1, len(number))), wrong_before])
        loss = wrong_until.take(self.until) - wrong_before
        return _areas_of_runs(
            (before, number - before, wrong_before, loss), until[-1], harmonic=self._harmonic
        )

    @cached_property
    def _harmonics(self) -> Float64[np.ndarray, " numbers"]:
        """Harmonic numbers up to that of twice as many rows as there are."""
        return np.asarray(harmonic_number(np.arange(2 * len(self.cluster) + 1)))

    def _harmonic(self, numbers: Any) -> Any:
        # Of clusters that are all large, a resample may have more rows than are listed.
        if numbers.dtype.kind in "iu" and numbers.max(initial=0) < len(self._harmonics):
            return self._harmonics.take(numbers)
        return harmonic_number(numbers)


@dataclass(frozen=True, eq=False)
class CellScores:
    """The scores of resamples of clusters whose rows are known by cells of confidence alone.

    The rows of a cell count as equally certain. All resamples are products with matrices.

    Attributes:
        means: the scores that are means.
        rows: of each cell, the most certain first, how many rows every cluster has in it.
        errors: how many of them are errors.
    """

    means: MeanScores
    rows: csr_array
    errors: csr_array

    def __call__(self, counts: Counts) -> dict[str, Any]:
        """The scores of resamples in which each cluster was drawn so often."""
        drawn, losses = (matrix @ counts.astype(np.float64) for matrix in self._matrices)
        until, wrong_until = drawn.cumsum(0), losses.cumsum(0)
        runs = until - drawn, drawn, wrong_until - losses, losses
        has_errors = np.diff(self.errors.indptr) > 0
        # Copied, so that the values of a resample lie side by side.
        chosen = [np.ascontiguousarray(each[has_errors].T) for each in runs]
        means = self.means(counts)
        if counts.ndim == 1:
            return {**means, **_areas_of_runs(chosen, until[-1], harmonic=harmonic_number)}
        every = [
            _areas_of_runs(run, rows, harmonic=harmonic_number)
            for *run, rows in zip(*chosen, until[-1], strict=True)
        ]
        return {**means, **{name: np.array([each[name] for each in every]) for name in AREAS}}

    @cached_property
    def _matrices(self) -> tuple[Any, Any]:
        """The rows and the errors."""
        return dense_if_filled(self.rows), dense_if_filled(self.errors)


def _areas_of_runs(
    runs: Sequence[np.ndarray], rows: np.number[Any], *, harmonic: Callable[[Any], Any]
) -> dict[str, float]:
    """The areas of a resample from its runs of equally certain rows; those with errors suffice.

    Every row of a run costs the mean m of the run. Of N rows, W of a run that come after n others
    add `m sum_j sum_k 1 / k` to the sum of all risks, j from n to n + W - 1 and k from j + 1 to N;
    of a run without errors this is 0.

    Args:
        runs: of each run the rows that are more certain, its own rows, and the errors in either.
        rows: N.
        harmonic: the harmonic numbers, but for a constant.
    """
    before, drawn, wrong_before, losses = runs
    wrong = losses.sum()
    right = rows - wrong
    mean = losses / np.maximum(drawn, 1)
    all_rows = float(harmonic(rows))
    tails = [x * (all_rows - harmonic(x)) + x for x in (before, before + drawn)]
    area = mean @ (tails[1] - tails[0]) / rows
    best = (wrong - right * (all_rows - harmonic(right))) / rows
    accepted = losses @ (rows - before - (drawn - 1) / 2)
    found = {
        "aurc": area,
        "e_aurc": area - best,
        "augrc": (accepted - wrong / 2) / float(rows) ** 2,
        "auroc_of_errors": math.nan,
    }
    if 0 < wrong < rows:
        pairs = losses @ (before - wrong_before + (drawn - losses) / 2)
        found["auroc_of_errors"] = pairs / (float(wrong) * float(right))
    return {name: float(value) for name, value in found.items()}


def harmonic_number(numbers: Any) -> Any:
    """Harmonic numbers, but for Euler's constant, which differences do not have."""
    return digamma(numbers + 1.0)


def _running(values: Num[np.ndarray, " rows"]) -> Num[np.ndarray, " rows+1"]:
    """Sums of the first values, from none to all of them; whole numbers stay such."""
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    sums = np.zeros(len(values) + 1, dtype=kind)
    np.cumsum(values, dtype=kind, out=sums[1:])
    return sums
