"""The page on a comparison of classification methods: verdict, figures, tables and numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from mcbn.checks.catalogue import Checked, check_all
from mcbn.checks.claim import Claim
from mcbn.checks.draws import DrawsJudged, judged_draws
from mcbn.checks.subject import Subject
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation import glossary
from mcbn.evaluation.by_class import ClassScores, class_scores_of
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.confidence_gap import confidence_gap
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.subgroups import Subgroup, group_dicts
from mcbn.io.plain import to_plain
from mcbn.recalibration.apply import fit_dicts, in_words
from mcbn.recalibration.coverages import SetCoverage, coverage_dicts
from mcbn.report import page, panels, study_panels, tables
from mcbn.report.draw_errors import draws_table
from mcbn.report.drift_section import drift_dicts, drift_group, drift_table
from mcbn.report.gallery import Gallery
from mcbn.report.maps import Maps
from mcbn.report.panels import PanelGroup
from mcbn.study.decay import decay
from mcbn.study.results import Study

MAX_CLASSES = 50  # whose scores can be read one by one
STUDY_SCORES = ("nll", "ece_debiased", "accuracy")


@dataclass(frozen=True, eq=False)
class ComparisonPage:
    """The page on a comparison of classification methods.

    Attributes:
        comparison: methods on one test set, the baseline first.
        title: of the page.
        study: a batch-size study, if one was made.
        convergence: Monte Carlo error against the number of draws, by method.
        provenance: what was measured and how to repeat it: plain text by label.
        notes: warnings that were raised, and limits that the reader must know.
        groups: scores of groups of examples, by column and method.
        galleries: pictures of the least and most certain inputs.
        pictured: name of the method whose certainty chose the pictures.
        sets: coverage of prediction sets of one level, if held-out data were given.
        maps: uncertainty maps of dense predictions.
        recalibrations: what was fitted on held-out data, by method.
        drift: tests of data sets for drift, by name.
    """

    comparison: Comparison
    title: str = page.TITLE
    study: Study | None = None
    convergence: Mapping[str, Convergence] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, tuple[Subgroup, ...]]] = field(default_factory=dict)
    galleries: tuple[Gallery, ...] = ()
    pictured: str = ""
    sets: tuple[SetCoverage, ...] = ()
    maps: Maps = field(default_factory=Maps)
    recalibrations: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, DriftTest] = field(default_factory=dict)

    @cached_property
    def class_scores(self) -> dict[str, ClassScores]:
        """The scores of each class by every method; none if there are too many to read."""
        comparison = self.comparison
        if comparison.entries[comparison.baseline].class_count > MAX_CLASSES:
            return {}
        return {
            name: class_scores_of(
                comparison.scored(name),
                classes=comparison.classes,
                resamples=len(entry.evaluation["nll"].replicates),
                level=entry.evaluation.level,
                seed=entry.evaluation.seed,
            )
            for name, entry in comparison.entries.items()
        }

    @cached_property
    def draws(self) -> dict[str, DrawsJudged]:
        """What the draws of each method do to its NLL."""
        return judged_draws(self.comparison, self.convergence)

    @cached_property
    def checked(self) -> Checked:
        """What the checks say."""
        return check_all(self.subject)

    @cached_property
    def subject(self) -> Subject:
        """What the checks look at."""
        return Subject(
            comparison=self.comparison, study=self.study, convergence=self.convergence,
            groups=self.groups, drift=self.drift, recalibrations=self.recalibrations,
            sets=self.sets,
        )  # fmt: skip

    @property
    def verdict(self) -> tuple[Claim, ...]:
        """Plain sentences computed from the numbers."""
        return self.checked.claims

    @property
    def counted(self) -> str:
        """What is counted: examples, or the labelled positions of dense predictions."""
        first = self.comparison.entries[self.comparison.baseline]
        several = not self.comparison.has_labels
        dense = self.maps.rows or first.images or (several and first.known.entropy.ndim > 1)
        return "test positions" if dense else "test examples"

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined."""
        numbers: dict[str, Any] = {
            "title": self.title,
            "verdict": [asdict(claim) for claim in self.verdict],
            "provenance": dict(self.provenance),
            "notes": list(self.notes),
            "comparison": self.comparison.to_dict(),
            "confidence_gap": self._confidence_gaps(),
            "calibration": {
                name: state.to_dict() for name, state in self.subject.calibration.items()
            },
            "draws": {name: each.to_dict() for name, each in self.draws.items()},
            "figures": page.numbers_of(self.figure_groups()),
            "classes": {name: each.to_dict() for name, each in self.class_scores.items()},
            "groups": group_dicts(self.groups),
            "recalibration": fit_dicts(self.recalibrations),
            "sets": coverage_dicts(self.sets),
            "drift": drift_dicts(self.drift),
            "pictures": {
                gallery.title: [picture.index for picture in gallery.pictures]
                for gallery in self.galleries
            },
        }
        if self.maps.rows:
            numbers["maps"] = {"method": self.maps.method, "brightest": self.maps.tops,
                               "examples": [row.index for row in self.maps.rows]}  # fmt: skip
        if self.study:
            fit = decay(self.study)
            numbers["study"] = self.study.to_dict()
            numbers["decay"] = asdict(fit) if fit else None
        plain: dict[str, Any] = to_plain(numbers)
        return plain

    def to_html(self) -> str:
        """The page: it loads nothing from elsewhere, and needs no scripts to be read."""
        groups = self.figure_groups()
        first = self.comparison.entries[self.comparison.baseline]
        has_ood = "outside" in groups
        return page.fill_template(
            "comparison.html",
            title=self.title,
            report=self,
            recalibrations={name: in_words(fit) for name, fit in self.recalibrations.items()},
            first=first,
            groups=page.rendered(groups),
            tables=self._tables(groups),
            known=[
                name
                for name in glossary.SCORES
                if name in first.evaluation or (has_ood and name in glossary.SEPARATION)
            ],
        )

    def figure_groups(self) -> dict[str, list[PanelGroup]]:
        """Its figures by section; a section without data is missing."""
        groups = {
            "reliability": [panels.reliability_group(self.comparison)],
            "selective": [panels.selective_group(self.comparison)],
        }
        if self.comparison.entries[self.comparison.baseline].outside:
            groups["outside"] = [panels.out_of_distribution_group(self.comparison)]
        if self.study and self.study.batch_sizes:
            names = (*STUDY_SCORES, *study_panels.detection_scores(self.study))
            score_groups = [study_panels.score_group(self.study, name) for name in names]
            groups["study"] = [
                study_panels.information_group(self.study),
                *(group for group in score_groups if group),
            ]
        if self.convergence:
            groups["convergence"] = [panels.convergence_group(self.convergence)]
        if self.groups:
            groups["groups"] = [
                panels.subgroup_group(column, methods) for column, methods in self.groups.items()
            ]
        if self.drift:
            groups["drift"] = [drift_group(self.drift)]
        return groups

    def _tables(self, groups: Mapping[str, list[PanelGroup]]) -> dict[str, Any]:
        return {
            "headline": tables.headline(self.comparison.evaluations),
            "differences": tables.differences(self.comparison.evaluations),
            "all": tables.all_scores(self.comparison.evaluations),
            "outside": tables.separation(self.comparison) if "outside" in groups else None,
            "study": tables.study_numbers(groups["study"]) if "study" in groups else None,
            "draws": draws_table(self.draws) if self.draws else None,
            "errors": tables.errors(self.comparison),
            "cost": tables.cost(self.comparison),
            "classes": self._class_table(),
            "groups": [tables.subgroups(name, methods) for name, methods in self.groups.items()],
            "sets": tables.set_coverages(self.sets, self._of_sets) if self.sets else None,
            "drift": drift_table(self.drift) if self.drift else None,
        }

    @property
    def _of_sets(self) -> str:
        """What prediction sets hold."""
        return "labels" if self.comparison.has_labels else "classes"

    def _class_table(self) -> tables.Table | None:
        scores = self.class_scores
        return tables.by_class(scores, several=self.comparison.has_labels) if scores else None

    def _confidence_gaps(self) -> dict[str, dict[str, float]]:
        gaps = {}
        for name in self.comparison.entries:
            value, low, high = confidence_gap(name, self.comparison)
            gaps[name] = {"value": value, "low": low, "high": high}
        return gaps
