"""A report: one self-contained page and the same numbers as JSON."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mcbn.evaluation import glossary
from mcbn.evaluation.compare import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.glossary import SEPARATION
from mcbn.evaluation.subgroups import Subgroup, group_dicts
from mcbn.recalibration.apply import Held, held_dicts
from mcbn.report import page, panels, study_panels, tables
from mcbn.report.claims import Claim, confidence_gap, decay, group_claim, monte_carlo_error, verdict
from mcbn.report.gallery import Gallery
from mcbn.report.panels import Group
from mcbn.study.results import Study

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
        groups: scores of groups of examples, by column and method.
        galleries: pictures of the inputs that the method of `pictured` is most and least sure of.
        pictured: name of that method.
        sets: how often sets of classes of one level held the target, if held-out data were given.
    """

    title: str
    comparison: Comparison
    study: Study | None = None
    convergence: Mapping[str, Convergence] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, tuple[Subgroup, ...]]] = field(default_factory=dict)
    galleries: tuple[Gallery, ...] = ()
    pictured: str = ""
    sets: tuple[Held, ...] = ()

    @property
    def verdict(self) -> tuple[Claim, ...]:
        """Plain sentences computed from the numbers."""
        found = verdict(self.comparison, self.study, self.convergence)
        # The baseline speaks for all: a claim for each method would drown the rest.
        apart = (
            group_claim(self.comparison.baseline, column, methods[self.comparison.baseline])
            for column, methods in self.groups.items()
        )
        return (*found, *apart)

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
            "figures": page.numbers_of(self._groups()),
            "groups": group_dicts(self.groups),
            "sets": held_dicts(self.sets),
            "pictures": {
                gallery.title: [picture.index for picture in gallery.pictures]
                for gallery in self.galleries
            },
        }
        if self.study:
            fall = decay(self.study)
            found["study"] = self.study.to_dict()
            found["decay"] = asdict(fall) if fall else None
        plain: dict[str, Any] = page.plain(found)
        return plain

    def to_html(self) -> str:
        """The page: no request leaves it, and without scripts it says the same."""
        groups = self._groups()
        first = self.comparison.entries[self.comparison.baseline]
        return page.filled(
            "report.html",
            title=self.title,
            report=self,
            first=first,
            groups=page.drawn(groups),
            tables=self._tables(groups),
            known=[
                name
                for name in glossary.SCORES
                if name in first.evaluation or ("outside" in groups and name in SEPARATION)
            ],
        )

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write `report.html` and `report.json`, each whole or not at all.

        Returns:
            The path of the page.
        """
        # Both are made before either is written: an error leaves the old pair as it was.
        return page.write(directory, page=self.to_html(), numbers=self.to_dict())

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
        if self.groups:
            found["groups"] = [
                panels.subgroup_group(column, methods) for column, methods in self.groups.items()
            ]
        return found

    def _tables(self, groups: Mapping[str, list[Group]]) -> dict[str, Any]:
        return {
            "headline": tables.headline(self.comparison.evaluations),
            "differences": tables.differences(self.comparison.evaluations),
            "all": tables.all_scores(self.comparison.evaluations),
            "outside": tables.separation(self.comparison) if "outside" in groups else None,
            "study": tables.study_numbers(groups["study"]) if "study" in groups else None,
            "draws": tables.draws(self._errors()) if self.convergence else None,
            "cost": tables.cost(self.comparison),
            "groups": [tables.subgroups(name, found) for name, found in self.groups.items()],
            "sets": tables.held_targets(self.sets, "classes") if self.sets else None,
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
