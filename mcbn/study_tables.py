"""The tables of a study page: scores, slopes, paired tests, heat maps, cost and failures."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mcbn import glossary
from mcbn.contrasts import BASELINE, Contrast
from mcbn.slopes import Slope, expected
from mcbn.study import Point, Result, Study, point
from mcbn.study_panels import score_title
from mcbn.tables import Cell, Table

SIGNIFICANT = 0.05  # adjusted p values below it are called better or worse
DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
SIZE_HEADINGS = (("M", glossary.WORDS["M"]), ("Trained at", "Batch size of training."))


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


def scores(study: Study, names: Sequence[str]) -> Table:
    """Mean of every shown score with its interval, one row a method, M and training batch size."""
    rows = []
    for method, batch_size, size in places(study):
        cells = [_size(batch_size), Cell(str(size), value=size)]
        for name in names:
            found = study.values(name, method, training_batch_size=size, batch_size=batch_size)
            cells.append(_point(name, point(list(found.values()))))
        rows.append((method, tuple(cells)))
    headings = (("Method", ""), *SIZE_HEADINGS, *map(_heading, names))
    return Table("Mean over splits and seeds, with 95 % interval", headings, tuple(rows))


def places(study: Study) -> Iterator[tuple[str, int | None, int]]:
    """Every method, M and training batch size that there are results of."""
    found = {
        (result.cell.label, result.cell.batch_size, result.cell.network.batch_size)
        for result in study.results
    }
    order = study.methods.index
    yield from sorted(found, key=lambda place: (order(place[0]), place[1] or 0, place[2]))


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
    groups: dict[tuple[str, str, str], dict[int, int]] = {}
    for index, test in enumerate(found):
        own = DASH if test.batch_size is None else str(test.batch_size)
        if test.other_batch_size is None and test.other != BASELINE:
            own = "as trained"
        row = groups.setdefault((test.method, own, test.other), {})
        row[test.training_batch_size] = index
    rows = []
    for (method, own, other), at in groups.items():
        counts = sorted({found[index].pairs for index in at.values()})
        cells = [
            Cell(own, value=float(own) if own.isdigit() else math.nan),
            Cell(other),
            Cell(" to ".join(str(count) for count in {counts[0]: 0, counts[-1]: 0})),
        ]
        for size in sizes:
            known = size in at
            cells.append(_test(found[at[size]], f"{root}.{at[size]}") if known else Cell(DASH))
        rows.append((method, tuple(cells)))
    label = glossary.label(found[0].score)
    headings = (
        ("Method", ""),
        ("M", "As trained: the M nearest to the batch size of training."),
        ("Less", "The method that is taken off, at the same M where it has one."),
        ("Pairs", "Splits and seeds that both have."),
        *((f"Trained at {size}", "") for size in sizes),
    )
    caption = f"Paired differences in {label}. {glossary.direction(found[0].score)}"
    return Table(caption, headings, tuple(rows))


def _test(test: Contrast, key: str) -> Cell:
    mark = ""
    if test.adjusted < SIGNIFICANT:
        mark = "better" if test.better else "worse"
    tail = "no test" if math.isnan(test.adjusted) else glossary.probability(test.adjusted)
    cell = _point(test.score, test.difference, key=f"{key}.difference.mean", mark=mark,
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


def failures(study: Study) -> Table | None:
    """The cells that failed and why."""
    rows = tuple((str(cell), (Cell(error),)) for cell, error in study.failures.items())
    return Table("Failed cells", (("Cell", ""), ("Error", "")), rows) if rows else None


def place(method: str, batch_size: int | None) -> str:
    """A method with its M, where it has one."""
    return method if batch_size is None else f"{method}, M = {batch_size}"


def _seconds(results: Sequence[Result], part: str) -> float:
    known = [result.seconds[part] for result in results if part in result.seconds]
    return statistics.fmean(known) if known else math.nan


def _time(seconds: float) -> str:
    return DASH if math.isnan(seconds) else f"{seconds:.3g} s"


def _size(batch_size: int | None) -> Cell:
    return Cell(DASH) if batch_size is None else Cell(str(batch_size), value=batch_size)


def _slope(found: Point, key: str) -> Cell:
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
