"""The table of what the draws of each method do to its NLL."""

from collections.abc import Mapping

from mcbn.checks.draws import DrawsJudged
from mcbn.evaluation import glossary
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
