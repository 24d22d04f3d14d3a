"""Options of the verbs for files of predictions."""

from dataclasses import dataclass, field

from mcbn.checks.codes import require_codes
from mcbn.cli.options.metadata import (
    DRIFT,
    EXAMPLES,
    FIGURES,
    NAMES,
    OUTPUT,
    PREDICTIONS,
    REPORT,
    UNITS,
    WHOLE,
)
from mcbn.cli.values import names_of
from mcbn.recalibration.names import Recalibration
from mcbn.report.figure_formats import figure_formats


@dataclass(frozen=True)
class EvaluateOptions:
    """Score predictions against their targets, with bootstrap intervals.

    Example: mcbn evaluate mcbn.st --out scores.json

    Attributes:
        predictions: file written by mcbn predict, or by another tool as .csv, .parquet or .npz;
            NAME=FILE names the method.
        out: JSON file of the scores, which are printed in any case.
        resamples: bootstrap resamples behind each interval.
        by: column of groups, each of which is scored apart; may be given several times.
        target: column of the targets; by default "target", "label" or "y".
        probabilities: columns of the class probabilities, as 'col1,col2'; by default those that
            begin with "p_".
        group: column of what examples that hang together share, such as a patient: intervals are
            by resampling whole groups.
        ignore_index: label of positions that are not labelled, where the file does not say.
        units: of real targets, such as MPa, where the file does not say; of several as 'MPa,kg'.
        uncertainty: scores of uncertainty that errors are detected by, as
            'entropy,mutual_information', or columns of the file; by default only one minus the
            probability of the prediction, as in aurc and auroc_of_errors.
        json: print JSON instead of text.
    """

    predictions: str = field(metadata=PREDICTIONS)
    out: str | None = field(default=None, metadata=OUTPUT)
    resamples: int = field(default=1000, metadata=WHOLE)
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    target: str | None = None
    probabilities: list[str] | str | None = field(default=None, metadata=NAMES)
    group: str | None = None
    ignore_index: int | None = None
    units: list[str] | str | None = field(default=None, metadata=UNITS)
    uncertainty: list[str] | str | None = field(default=None, metadata=NAMES)
    json: bool = False


@dataclass(frozen=True)
class CheckOptions:
    """Check methods on the same examples, or a study, and exit with 1 if there is an issue.

    Every check has a code, such as MCBN004, with a page of its own in docs/checks. Files are read
    and scored as by mcbn report. In the place of files there may be the folder of a study.

    Example: mcbn check plain.st mcbn.st --ignore MCBN005

    Attributes:
        predictions: files written by mcbn predict, or by other tools as .csv, .parquet or .npz;
            the first is the baseline, and NAME=FILE names a method.
        outside: predictions of out-of-distribution inputs by the same methods; may be given several
            times.
        resamples: bootstrap resamples behind each interval.
        by: column of groups in the first file, each of which is scored apart; may be given several
            times.
        held_out: predictions of held-out examples by the same methods, for conformal sets and
            intervals and for recalibration; never the test examples; may be given several times.
        recalibrate: check every method before and after recalibration; see mcbn report.
        target: column of the targets; by default "target", "label" or "y".
        probabilities: columns of the class probabilities, as 'col1,col2'; by default those that
            begin with "p_".
        group: column of what examples that hang together share, such as a patient: intervals are
            by resampling whole groups.
        ignore_index: label of positions that are not labelled, where the file does not say.
        drift: results of mcbn drift --json for other data; NAME=FILE names the data; may be given
            several times.
        ignore: codes of checks that are left out, as 'MCBN004,MCBN007'; may be given several times.
        strict: exit with 1 if there is a tip as well.
        json: print JSON instead of text.
    """

    predictions: list[str] | str = field(metadata=PREDICTIONS)
    outside: list[str] | str | None = field(default=None, metadata=PREDICTIONS)
    resamples: int = field(default=1000, metadata=WHOLE)
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    held_out: list[str] | str | None = field(default=None, metadata=PREDICTIONS)
    recalibrate: Recalibration | None = None
    target: str | None = None
    probabilities: list[str] | str | None = field(default=None, metadata=NAMES)
    group: str | None = None
    ignore_index: int | None = None
    drift: list[str] | str | None = field(default=None, metadata=DRIFT)
    ignore: list[str] | str | None = field(default=None, metadata=NAMES)
    strict: bool = False
    json: bool = False

    def check(self) -> None:
        """Check that there are such checks, and held-out examples where they are needed."""
        require_codes(names_of(self.ignore))
        _require_held_out(self.held_out, recalibrate=self.recalibrate)


