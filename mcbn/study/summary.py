"""What a part of a study comes to: its best mean, its slope, and how values are written."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mcbn.evaluation.glossary import BETTER, ScoreName, number
from mcbn.study.contrasts import BASELINE, Contrast
from mcbn.study.results import Point, Result, Study, point
from mcbn.study.slopes import Slope, slopes
from mcbn.tasks.names import is_regression


@dataclass(frozen=True)
class Best:
    """The method, M and training batch size with the best mean of a score."""

    method: str
    batch_size: int | None
    training_batch_size: int
    found: Point

    def __str__(self) -> str:
        """Where it is, in words."""
        return f"{place(self.method, self.batch_size)}, trained at {self.training_batch_size}"

    def is_of(self, test: Contrast) -> bool:
        """Whether a test compares it with Deterministic."""
        wanted = (self.method, self.batch_size, self.training_batch_size, BASELINE)
        return (test.method, test.batch_size, test.training_batch_size, test.other) == wanted


@dataclass(frozen=True)
class Means:
    """Scores of one method at one pair of batch sizes, means over splits and seeds.

    Attributes:
        method: which.
        batch_size: its M, where it has one.
        training_batch_size: of the networks.
        scores: by name, with their Student-t intervals.
    """

    method: str
    batch_size: int | None
    training_batch_size: int
    scores: Mapping[str, Point]


def means(study: Study, names: Sequence[str]) -> tuple[Means, ...]:
    """The means of some scores wherever there are results."""
    return tuple(
        Means(
            method,
            batch_size,
            size,
            {
                name: point(
                    list(
                        study.values(
                            name, method, training_batch_size=size, batch_size=batch_size
                        ).values()
                    )
                )
                for name in names
            },
        )
        for method, batch_size, size in places(study)
    )


def main_score(study: Study) -> ScoreName:
    """The proper score that a part of a study is judged by."""
    return "pll" if is_regression(study.results[0].cell.network.data) else "nll"


def best(study: Study, score: str) -> Best | None:
    """Where the mean of a score over splits and seeds is best; None if it is nowhere known."""
    found = [
        Best(each.method, each.batch_size, each.training_batch_size, each.scores[score])
        for each in means(study, [score])
        if math.isfinite(each.scores[score].mean)
    ]
    sign = -1 if BETTER.get(score) == "higher" else 1
    return min(found, key=lambda each: sign * each.found.mean) if found else None


def pooled(study: Study, score: str) -> Slope | None:
    """The slope of MCBN (or of the first method over M) over all training batch sizes."""
    found = slopes(study, score)
    names = [slope.method for slope in found]
    if not names:
        return None
    method = "MCBN" if "MCBN" in names else names[0]
    return [slope for slope in found if slope.method == method][-1]


def places(study: Study) -> Iterator[tuple[str, int | None, int]]:
    """Every method, M and training batch size that there are results of."""
    found = {
        (result.cell.label, result.cell.batch_size, result.cell.network.batch_size)
        for result in study.results
    }
    order = study.methods.index
    yield from sorted(found, key=lambda place: (order(place[0]), place[1] or 0, place[2]))


def place(method: str, batch_size: int | None) -> str:
    """A method with its M, where it has one."""
    return method if batch_size is None else f"{method}, M = {batch_size}"


def span(found: Point, digits: int) -> str:
    """A value with its interval, as text."""
    if math.isnan(found.low):
        return f"{number(found.mean, digits)} (no interval)"
    ends = f"{number(found.low, digits)}, {number(found.high, digits)}"
    return f"{number(found.mean, digits)} [{ends}]"


@dataclass(frozen=True)
class Cost:
    """Mean wall time of a method at one M, over networks.

    Attributes:
        method: which.
        batch_size: its M, where it has one.
        draws: T, or the number of networks.
        collect: seconds of drawing mini-batches.
        predict: seconds of predicting the test examples.
        examples: how many test examples; None if all.
        ratio: `predict` relative to that of Deterministic; NaN without it.
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
    found = []
    for (method, size), results in groups.items():
        predict, cell = _seconds(results, "predict"), results[0].cell
        ratio = predict / base if base > 0 else math.nan
        found.append(Cost(method, size, cell.draws, _seconds(results, "collect"), predict,
                          cell.test_size, ratio))  # fmt: skip
    order = study.methods.index
    return tuple(sorted(found, key=lambda cost: (order(cost.method), cost.batch_size or 0)))


def _seconds(results: Sequence[Result], part: str) -> float:
    known = [result.seconds[part] for result in results if part in result.seconds]
    return statistics.fmean(known) if known else math.nan
