"""The frame of every report: the page around its sections, and the numbers that all have."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from mcbn.checks.catalogue import Checked
from mcbn.drawing import figures, rendering
from mcbn.drawing.plotted import json_text
from mcbn.evaluation import glossary
from mcbn.io.plain import to_plain
from mcbn.report import figure_files
from mcbn.report.first_screen import FirstScreen
from mcbn.report.panels import PanelGroup

SCHEMA = 1  # version of what `report.json` holds; see schema.json
STYLES, SCRIPTS = ("report.css", "figures.css"), ("report.js", "figures.js")
# By the file that they are in; every template can use them.
MACROS = {
    "figures.html": ("figures",),
    "macros.html": ("checks", "claims", "table", "terms", "tiles"),
}
STATUS_WORDS = {"issue": "Issue", "tip": "Tip", "passed": "Passed"}


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        id: its address on the page.
        title: its heading, and its name in the bar of sections.
        body: what it holds, as HTML.
    """

    id: str
    title: str
    body: Markup


def page_html(
    title: str,
    first: FirstScreen,
    checked: Checked,
    sections: Iterable[Section],
) -> str:
    """A page: it loads nothing from elsewhere, and needs no scripts to be read.

    Args:
        title: its title; any text.
        first: the first screen.
        checked: what the checks say.
        sections: below it.
    """
    # Its title is the heading of its section.
    main = {"main": [replace(first.figure, title="")]} if first.figure else {}
    names = {
        "title": title, "first": first, "checked": checked, "counts": counted(checked),
        "main_figure": rendered(main).get("main"), "sections": list(sections),
    }  # fmt: skip
    return _environment().get_template("page.html").render(names)


def page_numbers(
    kind: str,
    title: str,
    first: FirstScreen,
    checked: Checked,
    own: Mapping[str, Any],
    groups: Mapping[str, Sequence[PanelGroup]],
) -> dict[str, Any]:
    """Every number of a page, with None for what is not defined; see schema.json.

    Args:
        kind: "classes", "real values" or "study".
        title: of the page.
        first: its first screen.
        checked: what the checks say.
        own: the numbers that only reports of its kind have.
        groups: its figures by section.
    """
    plain: dict[str, Any] = to_plain({
        "schema": SCHEMA,
        "kind": kind,
        "title": title,
        "headline": first.headline,
        "summary": first.lede,
        "verdict": [claim.to_dict() for claim in checked.claims],
        "checks": checked.to_dict(),
        **own,
        "figures": numbers_of(groups),
    })  # fmt: skip
    return plain


def counted(checked: Checked) -> str:
    """How many checks there are of each status, in words."""
    words = {"issue": ("issue", "issues"), "tip": ("tip", "tips"), "passed": ("passed", "passed")}
    counts = {status: len(checked.of(status)) for status in ("issue", "tip", "passed")}
    return ", ".join(
        f"{count} {words[status][count != 1]}" for status, count in counts.items() if count
    ) or "none apply"  # fmt: skip


def section(identity: str, title: str, template: str, **names: Any) -> Section:
    """Fill the template of a section.

    Args:
        identity: its address on the page, unique there.
        title: its heading.
        template: name of the file.
        **names: values for the template; text is escaped.
    """
    body = _environment().get_template(f"sections/{template}.html").render(**names)
    return Section(identity, title, Markup(body))  # noqa: S704 - made by our own templates


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read_template),
    )
    style, script = ("".join(map(_read_template, names)) for names in (STYLES, SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        dashes=figures.dashes,
        series=len(figures.SERIES),
        glossary=glossary,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
        words=STATUS_WORDS,
    )
    for file, names in MACROS.items():
        macros = environment.get_template(file).module
        environment.globals.update({name: getattr(macros, name) for name in names})
    return environment


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
