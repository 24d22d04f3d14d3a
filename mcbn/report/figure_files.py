"""The figures of a report as files of their own, for papers and slides."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mcbn.drawing import figures
from mcbn.drawing.plotted import csv_text
from mcbn.report.panels import Panel, PanelGroup

FOLDER = "figures"  # beside the page
DPI = 300  # of PNG, as journals ask for
# What cannot stand in the name of a file on every system.
UNSAFE = re.compile(r"[^a-z0-9]+")
MAX_STEM = 150  # characters of a file's name
MAX_TITLE = 120  # characters of a heading that are drawn
LINE = 0.18  # inches of a line of the heading or the legend
CHARACTERS = 12  # of the heading per inch
SAMPLE, LETTER = 0.6, 0.07  # inches of the line in the legend, and of a letter beside it
# Words of sections that say what a figure shows, also without its page.
SECTIONS = {
    "selective": "risk-coverage", "outside": "out-of-distribution", "choice": "batch-size",
    "heat": "heat-map",
}  # fmt: skip
SETTINGS: Any = {
    "grid.color": "#d9d9d9",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # TrueType: many journals refuse fonts of type 3
}
# Without the date, so that equal figures are equal to the last byte.
METADATA: Mapping[str, dict[str, None]] = {
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": {"Software": None},
}


def figure_files(
    groups: Mapping[str, Sequence[PanelGroup]], formats: Sequence[str]
) -> dict[str, bytes]:
    """Draw every figure, and return the content of its files by their names.

    A file is named after what its figure shows, as in `reliability-mcbn.pdf`, by letters and digits
    alone. Each figure has its heading and its legend, which a page has around it, and its numbers
    as a CSV file.

    Args:
        groups: figures by section.
        formats: those of the files.
    """
    files = {}
    for stem, (group, panel) in named(groups).items():
        for suffix in formats:
            files[f"{stem}.{suffix}"] = _drawn(group, panel, suffix)
        if panel.plotted:
            files[f"{stem}.csv"] = csv_text(panel.plotted).encode()
    return files


def named(groups: Mapping[str, Sequence[PanelGroup]]) -> dict[str, tuple[PanelGroup, Panel]]:
    """Every figure by the name of its files, without the suffix."""
    named: dict[str, tuple[PanelGroup, Panel]] = {}
    for section, section_groups in groups.items():
        for group in section_groups:
            for panel in group.panels:
                first, *rest = section.split()
                words = " ".join([SECTIONS.get(first, first), *rest, group.title, panel.title])
                stem = UNSAFE.sub("-", words.lower())[:MAX_STEM].strip("-")
                # Names of methods may differ in letters that are left out.
                named[_unused(stem, named)] = (group, panel)
    return named


def _unused(stem: str, used: Mapping[str, object]) -> str:
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    return name


def _drawn(group: PanelGroup, panel: Panel, suffix: str) -> bytes:
    """A figure as a file, the same bytes each time."""
    width, height = panel.size
    titles = (figures.drawable(title, MAX_TITLE) for title in (group.title, panel.title))
    heading = [line for title in titles for line in textwrap.wrap(title, int(width * CHARACTERS))]
    longest = max((len(figures.drawable(name, figures.MAX_LEGEND_NAME)) for name, _ in group.key),
                  default=0)  # fmt: skip
    columns = max(1, int(width / (SAMPLE + LETTER * longest)))
    legend_lines = -(-len(group.key) // columns)
    buffer = io.BytesIO()
    with figures.settings(SETTINGS):
        size = (width, height + LINE * (len(heading) + legend_lines))
        figure = Figure(figsize=size, layout="constrained")
        panel.on_figure(figure)
        if heading:
            # A dollar sign in a name does not begin a formula.
            figure.suptitle("\n".join(heading), fontsize="medium", parse_math=False)
        if group.key:
            figures.draw_legend(figure, group.key, loc="outside lower center", ncols=columns)
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=METADATA[suffix])
    return buffer.getvalue()
