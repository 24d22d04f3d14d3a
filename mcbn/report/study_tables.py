"""The tables of a study page: scores, slopes, paired tests, heat maps, cost and failures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mcbn.evaluation import glossary
from mcbn.report.study_panels import score_title
from mcbn.report.study_sweeps import Trend
from mcbn.report.tables import Cell, Table
from mcbn.study.contrasts import BASELINE, Contrast
from mcbn.study.results import Point, Study
from mcbn.study.slopes import Slope, expected
from mcbn.study.summary import Cost, Means, best, main_score, place, pooled

SIGNIFICANT = 0.05  # adjusted p values below it are called better or worse
DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
SIZE_HEADINGS = (("M", glossary.WORDS["M"]), ("Trained at", "Batch size of training."))


def scores(found: Sequence[Means], names: Sequence[str], *, root: str) -> Table:
    """Mean of every shown score with its interval, one row a method, M and training batch size."""
    rows = tuple(
        (
            means.method,
            (
                _size(means.batch_size),
                Cell(str(means.training_batch_size), value=means.training_batch_size),
                *(
                    _point(name, means.scores[name], key=f"{root}.{index}.scores.{name}.mean")
                    for name in names
                ),
            ),
        )
        for index, means in enumerate(found)
    )
    headings = (("Method", ""), *SIZE_HEADINGS, *map(_heading, names))
    return Table("Mean over splits and seeds, with 95 % interval", headings, rows)


def slopes(found: Sequence[Slope], sizes: Sequence[int], *, root: str) -> list[Table]:
    """Log-log slopes with their intervals: a table a spread, one row a method.

    Args:
        found: slopes of one part.
        sizes: its training batch sizes.
        root: where the slopes stand in the JSON.
    """
    headings = (
        ("Method", ""), ("M", glossary.WORDS["M"]), ("Replicates", "Splits and seeds."),
        *_trained(sizes),
        ("Corrected", "Each value divided by what drawing without replacement takes off."),
    )  # fmt: skip
    groups: dict[str, dict[str, dict[int | None, int]]] = {}
    for index, slope in enumerate(found):
        rows = groups.setdefault(slope.score, {})
        rows.setdefault(slope.method, {})[slope.training_batch_size] = index
    return [
        Table(
            f"Log-log slope of {score_title(score)[0]} against M; to first order "
            f"{glossary.number(expected(score), 1)}",
            headings,
            tuple((method, _slope_cells(found, at, sizes, root)) for method, at in rows.items()),
        )
        for score, rows in groups.items()
    ]


def _slope_cells(
    found: Sequence[Slope], at: Mapping[int | None, int], sizes: Sequence[int], root: str
) -> tuple[Cell, ...]:
    last = max(at.values())  # of all training batch sizes, where there are several
    whole = found[last]
    cells = [
        Cell(f"{whole.batch_sizes[0]} to {whole.batch_sizes[-1]}"),
        Cell(str(whole.replicates), value=whole.replicates, key=f"{root}.{last}.replicates"),
    ]
    for size in _columns(sizes):
        cells.append(_slope(found[at[size]].estimate, f"{root}.{at[size]}.estimate.mean")
                     if size in at else Cell(DASH))  # fmt: skip
    cells.append(_slope(whole.corrected, f"{root}.{last}.corrected.mean")
                 if whole.corrected else Cell(DASH))  # fmt: skip
    return tuple(cells)


def _columns(sizes: Sequence[int]) -> tuple[int | None, ...]:
    return (*sizes, None) if len(sizes) > 1 else tuple(sizes)


def _trained(sizes: Sequence[int]) -> Iterator[tuple[str, str]]:
    for size in _columns(sizes):
        meaning = "Mean within each split and seed, then over them."
        yield ("All", meaning) if size is None else (f"Trained at {size}", "")


def contrasts(found: Sequence[Contrast], sizes: Sequence[int], *, root: str) -> Table:
    """Paired tests of one score: one row a pair of methods, one column a training batch size.

    Args:
        found: at least one contrast of one part.
        sizes: its training batch sizes.
        root: where the contrasts stand in the JSON.
    """
    groups: dict[str, dict[int, int]] = {}
    for index, test in enumerate(found):
        own = place(test.method, test.batch_size)
        if test.batch_size and test.other_batch_size is None and test.other != BASELINE:
            own = f"{test.method}, M as trained,"  # another number in each column
        row = groups.setdefault(f"{own} less {test.other}", {})
        row[test.training_batch_size] = index
    rows = [
        (
            name,
            tuple(
                _test(found[at[size]], f"{root}.{at[size]}") if size in at else Cell(DASH)
                for size in sizes
            ),
        )
        for name, at in groups.items()
    ]
    label = glossary.label(found[0].score)
    meaning = "At the same M, where both have one; as trained: the M nearest to that of training."
    headings = (("Methods", meaning), *((f"Trained at {size}", "") for size in sizes))
    counts = sorted({test.pairs for test in found})
    pairs = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = f"Paired differences in {label} over {pairs} splits and seeds. " + glossary.direction(
        found[0].score
    )
    return Table(caption, headings, tuple(rows))


def _test(test: Contrast, key: str = "") -> Cell:
    mark = ""
    if test.adjusted < SIGNIFICANT:
        mark = "better" if test.better else "worse"
    tail = "no test" if math.isnan(test.adjusted) else glossary.probability(test.adjusted)
    cell = _point(test.score, test.difference, key=key and f"{key}.difference.mean", mark=mark,
                  signed=True)  # fmt: skip
    return replace(cell, interval=f"{cell.interval}, {tail}" if cell.interval else tail)


def heat_map(numbers: Mapping[str, Sequence[float]], caption: str, *, root: str) -> Table:
    """The numbers of a heat map, one row a training batch size."""
    means: Sequence[Sequence[float]] = numbers["mean"]  # type: ignore[assignment]
    rows = tuple(
        (
            str(size),
            tuple(
                Cell(glossary.significant(value, 4), value=value, key=f"{root}.mean.{row}.{column}")
                for column, value in enumerate(means[row])
            ),
        )
        for row, size in enumerate(numbers["training"])
    )
    columns = ((f"M = {size}", "") for size in numbers["inference"])
    return Table(caption, (("Trained at", ""), *columns), rows)


def cost(found: Sequence[Cost], *, root: str) -> Table | None:
    """Seconds of collecting and predicting; of 1,000 examples where their number is known."""
    if all(math.isnan(each.predict) for each in found):
        return None
    known = all(each.examples for each in found)
    rows = []
    for index, each in enumerate(found):
        key = f"{root}.{index}"
        time = 1000 * each.predict / each.examples if known and each.examples else each.predict
        cells = (
            _size(each.batch_size),
            Cell(str(each.draws), value=each.draws, key=f"{key}.draws"),
            Cell(_time(each.collect), value=each.collect, key=f"{key}.collect"),
            # Per 1,000 examples it is another number than the one of the file.
            Cell(_time(time), value=time, key="" if known else f"{key}.predict"),
            Cell(f"{glossary.significant(each.ratio)} {TIMES}" if each.ratio > 0 else DASH,
                 value=each.ratio, key=f"{key}.ratio"),
        )  # fmt: skip
        rows.append((each.method, cells))
    headings = (
        ("Method", ""), SIZE_HEADINGS[0], ("Draws", glossary.WORDS["T"]),
        ("Collecting", "Drawing the mini-batches and their statistics, once for a network."),
        ("Predicting 1,000 examples" if known else "Predicting the test examples", ""),
        (f"Relative to {BASELINE}", "Of predicting."),
    )  # fmt: skip
    return Table("Mean wall time over networks", headings, tuple(rows))


def trends(found: Sequence[Trend], *, root: str) -> Table | None:
    """How the epistemic sd goes with N at fixed M."""
    rows = tuple(
        (
            place(trend.method, trend.batch_size),
            (
                *((Cell(trend.sweep),) if trend.sweep else ()),
                Cell(str(trend.replicates), value=trend.replicates),
                _slope(trend.estimate, f"{root}.{index}.estimate.mean"),
            ),
        )
        for index, trend in enumerate(found)
    )
    part = (("Part", ""),) if any(trend.sweep for trend in found) else ()
    headings = (("Method", ""), *part, ("Replicates", "Splits and seeds."), ("Slope", ""))
    return Table("Log-log slope of the epistemic sd against N", headings, rows) if rows else None


def overview(parts: Mapping[str, Study], tests: Sequence[Contrast]) -> Table:
    """What each part comes to, one row a part.

    Args:
        parts: by name.
        tests: paired tests of every main score.
    """
    rows = []
    for name, study in parts.items():
        score = main_score(study)
        found, slope = best(study, score), pooled(study, "epistemic_sd")
        cells = [Cell(glossary.label(score)), Cell(DASH), Cell(DASH), Cell(DASH), Cell(DASH)]
        if found:
            cells[1:3] = [Cell(str(found)), _point(score, found.found)]
            cells[3:4] = [_test(test) for test in tests if test.part == name and found.is_of(test)
                          ] or [Cell(DASH)]  # fmt: skip
        if slope:
            cells[4] = _slope(slope.estimate)
        rows.append((name, tuple(cells)))
    headings = (
        ("Part", ""), ("Score", ""), ("Best mean", ""), ("Its value", ""),
        (f"Less {BASELINE}", "On the same networks, p corrected for all tests of the score."),
        ("Slope of epistemic sd", "Log-log against M, of MCBN; to first order it is -1/2."),
    )  # fmt: skip
    return Table("All parts", headings, tuple(rows))


def failures(study: Study) -> Table | None:
    """The cells that failed and why."""
    rows = tuple((str(cell), (Cell(error),)) for cell, error in study.failures.items())
    return Table("Failed cells", (("Cell", ""), ("Error", "")), rows) if rows else None


def _time(seconds: float) -> str:
    return DASH if math.isnan(seconds) else f"{seconds:.3g} s"


def _size(batch_size: int | None) -> Cell:
    return Cell(DASH) if batch_size is None else Cell(str(batch_size), value=batch_size)


def _slope(found: Point, key: str = "") -> Cell:
    text, *ends = (glossary.number(each, 3) for each in (found.mean, found.low, found.high))
    return Cell(text, _interval(found, ends), found.mean, key=key)


def _point(name: str, found: Point, *, key: str = "", mark: str = "", signed: bool = False) -> Cell:
    text, *ends = (
        glossary.written(name, each, signed=signed) for each in (found.mean, found.low, found.high)
    )
    return Cell(text + glossary.unit(name), _interval(found, ends), found.mean, mark, key)


def _interval(found: Point, ends: Sequence[str]) -> str:
    return "" if math.isnan(found.low) else f"[{ends[0]}, {ends[1]}]"


def _heading(name: str) -> tuple[str, str]:
    term = glossary.SCORES[name]
    arrow = glossary.arrow(name)
    text = f"{term.label}\N{NO-BREAK SPACE}{arrow}" if arrow else term.label
    return text, f"{term.meaning} {glossary.direction(name)}"
