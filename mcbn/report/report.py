"""Reports: a self-contained HTML page of a comparison, of predictions or of a study."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mcbn.checks.claim import Claim
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.io.display import Display, Displayed
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import Sides
from mcbn.recalibration.coverages import set_coverages
from mcbn.report.comparison_page import ComparisonPage
from mcbn.report.figure_files import figure_formats
from mcbn.report.page import TITLE, write_page
from mcbn.report.prediction_pages import page_of_predictions, paired_predictions
from mcbn.report.regression_page import RegressionPage
from mcbn.report.study_page import StudyPage
from mcbn.study.results import Study
from mcbn.uncertainty.predictive_scores import USUAL
from mcbn.uncertainty.score import UncertaintyScore


@dataclass(frozen=True, eq=False, repr=False)
class Report(Displayed):
    """A self-contained HTML page, and the same numbers as JSON.

    `Report.from_comparison(comparison).write("report")` writes `report/report.html` and
    `report/report.json`. Equal content gives the same page to the last byte.

    Attributes:
        page: its content.
    """

    page: ComparisonPage | RegressionPage | StudyPage

    def display(self) -> Display:
        """Its title, and what the numbers say."""
        rows = [(claim.topic, claim.mark, claim.sentence) for claim in self.verdict]
        heading = f"Report {self.page.title!r}"
        return Display(heading, ("claim", "", "what the numbers say"), rows, words=3)

    @classmethod
    def from_comparison(
        cls,
        comparison: Comparison,
        *,
        title: str = TITLE,
        study: Study | None = None,
        convergence: Mapping[str, Convergence] | None = None,
        provenance: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        drift: Mapping[str, DriftTest] | None = None,
    ) -> "Report":
        """Report a comparison of classification methods.

        Args:
            comparison: from `mcbn.compare`.
            title: of the page.
            study: a batch-size study to show as well.
            convergence: Monte Carlo error against the number of draws, by method.
            provenance: what was measured and how to repeat it: plain text by label.
            notes: warnings that were raised, and limits that the reader must know.
            drift: tests of other data for drift, by name, from `mcbn.drift_test`.
        """
        page = ComparisonPage(
            comparison, title, study, convergence or {}, provenance or {}, tuple(notes),
            drift=drift or {},
        )  # fmt: skip
        return cls(page)

    @classmethod
    def from_predictions(
        cls,
        predictions: Sequence[Predictions],
        *,
        title: str = TITLE,
        outside: Sequence[Predictions] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        group: Groups | None = None,
        images: Tensor | None = None,
        held_out: Sequence[Predictions] = (),
        sets_by: str | None = None,
        drift: Mapping[str, DriftTest] | None = None,
        uncertainties: Sequence[str | UncertaintyScore] = USUAL,
        resamples: int = 1000,
    ) -> "Report":
        """Score and report predictions of the same examples, of classes or of real values.

        Args:
            predictions: one of each method, with targets; the baseline first.
            title: of the page.
            outside: predictions of out-of-distribution examples by the same methods; of classes
                alone.
            groups: the group of each example, by name of the grouping: groups are scored apart.
            group: what examples that are resampled together share; see `mcbn.evaluate`. Or the name
                of a column of the predictions, which `held_out` has to have as well: conformal sets
                are then for new groups, and none may be on both sides. In `outside` it counts
                where it is there.
            images: the inputs, axes (examples, channels, height, width), to show the least and
                most certain of them; of classes alone.
            held_out: predictions of other examples by the same methods, with targets, for
                conformal sets or intervals.
            sets_by: column of subgroups, which `held_out` has to have as well, or "target" for the
                true class: conformal sets are also made for each, and their coverage is shown.
            drift: tests of other data for drift, by name, from `mcbn.drift_test`.
            uncertainties: scores that detect errors and out-of-distribution examples, of classes
                and labels: see `mcbn.compare`; or names of columns that hold one number per
                example, higher where it is more uncertain.
            resamples: bootstrap resamples behind each interval.

        Raises:
            ValueError: the predictions are not of the same examples, or not of one kind; a group
                is among the held-out examples too; or an option is for held-out predictions alone.
        """
        if held_out and group is not None and not isinstance(group, str):
            raise ValueError(
                "expected group to be the name of a column with held-out predictions, got values; "
                "give both predictions a column of their groups, and its name"
            )
        if sets_by is not None and not held_out:
            raise ValueError(
                f"expected held-out predictions with sets_by, got none for {sets_by!r}; give "
                "held_out="
            )
        page = page_of_predictions(
            predictions, title=title, outside=outside, groups=groups or {}, group=group,
            images=images, resamples=resamples, uncertainties=uncertainties,
        )  # fmt: skip
        page = replace(page, drift=drift or {})
        if not held_out:
            return cls(page)
        joined = paired_predictions(predictions, groups or {})
        sides = None if group is None else Sides.of_column(group, joined, held_out)
        return cls(replace(page, sets=set_coverages(joined, held_out, sides=sides, by=sets_by)))

    @classmethod
    def from_study(cls, study: Study) -> "Report":
        """Report a batch-size study, also while it runs; its plan has the title."""
        return cls(StudyPage(study))

    @property
    def verdict(self) -> tuple[Claim, ...]:
        """What the numbers say, in sentences, each with a mark: the top of the page."""
        return self.page.verdict

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined."""
        return self.page.to_dict()

    def to_html(self) -> str:
        """The page: it loads nothing from elsewhere, and needs no scripts to be read."""
        return self.page.to_html()

    def write(
        self, directory: str | os.PathLike[str], *, figures: str | Sequence[str] = ()
    ) -> Path:
        """Write `report.html` and `report.json`, each whole or not at all.

        Args:
            directory: where to write; it is made if it is not there.
            figures: "pdf", "svg" or "png", or several: every figure is written as a file of its own
                as well, with its heading and its legend, into the folder `figures` beside the page.

        Returns:
            The path of the page.

        Raises:
            ValueError: figures have no such format.
        """
        return write_page(self.page, directory, formats=figure_formats(figures))
