"""What a report on a study holds: its parts with their claims, tests, figures and numbers."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, get_args

from mcbn.checks.catalogue import Checked, check_all
from mcbn.checks.claim import Claim
from mcbn.checks.recommendation import recommended
from mcbn.checks.subject import Subject
from mcbn.evaluation import glossary
from mcbn.report import page, study_panels, study_sweeps
from mcbn.report.choice_figure import choice_table, draw_choice
from mcbn.report.panels import Panel, PanelGroup
from mcbn.report.study_panels import SPREADS
from mcbn.study import declaration, summary
from mcbn.study.choice import BatchSizeChoice
from mcbn.study.contrasts import Contrast, contrasts
from mcbn.study.given import TRAINED
from mcbn.study.names import Architecture
from mcbn.study.plan import Plan
from mcbn.study.results import Study
from mcbn.study.slopes import Slope, slopes
from mcbn.study.summary import Cost, Means, costs
from mcbn.study.trends import Axis, Trend, sweeps, trends

AXES: tuple[Axis, ...] = ("N", "T")


@dataclass(frozen=True, eq=False)
class PartContent:
    """Content of the page on one part of a study.

    Attributes:
        name: what distinguishes it; empty if it is the only one.
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
    groups: Mapping[str, list[PanelGroup]]

    def to_dict(self) -> dict[str, Any]:
        """Every number of the part."""
        return {
            "name": self.name,
            "means": [asdict(each) for each in self.means],
            "slopes": [asdict(slope) for slope in self.slopes],
            "contrasts": {
                score: [asdict(test) for test in tests] for score, tests in self.contrasts.items()
            },
            "costs": [asdict(cost) for cost in self.costs],
            "figures": page.numbers_of(self.groups),
        }


@dataclass(frozen=True, eq=False)
class StudyContent:
    """What a report on a study holds.

    Attributes:
        study: the study, also while it runs.
        ignore: codes of checks that are left out.
    """

    study: Study
    ignore: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """That of the plan."""
        return self.study.plan.title

    def numbers(self) -> dict[str, Any]:
        """Its own numbers."""
        return {
            "declaration": declaration.to_yaml(self.study.plan),
            "repeat": repeat_command(self.study.plan),
            "recommendation": self.study.recommendation,
            "trends": [asdict(trend) for trend in self.trends],
            "parts": [part.to_dict() for part in self.parts],
            "study": self.study.to_dict(),
        }

    @cached_property
    def checked(self) -> Checked:
        """What the checks say."""
        return check_all(self._subject, ignore=self.ignore)

    @cached_property
    def _subject(self) -> Subject:
        return Subject(study=self.study)

    @cached_property
    def choice(self) -> BatchSizeChoice | None:
        """The batch size that a sweep recommends, if it could choose one."""
        return recommended(self.study)

    @property
    def recommended_groups(self) -> dict[str, list[PanelGroup]]:
        """The figure of the choice of a batch size."""
        choice = self.choice
        if choice is None:
            return {}
        label = "Held-out criterion against the batch size, of rescaled and of collected draws"
        panel = Panel(
            "",
            label,
            partial(draw_choice, choice),
            choice.to_dict(),
            (3.6, 4.0),
            plotted=choice_table(choice),
        )
        return {"choice": [PanelGroup("", (), (panel,))]}

    @cached_property
    def sweep_groups(self) -> dict[str, list[PanelGroup]]:
        """Figures against N and T, where the study varies them."""
        groups: dict[str, list[PanelGroup]] = {}
        for axis in AXES:
            for sweep in sweeps(self.study, axis):
                main = summary.main_score(next(iter(sweep.studies.values())))
                for score in (main, "epistemic_sd"):
                    if group := study_sweeps.sweep_group(sweep, score):
                        groups.setdefault(axis, []).append(group)
        return groups

    @cached_property
    def trends(self) -> tuple[Trend, ...]:
        """How epistemic spread changes with N, where the study varies it."""
        return tuple(trend for sweep in sweeps(self.study, "N") for trend in trends(sweep))

    @cached_property
    def parts(self) -> tuple[PartContent, ...]:
        """What is shown of each part, with the tests of all parts together."""
        parts = self._subject.study_parts
        shown = self.study.plan.shown
        main = {name: summary.main_score(part) for name, part in parts.items()}
        judged = [name for name in shown if glossary.judged(name)]
        tests = {
            score: contrasts(parts, score) for score in dict.fromkeys([*judged, *main.values()])
        }
        return tuple(
            PartContent(
                name,
                part,
                tuple(claim for claim in self.checked.claims if claim.part == name),
                summary.means(part, [score for score in shown if _measured(part, score)]),
                tuple(slope for score in SPREADS for slope in slopes(part, score)),
                {
                    score: part_tests
                    for score in judged
                    if (part_tests := _of_part(tests[score], name))
                },
                _of_part(tests[main[name]], name),
                costs(part),
                _groups(part),
            )
            for name, part in parts.items()
        )

    def own_figures(self) -> dict[str, list[PanelGroup]]:
        """The figures of the study as a whole, by section."""
        return {**self.recommended_groups, **self.sweep_groups}

    def every_figure(self) -> dict[str, list[PanelGroup]]:
        """Those and the figures of each part, by section; a section without data is missing."""
        groups = {**self.recommended_groups}
        groups |= {f"against {axis}": each for axis, each in self.sweep_groups.items()}
        for part in self.parts:
            for section, each in part.groups.items():
                groups[f"{section} {part.name}".rstrip()] = each
        return groups


