"""What a report on methods for real values holds: what was given, and its numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from mcbn.checks.calibration_states import CalibrationState
from mcbn.checks.catalogue import Checked, check_all
from mcbn.checks.differences import simultaneous_difference
from mcbn.checks.subject import Subject
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.comparison import paired
from mcbn.evaluation.evaluation import Evaluation, Score, interval_dicts
from mcbn.evaluation.real_gaps import RealGaps
from mcbn.evaluation.real_outputs import comparable, require_regression
from mcbn.evaluation.subgroups import Subgroup, group_dicts
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.positions import pieces
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.stored import StoredPredictive
from mcbn.recalibration.apply import fit_dicts
from mcbn.recalibration.coverages import SetCoverage, coverage_dicts
from mcbn.report.comparison_content import TITLE
from mcbn.report.drift_section import drift_dicts
from mcbn.report.maps import Maps
from mcbn.report.panels import Transforms

R = TypeVar("R", bound=GaussianPredictive | Moments)


@dataclass(frozen=True, eq=False)
class RealContent:
    """What a report on methods for real values holds.

    Attributes:
        predictions: of the same examples by each method, the baseline first.
        evaluations: their scores, by method.
        title: of the page.
        provenance: what was measured and how to repeat it: plain text by label.
        groups: scores of groups of examples, by column and method.
        sets: coverage of intervals of one level, if held-out data were given.
        outputs: scores of each output, by method, where there are several.
        maps: uncertainty maps of dense predictions.
        recalibrations: what was fitted on held-out data, by method.
        drift: tests of data sets for drift, by name.
        ignore: codes of checks that are left out.
        clusters: of the examples, which are resampled whole; None if each is by itself.
    """

    predictions: Mapping[str, Predictions]
    evaluations: Mapping[str, Evaluation]
    title: str = TITLE
    provenance: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, tuple[Subgroup, ...]]] = field(default_factory=dict)
    sets: tuple[SetCoverage, ...] = ()
    outputs: Mapping[str, Mapping[str, Evaluation]] = field(default_factory=dict)
    maps: Maps = field(default_factory=Maps)
    recalibrations: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, DriftTest] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    clusters: Clusters | None = None

    @property
    def baseline(self) -> str:
        """Name of the method that the others are compared with."""
        return next(iter(self.evaluations))

    @cached_property
    def checked(self) -> Checked:
        """What the checks say."""
        return check_all(self.subject, ignore=self.ignore)

    @cached_property
    def subject(self) -> Subject:
        """What the checks look at."""
        return Subject(
            evaluations=self.evaluations, groups=self.groups, drift=self.drift,
            recalibrations=self.recalibrations, sets=self.sets, real_gaps=self.real_gaps,
        )  # fmt: skip

    @property
    def states(self) -> Mapping[str, CalibrationState]:
        """How calibrated each method is."""
        return self.subject.calibration

    @cached_property
    def real_gaps(self) -> dict[str, RealGaps]:
        """How the forecasts of each method are off."""
        return {
            name: RealGaps.of(
                require_regression(each.scored), each.known_targets, self.clusters
            )
            for name, each in self.predictions.items()
        }  # fmt: skip

    @cached_property
    def transforms(self) -> dict[str, Transforms]:
        """The probability integral transforms of each method."""
        return {
            name: Transforms.of(require_regression(each.scored), each.known_targets)
            for name, each in self.predictions.items()
        }

    @property
    def unit(self) -> str:
        """The unit of all targets; empty where they differ, or are not known."""
        return self.units[0] if len(set(self.units)) == 1 else ""

    @property
    def comparable(self) -> dict[str, Evaluation]:
        """The scores of outputs together: those in a unit only where all have one."""
        return {name: comparable(each, self.units) for name, each in self.evaluations.items()}

    @cached_property
    def simultaneous(self) -> dict[str, Score]:
        """The PLL of each other method minus that of the baseline, whose intervals all hold."""
        differences = paired(self.evaluations)
        level = self.evaluations[self.baseline].level
        return {
            name: simultaneous_difference(name, "pll", differences, level) for name in differences
        }

    @property
    def units(self) -> tuple[str, ...]:
        """Of the real targets, one for all or one for each; empty where no method knows them."""
        return next((each.units for each in self.predictions.values() if each.units), ())

    @property
    def epistemic_shares(self) -> dict[str, float]:
        """Mean share of the variance that comes from the draws; NaN where it is not known."""
        shares = {}
        for name, predictions in self.predictions.items():
            require_regression(predictions.predictive)
            means = [_epistemic_share(each) for each, _ in pieces(predictions.predictive, None)]
            shares[name] = sum(means) / len(means)  # of pieces of the same size
        return shares

    def numbers(self) -> dict[str, Any]:
        """Its own numbers."""
        shares = self.epistemic_shares
        return {
            "provenance": dict(self.provenance),
            "comparison": {
                "baseline": self.baseline,
                "methods": {
                    name: {
                        **evaluation.to_dict(),
                        "draws": evaluation.draw_count or None,
                        "epistemic_share": shares[name],
                    }
                    for name, evaluation in self.evaluations.items()
                },
                "differences": {
                    name: interval_dicts(differences)
                    for name, differences in paired(self.evaluations).items()
                },
            },
            "simultaneous": interval_dicts(self.simultaneous),
            "calibration": {name: each.to_dict() for name, each in self.states.items()},
            "units": self.units,
            "outputs": {
                method: {name: evaluation.to_dict() for name, evaluation in each.items()}
                for method, each in self.outputs.items()
            },
            "groups": group_dicts(self.groups),
            "recalibration": fit_dicts(self.recalibrations),
            "sets": coverage_dicts(self.sets),
            "drift": drift_dicts(self.drift),
        }


def _epistemic_share(given: StoredPredictive) -> float:
    part, whole = require_regression(given).epistemic_variance, require_regression(given).variance
    return math.nan if part is None else float((part / whole).mean())
