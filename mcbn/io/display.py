"""How a result shows itself: a few lines of text, and a table in a notebook."""

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ROWS = 7  # of the text, which has 10 lines at most
MAX_HTML_ROWS = 40
STYLE = "text-align: right; padding: 0.1em 0.8em"
LEFT = "text-align: left; padding: 0.1em 0.8em"


@dataclass(frozen=True)
class Display:
    """What is shown of a result.

    Attributes:
        heading: what it is, in one line.
        columns: headings of a table; none without one.
        rows: of the table; the first entry of each is a name.
    """

    heading: str
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()

    def to_text(self) -> str:
        """At most 10 lines."""
        lines = [self.heading]
        if self.rows:
            shown = [self.columns, *self.rows[:MAX_ROWS]]
            widths = [max(len(row[k]) for row in shown) for k in range(len(self.columns))]
            for row in shown:
                cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
                lines.append(("  " + "  ".join(cells)).rstrip())
        if (hidden := len(self.rows) - MAX_ROWS) > 0:
            lines.append(f"  ... and {hidden} more")
        return "\n".join(lines)

    def to_html(self) -> str:
        """A heading and a table, for a notebook."""
        heading = f"<p>{html.escape(self.heading)}</p>"
        if not self.rows:
            return f"<div>{heading}</div>"
        head = _row("th", self.columns)
        body = "".join(_row("td", row) for row in self.rows[:MAX_HTML_ROWS])
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


def _row(tag: str, cells: Sequence[str]) -> str:
    styles = [LEFT, *[STYLE] * (len(cells) - 1)]
    inside = "".join(
        f'<{tag} style="{style}">{html.escape(cell)}</{tag}>'
        for style, cell in zip(styles, cells, strict=True)
    )
    return f"<tr>{inside}</tr>"
