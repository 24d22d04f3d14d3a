"""Whether methods are right as often as they say."""

from collections.abc import Iterator, Mapping

from mcbn.checks.calibration_states import (
    CalibrationState,
    mark_of,
    others,
    points,
)
from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, interval_text, with_interval
from mcbn.checks.real_values import real_calibration_claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.glossary import number
from mcbn.predictive.bernoulli import UNKNOWN


def calibration_claim(comparison: Comparison, states: Mapping[str, CalibrationState]) -> Claim:
    """Say how calibrated the baseline is, then each other method."""
    text = _baseline(comparison, states[comparison.baseline])
    return Claim("Calibration", mark_of(states), text + others(states))


def _baseline(comparison: Comparison, state: CalibrationState) -> str:
    name = comparison.baseline
    evaluation = comparison.evaluations[name]
    error = evaluation["ece_debiased"]
    tail = f"its debiased calibration error is {with_interval(error)}."
    # Clipped at 0, the lower end of its interval: the number would look more certain than it is.
    if error.value == 0:
        tail = "its debiased calibration error is 0, no more than expected by chance."
    what = "confidence minus accuracy"
    text = f"{name} is neither significantly over- nor under-confident"
    if comparison.has_labels:
        what = "the mean probability of a label minus the share of labels that are there"
        text = f"{name} neither over- nor underestimates labels significantly"
    if state.where == "confidence":
        text = f"{name} is calibrated on average but not at every confidence"
    elif state.where == "classes":
        text = f"{name} is calibrated on average but not in every class"
        of_classes = evaluation["ece_classwise"]
        tail = f"the calibration error of single classes is {with_interval(of_classes)}."
    elif state.where == "class":
        text = f"{name} is calibrated on average but not in every class"
        tail = _worst_class(state)
    elif state.is_significant:
        return f"{_miscalibrated(comparison, name, state)}; {tail}"
    return f"{text}: {what} is {points(state)}; {tail}"


def _worst_class(state: CalibrationState) -> str:
    worst = state.worst
    if worst is None:
        return ""
    ends = interval_text(100 * worst.low, 100 * worst.high, 1)
    way = "over" if worst.value > 0 else "under"
    return (
        f"it {way}estimates {worst.name} most clearly: its mean probability minus its frequency, "
        f"{worst.frequency:.1%}, is {number(100 * worst.value, 1, signed=True)} points {ends}."
    )


def _miscalibrated(comparison: Comparison, name: str, state: CalibrationState) -> str:
    """The words on a method whose confidence differs significantly from its accuracy."""
    gap = state.gap
    ends = sorted((abs(state.low) * 100, abs(state.high) * 100))
    size = f"{number(abs(gap) * 100, 1)} points {interval_text(ends[0], ends[1], 1)}"
    degree = "" if state.is_bad else "slightly "
    if comparison.has_labels:
        targets = comparison.known_targets
        share = float(targets[targets != UNKNOWN].double().mean())
        facts = f"{share:.1%} of the labels are there, mean probability {share + gap:.1%}"
        does = f"{degree}{'overestimates' if gap > 0 else 'underestimates'} labels"
    else:
        accuracy = comparison.evaluations[name]["accuracy"].value
        facts = f"accuracy {accuracy:.1%}, mean confidence {accuracy + gap:.1%}"
        does = f"is {degree}{'over' if gap > 0 else 'under'}-confident"
    return f"{name} {does}, by {size} ({facts})"


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge every method."""
    if subject.comparison:
        yield calibration_claim(subject.comparison, subject.calibration)
    elif subject.evaluations:
        yield real_calibration_claim(subject.evaluations, subject.real_gaps, subject.calibration)


CHECK = Check(
    code="MCBN002",
    name="not-calibrated",
    looks_at=(
        "Of every method: mean confidence minus accuracy, the debiased calibration error, that of "
        "single classes, and the mean probability of each class minus its frequency. Of real "
        "values: bias, and the spread and shape of the probability integral transforms."
    ),
    threshold=(
        "A gap that is significant and at least 0.01, an error significantly above 0.01 at some "
        "confidence or above 0.02 in single classes, or a class whose mean probability is off by a "
        "tenth of its frequency; all corrected for the number of methods."
    ),
    source=(
        "A smaller gap changes few decisions; Kumar et al. 2019 for the debiased error, Kull et "
        "al. 2019 for that of classes, Neyman 1937 for transforms, Hothorn et al. 2008 for "
        "intervals that hold at once."
    ),
    remedy=(
        "Fit a temperature on held-out labels (--recalibrate temperature); by class, use vector "
        "scaling."
    ),
    judge=judge,
)
