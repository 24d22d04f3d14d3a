"""The margins of a figure, from the lengths of its labels: a tenth of the time of matplotlib's."""

import unicodedata

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

POINTS = 72  # per inch
NARROW, WIDE = frozenset("iIjlt.,:;'|![]() "), frozenset("mMwW@%")
LINE = 1.25  # height of a line of text, in sizes of its letters
TICK = 7.0  # points from the frame to the label of a tick
EDGE = 3.0  # points between a label and the edge of the figure
GAP = 8.0  # points between axes that stand one below the other


def set_margins(figure: Figure, letters: float) -> None:
    """Place the axes of a figure, one below the other, so that their labels fit around them.

    Args:
        figure: with one column of axes, whose titles stand elsewhere.
        letters: size of its text in points.
    """
    width, height = (POINTS * side for side in figure.get_size_inches())
    left = max(_left(ax, letters) for ax in figure.axes)
    right = _right(figure.axes[-1], letters)
    bottom = _below(figure.axes[-1], letters)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - (EDGE + letters / 2) / height,
        hspace=GAP * len(figure.axes) / (height - bottom),
    )
    for ax in figure.axes:
        if ax.get_ylabel():
            # Of all axes in one line, at the edge of the figure.
            share = (left - EDGE - LINE * letters) / (width - left - right)
            ax.yaxis.set_label_coords(-share, 0.5)


def text_width(text: str, letters: float) -> float:
    """About how wide a text is, in points, in a font that is not a narrow one."""
    return letters * sum(_width(each) for each in text)


def _width(letter: str) -> float:
    if letter in NARROW:
        return 0.4
    if letter in WIDE or unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    return 0.72 if letter.isupper() else 0.64


def _left(ax: Axes, letters: float) -> float:
    widths = _label_widths(ax.yaxis, letters)
    label = LINE * letters + EDGE if ax.get_ylabel() else 0.0
    return EDGE + label + max(widths, default=0.0) + TICK


def _right(ax: Axes, letters: float) -> float:
    """Half of the last label of x, as far as it may reach beyond the frame."""
    widths = _label_widths(ax.xaxis, letters)
    return EDGE + (widths[-1] / 2 if widths else 0.0)


def _label_widths(axis: Axis, letters: float) -> list[float]:
    return [text_width(text, letters) for _, text in ticks_of(axis)]


def ticks_of(axis: Axis) -> list[tuple[float, str]]:
    """The ticks of an axis and their labels, without making them, which takes long."""
    places = axis.get_majorticklocs()
    texts = axis.get_major_formatter().format_ticks(list(places))
    low, high = sorted(axis.get_view_interval())
    # Of rounding, a tick at the end may lie a little beyond it.
    margin = 1e-9 * (high - low)
    return [
        (float(place), text)
        for place, text in zip(places, texts, strict=True)
        if low - margin <= place <= high + margin
    ]


def _below(ax: Axes, letters: float) -> float:
    lines = LINE * (1 + bool(ax.get_xlabel()))
    return EDGE + TICK + lines * letters
