"""The grid, ticks and labels of axes, where matplotlib has them, in a fraction of the time."""

from collections.abc import Iterator, Mapping

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from mcbn.drawing.figures import GRID, INK, LETTERS
from mcbn.drawing.margins import EDGE, LINE, POINTS, TICK, ticks_of
from mcbn.drawing.svg import Shape, Style, text_element

LENGTH = 3.5  # points of a tick
WIDTH = "0.6"  # of lines
ASCENT = 0.76  # of a letter, in its size


def axis_shapes(figure: Figure, colors: Mapping[str, str]) -> Iterator[Shape]:
    """The grid, ticks and labels of all axes, which are hidden so that they are not drawn twice.

    Args:
        figure: with axes that have their places, one below the other.
        colors: what stands on the page for each colour.
    """
    for ax in figure.axes:
        yield from _shapes(ax, figure, colors[INK], colors[GRID])
        ax.xaxis.set_visible(False)
        ax.yaxis.set_visible(False)


def _shapes(ax: Axes, figure: Figure, ink: str, grid: str) -> Iterator[Shape]:
    width, height = (POINTS * side for side in figure.get_size_inches())
    box = ax.get_position()
    left, right = width * box.x0, width * box.x1
    top, bottom = height * (1 - box.y1), height * (1 - box.y0)
    is_lowest = ax is figure.axes[-1]
    for share, text in _shares(ax.xaxis, ax, 0):
        x = left + share * (right - left)
        if _is_on(ax.xaxis, "gridOn"):
            yield _line(x, bottom, x, top, grid)
        if _is_on(ax.xaxis, "bottom"):
            yield _line(x, bottom, x, bottom + LENGTH, ink)
        if is_lowest and text:
            yield _text(x, bottom + TICK + ASCENT * LETTERS, text, ink, "middle")
    for share, text in _shares(ax.yaxis, ax, 1):
        y = bottom + share * (top - bottom)
        if _is_on(ax.yaxis, "gridOn"):
            yield _line(left, y, right, y, grid)
        if _is_on(ax.yaxis, "left"):
            yield _line(left - LENGTH, y, left, y, ink)
        if text:
            yield _text(left - TICK, y + 0.36 * LETTERS, text, ink, "end")
    if ax.get_xlabel():
        y = bottom + TICK + (LINE + ASCENT) * LETTERS
        yield _text((left + right) / 2, y, ax.get_xlabel(), ink, "middle")
    if ax.get_ylabel():
        yield _text(EDGE + LETTERS, (top + bottom) / 2, ax.get_ylabel(), ink, "middle", turn=-90)


def _shares(axis: Axis, ax: Axes, side: int) -> list[tuple[float, str]]:
    """Where the ticks of an axis are, as shares of its length, with their labels."""
    onto = ax.transScale + ax.transLimits
    corner = (ax.get_xlim()[0], ax.get_ylim()[0])
    shares = []
    for place, text in ticks_of(axis):
        point = (place, corner[1]) if side == 0 else (corner[0], place)
        shares.append((float(onto.transform(point)[side]), text))
    return shares


def _is_on(axis: Axis, name: str) -> bool:
    params = axis.get_tick_params()
    return bool(params.get(name, True)) and (name == "gridOn" or params.get("length", 1) != 0)


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> Shape:
    style: Style = (("stroke", color), ("stroke-width", WIDTH))
    return Shape(style, (("M", (x1, y1)), ("L", (x2, y2))), joins=True)


def _text(x: float, y: float, text: str, color: str, anchor: str, *, turn: float = 0.0) -> Shape:
    style: Style = (("fill", color), ("text-anchor", anchor))
    return Shape(style, text=text_element(x, y, text, turn=turn))
