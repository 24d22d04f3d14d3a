"""The claim on the groups of a column, which needs nothing of a report but their scores."""

import math
from collections.abc import Sequence

from mcbn.checks.claim import Claim, Mark, with_interval
from mcbn.evaluation import glossary
from mcbn.evaluation.subgroups import MIN_EXAMPLES, Subgroup, loss_name, worst

ALPHA = 0.05  # level of the test of the worst group, after Holm's correction


def group_claim(method: str, column: str, groups: Sequence[Subgroup]) -> Claim:
    """Name the worst group of a column, and say whether it differs from the other examples."""
    group, name = worst(groups), loss_name(groups)
    small = sum(each.is_small for each in groups)
    text = (
        f"Of {len(groups)} groups by {column}, {method} does worst on {group.name} "
        f"({group.size:,} examples): {glossary.label(name)} {with_interval(group.scores[name])}"
    )
    infinite = sum(math.isinf(each.scores[name].value) for each in groups)
    if infinite > 1:
        text += (
            f", infinite as that of {infinite - 1} other {'groups' if infinite > 2 else 'group'}"
        )
    significant = group.adjusted < ALPHA
    if math.isnan(group.adjusted):
        text += ". It cannot be tested against the other examples"
    else:
        text += (
            f", {'' if significant else 'not '}significantly different from the other examples "
            f"({glossary.probability(group.adjusted)} by Holm's method over the {len(groups)} "
            "groups)"
        )
    if small:
        have = "groups have" if small > 1 else "group has"
        text += f". {small} {have} fewer than {MIN_EXAMPLES} examples"
    # A group that cannot be tested, or is small, may still be worse; and by few examples of
    # skewed log scores a t test finds more than there is.
    others = sum(each.size for each in groups) - group.size
    mark: Mark = "uncertain" if math.isnan(group.adjusted) or small else "good"
    if significant:
        mark = "bad" if min(group.size, others) >= MIN_EXAMPLES else "uncertain"
    return Claim("Groups", mark, f"{text}.")
