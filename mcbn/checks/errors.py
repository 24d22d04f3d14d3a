"""Whether wrong answers are detected."""

import math
from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, auroc_mark, with_interval
from mcbn.checks.differences import rival_difference
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison


def errors_claim(comparison: Comparison) -> Claim | None:
    """Whether errors are found, by the method with the least risk over all coverages.

    Methods are compared by risk, since each has errors of its own: one that answers some examples
    at random, with little confidence, finds its own errors well and still makes more of them.
    """
    known = {
        name: entry.evaluation
        for name, entry in comparison.entries.items()
        if not math.isnan(entry.evaluation["auroc_of_errors"].value)
    }
    if not known:
        return None
    best = min(known, key=lambda name: known[name]["aurc"].value)
    mark = auroc_mark(known[best]["auroc_of_errors"])
    what = {
        "good": "detects its own errors well",
        "uncertain": "detects its own errors only partly",
        "bad": "does not detect its own errors significantly better than guessing",
    }[mark]
    auroc = with_interval(known[best]["auroc_of_errors"])
    text = f"{best} {what}: AUROC {auroc} of wrong against right answers"
    if len(comparison.entries) > 1:
        text += f", and has the lowest risk, AURC {with_interval(known[best]['aurc'], 4)}"
    if best != comparison.baseline and comparison.baseline in known:
        gap = rival_difference(best, "aurc", comparison)
        clear = "significantly less" if gap.high < 0 else "not significantly less"
        text += f", {clear} than {comparison.baseline}: the paired difference is "
        text += with_interval(gap, 4)
    return Claim("Errors", mark, f"{text}.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison with wrong and right answers."""
    if subject.comparison and (claim := errors_claim(subject.comparison)):
        yield claim


CHECK = Check(
    code="MCBN006",
    name="errors-not-detected",
    looks_at=(
        "The AUROC of wrong against right answers, by the method of the least risk over all "
        "coverages."
    ),
    threshold="An interval that lies above 0.8 passes; one that reaches 0.5 is an issue.",
    source=(
        "0.5 is guessing; 0.8 is a convention for good discrimination (Hosmer and Lemeshow 2000)."
    ),
    remedy=(
        "Do not rely on abstention here; try other scores of uncertainty (--uncertainty), or a "
        "better network."
    ),
    judge=judge,
)
