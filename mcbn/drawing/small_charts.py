"""Small charts as inline SVG, for the tiles and the cells of tables: what one glance can take in.

They are plain text without matplotlib: the page scales them, and its variables give the colours.
Every mark has a `title` with its numbers, which browsers show where the pointer rests.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mcbn.drawing import figures
from mcbn.evaluation import glossary

WIDTH = 220.0  # of a chart of a tile, in units of which a tile of a page has about as many pixels
CELL = (140.0, 16.0)  # of a chart in a cell of a table
ROW = 16.0  # height of a row of a strip
LINE = 15.0  # height of a line of text
TEXT = 12.5  # size of the letters: at least 11 pixels in a tile that is 195 pixels wide
LETTER = 7.5  # width of a letter
NOTE = 15  # characters of a line beside a square diagram
AT_COVERAGE = 0.9

Write = Callable[[float], str]


@dataclass(frozen=True)
class StripRow:
    """A value with its interval.

    Attributes:
        name: of what it is a value; any text.
        value: the value; NaN is not drawn.
        low: lower end of the interval, or NaN.
        high: upper end.
        style: index of its colour.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    style: int = 0


@dataclass(frozen=True)
class SmallCurve:
    """A line of a small chart.

    Attributes:
        name: of the method; any text.
        x: confidence, or coverage.
        y: accuracy, or error rate among the answered.
        style: index of its colour and dashes.
        counts: number of examples in each bin of a reliability diagram, by which points are faded.
        note: written below its name, beside the diagram.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0
    counts: Sequence[float] = ()
    note: str = ""


def strip_limits(rows: Sequence[StripRow], *, zero: bool = False) -> tuple[float, float]:
    """The ends of an axis that holds every row, so that charts of several cells can share it.

    Args:
        rows: those of all the charts; infinite ends are left out.
        zero: whether the axis has to hold 0.
    """
    values = [each for row in rows for each in (row.value, row.low, row.high)]
    known = [each for each in values if math.isfinite(each)] + [0.0] * zero
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = 0.04 * (high - low) or 0.04 * abs(low) or 1.0
    return low - margin, high + margin


def interval_strip(
    rows: Sequence[StripRow],
    *,
    label: str,
    limits: tuple[float, float] | None = None,
    zero: bool = False,
    ticks: bool = False,
    write: Write = glossary.significant,
) -> Markup:
    """A dot with its interval per row, on one axis: a single row fits the cell of a table.

    Args:
        rows: from top to bottom.
        label: what it shows, for screen readers; any text.
        limits: ends of the axis; by default those of `strip_limits`.
        zero: whether a line marks 0, as for differences.
        ticks: whether the smallest and the largest value are written below.
        write: turns a value into text.
    """
    low, high = limits or strip_limits(rows, zero=zero)
    width, pad = CELL[0] if len(rows) == 1 and not ticks else WIDTH, 6.0
    place = _scale(low, high, pad, width - pad)
    height = ROW * len(rows)
    parts = []
    if zero:
        parts.append(_line(place(0.0), 1, place(0.0), height - 1, "var(--faint)", 1))
    for index, row in enumerate(rows):
        parts.append(_strip_row(row, place, ROW * (index + 0.5), write))
    if ticks:
        values = sorted(row.value for row in rows if math.isfinite(row.value))
        parts += _ends([(place(value), write(value)) for value in values], height + LINE - 4)
        height += LINE
    return _chart(label, width, height, parts)


def _ends(places: Sequence[tuple[float, str]], y: float) -> list[str]:
    """What the first and the last value are, written below them so that both can be read."""
    if len(places) < 2:
        return [_text(WIDTH / 2, y, text, anchor="middle") for _, text in places]
    (first, low), (last, high) = places[0], places[-1]
    reach = LETTER * max(len(low), len(high))
    middle = min(max((first + last) / 2, reach + 8), WIDTH - reach - 8)
    first = max(min(first + reach / 2, middle - 4), reach)
    last = min(max(last - reach / 2, middle + 4), WIDTH - reach)
    return [_text(first, y, low, anchor="end"), _text(last, y, high)]


def _strip_row(row: StripRow, place: Callable[[float], float], y: float, write: Write) -> str:
    if not math.isfinite(row.value):
        return ""
    color = _color(row.style)
    ends = glossary.interval(row.low, row.high, write)
    title = _title(f"{row.name}: {write(row.value)} {ends}".strip())
    interval = ""
    if not math.isnan(row.low) and not math.isnan(row.high):
        interval = _line(place(row.low), y, place(row.high), y, color, 3, opacity=0.45)
    return f"<g>{title}{interval}{_dot(place(row.value), y, 4, color)}</g>"


def small_reliability(curves: Sequence[SmallCurve], *, label: str) -> Markup:
    """Accuracy against confidence of up to three methods, beside the diagonal of a calibrated one.

    Points are the larger the more examples are in their bins. The name and the note of each method
    stand on the right.

    Args:
        curves: of bins that are not empty.
        label: what it shows, for screen readers; any text.
    """
    side, pad = 92.0, 5.0
    across, up = _scale(0, 1, pad, side - pad), _scale(0, 1, side - pad, pad)
    parts = [
        f'<rect x="{pad:g}" y="{pad:g}" width="{side - 2 * pad:g}" height="{side - 2 * pad:g}" '
        'fill="none" stroke="var(--grid)"/>',
        _line(across(0), up(0), across(1), up(1), "var(--faint)", 1, dashes=(3, 3)),
    ]
    for curve in curves:
        points = [(across(x), up(y)) for x, y in _known(curve)]
        parts.append(_polyline(points, curve.style, 1.2))
        most = max(curve.counts, default=1) or 1
        shares = [count / most for count in curve.counts] or [1.0] * len(curve.x)
        for x, y, share in zip(curve.x, curve.y, shares, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                title = _title(f"{curve.name}: confidence {x:.3f}, accuracy {y:.3f}")
                radius = 1.2 + 2.8 * math.sqrt(share)  # area by number
                parts.append(_dot(across(x), up(y), radius, _color(curve.style), title, 0.8))
    parts += _notes(curves, side + 8, side)
    return _chart(label, WIDTH, side, parts)


def small_risk_coverage(
    curves: Sequence[SmallCurve], *, label: str, at: float = AT_COVERAGE
) -> Markup:
    """Error rate against coverage, with a line and a dot per method where a part is answered.

    Args:
        curves: with coverage ascending.
        label: what it shows, for screen readers; any text.
        at: the coverage that is marked.
    """
    height, pad = 84.0, 6.0
    risks = [y for curve in curves for _, y in _known(curve)]
    across = _scale(0, 1, pad, WIDTH - pad)
    up = _scale(0, max(risks, default=0) or 1, height - pad, pad)
    parts = [
        _line(pad, up(0), WIDTH - pad, up(0), "var(--grid)", 1),
        _line(across(at), pad - 2, across(at), up(0), "var(--faint)", 1, dashes=(3, 3)),
        _text(across(at), height + LINE - 6, f"{at:.0%} answered", anchor="end"),
    ]
    for curve in curves:
        known = _known(curve)
        thin = [known[index] for index in figures.thinned(len(known), 80)] if known else []
        parts.append(_polyline([(across(x), up(y)) for x, y in thin], curve.style, 1.8))
        if found := next((point for point in known if point[0] >= at), None):
            title = _title(f"{curve.name}: {found[1]:.1%} of errors at {found[0]:.0%} answered")
            parts.append(_dot(across(found[0]), up(found[1]), 3.5, _color(curve.style), title))
    return _chart(label, WIDTH, height + LINE, parts)


def small_histogram(
    values: Sequence[float],
    *,
    label: str,
    band: tuple[float, float] | None = None,
    level: float | None = None,
    style: int = 0,
) -> Markup:
    """Bars of equal width from left to right, as of the transforms of a calibrated forecaster.

    Args:
        values: height of each bar.
        label: what it shows, for screen readers; any text.
        band: in which bars would end by chance.
        level: where a line is drawn.
        style: index of the colour of the bars.
    """
    height, pad = 64.0, 3.0
    tops = [*values, *(band or ()), *([] if level is None else [level])]
    up = _scale(0, max((top for top in tops if math.isfinite(top)), default=0) or 1,
                height - pad, pad)  # fmt: skip
    width = (WIDTH - 2 * pad) / max(len(values), 1)
    parts = []
    if band is not None:
        parts.append(_box(pad, up(band[1]), WIDTH - 2 * pad, up(band[0]) - up(band[1]),
                          "var(--ink)", 0.13))  # fmt: skip
    for index, value in enumerate(values):
        if math.isfinite(value):
            title = _title(f"{index + 1} of {len(values)}: {glossary.significant(value)}")
            parts.append(_box(pad + index * width, up(value), width - 1, up(0) - up(value),
                              _color(style), 0.65, title))  # fmt: skip
    if level is not None:
        parts.append(_line(pad, up(level), WIDTH - pad, up(level), "var(--ink)", 1, dashes=(4, 3)))
    return _chart(label, WIDTH, height, parts)


def _known(curve: SmallCurve) -> list[tuple[float, float]]:
    """The points of a curve that are not NaN or infinite."""
    pairs = zip(curve.x, curve.y, strict=True)
    return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def _notes(curves: Sequence[SmallCurve], x: float, height: float) -> list[str]:
    """The colour, the name and the note of every curve, in the middle of the height."""
    lines = [1 + bool(curve.note) for curve in curves]
    y = (height - LINE * sum(lines)) / 2 + LINE - 4
    parts = []
    for curve, count in zip(curves, lines, strict=True):
        parts.append(_polyline([(x, y - 4), (x + 13, y - 4)], curve.style, 2.5))
        for index, text in enumerate((curve.name, curve.note)[:count]):
            parts.append(_text(x + 18, y + LINE * index, figures.drawable(text, NOTE)))
        y += LINE * count
    return parts


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Where values lie between two ends; those beyond an end lie at it."""
    span = high - low or 1.0

    def place(value: float) -> float:
        share = min(max((value - low) / span, 0.0), 1.0)
        return start + share * (stop - start)

    return place