@dataclass(frozen=True)
class ReportOptions:
    """Write a calibration report of one or more methods on the same examples.

    Example: mcbn report plain.st mcbn.st --out report

    Attributes:
        predictions: files written by mcbn predict, or by other tools as .csv, .parquet or .npz;
            the first is the baseline, and NAME=FILE names a method.
        out: folder of report.html and report.json.
        outside: predictions of out-of-distribution inputs by the same methods; may be given several
            times.
        title: title of the page.
        resamples: bootstrap resamples behind each interval.
        by: column of groups in the first file, each of which is scored apart; may be given several
            times.
        images: the pictures that were predicted, in any form of --data of mcbn predict.
        held_out: predictions of held-out examples by the same methods, for conformal sets and
            intervals and for recalibration; never the test examples; may be given several times.
        recalibrate: show every method before and after recalibration by temperature (of each draw
            where draws were kept, else of their average), temperature-per-draw,
            temperature-of-average, vector or isotonic for classes; by temperature,
            temperature-per-label, platt or isotonic for several labels; variance for real values.
        sets_by: column of subgroups, which the files of --held-out need too, or target for the true
            class: conformal sets that keep their level in each are shown as well.
        target: column of the targets; by default "target", "label" or "y".
        probabilities: columns of the class probabilities, as 'col1,col2'; by default those that
            begin with "p_".
        maps: folder to write uncertainty maps of a segmentation to, as PNG files of every example
            by each method.
        group: column of what examples that hang together share, such as a patient: intervals are
            by resampling whole groups. Files of --held-out need it too, where conformal sets are
            then for new groups, and none may be on both sides; in those of --outside it counts if
            it is there.
        ignore_index: label of positions that are not labelled, where the file does not say.
        units: of real targets, such as MPa, where the files do not say; of several as 'MPa,kg'.
        drift: results of mcbn drift --json for other data, which get a section; NAME=FILE names the
            data; may be given several times.
        uncertainty: scores of uncertainty that errors and out-of-distribution inputs are detected
            by: max_softmax, margin, entropy, expected_entropy, mutual_information, variation_ratio,
            energy, max_logit, several as 'entropy,energy', or columns of every file, higher where
            an example is more uncertain; by default entropy and mutual_information.
        figures: formats of files of each figure, in the folder figures beside the page: pdf, svg or
            png, or several as 'pdf,png'.
        pdf: also print the page as report.pdf, by Chromium, Chrome or Edge.
        ignore: codes of checks that are left out, as 'MCBN004,MCBN007'; may be given several times.
        json: print JSON instead of text.
    """

    predictions: list[str] | str = field(metadata=PREDICTIONS)
    out: str = field(default="report", metadata=REPORT)
    outside: list[str] | str | None = field(default=None, metadata=PREDICTIONS)
    title: str = "Calibration report"
    resamples: int = field(default=1000, metadata=WHOLE)
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    images: str | None = field(default=None, metadata=EXAMPLES)
    held_out: list[str] | str | None = field(default=None, metadata=PREDICTIONS)
    recalibrate: Recalibration | None = None
    sets_by: str | None = None
    target: str | None = None
    probabilities: list[str] | str | None = field(default=None, metadata=NAMES)
    maps: str | None = field(default=None, metadata=OUTPUT)
    group: str | None = None
    ignore_index: int | None = None
    units: list[str] | str | None = field(default=None, metadata=UNITS)
    drift: list[str] | str | None = field(default=None, metadata=DRIFT)
    uncertainty: list[str] | str | None = field(default=None, metadata=NAMES)
    figures: list[str] | str | None = field(default=None, metadata=FIGURES)
    pdf: bool = False
    ignore: list[str] | str | None = field(default=None, metadata=NAMES)
    json: bool = False

    def check(self) -> None:
        """Check that there are such figures and checks, and held-out examples where needed."""
        figure_formats(names_of(self.figures))
        require_codes(names_of(self.ignore))
        _require_held_out(self.held_out, recalibrate=self.recalibrate, **{"sets-by": self.sets_by})


def _require_held_out(held_out: list[str] | str | None, **needing: str | None) -> None:
    """Check that there are held-out examples for the options that need them."""
    for name, value in needing.items():
        if value and not held_out:
            raise ValueError(
                f"expected --held-out with --{name} {value}, got none; predict a held-out part of "
                "the data and give its file"
            )
