"""What checks look at: whatever is known of some methods, each part of which may be missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mcbn.bank.consistency import Consistency
from mcbn.checks.calibration_states import CalibrationState, calibration_states
from mcbn.checks.real_values import real_calibration_states
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.real_gaps import RealGaps
from mcbn.evaluation.subgroups import Subgroup
from mcbn.recalibration.coverages import SetCoverage
from mcbn.study import summary
from mcbn.study.contrasts import Contrast, contrasts
from mcbn.study.results import Study


@dataclass(frozen=True, eq=False)
class Subject:
    """What checks look at; those that look at a part that is missing are not applicable.

    Attributes:
        comparison: of methods for classes or labels, the baseline first.
        evaluations: scores of methods for real values, the baseline first.
        study: over batch sizes.
        convergence: Monte Carlo error against the number of draws, by method.
        groups: scores of groups of examples, by column and method.
        drift: tests of data sets for drift, by name.
        recalibrations: what was fitted on held-out data, by method.
        sets: coverage of prediction sets or intervals.
        real_gaps: how the forecasts of each method of real values are off.
        banks: agreement of banks with their networks, by method, besides those that the comparison
            knows.
    """

    comparison: Comparison | None = None
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    study: Study | None = None
    convergence: Mapping[str, Convergence] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, tuple[Subgroup, ...]]] = field(default_factory=dict)
    drift: Mapping[str, DriftTest] = field(default_factory=dict)
    recalibrations: Mapping[str, Any] = field(default_factory=dict)
    sets: tuple[SetCoverage, ...] = ()
    real_gaps: Mapping[str, RealGaps] = field(default_factory=dict)
    banks: Mapping[str, Consistency] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """Name of the method that the others are compared with; empty of a study alone."""
        if self.comparison is not None:
            return self.comparison.baseline
        return next(iter(self.evaluations), "")

    @property
    def known_banks(self) -> dict[str, Consistency]:
        """Agreement of every known bank with its network, by method."""
        entries = self.comparison.entries if self.comparison else {}
        compared = {name: entry.bank for name, entry in entries.items() if entry.bank}
        return {**compared, **self.banks}

    @cached_property
    def calibration(self) -> Mapping[str, CalibrationState]:
        """Whether each method is calibrated, with correction for their number; none of a study."""
        if self.comparison is not None:
            return calibration_states(self.comparison)
        if not self.real_gaps:
            return {}
        level = self.evaluations[self.baseline].level
        return real_calibration_states(self.real_gaps, level=level)

    @cached_property
    def study_parts(self) -> Mapping[str, Study]:
        """The parts of the study by name; none without a study."""
        return self.study.parts() if self.study else {}

    @cached_property
    def main_tests(self) -> Mapping[str, tuple[Contrast, ...]]:
        """The paired tests of the main score of each part of the study, by name of the score."""
        names = dict.fromkeys(summary.main_score(part) for part in self.study_parts.values())
        return {name: contrasts(self.study_parts, name) for name in names}
