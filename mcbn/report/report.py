"""Reports: a self-contained HTML page of a comparison, of predictions or of a study."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mcbn.checks.check import CheckResult
from mcbn.checks.claim import Claim
from mcbn.checks.codes import require_codes
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.io.atomic import write_whole
from mcbn.io.display import Display, Displayed
from mcbn.io.plain import to_json
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import Sides
from mcbn.recalibration.coverages import set_coverages
from mcbn.report import figure_files, page
from mcbn.report.comparison_content import TITLE, ComparisonContent
from mcbn.report.comparison_figures import comparison_figures
from mcbn.report.comparison_first import comparison_first
from mcbn.report.comparison_sections import comparison_sections
from mcbn.report.figure_formats import figure_formats
from mcbn.report.first_screen import FirstScreen
from mcbn.report.panels import PanelGroup
from mcbn.report.pdf import printed, require_browser
from mcbn.report.prediction_contents import content_of_predictions, paired_predictions
from mcbn.report.real_content import RealContent
from mcbn.report.real_figures import real_figures
from mcbn.report.real_first import real_first
from mcbn.report.real_sections import real_sections
from mcbn.report.study_content import StudyContent
from mcbn.report.study_first import study_first
from mcbn.report.study_sections import study_sections
from mcbn.study.results import Study
from mcbn.uncertainty.predictive_scores import USUAL
from mcbn.uncertainty.score import UncertaintyScore


class Kind(NamedTuple):
    """How content of one kind becomes a page.

    Attributes:
        name: what it is about, as `report.json` has it.
        figures: of the content, by section.
        files: figures that get files of their own, by section.
        first: makes the first screen.
        sections: makes the sections below it.
    """

    name: str
    figures: Callable[[Any], Mapping[str, Sequence[PanelGroup]]]
    files: Callable[[Any], Mapping[str, Sequence[PanelGroup]]]
    first: Callable[[Any], FirstScreen]
    sections: Callable[[Any, Mapping[str, Sequence[PanelGroup]]], Iterable[page.Section]]


KINDS: Mapping[type, Kind] = {
    ComparisonContent: Kind("classes", comparison_figures, comparison_figures, comparison_first,
                            comparison_sections),
    RealContent: Kind("real values", real_figures, real_figures, real_first, real_sections),
    StudyContent: Kind("study", StudyContent.own_figures, StudyContent.every_figure, study_first,
                       study_sections),
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Report(Displayed):
    """A self-contained HTML page, and the same numbers as JSON.

    `Report.from_comparison(comparison).write("report")` writes `report/report.html` and
    `report/report.json`. Equal content gives the same page to the last byte.

    Attributes:
        content: what it holds.
    """

    content: ComparisonContent | RealContent | StudyContent

    def display(self) -> Display:
        """Its title and headline, and what the checks say."""
        rows = [(claim.topic, claim.mark, claim.sentence) for claim in self.verdict]
        heading = f"Report {self.content.title!r}: {self.headline}"
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
        ignore: Sequence[str] = (),
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
            ignore: codes of checks that are left out, such as "MCBN004".

        Raises:
            ValueError: there is no check of a code.
        """
        require_codes(ignore)
        content = ComparisonContent(
            comparison, title, study, convergence or {}, provenance or {}, tuple(notes),
            drift=drift or {}, ignore=tuple(ignore),
        )  # fmt: skip
        return cls(content)

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
        ignore: Sequence[str] = (),
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
            ignore: codes of checks that are left out, such as "MCBN004".

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
        require_codes(ignore)
        content = content_of_predictions(
            predictions, title=title, outside=outside, groups=groups or {}, group=group,
            images=images, resamples=resamples, uncertainties=uncertainties,
        )  # fmt: skip
        content = replace(content, drift=drift or {}, ignore=tuple(ignore))
        if not held_out:
            return cls(content)
        joined = paired_predictions(predictions, groups or {})
        sides = None if group is None else Sides.of_column(group, joined, held_out)
        sets = set_coverages(joined, held_out, sides=sides, by=sets_by)
        return cls(replace(content, sets=sets))

    @classmethod
    def from_study(cls, study: Study, *, ignore: Sequence[str] = ()) -> "Report":
        """Report a batch-size study or a sweep, also while it runs; its plan has the title.

        Args:
            study: the study.
            ignore: codes of checks that are left out, such as "MCBN004".

        Raises:
            ValueError: there is no check of a code.
        """
        require_codes(ignore)
        return cls(StudyContent(study, tuple(ignore)))

    @property
    def verdict(self) -> tuple[Claim, ...]:
        """What the numbers say, in sentences, each with its topic, mark, code and remedy."""
        return self.content.checked.claims

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """What came of each check, those that are not applicable among them."""
        return self.content.checked.results

    @property
    def headline(self) -> str:
        """One sentence: whether the model can be trusted, and with which method."""
        return self._first.headline

    @cached_property
    def _kind(self) -> Kind:
        return KINDS[type(self.content)]

    @cached_property
    def _first(self) -> FirstScreen:
        return self._kind.first(self.content)

    @cached_property
    def _figures(self) -> Mapping[str, Sequence[PanelGroup]]:
        return self._kind.figures(self.content)

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page, with None for what is not defined; see docs/files.md."""
        content = self.content
        return page.page_numbers(
            self._kind.name, content.title, self._first, content.checked, content.numbers(),
            self._figures,
        )  # fmt: skip

    def to_html(self) -> str:
        """The page: it loads nothing from elsewhere, and needs no scripts to be read."""
        content = self.content
        sections = self._kind.sections(content, self._figures)
        return page.page_html(content.title, self._first, content.checked, sections)

    def write(
        self,
        directory: str | os.PathLike[str],
        *,
        figures: str | Sequence[str] = (),
        pdf: bool = False,
    ) -> Path:
        """Write `report.html` and `report.json`, each whole or not at all.

        Args:
            directory: where to write; it is made if it is not there.
            figures: "pdf", "svg" or "png", or several: every figure is written as a file of its own
                as well, with its heading and its legend, and its numbers as CSV, into the folder
                `figures` beside the page.
            pdf: also print the page as `report.pdf`, by Chromium, Chrome or Edge.

        Returns:
            The path of the page.

        Raises:
            RuntimeError: there is no such browser, or it could not print.
            ValueError: figures have no such format.
        """
        formats = figure_formats(figures)
        if pdf:
            require_browser()  # before any work
        # All are made before any is written: an error leaves the old files as they were.
        html = self.to_html()
        numbers = to_json(self.to_dict(), indent=1, ensure_ascii=False)
        groups = self._kind.files(self.content) if formats else {}
        files = figure_files.figure_files(groups, formats)
        path = Path(directory) / "report.html"
        folder = path.with_name(figure_files.FOLDER)
        if formats:  # also where there is nothing to draw, as of a study that has only begun
            folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(folder / name, content)
        write_whole(path.with_suffix(".json"), f"{numbers}\n".encode())
        write_whole(path, html.encode())
        if pdf:
            write_whole(path.with_suffix(".pdf"), printed(path))
        return path
