"""What all report pages share: templates, figures as SVG, and writing both files."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from mcbn.evaluation import glossary
from mcbn.io.atomic import write_whole
from mcbn.io.plain import to_json
from mcbn.report import figure_files, figures, rendering
from mcbn.report.panels import PanelGroup
from mcbn.report.plotted import json_text

TITLE = "Calibration report"


@runtime_checkable
class Page(Protocol):
    """Content of a report; equal content gives the same page to the last byte."""

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined."""

    def to_html(self) -> str:
        """The page: it loads nothing from elsewhere, and needs no scripts to be read."""

    def figure_groups(self) -> Mapping[str, Sequence[PanelGroup]]:
        """Its figures by section; a section without data is missing."""


def fill_template(template: str, **names: Any) -> str:
    """Fill a template of the package.

    Args:
        template: file name.
        names: values for the template; text is escaped.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read_template),
    )
    style, script = (
        "".join(_read_template(f"{name}.{kind}") for name in ("report", "figures"))
        for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        dashes=figures.dashes,
        series=len(figures.SERIES),
        glossary=glossary,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
        marks={"good": "✓ Good", "uncertain": "? Uncertain", "bad": "✗ Attention"},
    )
    return environment.get_template(template).render(**names)


def write_page(
    page: Page, directory: str | os.PathLike[str], *, formats: Sequence[str] = ()
) -> Path:
    """Write `report.html` and `report.json`, each whole or not at all, and files of the figures.

    Args:
        page: its content.
        directory: where to write.
        formats: of the files of each figure, in the folder `figures`.

    Returns:
        The path of the page.
    """
    # All are made before any is written: an error leaves the old files as they were.
    html = page.to_html()
    numbers = to_json(page.to_dict(), indent=1, ensure_ascii=False)
    files = figure_files.figure_files(page.figure_groups(), formats) if formats else {}
    path = Path(directory) / "report.html"
    folder = path.with_name(figure_files.FOLDER)
    if formats:  # also where there is nothing to draw, as of a study that has only begun
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    write_whole(path.with_suffix(".json"), f"{numbers}\n".encode())
    write_whole(path, html.encode())
    return path


def rendered(groups: Mapping[str, Sequence[PanelGroup]], *, prefix: str = "") -> dict[str, Any]:
    """Groups of figures for a template, with every figure as SVG.

    Args:
        groups: figures by section.
        prefix: of the figures' names, unique to this call on the page.
    """
    named = {id(panel): stem for stem, (_, panel) in figure_files.named(groups).items()}
    return {
        section: [
            {
                "title": group.title,
                "key": group.key,
                # No text in it can end the attribute that it stands in.
                "plotted": Markup(json_text([panel.plotted for panel in group.panels])),  # noqa: S704
                "panels": [
                    {
                        "title": panel.title,
                        "file": named[id(panel)],
                        # `rendering` escapes the label; no other text in it is the user's.
                        "svg": Markup(  # noqa: S704
                            rendering.render(
                                panel.on_figure,
                                name=f"{prefix}{section}-{number}-{index}",
                                label=panel.label,
                                size=panel.size,
                            )
                        ),
                    }
                    for index, panel in enumerate(group.panels)
                ],
            }
            for number, group in enumerate(section_groups)
        ]
        for section, section_groups in groups.items()
    }


def numbers_of(groups: Mapping[str, Sequence[PanelGroup]]) -> dict[str, Any]:
    """The numbers behind the figures, by section."""
    return {
        section: [
            {
                "title": group.title,
                "panels": [{"title": panel.title, **panel.numbers} for panel in group.panels],
            }
            for group in section_groups
        ]
        for section, section_groups in groups.items()
    }


def _read_template(name: str) -> str:
    return resources.files("mcbn.report").joinpath("templates", name).read_text(encoding="utf-8")
