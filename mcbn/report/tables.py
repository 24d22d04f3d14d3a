"""The tables of a report: every cell with its text, its interval and its bare number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcbn.evaluation import glossary
from mcbn.evaluation.compare import Comparison, paired
from mcbn.evaluation.evaluate import Evaluation, Score
from mcbn.evaluation.subgroups import FEW, Subgroup
from mcbn.recalibration.apply import Held
from mcbn.report.panels import Group, uncertainty


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        interval: read in small beside it.
        value: the bare number, by which the table sorts; NaN for words.
        mark: "best", "better", "worse" or nothing.
        key: where the number stands in `report.json`, for tests and readers of the source.
    """

    text: str
    interval: str = ""
    value: float = math.nan
    mark: str = ""
    key: str = ""

    @property
    def is_words(self) -> bool:
        """Whether it is to be read from the left: no number, nor the dash in place of one."""
        return math.isnan(self.value) and not self.key and self.text != "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table with a caption, headings (text, explanation) and rows that begin with a heading."""

    caption: str
    headings: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def headline(evaluations: Mapping[str, Evaluation]) -> Table:
    """The scores that matter, one row a method, the best value of each marked."""
    names = _headline_names(evaluations)
    return Table(
        "Scores on the test examples",
        (("Method", ""), ("Draws", glossary.WORDS["T"]), *map(_heading, names)),
        tuple(
            (
                method,
                (
                    _count(evaluation.draw_count),
                    *(_score_cell(evaluations, method, name) for name in names),
                ),
            )
            for method, evaluation in evaluations.items()
        ),
    )


def best_methods(evaluations: Mapping[str, Evaluation], name: str) -> set[str]:
    """Methods with the best value of a score; more than one only if they tie exactly."""
    found = {method: evaluation[name] for method, evaluation in evaluations.items()}
    known = {method: score for method, score in found.items() if not math.isnan(score.value)}
    if len(known) < 2 or not glossary.judged(name):
        return set()
    values = [score.value for score in known.values()]
    lower = next(iter(known.values())).better == "lower"
    top = min(values) if lower else max(values)
    return {method for method, score in known.items() if score.value == top}