def repeat_command(plan: Plan) -> str | None:
    """The command that runs a study with its declaration as study.yaml; None if there is none.

    A file cannot name a user's own code, and a command only one network. There is none for a
    network that was given with its weights.
    """
    if plan.given.fit == TRAINED:
        return None
    words = ["mcbn", "study", "run", "study.yaml", "--out", "DIR"]
    if set(plan.network.names) <= set(get_args(Architecture)):
        return shlex.join(words)
    if len(plan.network.names) > 1:
        return None
    words += ["--model", *plan.network.names]
    words += ["--task", plan.given.task] if plan.given.task else []
    return shlex.join([*words, *(["--fit", plan.given.fit] if plan.given.fit else [])])


def _of_part(tests: Sequence[Contrast], name: str) -> tuple[Contrast, ...]:
    return tuple(test for test in tests if test.part == name)


def _groups(study: Study) -> dict[str, list[PanelGroup]]:
    """Figures of a part by section; a section without data is missing."""
    if not study.batch_sizes:
        return {}
    scores = [name for name in study.plan.shown if name not in SPREADS]
    ood_scores = [
        *(f"mutual_information_{name}" for name in study.outside),
        *study_panels.detection_scores(study),
    ]
    sections = {
        "scores": _score_groups(study, scores),
        "slopes": _score_groups(study, SPREADS),
        "outside": _score_groups(study, ood_scores),
        "heat": _heat_maps(study),
    }
    if sections["outside"] and "MCBN" in study.methods:
        sections["outside"].insert(0, study_panels.information_group(study))
    return {section: _side_by_side(groups) for section, groups in sections.items() if groups}


def _score_groups(study: Study, scores: Sequence[str]) -> list[PanelGroup]:
    groups = (study_panels.score_group(study, score) for score in scores)
    return [group for group in groups if group]


def _heat_maps(study: Study) -> list[PanelGroup]:
    main = summary.main_score(study)
    scores = (main, "epistemic_sd" if main == "pll" else "mutual_information")
    panels = [study_panels.heat_map(study, score) for score in scores]
    drawn = tuple(panel for panel in panels if panel)
    return [PanelGroup("", (), drawn)] if drawn else []


def _side_by_side(groups: list[PanelGroup]) -> list[PanelGroup]:
    """Join groups of one figure each, if their legends are equal, so that they share a row."""
    if len(groups) < 2 or any(len(group.panels) != 1 for group in groups):
        return groups
    if len({group.key for group in groups}) > 1:
        return groups
    panels = tuple(replace(group.panels[0], title=group.title) for group in groups)
    return [PanelGroup("", groups[0].key, panels)]


def _measured(study: Study, score: str) -> bool:
    """Whether any cell has this score: a study may hold both classification and regression."""
    return any(math.isfinite(result.scores.get(score, math.nan)) for result in study.results)
