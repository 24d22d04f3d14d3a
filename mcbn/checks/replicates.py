"""Whether a study is finished."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.study.results import Study


def completeness(study: Study) -> tuple[Claim, ...]:
    """How many cells are finished, failed and missing."""
    done, failed = len(study.results), len(study.failures)
    total = done + failed + study.missing
    claims = [Claim("Cells", "good", f"All {total} cells are finished.")]
    if failed or study.missing:
        parts = [f"{done} of {total} cells are finished"]
        if failed:
            parts.append(f"{failed} failed (the reasons are listed below)")
        if study.missing:
            parts.append(f"{study.missing} {'is' if study.missing == 1 else 'are'} missing")
        text = "; ".join(parts) + ". The results below are of the finished cells alone."
        claims = [Claim("Cells", "bad" if failed else "uncertain", text)]
    return tuple(claims)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a study by itself."""
    if subject.study and not subject.comparison:
        yield from completeness(subject.study)


CHECK = Check(
    code="MCBN015",
    name="unfinished",
    looks_at="The cells of a study that are finished, failed or missing.",
    threshold="Any cell that is missing; one that failed is an issue.",
    source="Scores of the finished cells alone may differ from those of all.",
    remedy="Run the study again to finish it; mcbn study status says why cells failed.",
    judge=judge,
)
