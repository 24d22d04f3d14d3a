"""Whether a study is finished, and has seeds to compare by."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.study.given import TRAINED
from mcbn.study.results import Study


def completeness(study: Study) -> tuple[Claim, ...]:
    """How many cells are finished, failed and missing, and whether there are replicates."""
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
    replicates = {(r.cell.network.split, r.cell.network.seed) for r in study.results}
    if study.plan.given.fit == TRAINED:
        text = (
            "One trained network was swept, so there are no intervals over training and no tests: "
            "a difference may be chance. mcbn.compare gives intervals over examples."
        )
        claims.append(Claim("Replicates", "uncertain", text))
    elif len(replicates) == 1:
        text = (
            "There is a single seed and split, so no effect can be distinguished from chance: "
            "there are no bands, no intervals and no tests. Add seeds."
        )
        claims.append(Claim("Replicates", "bad", text))
    return tuple(claims)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a study by itself."""
    if subject.study and not subject.comparison:
        yield from completeness(subject.study)


CHECK = Check(
    code="MCBN015",
    name="unfinished",
    looks_at=(
        "The cells of a study that are finished, failed or missing, and its seeds and splits."
    ),
    threshold="Any cell that failed; a single seed and split.",
    source="Without replicates no effect can be told from chance.",
    remedy="Run the study again to finish it; add seeds.",
    judge=judge,
)