def differences(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Each other method less the first, better or worse only where zero lies outside."""
    names = _headline_names(evaluations)
    rows = tuple(
        (method, tuple(_difference_cell(method, name, found[name]) for name in names))
        for method, found in paired(evaluations).items()
    )
    caption = f"Paired differences: method less {next(iter(evaluations))}"
    return Table(caption, (("Method", ""), *map(_heading, names)), rows) if rows else None


def all_scores(evaluations: Mapping[str, Evaluation]) -> Table:
    """Every score of every method, one row a score."""
    return Table(
        "All scores",
        (("Score", ""), *((method, "") for method in evaluations)),
        tuple(
            (
                f"{glossary.label(name)} {glossary.arrow(name)}",
                tuple(_score_cell(evaluations, method, name) for method in evaluations),
            )
            for name in next(iter(evaluations.values()))
        ),
    )


def separation(comparison: Comparison) -> Table:
    """How well each method's uncertainty tells each outside set apart."""
    rows = []
    for method, entry in comparison.entries.items():
        for place, found in entry.separation.items():
            root = f"comparison.methods.{method}.outside.{place}"
            cells = [Cell(place), Cell(uncertainty(entry).replace("_", " "))]
            for name in glossary.SEPARATION:
                cells.append(_cell(name, found[name], key=f"{root}.{name}"))
            rows.append((method, tuple(cells)))
    headings = (("Method", ""), ("Outside set", ""), ("Told apart by", ""))
    return Table(
        "Telling outside sets from the test examples",
        (*headings, *map(_heading, glossary.SEPARATION)),
        tuple(rows),
    )


def cost(comparison: Comparison) -> Table | None:
    """Seconds for 1,000 examples, also relative to the baseline; None if none was measured."""
    seconds = {
        method: 1000 * entry.seconds / max(len(entry.predictive), 1)
        for method, entry in comparison.entries.items()
    }
    if all(math.isnan(value) for value in seconds.values()):
        return None
    base = seconds[comparison.baseline]
    rows = []
    for method, value in seconds.items():
        ratio = value / base if base > 0 else math.nan
        text = "\N{EN DASH}" if math.isnan(value) else f"{value:.3g} s"
        times = "\N{EN DASH}" if math.isnan(ratio) else f"{ratio:.3g} \N{MULTIPLICATION SIGN}"
        draws = comparison.entries[method].predictive.draw_count
        rows.append((method, (_count(draws), Cell(text, value=value), Cell(times, value=ratio))))
    headings = (
        ("Method", ""),
        ("Draws", glossary.WORDS["T"]),
        ("Time for 1,000 examples", "Wall time of prediction on the machine of this report."),
        (f"Relative to {comparison.baseline}", ""),
    )
    return Table("Cost of prediction", headings, tuple(rows))


def draws(errors: Mapping[str, Mapping[str, float]]) -> Table:
    """The Monte Carlo error of each method beside the half-width of its interval."""
    rows = []
    for method, found in errors.items():
        error, half = found["error"], found["half_width"]
        key = f"monte_carlo_error.{method}"
        cells = (
            Cell(str(found["draws"]), value=found["draws"]),
            Cell(glossary.number(error, 5), value=error, key=f"{key}.error"),
            Cell(glossary.number(half, 5), value=half, key=f"{key}.half_width"),
        )
        rows.append((method, cells))
    headings = (
        ("Method", ""),
        ("Draws", glossary.WORDS["T"]),
        ("Monte Carlo error of the NLL", glossary.WORDS["Monte Carlo error"]),
        ("Half-width of the NLL's interval", "From the choice of test examples."),
    )
    return Table("Are the draws enough", headings, tuple(rows))


def study_numbers(groups: Sequence[Group]) -> Table:
    """The numbers behind the curves of the batch-size study."""
    rows = []
    for group in groups:
        for panel in group.panels:
            for name, line in panel.numbers.items():
                for x, y, low, high in zip(
                    line["x"], line["y"], line["low"], line["high"], strict=True
                ):
                    size = f"{x:g}" if x else "\N{EN DASH}"
                    mean = Cell(f"{y:.4g}", _interval(f"{low:.4g}", f"{high:.4g}"), y)
                    at = Cell(size, value=x or math.nan)
                    cells = (Cell(panel.title), Cell(name), at, mean)
                    rows.append((group.title, cells))
    headings = (("Quantity", ""), ("Figure", ""), ("Line", ""), ("M", ""), ("Mean over seeds", ""))
    return Table("Numbers of the batch-size study", headings, tuple(rows))


def subgroups(column: str, methods: Mapping[str, Sequence[Subgroup]]) -> Table:
    """The scores of the groups of a column, one row a group and method."""
    names = list(dict.fromkeys(n for found in methods.values() for n in found[0].scores))
    rows = []
    for number in range(len(next(iter(methods.values())))):
        for method, found in methods.items():
            group = found[number]
            few = " (few)" if group.is_small else ""
            root = f"groups.{column}.{method}.{group.name}"
            cells = [
                Cell(str(number + 1), value=number + 1),
                Cell(method),
                Cell(f"{group.size:,}{few}", value=group.size, key=f"{root}.size"),
            ]
            for name in names:
                score = group.scores.get(name)
                key = f"{root}.scores.{name}"
                cells.append(_cell(name, score, key=key) if score else Cell("\N{EN DASH}"))
            adjusted = Cell("\N{EN DASH}")
            if not math.isnan(group.adjusted):
                text = glossary.probability(group.adjusted)
                adjusted = Cell(text, value=group.adjusted, key=f"{root}.adjusted_p_value")
            rows.append((group.name, (*cells, adjusted)))
    headings = (
        (column, ""),
        ("No.", "Number in the figures."),
        ("Method", ""),
        ("Examples", f"Marked as few under {FEW}."),
        *map(_heading, names),
        ("Against the rest", "P value of the log score against that of all other examples, "
         "corrected by Holm's method for the number of groups."),
    )  # fmt: skip
    return Table(f"Groups by {column}", headings, tuple(rows))


def held_targets(sets: Sequence[Held], unit: str) -> Table:
    """How often sets or intervals held the target, and how large they are."""
    level = f"{100 * sets[0].level:g} %"
    rows = []
    for each in sets:
        root = f"sets.{each.method}.{each.rule}"
        ends = (f"{100 * end:.1f}" for end in (each.coverage.low, each.coverage.high))
        held = Cell(f"{100 * each.coverage.value:.1f} %", _interval(*ends), each.coverage.value,
                    key=f"{root}.coverage.value")  # fmt: skip
        size = Cell(f"{each.mean_size:.3g}", value=each.mean_size, key=f"{root}.mean_size")
        rows.append((each.method, (Cell(each.rule), held, size)))
    headings = (
        ("Method", ""),
        ("Rule", ""),
        ("Held the target", f"{level} was asked for; exact binomial interval."),
        (f"Mean size ({unit})", "Smaller says more."),
    )
    return Table(f"Made to hold {level} of the targets", headings, tuple(rows))


def _count(draws: int) -> Cell:
    """How many draws there were; 0 stands for not known."""
    return Cell(str(draws), value=draws) if draws else Cell("\N{EN DASH}")


def _headline_names(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The scores of the headline that there are: those of classes or those of regression."""
    names = (*glossary.HEADLINE, *glossary.REGRESSION_HEADLINE)
    return [name for name in names if name in next(iter(evaluations.values()))]


def _heading(name: str) -> tuple[str, str]:
    term = glossary.SCORES[name]
    return (
        f"{term.label}\N{NO-BREAK SPACE}{glossary.arrow(name)}",
        f"{term.meaning} {glossary.direction(name)}",
    )


def _score_cell(evaluations: Mapping[str, Evaluation], method: str, name: str) -> Cell:
    mark = "best" if method in best_methods(evaluations, name) else ""
    score = evaluations[method][name]
    return _cell(name, score, key=f"comparison.methods.{method}.scores.{name}", mark=mark)


def _difference_cell(method: str, name: str, score: Score) -> Cell:
    mark = ""
    if glossary.judged(name) and (score.low > 0 or score.high < 0):
        mark = "better" if (score.value > 0) == (score.better == "higher") else "worse"
    key = f"comparison.differences.{method}.{name}"
    return _cell(name, score, key=key, mark=mark, signed=True)


def _cell(name: str, score: Score, *, key: str, mark: str = "", signed: bool = False) -> Cell:
    ends = (glossary.written(name, end, signed=signed) for end in (score.low, score.high))
    text = glossary.written(name, score.value, signed=signed) + glossary.unit(name)
    return Cell(text, "" if math.isnan(score.low) else _interval(*ends), score.value, mark, key)


def _interval(low: str, high: str) -> str:
    return "" if "nan" in (low, high) else f"[{low}, {high}]".replace("-", "\N{MINUS SIGN}")
