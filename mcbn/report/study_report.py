"""The page of a batch-size study: what was found, drawn and tested, with its numbers as JSON."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mcbn.evaluation import glossary
from mcbn.report import page, study_claims, study_panels, study_sweeps, study_tables
from mcbn.report.claims import Claim
from mcbn.report.panels import Group
from mcbn.report.study_panels import SPREADS
from mcbn.report.tables import Table
from mcbn.study import declaration, summary
from mcbn.study.contrasts import Contrast, contrasts
from mcbn.study.results import Study
from mcbn.study.slopes import Slope, slopes
from mcbn.study.summary import Cost, Means, costs

AXES: tuple[study_sweeps.Axis, ...] = ("N", "T")
REPEAT = "mcbn study run study.yaml --out DIR"


@dataclass(frozen=True, eq=False)
class Block:
    """What the page says of one part of a study.

    Attributes:
        name: what sets it apart; empty for the only one.
        study: the part.
        claims: its verdict.
        means: of every shown score, at every pair of batch sizes.
        slopes: of its epistemic spreads.
        contrasts: paired tests by score.
        main_tests: those of its main score.
        costs: wall times.
        groups: figures by section.
    """

    name: str
    study: Study
    claims: tuple[Claim, ...]
    means: tuple[Means, ...]
    slopes: tuple[Slope, ...]
    contrasts: Mapping[str, tuple[Contrast, ...]]
    main_tests: tuple[Contrast, ...]
    costs: tuple[Cost, ...]
    groups: Mapping[str, list[Group]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "name": self.name,
            "verdict": [asdict(claim) for claim in self.claims],
            "means": [asdict(each) for each in self.means],
            "slopes": [asdict(slope) for slope in self.slopes],
            "contrasts": {
                score: [asdict(each) for each in found] for score, found in self.contrasts.items()
            },
            "costs": [asdict(cost) for cost in self.costs],
            "figures": page.numbers_of(self.groups),
        }


@dataclass(frozen=True, eq=False)
class StudyReport:
    """What the page of a study says; equal input gives an equal page to the last byte."""

    study: Study

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined."""
        found: dict[str, Any] = page.plain(
            {
                "title": self.study.plan.title,
                "declaration": declaration.written(self.study.plan),
                "repeat": REPEAT,
                "verdict": [asdict(claim) for claim in self._claims],
                "sweeps": page.numbers_of(self._sweeps),
                "trends": [asdict(trend) for trend in self._trends],
                "parts": [block.to_dict() for block in self._blocks],
                "study": self.study.to_dict(),
            }
        )
        return found

    def to_html(self) -> str:
        """The page: no request leaves it, and without scripts it says the same."""
        several = len(self._blocks) > 1
        tests = [test for block in self._blocks for test in block.main_tests]
        return page.filled(
            "study_report.html",
            title=self.study.plan.title,
            study=self.study,
            claims_of_all=self._claims,
            overview=study_tables.overview({b.name: b.study for b in self._blocks}, tests),
            sweeps=page.drawn(self._sweeps, prefix="sweep-"),
            trends=study_tables.trends(self._trends, root="trends"),
            declaration=declaration.written(self.study.plan),
            repeat=REPEAT,
            failures=study_tables.failures(self.study),
            blocks=[
                {
                    "id": f"part-{index}-" if several else "",
                    "name": block.name,
                    "claims": block.claims,
                    "study": block.study,
                    "groups": page.drawn(block.groups, prefix=f"part-{index}-"),
                    "tables": _tables(block, index),
                }
                for index, block in enumerate(self._blocks)
            ],
            known=[name for name in glossary.SCORES if name in self.study.plan.shown],
            words_of_study=glossary.STUDY_WORDS,
        )

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write `report.html` and `report.json`, each whole or not at all.

        Returns:
            The path of the page.
        """
        # Both are made before either is written: an error leaves the old pair as it was.
        return page.write(directory, page=self.to_html(), numbers=self.to_dict())

    @property
    def _claims(self) -> tuple[Claim, ...]:
        """Verdict on the study as a whole."""
        return (*study_claims.state(self.study), *study_claims.contraction(self._trends))

    @cached_property
    def _sweeps(self) -> dict[str, list[Group]]:
        """Figures against N and T, where they are varied."""
        found: dict[str, list[Group]] = {}
        for axis in AXES:
            for sweep in study_sweeps.sweeps(self.study, axis):
                main = summary.main_score(next(iter(sweep.studies.values())))
                for score in (main, "epistemic_sd"):
                    group = study_sweeps.sweep_group(sweep, score)
                    found.setdefault(axis, []).extend([group] if group else [])
        return {axis: groups for axis, groups in found.items() if groups}

    @cached_property
    def _trends(self) -> tuple[study_sweeps.Trend, ...]:
        return tuple(
            trend
            for sweep in study_sweeps.sweeps(self.study, "N")
            for trend in study_sweeps.trends(sweep)
        )

    @cached_property
    def _blocks(self) -> tuple[Block, ...]:
        parts = self.study.parts()
        shown = self.study.plan.shown
        main = {name: summary.main_score(part) for name, part in parts.items()}
        judged = [name for name in shown if glossary.judged(name)]
        tests = {
            score: contrasts(parts, score) for score in dict.fromkeys([*judged, *main.values()])
        }
        return tuple(
            Block(
                name,
                part,
                study_claims.verdict(name, part, tests[main[name]]),
                summary.means(part, [score for score in shown if _measured(part, score)]),
                tuple(slope for score in SPREADS for slope in slopes(part, score)),
                {
                    score: own
                    for score in judged
                    if (own := tuple(each for each in tests[score] if each.part == name))
                },
                tuple(test for test in tests[main[name]] if test.part == name),
                costs(part),
                _groups(part),
            )
            for name, part in parts.items()
        )


def _groups(study: Study) -> dict[str, list[Group]]:
    """Figures of a part by section; a section without data is missing."""
    if not study.batch_sizes:
        return {}
    scores = [name for name in study.plan.shown if name not in SPREADS]
    outside = [
        kind for name in study.outside for kind in (f"mutual_information_{name}", f"auroc_{name}")
    ]
    found = {
        "scores": _known(study, scores),
        "slopes": _known(study, SPREADS),
        "outside": _known(study, outside),
        "heat": _heat_maps(study),
    }
    if found["outside"] and "MCBN" in study.methods:
        found["outside"].insert(0, study_panels.information_group(study))
    return {section: _side_by_side(groups) for section, groups in found.items() if groups}


def _known(study: Study, scores: Sequence[str]) -> list[Group]:
    groups = (study_panels.score_group(study, score) for score in scores)
    return [group for group in groups if group]


def _heat_maps(study: Study) -> list[Group]:
    main = summary.main_score(study)
    scores = (main, "epistemic_sd" if main == "pll" else "mutual_information")
    panels = [study_panels.heat_map(study, score) for score in scores]
    known = tuple(panel for panel in panels if panel)
    return [Group("", (), known)] if known else []


def _side_by_side(groups: list[Group]) -> list[Group]:
    """Groups of one figure each as one group, if they share a key: else each takes a row."""
    if len(groups) < 2 or any(len(group.panels) != 1 for group in groups):
        return groups
    if len({group.key for group in groups}) > 1:
        return groups
    panels = tuple(replace(group.panels[0], title=group.title) for group in groups)
    return [Group("", groups[0].key, panels)]


def _tables(block: Block, index: int) -> dict[str, Any]:
    root = f"parts.{index}"
    study = block.study
    names = list(block.means[0].scores)
    tables: dict[str, Any] = {
        "scores": study_tables.scores(block.means, names, root=f"{root}.means"),
        "slopes": study_tables.slopes(
            block.slopes, study.training_batch_sizes, root=f"{root}.slopes"
        ),
        "corrected": any(slope.corrected for slope in block.slopes),
        "contrasts": [
            study_tables.contrasts(
                found, study.training_batch_sizes, root=f"{root}.contrasts.{score}"
            )
            for score, found in block.contrasts.items()
        ],
        "cost": study_tables.cost(block.costs, root=f"{root}.costs"),
        "heat": _heat_tables(block.groups.get("heat", []), f"{root}.figures.heat.0.panels"),
    }
    return tables


def _measured(study: Study, score: str) -> bool:
    """Whether any cell has this score: a study may hold classes and real targets."""
    return any(math.isfinite(result.scores.get(score, math.nan)) for result in study.results)


def _heat_tables(groups: Sequence[Group], root: str) -> list[Table]:
    return [
        study_tables.heat_map(panel.numbers, panel.title, root=f"{root}.{place}")
        for group in groups
        for place, panel in enumerate(group.panels)
    ]
