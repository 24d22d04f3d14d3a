"""What the methods of a study cost: mean wall times by method and M."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mcbn.study.contrasts import BASELINE
from mcbn.study.results import Result, Study


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
