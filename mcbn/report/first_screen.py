"""What a reader of a report sees first: a headline, three tiles, a row per method, one figure."""

from dataclasses import dataclass

from markupsafe import Markup

from mcbn.checks.claim import Claim
from mcbn.report.panels import PanelGroup
from mcbn.report.tables import Table


@dataclass(frozen=True)
class Tile:
    """One number that matters, with a small chart.

    Attributes:
        label: what it is.
        value: the number, as text.
        note: its interval, and what it is compared with.
        chart: inline SVG, or nothing.
        mark: "good", "uncertain", "bad" or nothing: the colour of the number.
    """

    label: str
    value: str
    note: str
    chart: Markup
    mark: str = ""


@dataclass(frozen=True, eq=False)
class FirstScreen:
    """The first screen of a report.

    Attributes:
        eyebrow: what was measured, in a few words above the headline.
        headline: one sentence that says whether the model can be trusted, and with which method.
        lede: the two or three numbers behind it.
        tiles: the three numbers that matter.
        table: a row per method.
        note: what the table's numbers are.
        figure: the one that matters; None where there is nothing to draw.
        caption: what it shows.
        claims: what the checks say at the top; those of the parts of a study stand there.
    """

    eyebrow: str
    headline: str
    lede: str
    tiles: tuple[Tile, ...]
    table: Table
    note: str
    figure: PanelGroup | None
    caption: str
    claims: tuple[Claim, ...]
