"""How a result shows itself: a few lines of text, and a table in a notebook."""

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ROWS = 7  # of the text, which has 10 lines at most
MAX_HTML_ROWS = 40
MAX_NAME, MAX_LINE = 48, 150  # characters of a name, and of a line of the text
STYLE = "text-align: right; padding: 0.1em 0.8em"
LEFT = "text-align: left; padding: 0.1em 0.8em"


@dataclass(frozen=True)
class Display:
    """What is shown of a result.

    Attributes:
        heading: what it is, in one line.
        columns: headings of a table; none without one.
        rows: of the table; the first entry of each is a name.
        words: how many of the first columns hold words, which begin at one place.
    """

    heading: str
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    words: int = 1

    def to_text(self) -> str:
        """At most 10 lines, however long the names and whatever is in them."""
        lines = [_cut(self.heading, MAX_LINE)]
        if self.rows:
            shown = [
                (_cut(row[0], MAX_NAME), *(_cut(cell, MAX_LINE) for cell in row[1:]))
                for row in (self.columns, *self.rows[:MAX_ROWS])
            ]
            widths = [max(len(row[k]) for row in shown) for k in range(len(self.columns))]
            for row in shown:
                cells = [
                    cell.ljust(width) if column < self.words else cell.rjust(width)
                    for column, (cell, width) in enumerate(zip(row, widths, strict=True))
                ]
                lines.append(_cut_end(("  " + "  ".join(cells)).rstrip(), MAX_LINE))
        if (hidden := len(self.rows) - MAX_ROWS) > 0:
            lines.append(f"  ... and {hidden} more")
        return "\n".join(lines)

    def to_html(self) -> str:
        """A heading and a table, for a notebook."""
        heading = f"<p>{html.escape(self.heading)}</p>"
        if not self.rows:
            return f"<div>{heading}</div>"
        head = _row("th", self.columns, self.words)
        body = "".join(_row("td", row, self.words) for row in self.rows[:MAX_HTML_ROWS])
        hidden = len(self.rows) - MAX_HTML_ROWS
        more = f"<p>... and {hidden} more</p>" if hidden > 0 else ""
        return (
            f"<div>{heading}<table><thead>{head}</thead><tbody>{body}</tbody></table>{more}</div>"
        )


class Displayed(ABC):
    """A result that shows itself in a notebook and on a prompt."""

    @abstractmethod
    def display(self) -> Display:
        """What is shown of it."""

    def __repr__(self) -> str:
        return self.display().to_text()

    def _repr_html_(self) -> str:
        return self.display().to_html()


def _cut(text: str, most: int) -> str:
    """A text as one line of at most so many characters."""
    return _cut_end(" ".join(text.split()), most)


def _cut_end(line: str, most: int) -> str:
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _row(tag: str, cells: Sequence[str], words: int) -> str:
    styles = [*[LEFT] * words, *[STYLE] * (len(cells) - words)]
    inside = "".join(
        f'<{tag} style="{style}">{html.escape(cell)}</{tag}>'
        for style, cell in zip(styles, cells, strict=True)
    )
    return f"<tr>{inside}</tr>"
