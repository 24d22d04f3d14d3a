"""The tables of a report: every cell has its text, its interval and its unrounded number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from mcbn.evaluation import glossary
from mcbn.evaluation.by_class import ClassScores
from mcbn.evaluation.comparison import Comparison, paired
from mcbn.evaluation.evaluation import Evaluation, Score
from mcbn.evaluation.subgroups import MIN_EXAMPLES, Subgroup
from mcbn.recalibration.coverages import SetCoverage
from mcbn.report.panels import PanelGroup

DASH = "\N{EN DASH}"  # in place of a number that is not known
NO_CHART = Markup("")
MAX_PARTS = 51  # of the examples, all of them among these, whose coverage can be read one by one


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: what is shown.
        interval: shown below it, in small print.
        value: the unrounded number, by which the table is sorted; NaN for words.
        mark: "best", "better", "worse" or nothing; of a state in words "fine" or "worrying".
        key: path of the number in `report.json`.
        chart: inline SVG before the text, or nothing.
        words: whether the text is words although it has a number.
    """

    text: str
    interval: str = ""
    value: float = math.nan
    mark: str = ""
    key: str = ""
    chart: Markup = NO_CHART
    words: bool = False

    @property
    def is_words(self) -> bool:
        """Whether it is aligned left: it is no number, nor a dash in place of one."""
        return self.words or (math.isnan(self.value) and not self.key and self.text != DASH)


@dataclass(frozen=True)
class Table:
    """A table: a caption, headings (text, explanation) and rows (heading, cells)."""

    caption: str
    headings: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[TableCell, ...]], ...]


def headline(evaluations: Mapping[str, Evaluation], *, unit: str = "") -> Table:
    """The most important scores, one row per method, with the best value of each marked."""
    names = _headline_names(evaluations)
    return Table(
        "Scores on the test examples",
        (("Method", ""), ("Draws", glossary.WORDS["T"]), *_headings(names, unit)),
        tuple(
            (
                method,
                (
                    _count(evaluation.draw_count),
                    *(score_cell(evaluations, method, name) for name in names),
                ),
            )
            for method, evaluation in evaluations.items()
        ),
    )


def best_methods(evaluations: Mapping[str, Evaluation], name: str) -> set[str]:
    """Methods with the best value of a score; several only if they tie exactly."""
    scores = {method: each[name] for method, each in evaluations.items() if name in each}
    known = {method: score for method, score in scores.items() if not math.isnan(score.value)}
    if len(known) < 2 or not glossary.judged(name):
        return set()
    values = [score.value for score in known.values()]
    lower = next(iter(known.values())).better == "lower"
    best = min(values) if lower else max(values)
    if not math.isfinite(best):
        return set()
    return {method for method, score in known.items() if score.value == best}


def differences(evaluations: Mapping[str, Evaluation], *, unit: str = "") -> Table | None:
    """Each other method minus the first, marked where the interval does not contain zero."""
    names = _headline_names(evaluations)
    rows = tuple(
        (method, tuple(_difference_cell(method, name, scores[name]) for name in names))
        for method, scores in paired(evaluations).items()
    )
    caption = f"Paired differences: method minus {next(iter(evaluations))}"
    return Table(caption, (("Method", ""), *_headings(names, unit)), rows) if rows else None


def all_scores(evaluations: Mapping[str, Evaluation], *, unit: str = "") -> Table:
    """Every score of every method, one row per score."""
    return Table(
        "All scores",
        (("Score", ""), *((method, "") for method in evaluations)),
        tuple(
            (
                score_heading(name, unit)[0],
                tuple(score_cell(evaluations, method, name) for method in evaluations),
            )
            # Of draws that one method alone has kept there are scores that others do not have.
            for name in max(evaluations.values(), key=len)
        ),
    )


