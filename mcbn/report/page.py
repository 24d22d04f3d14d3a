"""A page of a report: templates filled, figures drawn, both files written whole."""

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from mcbn.evaluation import glossary
from mcbn.io.atomic import write_whole
from mcbn.report import figures, panels
from mcbn.report.panels import Group


def filled(template: str, **names: Any) -> str:
    """A page from a template of the package: no request leaves it.

    Args:
        template: file name.
        names: what the template says; text is escaped.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True, loader=FunctionLoader(_packaged))  # fmt: skip
    style, script = _packaged("report.css"), _packaged("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        dashes=figures.dashes,
        series=len(figures.SERIES),
        glossary=glossary,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
        words={"good": "✓ Good", "uncertain": "? Uncertain", "bad": "✗ Attention"},
    )
    return environment.get_template(template).render(**names)


def write(directory: str | os.PathLike[str], *, page: str, numbers: Mapping[str, Any]) -> Path:
    """Write `report.html` and `report.json`, each whole or not at all.

    Returns:
        The path of the page.
    """
    path = Path(directory) / "report.html"
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path.with_suffix(".json"), f"{text}\n".encode())
    write_whole(path, page.encode())
    return path


def drawn(groups: Mapping[str, Sequence[Group]], *, prefix: str = "") -> dict[str, Any]:
    """Groups with their figures as SVG, under names that no two figures share.

    Args:
        groups: figures by section.
        prefix: put before every name; no two calls for one page have the same.
    """
    return {
        section: [
            {
                "title": group.title,
                "key": group.key,
                "panels": [
                    {
                        "title": panel.title,
                        "wide": panel.size[0] > panels.SIZE[0],
                        # The label is escaped there, and nothing else of it is from outside.
                        "svg": Markup(  # noqa: S704
                            figures.render(
                                panel.draw,
                                name=f"{prefix}{section}-{number}-{place}",
                                label=panel.label,
                                size=panel.size,
                            )
                        ),
                    }
                    for place, panel in enumerate(group.panels)
                ],
            }
            for number, group in enumerate(found)
        ]
        for section, found in groups.items()
    }


def numbers_of(groups: Mapping[str, Sequence[Group]]) -> dict[str, Any]:
    """What the figures show, by section."""
    return {
        section: [
            {
                "title": group.title,
                "panels": [{"title": panel.title, **panel.numbers} for panel in group.panels],
            }
            for group in found
        ]
        for section, found in groups.items()
    }


def plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None stands for both."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _packaged(name: str) -> str:
    return resources.files("mcbn.report").joinpath("templates", name).read_text(encoding="utf-8")
