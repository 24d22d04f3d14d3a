"""The numbers of a figure as a table: for CSV files, and for the script of a page."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcbn.io.plain import to_json

DIGITS = 6  # of numbers in a page; `report.json` and the files have them all

Column = Sequence[float] | Sequence[str]


@dataclass(frozen=True, eq=False)
class Plotted:
    """What is drawn in one colour: columns of equal length.

    Attributes:
        name: of the series; any text.
        columns: numbers or words by what they are. "low" and "high" are ends of the interval of y.
        place: names of the columns that are x and y of its points; empty where it has no points.
        style: index of its colour, by which it is hidden and shown.
        rows: heights of points whose y is no column.
    """

    name: str
    columns: Mapping[str, Column]
    place: tuple[str, str] | tuple[()] = ()
    style: int = 0
    rows: Sequence[float] = ()


def bins_table(name: str, bins: Mapping[str, Any], words: tuple[str, str, str]) -> Plotted:
    """The bins of a reliability diagram that are not empty."""
    x, y, unit = words
    filled = [index for index, count in enumerate(bins["counts"]) if count]
    columns = {x: bins["confidence"], y: bins["accuracy"], "low": bins["low"],
               "high": bins["high"], unit: bins["counts"], "from": bins["edges"][:-1],
               "to": bins["edges"][1:], "band low": bins["band_low"],
               "band high": bins["band_high"]}  # fmt: skip
    kept = {key: [values[index] for index in filled] for key, values in columns.items()}
    return Plotted(name, kept, (x, y))


def bars_table(
    name: str, edges: np.ndarray, heights: np.ndarray, words: tuple[str, str], style: int = 0
) -> Plotted:
    """The bars of a histogram, with a point in the middle of each: of logarithms above 0."""
    start, end = edges[:-1], edges[1:]
    middles = np.sqrt(start * end) if edges[0] > 0 else (start + end) / 2
    columns = {words[0]: middles.tolist(), words[1]: heights.tolist(), "from": start.tolist(),
               "to": end.tolist()}  # fmt: skip
    return Plotted(name, columns, words, style)


def csv_text(plotted: Sequence[Plotted]) -> str:
    """The table of a figure: a row per point, with the name of its series."""
    names = list(dict.fromkeys(name for each in plotted for name in each.columns))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["series", *names])
    for each in plotted:
        length = max(map(len, each.columns.values()), default=0)
        columns = [each.columns.get(name, [""] * length) for name in names]
        for row in zip(*columns, strict=True):
            writer.writerow([_cell(each.name), *map(_cell, row)])
    return buffer.getvalue()


def _cell(value: object) -> object:
    """A value as a spreadsheet reads it: text never begins a formula, NaN is empty."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if isinstance(value, float) and math.isnan(value) else value


def json_text(figures: Sequence[Sequence[Plotted]]) -> str:
    """The numbers of several figures as JSON that may stand in an attribute with single quotes."""
    plain = [
        [
            [
                each.name,
                each.style,
                each.place,
                {name: _short(column) for name, column in each.columns.items()},
                *([_short(each.rows)] if len(each.rows) else []),
            ]
            for each in plotted
        ]
        for plotted in figures
    ]
    text = to_json(plain, separators=(",", ":"))
    # So that no text can end the attribute, or begin an element.
    for letter in "<>&'":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _short(column: Column) -> list[float | str | None]:
    """Numbers to a few digits, with None for what JSON cannot write."""
    return [each if isinstance(each, str) else _number(float(each)) for each in column]


def _number(value: float) -> float | None:
    short = float(f"{value:.{DIGITS}g}")
    if short - short != 0:  # infinite, or not a number
        return None
    return int(short) if short == int(short) else short