def separation(comparison: Comparison) -> Table:
    """How well each score of each method, and each detector, detects each set."""
    rows = []
    for method, entry in comparison.entries.items():
        for ood_set, by in entry.separation.items():
            for score, scores in by.items():
                root = f"comparison.methods.{method}.outside.{ood_set}.by.{score}"
                words = TableCell(ood_set), TableCell(glossary.uncertainty(score))
                rows.append((method, (*words, *_cells(glossary.SEPARATION, scores, root))))
    for name, detector in comparison.detectors.items():
        for ood_set, scores in detector.separation.items():
            words = TableCell(ood_set), TableCell(DASH)
            root = f"comparison.detectors.{name}.outside.{ood_set}"
            rows.append((name, (*words, *_cells(glossary.SEPARATION, scores, root))))
    headings = (("Method", ""), ("Out-of-distribution set", ""), ("Detected by", ""))
    return Table(
        "Detection of out-of-distribution examples",
        (*headings, *map(score_heading, glossary.SEPARATION)),
        tuple(rows),
    )


def errors(comparison: Comparison) -> Table | None:
    """How well each score, and each detector, detects each method's errors; None without any."""
    rows = []
    for method, entry in comparison.entries.items():
        if entry.errors and "max_softmax" not in entry.errors:
            root, known = f"comparison.methods.{method}.scores", dict(entry.evaluation)
            words = (TableCell(glossary.uncertainty("max_softmax")),)
            rows.append((method, (*words, *_cells(glossary.ERRORS, known, root))))
        for score, scores in entry.errors.items():
            root = f"comparison.methods.{method}.errors.{score}"
            words = (TableCell(glossary.uncertainty(score)),)
            rows.append((method, (*words, *_cells(glossary.ERRORS, scores, root))))
        for name, detector in comparison.detectors.items():
            if method in detector.errors:
                root = f"comparison.detectors.{name}.errors.{method}"
                cells = _cells(glossary.ERRORS, detector.errors[method], root)
                rows.append((method, (TableCell(name), *cells)))
    headings = (("Method", ""), ("Detected by", ""), *map(score_heading, glossary.ERRORS))
    return Table("Detection of errors", headings, tuple(rows)) if rows else None


def cost(comparison: Comparison) -> Table | None:
    """Seconds per 1,000 examples, also relative to the baseline; None if none were measured."""
    seconds = {
        method: 1000 * entry.seconds / max(len(entry), 1)
        for method, entry in comparison.entries.items()
    }
    if all(math.isnan(value) for value in seconds.values()):
        return None
    ratios = relative_costs(comparison)
    precisions = {name: entry.precision or "float32" for name, entry in comparison.entries.items()}
    told = any(entry.precision for entry in comparison.entries.values())
    rows = []
    for method, value in seconds.items():
        ratio = ratios[method]
        text = DASH if math.isnan(value) else f"{value:.3g} s"
        times = DASH if math.isnan(ratio) else f"{ratio:.3g} \N{MULTIPLICATION SIGN}"
        draws = comparison.entries[method].evaluation.draw_count
        cells = (_count(draws), TableCell(text, value=value), TableCell(times, value=ratio))
        rows.append((method, (*cells, *([TableCell(precisions[method])] if told else []))))
    headings = (
        ("Method", ""),
        ("Draws", glossary.WORDS["T"]),
        ("Time per 1,000 examples", "Wall time of prediction on the machine of this report."),
        (f"Relative to {comparison.baseline}", ""),
        *([("Precision of passes", "")] if told else []),
    )
    return Table("Cost of prediction", headings, tuple(rows))


def relative_costs(comparison: Comparison) -> dict[str, float]:
    """Time of prediction of each method relative to the baseline; empty if none was measured."""
    seconds = {
        name: entry.seconds / max(len(entry), 1) for name, entry in comparison.entries.items()
    }
    base = seconds[comparison.baseline]
    if all(math.isnan(value) for value in seconds.values()):
        return {}
    return {name: value / base if base > 0 else math.nan for name, value in seconds.items()}


