"""Whether a study has seeds to compare by."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.study.given import TRAINED
from mcbn.study.results import Study

FEW = 5  # replicates, below which only large differences can be found
OF_TRAINED = "Compare on one test set with mcbn.compare, or train several networks in a study."


def replicates_claim(study: Study) -> Claim | None:
    """How many seeds and splits there are; None before any cell is finished."""
    count = len({(r.cell.network.split, r.cell.network.seed) for r in study.results})
    if study.plan.given.fit == TRAINED:
        text = (
            "One trained network was swept, so there are no intervals over training and no tests: "
            "a difference may be chance. mcbn.compare gives intervals over examples."
        )
        return Claim("Replicates", "uncertain", text, remedy=OF_TRAINED)
    if count == 0:
        return None
    if count == 1:
        text = (
            "There is a single seed and split, so no effect can be distinguished from chance: "
            "there are no bands, no intervals and no tests. Add seeds."
        )
        return Claim("Replicates", "bad", text)
    text = f"There are {count} pairs of seed and split"
    if count < FEW:
        tail = "so few that only large differences can be found: no difference found is not none"
        return Claim("Replicates", "uncertain", f"{text}, {tail}.")
    return Claim("Replicates", "good", f"{text}.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a study by itself."""
    if subject.study and not subject.comparison and (claim := replicates_claim(subject.study)):
        yield claim


CHECK = Check(
    code="MCBN016",
    name="too-few-seeds",
    looks_at="The number of pairs of seed and split that a study has trained networks for.",
    threshold=f"Fewer than {FEW} are a tip; a single one is an issue.",
    source=(
        "By the paired t test at level 0.05, a difference that is found in 80% of studies has "
        "3.3 standard deviations with 3 seeds, 1.7 with 5 and 1.0 with 10, before any correction "
        "for several tests."
    ),
    remedy="Add seeds: seeds= of the study, which keeps the networks that are trained.",
    judge=judge,
)
