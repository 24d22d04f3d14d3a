"""Whether the test examples are of several classes."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison


def targets_claim(comparison: Comparison) -> Claim:
    """Say how many classes the targets are of."""
    found = sorted({*comparison.known_targets.flatten().tolist()})
    total = comparison.entries[comparison.baseline].class_count
    if len(found) > 1:
        which = f"all {total}" if len(found) == total else f"{len(found)} of the {total}"
        return Claim("Targets", "good", f"The targets are of {which} classes.")
    name = comparison.classes[found[0]] if comparison.classes else str(found[0])
    text = (
        f"All targets are of one class, {name}, of {total}: accuracy and calibration are those of "
        "that class alone."
    )
    return Claim("Targets", "bad", text)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison of classes whose targets were kept."""
    comparison = subject.comparison
    if comparison and comparison.targets is not None and not comparison.has_labels:
        yield targets_claim(comparison)


CHECK = Check(
    code="MCBN025",
    name="single-class",
    looks_at="The classes of the test targets.",
    threshold="A single one.",
    source="A file that is sorted by class, and cut, or a wrong column of targets, looks so.",
    remedy="Test on examples drawn at random, and check the column of the targets (--target).",
    judge=judge,
)