def study_numbers(groups: Sequence[PanelGroup]) -> Table:
    """The numbers behind the curves of the batch-size study."""
    rows = []
    for group in groups:
        for panel in group.panels:
            for name, line in panel.numbers.items():
                for x, y, low, high in zip(
                    line["x"], line["y"], line["low"], line["high"], strict=True
                ):
                    size = TableCell(f"{x:g}" if x else DASH, value=x or math.nan)
                    ends = glossary.interval(low, high, _four_digits)
                    mean = TableCell(_four_digits(y), ends, y)
                    cells = (TableCell(panel.title), TableCell(name), size, mean)
                    rows.append((group.title, cells))
    headings = (("Quantity", ""), ("Figure", ""), ("Line", ""), ("M", ""), ("Mean over seeds", ""))
    return Table("Numbers of the batch-size study", headings, tuple(rows))


def subgroups(column: str, methods: Mapping[str, Sequence[Subgroup]], *, unit: str = "") -> Table:
    """The scores of the groups of a column, one row per group and method."""
    names = list(dict.fromkeys(n for groups in methods.values() for n in groups[0].scores))
    rows = []
    for number in range(len(next(iter(methods.values())))):
        for method, groups in methods.items():
            group = groups[number]
            few = " (few)" if group.is_small else ""
            root = f"groups.{column}.{method}.{group.name}"
            cells = [
                TableCell(method),
                TableCell(f"{group.size:,}{few}", value=group.size, key=f"{root}.size"),
            ]
            for name in names:
                score = group.scores.get(name)
                key = f"{root}.scores.{name}"
                cells.append(_cell(name, score, key=key) if score else TableCell(DASH))
            adjusted = TableCell(DASH)
            if not math.isnan(group.adjusted):
                text = glossary.probability(group.adjusted)
                adjusted = TableCell(text, value=group.adjusted, key=f"{root}.adjusted_p_value")
            rows.append((group.name, (*cells, adjusted)))
    headings = (
        (column, ""),
        ("Method", ""),
        ("Examples", f"Fewer than {MIN_EXAMPLES} are marked as few."),
        *_headings(names, unit),
        ("Against the others", "P value of the log score against that of all other examples, "
         "corrected by Holm's method for the number of groups."),
    )  # fmt: skip
    return Table(f"Groups by {column}", headings, tuple(rows))


def by_class(methods: Mapping[str, ClassScores], *, several: bool = False) -> Table:
    """The scores of each class by each method, and their means, one row per class and method.

    Args:
        methods: scores by method.
        several: whether they are of labels, of which an example has several.
    """
    first = next(iter(methods.values()))
    names = [name for name in glossary.IN_TABLE if name in first.mean]
    one, many = ("label", "labels") if several else ("class", "classes")
    rows = []
    for name in (*first.by_class, ""):
        for method, each in methods.items():
            scores = each.by_class[name] if name else each.mean
            support = each.support[name] if name else sum(each.support.values())
            root = f"classes.{method}.{f'classes.{name}' if name else 'mean'}"
            cells = [_cell(score, scores[score], key=f"{root}.{score}.value") for score in names]
            count = TableCell(f"{support:,}", value=support)
            rows.append((name or f"Mean of the {many}", (TableCell(method), count, *cells)))
    headings = ((one.capitalize(), ""), ("Method", ""), ("Examples", "Or labelled positions."),
                *map(score_heading, names))  # fmt: skip
    return Table(f"Scores of each {one}", headings, tuple(rows))


def outputs(methods: Mapping[str, Mapping[str, Evaluation]], units: Sequence[str]) -> Table:
    """The scores of each output by each method, one row per output and method."""
    first = next(iter(methods.values()))
    names = _headline_names(first)
    rows = []
    for number, output in enumerate(first):
        unit = units[number % len(units)] if units else ""
        for method, evaluations in methods.items():
            root = f"outputs.{method}.{output}.scores"
            cells = [_cell(name, evaluations[output][name], key=f"{root}.{name}") for name in names]
            rows.append((output, (TableCell(method), TableCell(unit or DASH), *cells)))
    headings = (("Output", ""), ("Method", ""), ("Unit", ""), *map(score_heading, names))
    return Table("Scores of each output", headings, tuple(rows))


