"""The tables of a study page: scores, slopes, paired tests, heat maps, cost and failures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mcbn.evaluation import glossary
from mcbn.report.study_panels import score_title
from mcbn.report.tables import DASH, Table, TableCell, score_heading
from mcbn.study.contrasts import ALPHA, BASELINE, Contrast
from mcbn.study.results import Point, Study
from mcbn.study.slopes import Slope, expected
from mcbn.study.summary import Cost, Means, best, main_score, place, pooled
from mcbn.study.trends import Trend

TIMES = "\N{MULTIPLICATION SIGN}"
SIZE_HEADINGS = (("M", glossary.WORDS["M"]), ("Trained at", "Batch size of training."))


def scores(all_means: Sequence[Means], names: Sequence[str], *, root: str) -> Table:
    """Means of scores with intervals, one row per method, M and training batch size.

    Args:
        all_means: of one part.
        names: of the scores.
        root: path of the means in the JSON.
    """
    rows = tuple(
        (
            means.method,
            (
                _size(means.batch_size),
                TableCell(str(means.training_batch_size), value=means.training_batch_size),
                *(
                    _point(name, means.scores[name], key=f"{root}.{index}.scores.{name}.mean")
                    for name in names
                ),
            ),
        )
        for index, means in enumerate(all_means)
    )
    headings = (("Method", ""), *SIZE_HEADINGS, *map(score_heading, names))
    return Table("Mean over splits and seeds, with 95% interval", headings, rows)


def slopes(fits: Sequence[Slope], sizes: Sequence[int], *, root: str) -> list[Table]:
    """Log-log slopes with their intervals: one table per spread, one row per method.

    Args:
        fits: slopes of one part.
        sizes: its training batch sizes.
        root: path of the slopes in the JSON.
    """
    headings = (
        ("Method", ""), ("M", glossary.WORDS["M"]), ("Replicates", "Splits and seeds."),
        *_size_headings(sizes),
        ("Corrected", "Each value divided by the factor of drawing without replacement."),
    )  # fmt: skip
    groups: dict[str, dict[str, dict[int | None, int]]] = {}
    for index, slope in enumerate(fits):
        rows = groups.setdefault(slope.score, {})
        rows.setdefault(slope.method, {})[slope.training_batch_size] = index
    return [
        Table(
            f"Log-log slope of the {score_title(score)[0].lower()} against M; to first order "
            f"{glossary.number(expected(score), 1)}",
            headings,
            tuple((method, _slope_cells(fits, at, sizes, root)) for method, at in rows.items()),
        )
        for score, rows in groups.items()
    ]


def _slope_cells(
    fits: Sequence[Slope], at: Mapping[int | None, int], sizes: Sequence[int], root: str
) -> tuple[TableCell, ...]:
    last = max(at.values())  # over all training batch sizes, where there are several
    pooled = fits[last]
    cells = [
        TableCell(f"{pooled.batch_sizes[0]} to {pooled.batch_sizes[-1]}"),
        TableCell(str(pooled.replicates), value=pooled.replicates, key=f"{root}.{last}.replicates"),
    ]
    for size in _columns(sizes):
        cells.append(_slope(fits[at[size]].estimate, f"{root}.{at[size]}.estimate.mean")
                     if size in at else TableCell(DASH))  # fmt: skip
    cells.append(_slope(pooled.corrected, f"{root}.{last}.corrected.mean")
                 if pooled.corrected else TableCell(DASH))  # fmt: skip
    return tuple(cells)


def _columns(sizes: Sequence[int]) -> tuple[int | None, ...]:
    return (*sizes, None) if len(sizes) > 1 else tuple(sizes)


def _size_headings(sizes: Sequence[int]) -> Iterator[tuple[str, str]]:
    for size in _columns(sizes):
        meaning = "Mean over all networks; its interval counts what those of one seed share."
        yield ("All", meaning) if size is None else (f"Trained at {size}", "")


def contrasts(tests: Sequence[Contrast], sizes: Sequence[int], *, root: str) -> Table:
    """Paired tests of one score: one row per pair of methods, one column per training batch size.

    Args:
        tests: at least one contrast of one part.
        sizes: its training batch sizes.
        root: path of the contrasts in the JSON.
    """
    groups: dict[str, dict[int, int]] = {}
    for index, test in enumerate(tests):
        method = place(test.method, test.batch_size)
        if test.batch_size and test.other_batch_size is None and test.other != BASELINE:
            method = f"{test.method}, M as trained,"  # a different number in each column
        row = groups.setdefault(f"{method} minus {test.other}", {})
        row[test.training_batch_size] = index
    rows = [
        (
            name,
            tuple(
                contrast_cell(tests[at[size]], f"{root}.{at[size]}")
                if size in at
                else TableCell(DASH)
                for size in sizes
            ),
        )
        for name, at in groups.items()
    ]
    label = glossary.label(tests[0].score)
    meaning = "At the same M where both have one; as trained: the M nearest to that of training."
    headings = (("Methods", meaning), *((f"Trained at {size}", "") for size in sizes))
    counts = sorted({test.pairs for test in tests})
    pairs = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    direction = glossary.direction(tests[0].score)
    caption = (
        f"Paired differences in {label} over {pairs} splits and seeds. {direction} Primary tests "
        "are corrected among themselves, and all others among themselves."
    )
    return Table(caption, headings, tuple(rows))


def contrast_cell(test: Contrast, key: str = "") -> TableCell:
    """A paired difference with its interval and corrected p value."""
    mark = ""
    if test.adjusted < ALPHA:
        mark = "better" if test.better else "worse"
    tail = "no test" if math.isnan(test.adjusted) else glossary.probability(test.adjusted)
    if test.primary:
        tail += ", primary"
    cell = _point(test.score, test.difference, key=key and f"{key}.difference.mean", mark=mark,
                  signed=True)  # fmt: skip
    return replace(cell, interval=f"{cell.interval}, {tail}" if cell.interval else tail)


def heat_map(numbers: Mapping[str, Sequence[float]], caption: str, *, root: str) -> Table:
    """The numbers of a heat map, one row per training batch size."""
    means: Sequence[Sequence[float]] = numbers["mean"]  # type: ignore[assignment]
    rows = tuple(
        (
            str(size),
            tuple(
                TableCell(
                    glossary.significant(value, 4), value=value, key=f"{root}.mean.{row}.{column}"
                )
                for column, value in enumerate(means[row])
            ),
        )
        for row, size in enumerate(numbers["training"])
    )
    columns = ((f"M = {size}", "") for size in numbers["inference"])
    return Table(caption, (("Trained at", ""), *columns), rows)


def cost(costs: Sequence[Cost], *, root: str) -> Table | None:
    """Wall times, of predicting 1,000 examples where their number is known; None without any."""
    if all(math.isnan(each.predict) for each in costs):
        return None
    is_per_thousand = all(each.examples for each in costs)
    rows = []
    for index, each in enumerate(costs):
        key = f"{root}.{index}"
        time = each.predict
        if is_per_thousand and each.examples:
            time *= 1000 / each.examples
        ratio = f"{glossary.significant(each.ratio)} {TIMES}" if each.ratio > 0 else DASH
        cells = (
            _size(each.batch_size),
            TableCell(str(each.draws), value=each.draws, key=f"{key}.draws"),
            TableCell(_time(each.collect), value=each.collect, key=f"{key}.collect"),
            # Per 1,000 examples it is not the number in the JSON, so it has no key.
            TableCell(_time(time), value=time, key="" if is_per_thousand else f"{key}.predict"),
            TableCell(ratio, value=each.ratio, key=f"{key}.ratio"),
        )
        rows.append((each.method, cells))
    headings = (
        ("Method", ""), SIZE_HEADINGS[0], ("Draws", glossary.WORDS["T"]),
        ("Collecting", "Drawing the mini-batches and their statistics, once per network."),
        ("Predicting 1,000 examples" if is_per_thousand else "Predicting the test examples", ""),
        (f"Relative to {BASELINE}", "Of predicting."),
    )  # fmt: skip
    return Table("Mean wall time over networks", headings, tuple(rows))


def trends(all_trends: Sequence[Trend], *, root: str) -> Table | None:
    """Log-log slopes of the epistemic sd against N at fixed M; None without any."""
    rows = tuple(
        (
            place(trend.method, trend.batch_size),
            (
                *((TableCell(trend.sweep),) if trend.sweep else ()),
                TableCell(str(trend.replicates), value=trend.replicates),
                _slope(trend.estimate, f"{root}.{index}.estimate.mean"),
            ),
        )
        for index, trend in enumerate(all_trends)
    )
    part = (("Part", ""),) if any(trend.sweep for trend in all_trends) else ()
    headings = (("Method", ""), *part, ("Replicates", "Splits and seeds."), ("Slope", ""))
    return Table("Log-log slope of the epistemic sd against N", headings, rows) if rows else None


def overview(parts: Mapping[str, Study], tests: Sequence[Contrast]) -> Table:
    """The best mean, its test and the slope of each part, one row per part.

    Args:
        parts: by name.
        tests: paired tests of every main score.
    """
    rows = []
    for name, study in parts.items():
        score = main_score(study)
        top, slope = best(study, score), pooled(study, "epistemic_sd")
        method, value, difference = TableCell(DASH), TableCell(DASH), TableCell(DASH)
        if top:
            method, value = TableCell(str(top)), _point(score, top.estimate)
            for test in tests:
                if test.part == name and top.is_tested_by(test):
                    difference = contrast_cell(test)
        fitted = _slope(slope.estimate) if slope else TableCell(DASH)
        rows.append((name, (TableCell(glossary.label(score)), method, value, difference, fitted)))
    headings = (
        ("Part", ""), ("Score", ""), ("Best mean", ""), ("Its value", ""),
        (f"Minus {BASELINE}", "On the same networks, p corrected for all tests of the score."),
        ("Slope of epistemic sd", "Log-log against M, of MCBN; to first order it is -1/2."),
    )  # fmt: skip
    return Table("All parts", headings, tuple(rows))


def failures(study: Study) -> Table | None:
    """The cells that failed, with their errors; None without any."""
    rows = tuple((str(cell), (TableCell(error),)) for cell, error in study.failures.items())
    return Table("Failed cells", (("Cell", ""), ("Error", "")), rows) if rows else None


def _time(seconds: float) -> str:
    return DASH if math.isnan(seconds) else f"{seconds:.3g} s"


def _size(batch_size: int | None) -> TableCell:
    return TableCell(DASH) if batch_size is None else TableCell(str(batch_size), value=batch_size)


def _slope(estimate: Point, key: str = "") -> TableCell:
    write = partial(glossary.number, digits=3)
    interval = glossary.interval(estimate.low, estimate.high, write)
    return TableCell(write(estimate.mean), interval, estimate.mean, key=key)


def _point(
    name: str, estimate: Point, *, key: str = "", mark: str = "", signed: bool = False
) -> TableCell:
    write = partial(glossary.written, name, signed=signed)
    interval = glossary.interval(estimate.low, estimate.high, write)
    text = write(estimate.mean) + glossary.unit(name)
    return TableCell(text, interval, estimate.mean, mark, key)
