"""Whether the batch size that a sweep recommends can be trusted."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.study.choice import BatchSizeChoice
from mcbn.study.results import Study


def recommendation(choice: BatchSizeChoice) -> Claim:
    """The batch size that a sweep recommends, and whether it can be trusted."""
    where = "inside the range that was searched"
    if choice.at_bound is not None:
        where = f"at the {choice.at_bound} end of the search: sweep further sizes there"
    low, high = choice.flat
    text = (
        f"M = {choice.best:.3g} has the best log score on the validation examples, {where}; sizes "
        f"from {low:.3g} to {high:.3g} are not significantly different."
    )
    doubts = "".join(f" Doubt: {doubt}." for doubt in choice.doubts)
    sure = choice.at_bound is None and not choice.doubts
    return Claim("Batch size", "good" if sure else "uncertain", text + doubts)


def recommended(study: Study) -> BatchSizeChoice | None:
    """The batch size that a sweep recommends, if it could choose one."""
    found = study.recommendation
    return None if found is None or "best" not in found else BatchSizeChoice.from_dict(found)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a sweep that chose a batch size."""
    if subject.study and (choice := recommended(subject.study)):
        yield recommendation(choice)


CHECK = Check(
    code="MCBN014",
    name="batch-size-at-bound",
    looks_at=(
        "The batch size that is chosen by the held-out score, and the range that was searched."
    ),
    threshold="A choice at an end of the range, or one that collected draws speak against.",
    source=(
        "Beyond the end a better size may lie; rescaling is checked by draws that were really "
        "collected."
    ),
    remedy="Sweep further sizes beyond that end, or collect a bank at the chosen size.",
    judge=judge,
)