def set_coverages(sets: Sequence[SetCoverage], unit: str) -> Table:
    """Coverage and mean size of prediction sets or intervals."""
    level = f"{100 * sets[0].level:g}%"
    rows = []
    parts = len({each.part for each in sets}) > 1
    shown = sets if len({each.part for each in sets}) <= MAX_PARTS else [
        each for each in sets if not each.part
    ]  # fmt: skip
    for each in shown:
        root = f"sets.{each.method}.{each.rule}" + (f".parts.{each.part}" if each.part else "")
        share = each.coverage
        coverage = TableCell(f"{_percent(share.value)}%",
                             glossary.interval(share.low, share.high, _percent), share.value,
                             key=f"{root}.coverage.value")  # fmt: skip
        size = TableCell(f"{each.mean_size:.3g}", value=each.mean_size, key=f"{root}.mean_size")
        of = (TableCell(each.part or "all"),) if parts else ()
        rows.append((each.method, (TableCell(each.rule), *of, coverage, size)))
    grouped, labels = sets[0].groups is not None, unit == "labels"
    counted = "groups" if grouped else "examples"
    share_of = "Share of the labels of an example that are inside" if labels else (
        "Share of targets inside"
    )  # fmt: skip
    share_of += f", mean over {counted}" if grouped or labels else ""
    kind = f"interval over {counted}" if grouped or labels else "exact binomial interval"
    headings = (
        ("Method", ""),
        ("Rule", ""),
        *([("Examples", "Which examples are counted.")] if parts else []),
        ("Coverage", f"{share_of}, {level} intended; {kind}."),
        (f"Mean size ({unit})", "Smaller is more informative."),
    )
    return Table(f"Coverage and size at level {level}", headings, tuple(rows))


def score_heading(name: str, unit: str = "") -> tuple[str, str]:
    """The heading of a score's column, and its explanation."""
    term = glossary.SCORES[name]
    label = f"{term.label} ({unit})" if unit and term.in_unit else term.label
    text = f"{label}\N{NO-BREAK SPACE}{glossary.arrow(name)}".rstrip()
    return text, f"{term.meaning} {glossary.direction(name)}".rstrip()


def _headings(names: Sequence[str], unit: str) -> list[tuple[str, str]]:
    return [score_heading(name, unit) for name in names]


def _count(draws: int) -> TableCell:
    """The number of draws; 0 means that it is not known."""
    return TableCell(str(draws), value=draws) if draws else TableCell(DASH)


def _headline_names(evaluations: Mapping[str, Evaluation]) -> list[str]:
    return glossary.headline(next(iter(evaluations.values())))


def score_cell(evaluations: Mapping[str, Evaluation], method: str, name: str) -> TableCell:
    """A score of a method with its interval, marked where it is the best; a dash without it."""
    if name not in evaluations[method]:
        return TableCell(DASH)
    mark = "best" if method in best_methods(evaluations, name) else ""
    score = evaluations[method][name]
    return _cell(name, score, key=f"comparison.methods.{method}.scores.{name}", mark=mark)


def _difference_cell(method: str, name: str, score: Score) -> TableCell:
    mark = ""
    if glossary.judged(name) and (score.low > 0 or score.high < 0):
        mark = "better" if (score.value > 0) == (score.better == "higher") else "worse"
    key = f"comparison.differences.{method}.{name}"
    return _cell(name, score, key=key, mark=mark, signed=True)


def _cells(names: Sequence[str], scores: Mapping[str, Score], root: str) -> list[TableCell]:
    return [_cell(name, scores[name], key=f"{root}.{name}") for name in names]


def _cell(name: str, score: Score, *, key: str, mark: str = "", signed: bool = False) -> TableCell:
    write = partial(glossary.written, name, signed=signed)
    interval = glossary.interval(score.low, score.high, write)
    unit = "" if math.isnan(score.value) else glossary.unit(name)
    return TableCell(write(score.value) + unit, interval, score.value, mark, key)


def _four_digits(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _percent(share: float) -> str:
    return glossary.number(100 * share, 1)
