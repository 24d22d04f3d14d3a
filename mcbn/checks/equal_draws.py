"""Whether the draws of a method differ at all."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.separation import ROUNDING


def equal_draws(comparison: Comparison) -> tuple[list[str], int]:
    """Methods whose draws agree on every example, and the number of methods of several draws."""
    of_several = {
        name: entry.predictive
        for name, entry in comparison.entries.items()
        if entry.predictive is not None and entry.predictive.draw_count > 1
    }
    equal = [
        name
        for name, predictive in of_several.items()
        if bool((predictive.mutual_information <= ROUNDING).all())
    ]
    return equal, len(of_several)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison with methods of several draws."""
    if subject.comparison is None:
        return
    equal, several = equal_draws(subject.comparison)
    if equal:
        text = f"All draws of {', '.join(equal)} are equal, so there is no epistemic uncertainty."
        yield Claim("Equal draws", "bad", text)
    elif several:
        text = "The draws of every method of several draws differ."
        yield Claim("Equal draws", "good", text)


CHECK = Check(
    code="MCBN022",
    name="draws-are-equal",
    looks_at="The mutual information of every test example, by each method of several draws.",
    threshold=f"None above {ROUNDING:g} nats, which is rounding.",
    source="Mutual information is zero only where all draws predict the same.",
    remedy=(
        "Look at how the draws are made: a bank of one mini-batch many times, M = N, dropout of "
        "rate 0, or the same network many times in an ensemble."
    ),
    judge=judge,
)
