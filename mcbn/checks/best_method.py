"""Whether any method is better than the baseline."""

import math
from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, interval_text, with_interval
from mcbn.checks.differences import rival_difference
from mcbn.checks.real_values import best_real_claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.glossary import number


def best_claim(comparison: Comparison) -> Claim | None:
    """Whether any method is better than the baseline, by intervals that hold for all at once."""
    values = {name: entry.evaluation["nll"].value for name, entry in comparison.entries.items()}
    if len(values) < 2 or any(math.isnan(value) for value in values.values()):
        return None
    if math.isinf(min(values.values())):
        text = (
            "Every method gives probability 0 to some true class, so no NLL is finite or the best."
        )
        return Claim("Best method", "uncertain", text)
    base = comparison.baseline
    best = min(values, key=lambda name: values[name])
    rival = best if best != base else min(list(values)[1:], key=lambda name: values[name])
    difference = rival_difference(rival, "nll", comparison)
    signed = f"{with_interval(difference, 4)} nats"
    unsigned = (
        f"{number(abs(difference.value), 4)} {interval_text(*_size_ends(difference), 4)} nats"
    )
    significant = difference.low > 0 or difference.high < 0
    nll = with_interval(comparison.entries[best].evaluation["nll"])
    if best != base and significant:
        text = f"{best} has the lowest NLL, {nll}: lower than {base} beyond chance, by {unsigned}."
        return Claim("Best method", "good", text)
    if best != base:
        text = (
            f"{best} has the lowest NLL, {nll}, but is not significantly different from {base}: "
            f"the paired difference is {signed}."
        )
        return Claim("Best method", "uncertain", text)
    if significant:
        text = f"No method improves on {base}, whose NLL is {nll}: the closest, {rival}, is "
        return Claim("Best method", "bad", f"{text}significantly worse, by {unsigned}.")
    text = (
        f"No method has a lower NLL than {base}, {nll}; the closest, {rival}, is not significantly "
        f"different: the paired difference is {signed}."
    )
    return Claim("Best method", "uncertain", text)


def _size_ends(difference: Score) -> tuple[float, float]:
    """Ends of the interval of a difference's absolute value, where it does not contain zero."""
    if difference.value < 0:
        return -difference.high, -difference.low
    return difference.low, difference.high


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison of several methods."""
    if subject.comparison and (claim := best_claim(subject.comparison)):
        yield claim
    elif len(subject.evaluations) > 1:
        yield best_real_claim(subject.evaluations)


CHECK = Check(
    code="MCBN003",
    name="no-method-better",
    looks_at="The NLL of every method minus that of the baseline, on the same examples.",
    threshold="An interval that holds for all rivals at once and does not contain 0.",
    source=(
        "Romano and Wolf 2005, single step: in at most 5% of comparisons of equal methods is any "
        "called better."
    ),
    remedy=(
        "Use the baseline, or test on more examples: the interval shrinks as one over the square "
        "root of their number."
    ),
    judge=judge,
)
