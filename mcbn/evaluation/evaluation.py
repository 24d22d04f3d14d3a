"""A score with its bootstrap interval, and all scores of one method by name."""

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation import bootstrap, intervals
from mcbn.evaluation.glossary import BETTER, Direction, interval
from mcbn.io.display import Display, Displayed
from mcbn.io.extras import optional
from mcbn.io.plain import to_plain

NO_REPLICATES = torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """A score with its bootstrap interval; `float(score)` is its value, `f"{score:.3f}"` both.

    Attributes:
        value: the score of all examples.
        low: lower end of the bootstrap interval; NaN without resamples.
        high: upper end.
        better: whether "lower" or "higher" is better; None where neither is, as of a coverage.
        replicates: the score of each resample, NaN where a resample does not define it; of a
            calibration error, what the true one is by that resample, in one row or two that its
            interval spans (see docs/method.md).
    """

    value: float
    low: float
    high: float
    better: Direction | None
    replicates: Float64[Tensor, "*shapes resamples"]

    @classmethod
    def from_replicates(cls, name: str, value: float, replicates: Tensor, level: float) -> "Score":
        """Return the score of this name with the percentile interval of its replicates.

        A score that is not defined, such as the difference of two infinite ones, has no interval.
        """
        if math.isnan(value):
            return cls(value, math.nan, math.nan, BETTER.get(name), replicates)
        low, high = bootstrap.percentile_interval(replicates, level)
        return cls(value, low, high, BETTER.get(name), replicates)

    def __float__(self) -> float:
        return float(self.value)

    def __format__(self, spec: str) -> str:
        def write(value: float) -> str:
            return format(value, spec or ".4g")

        return f"{write(self.value)} {interval(self.low, self.high, write)}".rstrip()

    def __str__(self) -> str:
        return format(self, "")

    def __repr__(self) -> str:
        return f"Score({self})"


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Displayed, Mapping[str, Score]):
    """Scores by name, each with a bootstrap interval: `evaluation["nll"].value`.

    Attributes:
        examples: how many examples (and positions) were scored.
        draw_count: T of the predictive.
        level: the intervals' level.
        seed: chooses the resamples; evaluations of one seed and size are paired.
        clusters: groups of examples, or images of labelled positions, that were resampled whole;
            None where every example was drawn by itself.
    """

    _scores: Mapping[str, Score]
    examples: int
    draw_count: int
    level: float
    seed: int
    clusters: int | None = None

    def __getitem__(self, name: str) -> Score:
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def display(self) -> Display:
        """The scores with their intervals."""
        groups = "" if self.clusters is None else f" in {self.clusters:,} groups"
        heading = (
            f"Evaluation of {self.examples:,} examples{groups}, T = {self.draw_count}, "
            f"{100 * self.level:g}% intervals"
        )
        return Display(heading, ("score", "value", "low", "high", "better"), [
            (name, *(f"{end:.4g}" for end in (score.value, score.low, score.high)),
             score.better or "")
            for name, score in self.items()
        ])  # fmt: skip

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row per score: value, low, high and better.

        Raises:
            ImportError: pandas is not installed.
        """
        rows = {
            name: {"value": score.value, "low": score.low, "high": score.high,
                   "better": score.better}
            for name, score in self.items()
        }  # fmt: skip
        frame = optional("pandas", extra="pandas").DataFrame.from_dict(rows, orient="index")
        return frame.rename_axis("score")

    def including(self, name: str, score: Score, *, after: str) -> "Evaluation":
        """The same evaluation with a further score, behind another one."""
        scores: dict[str, Score] = {}
        for each, known in self.items():
            scores[each] = known
            if each == after:
                scores[name] = score
        return replace(self, _scores=scores)

    def without(self, names: Container[str]) -> "Evaluation":
        """The same evaluation without some scores."""
        return replace(self, _scores={k: v for k, v in self.items() if k not in names})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON, with None for what is not defined or infinite."""
        scores = {
            name: {
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "better": score.better,
            }
            for name, score in self.items()
        }
        plain: dict[str, Any] = to_plain(
            {
                "examples": self.examples,
                "draws": self.draw_count,
                "level": self.level,
                "scores": scores,
            }
        )
        return plain if self.clusters is None else {**plain, "clusters": self.clusters}

    def to_metrics(self) -> dict[str, float]:
        """Numbers by name, as trackers log them; `nll_low` to `nll_high` is the interval of `nll`.

        What is not defined is left out.
        """
        return {
            name + end: value
            for name, score in self.items()
            for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
            if not math.isnan(value)
        }

    def minus(self, other: "Evaluation") -> dict[str, Score]:
        """Return the difference self - other of each score, with intervals of paired differences.

        Both must be of the same examples in the same order, under one seed: then each resample
        drew the same examples for both.

        Raises:
            ValueError: the evaluations are not paired.
        """
        if self._pairing() != other._pairing():
            raise ValueError(
                "expected evaluations of the same examples, seed, level and resamples, got "
                f"{self._pairing()} and {other._pairing()}; evaluate both alike"
            )
        return {
            name: Score.from_replicates(
                name,
                score.value - other[name].value,
                intervals.difference(score.replicates, other[name].replicates, self.level),
                self.level,
            )
            for name, score in self.items()
            if name in other
        }

    def _pairing(self) -> tuple[int, int | None, int, float, int]:
        """Examples, clusters, seed, level and number of resamples: the same of paired ones."""
        resamples = next((score.replicates.shape[-1] for score in self.values()), 0)
        return self.examples, self.clusters, self.seed, self.level, resamples


def with_intervals(
    values: Mapping[str, float], replicates: Mapping[str, Tensor], level: float
) -> dict[str, Score]:
    """Return each score with the interval of its replicates, if there are any."""
    return {
        name: Score.from_replicates(name, value, replicates.get(name, NO_REPLICATES), level)
        for name, value in values.items()
    }


def interval_dicts(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Values and the ends of their intervals, for JSON."""
    return {
        name: {"value": score.value, "low": score.low, "high": score.high}
        for name, score in scores.items()
    }
