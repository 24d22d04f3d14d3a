"""What a report on methods for classes or labels holds: what was given, and its numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from mcbn.checks.calibration_states import CalibrationState
from mcbn.checks.catalogue import Checked, check_all
from mcbn.checks.differences import rival_difference
from mcbn.checks.draws import DrawsJudged, judged_draws
from mcbn.checks.subject import Subject
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation.by_class import ClassScores, class_scores_of
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.evaluation import Score, interval_dicts
from mcbn.evaluation.subgroups import Subgroup, group_dicts
from mcbn.recalibration.apply import fit_dicts
from mcbn.recalibration.coverages import SetCoverage, coverage_dicts
from mcbn.report.drift_section import drift_dicts
from mcbn.report.gallery import Gallery
from mcbn.report.maps import Maps
from mcbn.study.decay import decay
from mcbn.study.results import Study

TITLE = "Calibration report"
MAX_CLASSES = 50  # whose scores can be read one by one


@dataclass(frozen=True, eq=False)
class ComparisonContent:
    """What a report on methods for classes or labels holds.

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
        ignore: codes of checks that are left out.
    """

    comparison: Comparison
    title: str = TITLE
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
    ignore: tuple[str, ...] = ()

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
        return check_all(self.subject, ignore=self.ignore)

    @cached_property
    def subject(self) -> Subject:
        """What the checks look at."""
        return Subject(
            comparison=self.comparison, study=self.study, convergence=self.convergence,
            groups=self.groups, drift=self.drift, recalibrations=self.recalibrations,
            sets=self.sets,
        )  # fmt: skip

    @cached_property
    def simultaneous(self) -> dict[str, Score]:
        """The NLL of each other method minus that of the baseline, whose intervals all hold."""
        rivals = [name for name in self.comparison.entries if name != self.comparison.baseline]
        return {name: rival_difference(name, "nll", self.comparison) for name in rivals}

    @property
    def counted(self) -> str:
        """What is counted: examples, or the labelled positions of dense predictions."""
        first = self.comparison.entries[self.comparison.baseline]
        several = not self.comparison.has_labels
        dense = self.maps.rows or first.images or (several and first.known.entropy.ndim > 1)
        return "test positions" if dense else "test examples"

    @property
    def states(self) -> Mapping[str, CalibrationState]:
        """How calibrated each method is."""
        return self.subject.calibration

    def numbers(self) -> dict[str, Any]:
        """Its own numbers."""
        numbers: dict[str, Any] = {
            "provenance": dict(self.provenance),
            "notes": list(self.notes),
            "comparison": self.comparison.to_dict(),
            "calibration": {name: each.to_dict() for name, each in self.states.items()},
            "simultaneous": interval_dicts(self.simultaneous),
            "draws": {name: each.to_dict() for name, each in self.draws.items()},
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
        return numbers
