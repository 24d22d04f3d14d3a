"""A report: one self-contained page and the same numbers as JSON."""

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mcbn import figures, glossary, panels, study_panels, tables
from mcbn.comparison import Comparison
from mcbn.convergence import Convergence
from mcbn.files import write_whole
from mcbn.findings import confidence_gap, decay, monte_carlo_error
from mcbn.panels import Group
from mcbn.study import Study
from mcbn.verdict import Claim, verdict

STUDY_SCORES = ("nll", "ece_debiased", "accuracy")


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says; equal input gives an equal page to the last byte.

    Attributes:
        title: of the page.
        comparison: methods on one test set, the baseline first.
        study: a batch-size study, if one was made.
        convergence: Monte Carlo error against the number of draws, by method.
        provenance: what was measured and how to repeat it: plain text by label.
        notes: warnings that were raised and limits the reader must know.
    """

    title: str
    comparison: Comparison
    study: Study | None = None
    convergence: Mapping[str, Convergence] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> tuple[Claim, ...]:
        """Plain sentences computed from the numbers."""
        return verdict(self.comparison, self.study, self.convergence)

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined."""
        found: dict[str, Any] = {
            "title": self.title,
            "verdict": [asdict(claim) for claim in self.verdict],
            "provenance": dict(self.provenance),
            "notes": list(self.notes),
            "comparison": self.comparison.to_dict(),
            "confidence_gap": self._gaps(),
            "monte_carlo_error": self._errors(),
            "figures": {
                section: [_group_dict(group) for group in groups]
                for section, groups in self._groups().items()
            },
        }
        if self.study:
            fall = decay(self.study)
            found["study"] = self.study.to_dict()
            found["decay"] = asdict(fall) if fall else None
        plain: dict[str, Any] = _plain(found)
        return plain

    def to_html(self) -> str:
        """The page: no request leaves it, and without scripts it says the same."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                                  lstrip_blocks=True)  # fmt: skip
        style, script = _packaged("report.css"), _packaged("report.js")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return environment.from_string(_packaged("report.html")).render(
            report=self,
            first=self.comparison.entries[self.comparison.baseline],
            groups=_drawn(self._groups()),
            tables=self._tables(),
            dashes=figures.dashes,
            series=len(figures.SERIES),
            glossary=glossary,
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            script_hash=f"sha256-{digest}",
        )

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write `report.html` and `report.json`, each whole or not at all.

        Returns:
            The path of the page.
        """
        page = Path(directory) / "report.html"
        # Both are made before either is written: an error leaves the old pair as it was.
        content = self.to_html().encode()
        numbers = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(page.with_suffix(".json"), f"{numbers}\n".encode())
        write_whole(page, content)
        return page

    def _groups(self) -> dict[str, list[Group]]:
        """Figures by section; a section without data is missing."""
        found = {
            "reliability": [panels.reliability_group(self.comparison)],
            "selective": [panels.selective_group(self.comparison)],
        }
        if self.comparison.entries[self.comparison.baseline].outside:
            found["outside"] = [panels.outside_group(self.comparison)]
        if self.study and self.study.batch_sizes:
            kinds = (*STUDY_SCORES, *(f"auroc_{name}" for name in self.study.outside))
            scored = [study_panels.score_group(self.study, score) for score in kinds]
            found["study"] = [
                study_panels.information_group(self.study),
                *(group for group in scored if group),
            ]
        if self.convergence:
            found["convergence"] = [panels.convergence_group(self.convergence)]
        return found

    def _tables(self) -> dict[str, tables.Table | None]:
        groups = self._groups()
        return {
            "headline": tables.headline(self.comparison),
            "differences": tables.differences(self.comparison),
            "all": tables.all_scores(self.comparison),
            "outside": tables.separation(self.comparison) if "outside" in groups else None,
            "study": tables.study_numbers(groups["study"]) if "study" in groups else None,
            "draws": tables.draws(self._errors()) if self.convergence else None,
            "cost": tables.cost(self.comparison),
        }

    def _gaps(self) -> dict[str, dict[str, float]]:
        found = {}
        for name, entry in self.comparison.entries.items():
            value, low, high = confidence_gap(entry, self.comparison.targets)
            found[name] = {"value": value, "low": low, "high": high}
        return found

    def _errors(self) -> dict[str, dict[str, float]]:
        found = {}
        for name, curve in self.convergence.items():
            entry = self.comparison.entries.get(name)
            count = entry.predictive.draw_count if entry else curve.draws[-1]
            score = entry.evaluation["nll"] if entry else None
            half = (score.high - score.low) / 2 if score else math.nan
            error = monte_carlo_error(curve, count)
            found[name] = {"draws": count, "error": error, "half_width": half}
        return found


def _packaged(name: str) -> str:
    return resources.files("mcbn").joinpath(name).read_text(encoding="utf-8")


def _drawn(groups: Mapping[str, Sequence[Group]]) -> dict[str, list[dict[str, Any]]]:
    """Groups with their figures as SVG, under names that no two figures share."""
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
                                name=f"{section}-{number}-{place}",
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


def _group_dict(group: Group) -> dict[str, Any]:
    figures_of = [{"title": panel.title, **panel.numbers} for panel in group.panels]
    return {"title": group.title, "panels": figures_of}


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None stands for both."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
