"""How fast the epistemic standard deviation of a study falls with the batch size."""

import math
from collections.abc import Iterator
from dataclasses import replace

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark
from mcbn.checks.subject import Subject
from mcbn.study.results import Study
from mcbn.study.slopes import Slope
from mcbn.study.summary import pooled, span

# With a log-log slope above this, most of the epistemic sd remains over the usual range of M.
FLAT_SLOPE = -0.25


def spread_claim(study: Study) -> Claim | None:
    """Say how the epistemic standard deviation falls with M; None where it cannot be fitted."""
    slope = pooled(study, "epistemic_sd")
    if slope is None:
        return None
    first, last = slope.batch_sizes[0], slope.batch_sizes[-1]
    estimate, has_interval = slope.estimate, not math.isnan(slope.estimate.low)
    low, high = (estimate.low, estimate.high) if has_interval else (estimate.mean, estimate.mean)
    ratio = (last / first) ** estimate.mean
    text = (
        f"The epistemic standard deviation of {slope.method} scales as M to the power "
        f"{span(estimate, 2)}: by that, at M = {last} it is {ratio:.2g} times that at M = {first}. "
        + _against_theory(slope)
    )
    mark: Mark = "uncertain"
    if high < FLAT_SLOPE:
        text += " Little of it remains at a large inference batch size."
        mark = "bad" if has_interval else "uncertain"
    elif low > FLAT_SLOPE:
        text += " Most of it remains at large M."
        mark = "good" if has_interval else "uncertain"
    return Claim("Epistemic spread", mark, text)


def _against_theory(slope: Slope) -> str:
    theory = "the power \N{MINUS SIGN}1/2 that theory gives to first order"
    if math.isnan(slope.estimate.low):
        return f"A single replicate cannot be tested against {theory}."
    estimate, text = slope.estimate, "That"
    if slope.corrected:
        estimate = slope.corrected
        text = f"Corrected for drawing without replacement it is {span(estimate, 2)}, which"
    if estimate.low <= slope.expected <= estimate.high:
        return f"{text} is not significantly different from {theory}."
    way = "slower" if estimate.mean > slope.expected else "steeper"
    return f"{text} is significantly {way} than {theory}."


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge each part of a study."""
    if not subject.comparison:
        for name, part in subject.study_parts.items():
            if claim := spread_claim(part):
                yield replace(claim, part=name)


CHECK = Check(
    code="MCBN018",
    name="spread-falls",
    looks_at=(
        "The log-log slope of the epistemic standard deviation against the inference batch size M."
    ),
    threshold="An interval of the slope that lies below -0.25.",
    source="Mukhoti et al. 2020; to first order it falls as M to the power -1/2.",
    remedy=(
        "Use a smaller M at inference: bank.rescale(batch_size=M), with M chosen by "
        "mcbn.choose_batch_size."
    ),
    judge=judge,
)
