"""Whether methods are right as often as they say."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark, interval_text, with_interval
from mcbn.checks.real_values import coverage_claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.confidence_gap import confidence_gap
from mcbn.evaluation.glossary import number
from mcbn.predictive.bernoulli import UNKNOWN

# A smaller gap needs no action; a wider half-interval is too uncertain to be called good.
SMALL_GAP, WIDE_GAP = 0.01, 0.02
CLASS_GAP = 0.02  # of the probability of a class, mean over classes


def _calibration(comparison: Comparison) -> Claim:
    name = comparison.baseline
    entry = comparison.entries[name]
    gap, low, high = confidence_gap(name, comparison)
    error = entry.evaluation["ece_debiased"]
    tail = f"its debiased calibration error is {with_interval(error)}."
    # Clipped at 0, the lower end of its interval: the number would look more certain than it is.
    if error.value == 0:
        tail = "its debiased calibration error is 0, no more than expected by chance."
    if low > 0 or high < 0:
        return _miscalibrated(comparison, name, (gap, low, high), tail)
    signed = f"{number(gap * 100, 1, signed=True)} points {interval_text(low * 100, high * 100, 1)}"
    what = "confidence minus accuracy"
    if comparison.has_labels:
        what = "the mean probability of a label minus the share of labels that are there"
    mark: Mark = "good" if (high - low) / 2 <= WIDE_GAP else "uncertain"
    text = f"{name} is neither significantly over- nor under-confident"
    if comparison.has_labels:
        text = f"{name} neither over- nor underestimates labels significantly"
    of_classes = entry.evaluation["ece_classwise"]
    if of_classes.low > CLASS_GAP:
        text, mark = f"{name} is calibrated on average but not in every class", "bad"
        tail = f"the calibration error of single classes is {with_interval(of_classes)}."
    if error.low > SMALL_GAP:
        text, mark = f"{name} is calibrated on average but not at every confidence", "bad"
    return Claim("Calibration", mark, f"{text}: {what} is {signed}; {tail}")


def _miscalibrated(
    comparison: Comparison, name: str, gap_interval: tuple[float, float, float], tail: str
) -> Claim:
    """The claim on a method whose confidence differs significantly from its accuracy."""
    entry = comparison.entries[name]
    gap, low, high = gap_interval
    ends = sorted((abs(low) * 100, abs(high) * 100))
    points = f"{number(abs(gap) * 100, 1)} points {interval_text(ends[0], ends[1], 1)}"
    is_large = abs(gap) >= SMALL_GAP
    degree = "" if is_large else "slightly "
    if comparison.has_labels:
        targets = comparison.known_targets
        share = float(targets[targets != UNKNOWN].double().mean())
        facts = f"{share:.1%} of the labels are there, mean probability {share + gap:.1%}"
        does = f"{degree}{'overestimates' if gap > 0 else 'underestimates'} labels"
    else:
        accuracy = entry.evaluation["accuracy"].value
        facts = f"accuracy {accuracy:.1%}, mean confidence {accuracy + gap:.1%}"
        does = f"is {degree}{'over' if gap > 0 else 'under'}-confident"
    is_bad = is_large or entry.evaluation["ece_debiased"].low > 2 * SMALL_GAP
    text = f"{name} {does}, by {points} ({facts}); {tail}"
    return Claim("Calibration", "bad" if is_bad else "good", text)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge the baseline."""
    if subject.comparison:
        yield _calibration(subject.comparison)
    elif subject.evaluations:
        yield coverage_claim(subject.baseline, subject.evaluations[subject.baseline])


CHECK = Check(
    code="MCBN002",
    name="not-calibrated",
    looks_at=(
        "Mean confidence minus accuracy, the debiased calibration error, and that of single "
        "classes."
    ),
    threshold=(
        "A gap that is significant and at least 0.01, an error significantly above 0.01 at some "
        "confidence, or above 0.02 in single classes."
    ),
    source=(
        "A smaller gap changes few decisions; Kumar et al. 2019 for the debiased error, Kull et "
        "al. 2019 for that of classes."
    ),
    remedy=(
        "Fit a temperature on held-out labels (--recalibrate temperature); by class, use vector "
        "scaling."
    ),
    judge=judge,
)