def _color(style: int) -> str:
    return f"var(--series-{style % len(figures.SERIES)})"


def _title(text: str) -> str:
    return f"<title>{html.escape(figures.drawable(text, 200))}</title>"


def _number(value: float) -> str:
    """A coordinate, to a hundredth of a unit: less than can be seen."""
    return f"{round(value, 2) + 0.0:g}"


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float, *,
          opacity: float = 1.0, dashes: Sequence[int] = ()) -> str:  # fmt: skip
    ends = " ".join(
        f'{name}="{_number(value)}"'
        for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))
    )
    return f'<line {ends} stroke="{color}" stroke-width="{width:g}"{_extra(opacity, dashes)}/>'


def _polyline(points: Sequence[tuple[float, float]], style: int, width: float) -> str:
    text = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    return (
        f'<polyline points="{text}" fill="none" stroke="{_color(style)}" '
        f'stroke-width="{width:g}"{_extra(1.0, figures.dashes(style))}/>'
    )


def _dot(
    x: float, y: float, radius: float, color: str, title: str = "", opacity: float = 1.0
) -> str:
    return (
        f'<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}" fill="{color}"'
        f"{_extra(opacity, ())}>{title}</circle>"
    )


def _box(x: float, y: float, width: float, height: float, color: str, opacity: float,
         title: str = "") -> str:  # fmt: skip
    return (
        f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" '
        f'height="{_number(height)}" fill="{color}"{_extra(opacity, ())}>{title}</rect>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return (
        f'<text x="{_number(x)}" y="{_number(y)}" fill="var(--faint)"{place}>'
        f"{html.escape(text)}</text>"
    )


def _extra(opacity: float, dashes: Sequence[int]) -> str:
    """The attributes that differ from what they are without."""
    fading = "" if opacity == 1 else f' opacity="{opacity:g}"'
    return fading + (f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else "")


def _chart(label: str, width: float, height: float, parts: Sequence[str]) -> Markup:
    # Every text of the user's has been escaped where it was put in.
    return Markup(  # noqa: S704
        f'<svg class="small-chart" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {width:g} {height:g}" font-size="{TEXT:g}">{"".join(parts)}</svg>'
    )
