"""Summaries of a part of a study: its best cell, its means, its slope and its costs."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mcbn.evaluation.glossary import BETTER, ScoreName, interval, number
from mcbn.study.contrasts import BASELINE, Contrast
from mcbn.study.results import Point, Result, Study, bounded, point
from mcbn.study.slopes import Slope, slopes


@dataclass(frozen=True)
class Best:
    """The method, M and training batch size with the best mean of a score."""

    method: str
    batch_size: int | None
    training_batch_size: int
    estimate: Point

    def __str__(self) -> str:
        """The method with its batch sizes."""
        return f"{place(self.method, self.batch_size)}, trained at {self.training_batch_size}"

    def is_tested_by(self, test: Contrast) -> bool:
        """Whether a test compares it with Deterministic."""
        compared = (self.method, self.batch_size, self.training_batch_size, BASELINE)
        return (test.method, test.batch_size, test.training_batch_size, test.other) == compared


@dataclass(frozen=True)
class Means:
    """Mean scores of one method at one pair of batch sizes, over splits and seeds.

    Attributes:
        method: name of the method.
        batch_size: M of the method; None without one.
        training_batch_size: mini-batch size of training.
        scores: means by name of the score, with Student-t intervals.
    """

    method: str
    batch_size: int | None
    training_batch_size: int
    scores: Mapping[str, Point]


def means(study: Study, names: Sequence[str]) -> tuple[Means, ...]:
    """The means of some scores, for each method and pair of batch sizes with results."""
    return tuple(
        Means(
            method,
            batch_size,
            size,
            {name: _mean(study, name, (method, batch_size, size)) for name in names},
        )
        for method, batch_size, size in places(study)
    )


def _mean(study: Study, name: str, at: tuple[str, int | None, int]) -> Point:
    method, batch_size, size = at
    values = study.values(name, method, training_batch_size=size, batch_size=batch_size)
    return bounded(point(list(values.values())), name)


def main_score(study: Study) -> ScoreName:
    """The proper scoring rule by which methods are compared: `pll` or `nll`."""
    return "pll" if study.plan.has_real_targets(study.results[0].cell.network.data) else "nll"


def best(study: Study, score: str) -> Best | None:
    """The method and batch sizes with the best mean of a score; None if it is never finite."""
    candidates = [
        Best(each.method, each.batch_size, each.training_batch_size, each.scores[score])
        for each in means(study, [score])
        if math.isfinite(each.scores[score].mean)
    ]
    sign = -1 if BETTER.get(score) == "higher" else 1
    return min(candidates, key=lambda each: sign * each.estimate.mean) if candidates else None


def pooled(study: Study, score: str) -> Slope | None:
    """The slope of MCBN, or of the first method with an M, over all training batch sizes."""
    estimates = slopes(study, score)
    names = [slope.method for slope in estimates]
    if not names:
        return None
    method = "MCBN" if "MCBN" in names else names[0]
    return [slope for slope in estimates if slope.method == method][-1]


def places(study: Study) -> Iterator[tuple[str, int | None, int]]:
    """Each method, M and training batch size with results."""
    distinct = {
        (result.cell.label, result.cell.batch_size, result.cell.network.batch_size)
        for result in study.results
    }
    order = study.methods.index
    yield from sorted(distinct, key=lambda place: (order(place[0]), place[1] or 0, place[2]))


def place(method: str, batch_size: int | None) -> str:
    """The name of a method, with its M if it has one."""
    return method if batch_size is None else f"{method}, M = {batch_size}"


def span(estimate: Point, digits: int) -> str:
    """A mean with its interval, as text."""
    write = partial(number, digits=digits)
    ends = interval(estimate.low, estimate.high, write, missing="(no interval)")
    return f"{write(estimate.mean)} {ends}"


@dataclass(frozen=True)
class Cost:
    """Mean wall time of a method at one M, over networks.

    Attributes:
        method: name of the method.
        batch_size: M of the method; None without one.
        draws: T, or the number of networks of an ensemble.
        collect: seconds of collecting the bank.
        predict: seconds of predicting the test examples.
        examples: number of test examples; None if all.
        ratio: `predict` relative to that of Deterministic; NaN if the study lacks it.
    """

    method: str
    batch_size: int | None
    draws: int
    collect: float
    predict: float
    examples: int | None
    ratio: float


def costs(study: Study) -> tuple[Cost, ...]:
    """Mean wall times by method and M."""
    groups: dict[tuple[str, int | None], list[Result]] = {}
    for result in study.results:
        groups.setdefault((result.cell.label, result.cell.batch_size), []).append(result)
    base = _seconds(groups.get((BASELINE, None), []), "predict")
    rows = []
    for (method, size), results in groups.items():
        predict, cell = _seconds(results, "predict"), results[0].cell
        ratio = predict / base if base > 0 else math.nan
        rows.append(Cost(method, size, cell.draws, _seconds(results, "collect"), predict,
                         cell.test_size, ratio))  # fmt: skip
    order = study.methods.index
    return tuple(sorted(rows, key=lambda cost: (order(cost.method), cost.batch_size or 0)))


def _seconds(results: Sequence[Result], part: str) -> float:
    known = [result.seconds[part] for result in results if part in result.seconds]
    return statistics.fmean(known) if known else math.nan
