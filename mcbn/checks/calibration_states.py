"""Whether each method of a comparison is calibrated, with correction for their number."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.special import ndtri

from mcbn.checks.claim import Mark, interval_text, listed
from mcbn.evaluation.bootstrap import percentile_interval
from mcbn.evaluation.class_balance import ClassGap, class_balance
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.confidence_gap import Interval, confidence_gaps
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.glossary import number

# A smaller gap needs no action; a wider half-interval is too uncertain to be called calibrated.
SMALL_GAP, WIDE_GAP = 0.01, 0.02
CLASS_GAP = 0.02  # of the probability of a class, mean over classes
CLASS_SHARE = 0.1  # of the frequency of a class, by which its mean probability differs
KINDS = 3  # of tests beside that of the gap: error at any confidence, in classes, of one class

State = Literal[
    "calibrated", "over-confident", "under-confident", "biased", "uneven", "uncertain"
]  # fmt: skip
Unevenness = Literal["", "confidence", "classes", "class"]

# What a state is called, of classes and of several labels.
WORDS = {"over-confident": "over-confident", "under-confident": "under-confident",
         "calibrated": "calibrated", "uneven": "calibrated on average only",
         "biased": "biased", "uncertain": "not distinguishable from calibrated"}  # fmt: skip


@dataclass(frozen=True)
class CalibrationState:
    """Whether a method is calibrated.

    Attributes:
        state: "calibrated"; "over-confident" or "under-confident" on average; "biased", of real
            values that lie above or below the forecasts; "uneven", which is calibrated on average
            and not at every confidence or class; or "uncertain", where the data do not decide.
        gap: mean confidence minus accuracy; of several labels mean probability minus frequency; of
            real values the nominal minus the observed coverage. Above 0 is over-confident.
        low: lower end of its interval: those of all methods hold at once.
        high: upper end.
        where: of an uneven one, where it is not calibrated: at some "confidence", in "classes" on
            average, or in the "class" that is worst.
        worst: that class.
    """

    state: State
    gap: float
    low: float
    high: float
    where: Unevenness = ""
    worst: ClassGap | None = None

    @property
    def is_bad(self) -> bool:
        """Whether it is known not to be calibrated."""
        return self.state not in ("calibrated", "uncertain")

    @property
    def is_significant(self) -> bool:
        """Whether the gap differs from 0, be it ever so small."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, Any]:
        """The state, its gap with the interval, and what it is about."""
        return {**asdict(self), "worst": self.worst.name if self.worst else None}

    def __str__(self) -> str:
        """The state, with the gap in points where it is of the gap: "over-confident +5.1"."""
        if self.state in ("over-confident", "under-confident"):
            return f"{self.state} {number(100 * self.gap, 1, signed=True)}"
        return self.state


def calibration_states(comparison: Comparison) -> Mapping[str, CalibrationState]:
    """The state of every method of a comparison, of classes, labels or images.

    A method is over- or under-confident whose gap is significant, by intervals that hold for all
    methods at once, and at least 0.01; or smaller, with a calibration error above 0.02. It is
    uneven if its calibration error is above 0.01 at some confidence, or above 0.02 in the mean of
    its classes, or if the mean probability of one class differs from its frequency by a tenth of
    that: each significantly, after Bonferroni's correction for these three tests of all methods.

    Args:
        comparison: of one method or several.
    """
    level = comparison.evaluations[comparison.baseline].level
    corrected = 1 - (1 - level) / (KINDS * len(comparison.entries))
    return {
        name: _state(
            gap,
            comparison.evaluations[name],
            max(class_balance(name, comparison, level=corrected), key=_clear, default=None),
            corrected,
        )
        for name, gap in confidence_gaps(comparison).items()
    }


def _clear(gap: ClassGap) -> float:
    return gap.clear


def _state(
    interval: Interval, evaluation: Evaluation, worst: ClassGap | None, level: float
) -> CalibrationState:
    gap, low, high = interval
    error = _least(evaluation, "ece_debiased", level)
    if (low > 0 or high < 0) and (abs(gap) >= SMALL_GAP or error > 2 * SMALL_GAP):
        return CalibrationState("over-confident" if gap > 0 else "under-confident", *interval)
    where: Unevenness = ""
    if worst is not None and worst.clear > 0 and abs(worst.value) >= CLASS_SHARE * worst.frequency:
        where = "class"
    if _least(evaluation, "ece_classwise", level) > CLASS_GAP:
        where = "classes"
    if error > SMALL_GAP:
        where = "confidence"
    if where:
        return CalibrationState("uneven", *interval, where, worst)
    known = (high - low) / 2 <= WIDE_GAP
    return CalibrationState("calibrated" if known else "uncertain", *interval)


def _least(evaluation: Evaluation, name: str, level: float) -> float:
    """The lower end of the interval of a calibration error, at another level than its own.

    Few replicates do not reach as far as a corrected level asks for, so it is also at most what
    their mean and standard deviation give.
    """
    replicates = evaluation[name].replicates
    if replicates.shape[-1] < 2:
        return math.nan
    reach = float(-ndtri((1 - level) / 2)) * replicates.std(-1)
    normal = float((replicates.mean(-1) - reach).min())
    return min(percentile_interval(replicates, level)[0], normal)


def mark_of(states: Mapping[str, CalibrationState]) -> Mark:
    """That of the baseline, which is the first; at most uncertain where another method is bad."""
    first, *rest = states.values()
    if first.is_bad:
        return "bad"
    doubt = first.state == "uncertain" or any(state.is_bad for state in rest)
    return "uncertain" if doubt else "good"


def others(states: Mapping[str, CalibrationState]) -> str:
    """A sentence on the methods after the first, the calibrated ones first."""
    groups: dict[str, list[str]] = {}
    rest = list(states.items())[1:]
    for word in ("calibrated", "uncertain", "uneven", "biased", "under-confident",
                 "over-confident"):  # fmt: skip
        for name, state in rest:
            if state.state == word:
                groups.setdefault(word, []).append(f"{name} ({points(state)})")
    parts = [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} {WORDS[word]}"
        for word, names in groups.items()
    ]
    return f" {'; '.join(parts)}." if parts else ""


def points(state: CalibrationState) -> str:
    """The gap with its interval, in points."""
    ends = interval_text(100 * state.low, 100 * state.high, 1)
    return f"{number(100 * state.gap, 1, signed=True)} points {ends}"
