"""Figures as SVG in the colours of a page."""

import io
from collections.abc import Callable

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mcbn.drawing import svg
from mcbn.drawing.axis_lines import axis_shapes
from mcbn.drawing.figures import GRID, INK, LETTERS, SERIES, settings
from mcbn.drawing.margins import POINTS, set_margins


def render(
    draw: Callable[[Figure], None],
    *,
    name: str,
    label: str,
    size: tuple[float, float],
) -> str:
    """Draw a figure and return it as SVG, the same bytes each time.

    Args:
        draw: draws on an empty figure.
        name: prefix of every id, unique on the page.
        label: what the figure shows, for screen readers; any text.
        size: width and height in inches.
    """
    buffer = io.StringIO()
    colors = {INK: "var(--ink)", GRID: "var(--grid)"}
    colors |= {value: f"var(--series-{index})" for index, value in enumerate(SERIES)}
    lines: tuple[svg.Shape, ...] = ()
    with settings():
        figure = Figure(figsize=size)
        draw(figure)
        if any(ax.get_legend() for ax in figure.axes):
            figure.set_layout_engine("constrained")
        else:
            set_margins(figure, LETTERS)
            lines = tuple(axis_shapes(figure, colors))
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # Not by savefig, which draws the whole figure a second time to lay it out.
        FigureCanvasSVG(figure).print_svg(buffer, metadata=no_metadata)  # type: ignore[no-untyped-call]
        frame = _frame(figure)
    return svg.compacted(
        buffer.getvalue(),
        name=name,
        label=label,
        colors=colors,
        size=LETTERS,
        extra=frame,
        below=lines,
    )


def _frame(figure: Figure) -> str:
    """Where the upper axes lie, and between which values, for a script that finds points."""
    ax = figure.axes[0]
    width, height = (POINTS * side for side in figure.get_size_inches())
    box = ax.get_position()
    numbers = [
        *(round(width * x, 1) for x in (box.x0, box.x1)), *ax.get_xlim(), ax.get_xscale() == "log",
        *(round(height * (1 - y), 1) for y in (box.y0, box.y1)), *ax.get_ylim(),
        ax.get_yscale() == "log",
    ]  # fmt: skip
    return f' data-frame="{" ".join(f"{float(number):.6g}" for number in numbers)}"'
