"""Whether conformal sets contain the targets as often as they should."""

import math
from collections.abc import Iterator, Sequence

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.distributions import beta_binomial_cdf
from mcbn.evaluation.glossary import interval, probability
from mcbn.recalibration.coverages import SetCoverage

ALPHA = 0.05  # level of the test of all methods together
RULE = "conformal"


def p_value(row: SetCoverage) -> float:
    r"""The probability of a coverage so low, if test and held-out examples are alike.

    $$P(K \le k), \quad K \sim \mathrm{BetaBinomial}(n,\ r,\ h + 1 - r), \quad
    r = \lceil (h + 1) \ell \rceil$$

    of $n$ test and $h$ held-out examples or groups at level $\ell$: sets that are made by h
    examples contain the target more or less often by chance. 1 where they are whole.

    Reference:
        Vovk 2012, "Conditional validity of inductive conformal predictors", proposition 2a.
    """
    rank = math.ceil((row.held_out + 1) * row.level - 1e-9)
    if rank > row.held_out or not row.examples:
        return 1.0
    inside = round(row.coverage.value * row.examples)
    return beta_binomial_cdf(inside, row.examples, rank, row.held_out + 1 - rank)


def coverage_claim(rows: Sequence[SetCoverage]) -> Claim:
    """Judge the method whose sets contain the target least often for its numbers of examples."""
    p_values = [p_value(row) for row in rows]
    adjusted = min(1.0, min(p_values) * len(rows))
    row = rows[p_values.index(min(p_values))]
    share = f"{100 * row.coverage.value:.1f}%"
    ends = interval(row.coverage.low, row.coverage.high, lambda end: f"{100 * end:.1f}")
    text = (
        f"The conformal {100 * row.level:g}% sets of {row.method} contain {share} {ends}".rstrip()
    )
    text += " of the targets"
    said = probability(adjusted)
    if len(rows) > 1:
        said += f" by Bonferroni's method over {len(rows)} methods"
    if adjusted < ALPHA:
        tail = f"fewer than chance explains if test and held-out examples are alike ({said})"
        return Claim("Prediction sets", "bad", f"{text}, {tail}.")
    return Claim("Prediction sets", "good", f"{text}, no fewer than chance explains ({said}).")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge the conformal sets of all examples; those as predicted promise nothing."""
    rows = [row for row in subject.sets if row.rule == RULE and not row.part and row.held_out]
    if rows:
        yield coverage_claim(rows)


CHECK = Check(
    code="MCBN013",
    name="sets-do-not-cover",
    looks_at=(
        "The share of test targets that conformal sets, or intervals, contain, with the numbers of "
        "held-out and of test examples."
    ),
    threshold=(
        "A p value below 0.05 of so low a share, after Bonferroni's correction for the number of "
        "methods. A higher share is no fault: small sets may hold more than they must."
    ),
    source=(
        "Vovk 2012: where all examples are exchangeable the number that is contained has a "
        "beta-binomial distribution, or is larger."
    ),
    remedy=(
        "Hold out examples that were drawn as the test examples were; where several share a "
        "patient or a place, give its column (--group)."
    ),
    judge=judge,
)
