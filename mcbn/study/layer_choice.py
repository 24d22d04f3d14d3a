"""The stochastic layers that were chosen, with the score of each candidate and what choosing costs.

The best of several candidates looks better on the examples that chose it than it is. So differences
have intervals that hold for all candidates at once, and the score of what would have been chosen
without an example is told beside the score of what was chosen with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from mcbn.evaluation import bootstrap
from mcbn.evaluation.clusters import Clusters
from mcbn.io.display import Display, Displayed
from mcbn.network.isolation import derived_seed

# Differences that vary by less than this share of the loss are equal but for rounding.
ROUNDING = 1e-12
Interval = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """Some layers, and how well the network predicts with noise in these alone.

    Values are in nats per example; lower is better.

    Attributes:
        name: what it is called.
        layers: its layers.
        value: mean held-out negative log-likelihood.
        interval: bootstrap interval of it.
        difference: value minus that of all layers.
        difference_interval: interval of it; those of all candidates hold at once.
        p_value: of a difference as large as this one in any candidate, if none differs.
    """

    name: str
    layers: tuple[str, ...]
    value: float
    interval: Interval
    difference: float
    difference_interval: Interval
    p_value: float


@dataclass(frozen=True, repr=False)
class LayerChoice(Displayed):
    """Which layers to draw, by held-out log score, and whether that is better than to draw all.

    Values are in nats per example; lower is better.

    Attributes:
        candidates: what was compared; the first is all layers.
        best: name of the candidate with the lowest value, on the examples that it was chosen by.
        cross_fitted: value of the candidates that the other folds choose, on each fold. It is the
            honest counterpart of the best value, which is too low.
        cross_fitted_interval: bootstrap interval of it, for the choices as they were.
        gain: cross-fitted value minus that of all layers.
        gain_interval: bootstrap interval of it.
        chosen_in_folds: name of what the other folds choose, of each fold.
        examples: number of held-out examples.
        draws: T of the bank.
        bank_size: M of the bank.
        level: level of all intervals.
        tempered: whether each candidate has a temperature of its own.
    """

    candidates: tuple[Candidate, ...]
    best: str
    cross_fitted: float
    cross_fitted_interval: Interval
    gain: float
    gain_interval: Interval
    chosen_in_folds: tuple[str, ...]
    examples: int
    draws: int
    bank_size: float
    level: float = 0.95
    tempered: bool = False

    @classmethod
    def from_losses(
        cls,
        losses: Float64[Tensor, "candidates batch"],
        layers: Sequence[tuple[str, Sequence[str]]],
        *,
        draws: int,
        bank_size: float,
        clusters: Clusters | None = None,
        folds: int = 5,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
        tempered: bool = False,
        progress: bool = False,
    ) -> "LayerChoice":
        """Choose by the loss of each example under each candidate.

        Args:
            losses: in nats; the first row is that of all layers.
            layers: name and layers of each candidate.
            draws: T of the bank.
            bank_size: M of the bank.
            clusters: of the examples, which are resampled and left out whole.
            folds: into how many the examples are split for the cross-fitted value.
            resamples: number of bootstrap resamples.
            level: level of the intervals.
            seed: of folds and resamples.
            tempered: whether the losses are under temperatures.
            progress: show a bar, on a terminal only.
        """
        fitted, picked = _cross_fitted(losses, clusters, folds, seed)
        units = _units(torch.cat([losses, fitted[None]]), clusters)
        drawn = bootstrap.replicates(
            [units], _measured, resamples=resamples, seed=seed, progress=progress
        )
        means, gaps = drawn["means"], drawn["means"] - drawn["means"][:, :1]
        found = _measured(units)
        mean, gap = found["means"], found["means"] - found["means"][0]
        whole = range(len(losses))
        at_once = _simultaneous(
            gap[whole], found["errors"][whole], gaps[:, whole], drawn["errors"][:, whole], level
        )
        candidates = [
            Candidate(
                name, tuple(names), float(mean[row]),
                bootstrap.percentile_interval(means[:, row], level), float(gap[row]), *at_once[row],
            )
            for row, (name, names) in enumerate(layers)
        ]  # fmt: skip
        return cls(
            candidates=tuple(candidates),
            best=candidates[int(mean[:-1].argmin())].name,
            cross_fitted=float(mean[-1]),
            cross_fitted_interval=bootstrap.percentile_interval(means[:, -1], level),
            gain=float(gap[-1]),
            gain_interval=bootstrap.percentile_interval(gaps[:, -1], level),
            chosen_in_folds=tuple(candidates[row].name for row in picked),
            examples=losses.shape[1],
            draws=draws,
            bank_size=bank_size,
            level=level,
            tempered=tempered,
        )

    def __getitem__(self, name: str) -> Candidate:
        """The candidate of that name.

        Raises:
            KeyError: there is none.
        """
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    @property
    def significant(self) -> bool:
        """Whether the best candidate is significantly better than all layers."""
        return self[self.best].difference_interval[1] < 0

    @property
    def layers(self) -> tuple[str, ...] | None:
        """What to give `MCBatchNorm(layers=)`: the best, or None for all if it is no better."""
        return self[self.best].layers if self.significant else None

    def display(self) -> Display:
        """The scores of all layers, of what was chosen and of the other candidates."""
        every, *others = self.candidates
        others.sort(key=lambda candidate: candidate.value)
        cross = ("chosen, cross-fitted", "-", f"{self.cross_fitted:.4g}", f"{self.gain:.3g}",
                 *map("{:.3g}".format, self.gain_interval), "-")  # fmt: skip
        rows = [_row(every), cross, *map(_row, others)]
        columns = ("layers", "count", "nll", "minus all", "low", "high", "p")
        return Display(f"LayerChoice: {self._verdict()}", columns, rows)

    def __str__(self) -> str:
        best = self[self.best]
        level = f"{100 * self.level:g}%"
        picked = {name: self.chosen_in_folds.count(name) for name in self.chosen_in_folds}
        counts = ", ".join(f"{name} {count}" for name, count in picked.items())
        lines = [
            self._verdict(),
            f"{best.name}: {best.value:.4g} nats per example, {best.difference:.3g} "
            f"{_text(best.difference_interval)} minus all, p = {best.p_value:.3g}; {level} "
            f"intervals hold for all {len(self.candidates)} candidates at once",
            f"chosen without the example: {self.cross_fitted:.4g} nats, {self.gain:.3g} "
            f"{_text(self.gain_interval)} minus all; the folds choose {counts}",
            f"{self.examples} examples, {self.draws} draws collected at M = {self.bank_size:g}"
            + (", each candidate at its own temperature" if self.tempered else ""),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "best": self.best,
            "significant": self.significant,
            "layers": None if self.layers is None else list(self.layers),
            "cross_fitted": self.cross_fitted,
            "cross_fitted_interval": list(self.cross_fitted_interval),
            "gain": self.gain,
            "gain_interval": list(self.gain_interval),
            "chosen_in_folds": list(self.chosen_in_folds),
            "examples": self.examples,
            "draws": self.draws,
            "bank_size": self.bank_size,
            "level": self.level,
            "tempered": self.tempered,
            "candidates": [
                {
                    "name": each.name,
                    "layers": list(each.layers),
                    "value": each.value,
                    "interval": list(each.interval),
                    "difference": each.difference,
                    "difference_interval": list(each.difference_interval),
                    "p_value": each.p_value,
                }
                for each in self.candidates
            ],
        }

    def _verdict(self) -> str:
        if self.best == self.candidates[0].name:
            return "no candidate is better than all layers"
        if self.significant:
            return f"{self.best} is significantly better than all layers"
        return f"{self.best} is best, not significantly better than all layers"


def folds_of(
    examples: int, clusters: Clusters | None, folds: int, seed: int
) -> Int[Tensor, " batch"]:
    """The fold of each example, at random and of one size but for one; clusters stay whole."""
    whole = Clusters.alone(examples) if clusters is None else clusters
    order = np.random.default_rng(derived_seed(seed, "folds")).permutation(len(whole))
    fold = torch.empty(len(whole), dtype=torch.int64)
    fold[torch.from_numpy(order)] = torch.arange(len(whole)) % folds
    return fold[whole.of_row]


def _cross_fitted(
    losses: Float64[Tensor, "candidates batch"], clusters: Clusters | None, folds: int, seed: int
) -> tuple[Float64[Tensor, " batch"], list[int]]:
    """The loss of each example under what the other folds choose, and what that is of each fold."""
    fold = folds_of(losses.shape[1], clusters, folds, seed)
    picked = [int(losses[:, fold != number].mean(1).argmin()) for number in range(folds)]
    rows = torch.tensor(picked)[fold]
    return losses.gather(0, rows[None])[0], picked


def _units(
    losses: Float64[Tensor, "candidates batch"], clusters: Clusters | None
) -> bootstrap.ScoreColumns:
    """What is resampled, examples or whole clusters: summed losses, and how many there are."""
    if clusters is None:
        return {"sums": losses.T, "counts": losses.new_ones(losses.shape[1])}
    sums = losses.new_zeros(len(clusters), len(losses))
    return {
        "sums": sums.index_add(0, clusters.of_row, losses.T.contiguous()),
        "counts": clusters.sizes.to(losses),
    }


def _measured(units: bootstrap.ScoreColumns) -> dict[str, Tensor]:
    """The mean loss of each candidate, and the standard error of its difference from the first."""
    sums, counts = units["sums"], units["counts"]
    means = sums.sum(0) / counts.sum()
    residuals = sums - sums[:, :1] - (means - means[0]) * counts[:, None]
    errors = residuals.square().sum(0).sqrt() / counts.sum()
    return {"means": means, "errors": torch.where(errors > ROUNDING * means[0].abs(), errors, 0.0)}


def _simultaneous(
    gaps: Float64[Tensor, " candidates"],
    errors: Float64[Tensor, " candidates"],
    drawn: Float64[Tensor, "resamples candidates"],
    drawn_errors: Float64[Tensor, "resamples candidates"],
    level: float,
) -> list[tuple[Interval, float]]:
    """Intervals of differences that all hold at once, and p values, by the largest |t|.

    Each resample has standard errors of its own, which allows for the long tails of log scores.

    Reference:
        Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis
        testing", whose single step this is; Hall 1992, "The Bootstrap and Edgeworth Expansion",
        section 3.6, for symmetric intervals by the bootstrap of t.
    """
    statistics = torch.where(drawn_errors > 0, (drawn - gaps).abs() / drawn_errors, 0.0)
    largest = statistics.amax(1)
    # The rank (R + 1) p, as for the other intervals of the bootstrap.
    last = max(len(largest) - 1, 1)
    rank = min(max((level * (len(largest) + 1) - 1) / last, 0.0), 1.0)
    reach = float(largest.quantile(rank))
    found = []
    for gap, error in zip(gaps.tolist(), errors.tolist(), strict=True):
        beyond = int((largest >= abs(gap) / error).sum()) if error > 0 else len(largest)
        p_value = (1 + beyond) / (1 + len(largest))
        found.append(((gap - reach * error, gap + reach * error), p_value))
    return found


def _row(candidate: Candidate) -> tuple[str, ...]:
    low, high = candidate.difference_interval
    return (candidate.name, str(len(candidate.layers)), f"{candidate.value:.4g}",
            f"{candidate.difference:.3g}", f"{low:.3g}", f"{high:.3g}",
            f"{candidate.p_value:.3g}")  # fmt: skip


def _text(interval: Interval) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]"
