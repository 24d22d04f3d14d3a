"""Whether two methods are the same one under two names."""

from collections.abc import Iterator
from itertools import combinations

import torch

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison


def equal_methods(comparison: Comparison) -> list[tuple[str, str]]:
    """Pairs of methods that give every class of every example the same probability."""
    known = {
        name: entry.predictive.probabilities
        for name, entry in comparison.entries.items()
        if entry.predictive is not None
    }
    return [
        (one, other)
        for one, other in combinations(known, 2)
        if torch.equal(known[one].cpu(), known[other].cpu())
    ]


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison of several methods whose predictions were kept."""
    comparison = subject.comparison
    if comparison is None or sum(e.predictive is not None for e in comparison.entries.values()) < 2:
        return
    pairs = equal_methods(comparison)
    if not pairs:
        yield Claim("Equal methods", "good", "No two methods give the same predictions.")
    for one, other in pairs:
        text = f"{one} and {other} give the same predictions for every example."
        yield Claim("Equal methods", "uncertain", text)


CHECK = Check(
    code="MCBN023",
    name="methods-are-equal",
    looks_at="The predicted probabilities of every two methods.",
    threshold="Equality to the last bit, of every example.",
    source="Two methods that differ in anything differ by rounding at least.",
    remedy="Give each file once; and see that what the method changes reaches the network.",
    judge=judge,
)
