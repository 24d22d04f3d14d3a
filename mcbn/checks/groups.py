"""Whether a group of examples is worse than the others."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.group_claim import group_claim
from mcbn.checks.subject import Subject


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge each grouping by the baseline: a claim for each method would hide the others."""
    for column, methods in subject.groups.items():
        yield group_claim(subject.baseline, column, methods[subject.baseline])


CHECK = Check(
    code="MCBN011",
    name="group-fails",
    looks_at="The log score of each group of examples against that of all others.",
    threshold=(
        "A p value below 0.05 by Welch's t test, after Holm's correction for the number of groups."
    ),
    source="Holm 1979: the chance of any false alarm among the groups is at most 5%.",
    remedy=(
        "Look at the examples of that group; hold out labels of it, and make conformal sets by "
        "group (--sets-by)."
    ),
    judge=judge,
)
