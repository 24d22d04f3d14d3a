"""Whether the draws of each method are enough to compare it by."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence, curve_error
from mcbn.evaluation.finite_draws import DrawError
from mcbn.report.tables import Table, TableCell

HEADINGS = (
    ("Method", ""),
    ("Draws", glossary.WORDS["T"]),
    ("Bias", "How much lower the NLL would be with infinitely many draws; of a difference, how "
     "much of it is this."),
    ("Monte Carlo error", glossary.WORDS["Monte Carlo error"]),
    ("Half-width", "Of the interval of the difference, or of the baseline's NLL: uncertainty from "
     "the choice of test examples."),
)  # fmt: skip


@dataclass(frozen=True)
class DrawsJudged:
    """What the draws of a method do to its NLL, beside what the test examples do.

    Attributes:
        error: bias and Monte Carlo error, of the difference from the baseline where `paired`.
        half_width: of the interval of that NLL or difference.
        paired: whether both are of a difference.
    """

    error: DrawError
    half_width: float
    paired: bool

    @property
    def ratio(self) -> float:
        """The error of the draws relative to that of the examples; NaN where one is not known."""
        # Of an infinite interval every error is a vanishing part, which says nothing.
        known = 0 < self.half_width < math.inf
        return self.error.size / self.half_width if known else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self.error), "half_width": self.half_width, "paired": self.paired}


def judged_draws(
    comparison: Comparison, convergence: Mapping[str, Convergence]
) -> dict[str, DrawsJudged]:
    """The methods of several draws, as far as these are known.

    Args:
        comparison: of methods.
        convergence: curves by method, for those whose draws it does not know.
    """
    found, differences = {}, comparison.differences()
    for name, entry in comparison.entries.items():
        draws = entry.evaluation.draw_count
        error = comparison.draw_error(name) if draws > 1 else None
        paired = error is not None and name != comparison.baseline
        if error is None and name in convergence:
            error = curve_error(convergence[name], draws)
        if error is not None:
            score = differences[name]["nll"] if paired else entry.evaluation["nll"]
            found[name] = DrawsJudged(error, (score.high - score.low) / 2, paired)
    return found


def draws_table(judged: Mapping[str, DrawsJudged]) -> Table:
    """A row per method."""
    return Table("Bias and Monte Carlo error of the NLL", HEADINGS, tuple(
        (f"{name}, difference" if each.paired else name, _cells(each, f"draws.{name}"))
        for name, each in judged.items()
    ))  # fmt: skip


def _cells(judged: DrawsJudged, key: str) -> tuple[TableCell, ...]:
    error = judged.error
    numbers = {"bias": error.bias, "error": error.error, "half_width": judged.half_width}
    return (
        TableCell(str(error.draws), value=error.draws),
        *(
            TableCell(glossary.number(value, 5), value=value, key=f"{key}.{name}")
            for name, value in numbers.items()
        ),
    )
