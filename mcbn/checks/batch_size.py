"""How fast the mutual information of MCBN falls with the batch size."""

import math
from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, interval_text
from mcbn.checks.subject import Subject
from mcbn.evaluation.glossary import number
from mcbn.study.decay import decay
from mcbn.study.results import Study


def batch_size_claim(study: Study) -> Claim | None:
    """Say how the mutual information of MCBN falls with M; None where it cannot be fitted."""
    fit = decay(study)
    if fit is None:
        return None
    networks = f"{fit.networks} networks" if fit.networks > 1 else "one network"
    text = (
        f"MCBN's mutual information scales as M to the power {number(fit.slope, 2)} "
        f"{interval_text(fit.low, fit.high, 2)} over {networks}: from M = {fit.smallest} to "
        f"M = {fit.largest} it changes by a factor of 1/{fit.factor:.3g}"
    )
    # Without an interval the slope alone decides what is said, but not that it is good or bad.
    is_single = math.isnan(fit.low)
    high = fit.slope if is_single else fit.high
    low = fit.slope if is_single else fit.low
    if high < -0.5:
        rate = "roughly as 1/M" if low < -0.75 and high > -1.25 else "clearly"
        text += f". It falls {rate}, so with a large inference batch MCBN is nearly deterministic"
        return Claim("Batch size", "uncertain" if is_single else "bad", f"{text}.")
    if low > -0.5:
        text += ". Most of it remains at large batch sizes"
        return Claim("Batch size", "uncertain" if is_single else "good", f"{text}.")
    return Claim("Batch size", "uncertain", f"{text}. How fast it falls is uncertain.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a study that stands beside a comparison; a study alone is judged by its spread."""
    if subject.comparison and subject.study and (claim := batch_size_claim(subject.study)):
        yield claim


CHECK = Check(
    code="MCBN017",
    name="mutual-information-falls",
    looks_at=(
        "The log-log slope of the mutual information of MCBN against the inference batch size M."
    ),
    threshold="An interval of the slope that lies below -0.5.",
    source=(
        "Mukhoti et al. 2020: at large M the draws are nearly equal; to first order mutual "
        "information falls as 1/M."
    ),
    remedy=(
        "Use a smaller M at inference: bank.rescale(batch_size=M), with M chosen by "
        "mcbn.choose_batch_size."
    ),
    judge=judge,
)
