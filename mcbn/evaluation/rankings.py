"""How well scores rank positive rows above negative ones, in a resample of clusters of rows."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from mcbn.evaluation.bootstrap import Counts
from mcbn.evaluation.clusters import Clusters


@dataclass(frozen=True, eq=False)
class Rankings:
    """Several rankings, such as one of each label, whose rows are sorted once for all resamples.

    Attributes:
        cluster: of each row, ranking by ranking, the highest score first.
        positive: whether each row is positive.
        ends: where each run of equal scores ends.
        ranking: of each run.
        count: of rankings.
    """

    cluster: Int[np.ndarray, " rows"]
    positive: Bool[np.ndarray, " rows"]
    ends: Int[np.ndarray, " runs"]
    ranking: Int[np.ndarray, " runs"]
    count: int

    @classmethod
    def of(
        cls,
        scores: Float64[Tensor, " rows"],
        positive: Bool[Tensor, " rows"],
        clusters: Clusters,
        ranking: Int[Tensor, " rows"],
        count: int,
    ) -> "Rankings":
        """Sort the rows of every ranking.

        Args:
            scores: high for rows that should be positive.
            positive: whether they are.
            clusters: of the rows.
            ranking: which one each row belongs to, from 0.
            count: of rankings; one may have no rows.
        """
        order = scores.argsort(descending=True, stable=True)
        order = order[ranking[order].argsort(stable=True)]
        ranked, which = scores[order], ranking[order]
        parted = (ranked.diff() != 0) | (which.diff() != 0)
        ends = torch.cat([parted, torch.ones(1, dtype=torch.bool)]).nonzero()[:, 0]
        return cls(
            clusters.of_row[order].numpy(),
            positive[order].numpy(),
            ends.numpy(),
            which[ends].numpy(),
            count,
        )

    def __call__(
        self, counts: Counts
    ) -> tuple[Float64[Tensor, " rankings"], Float64[Tensor, " rankings"]]:
        """The AUROC and the average precision of each ranking; NaN where they are not defined.

        Rows of equal score stand together, as in scikit-learn: pairs of them count one half for the
        AUROC, and a threshold takes all of them or none.

        Args:
            counts: how often each cluster was drawn.
        """
        times = counts[self.cluster].astype(np.float64)
        hits, rows = self._in_runs(np.where(self.positive, times, 0.0)), self._in_runs(times)
        hits_until, rows_until = self._until(hits), self._until(rows)
        positives, both = self._totals(hits), self._totals(rows)
        misses = rows - hits
        pairs = self._totals(misses * (hits_until - hits / 2))
        shares = np.divide(hits_until, rows_until, out=np.zeros_like(rows), where=rows_until > 0)
        areas = self._totals(hits * shares)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (
                torch.from_numpy(pairs / (positives * (both - positives))),
                torch.from_numpy(areas / positives),
            )

    def _in_runs(self, values: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " runs"]:
        sums: np.ndarray = np.diff(values.cumsum()[self.ends], prepend=0.0)
        return sums

    def _totals(self, values: Float64[np.ndarray, " runs"]) -> Float64[np.ndarray, " rankings"]:
        totals: np.ndarray = np.bincount(self.ranking, values, self.count)
        return totals

    def _until(self, values: Float64[np.ndarray, " runs"]) -> Float64[np.ndarray, " runs"]:
        """Sums up to the end of each run, within its ranking."""
        totals = self._totals(values)
        until: np.ndarray = values.cumsum() - (totals.cumsum() - totals)[self.ranking]
        return until
