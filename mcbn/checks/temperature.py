"""Whether a gain over the baseline is more than a temperature would give it."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, with_interval
from mcbn.checks.differences import rival_difference
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison


def temperature_claim(comparison: Comparison) -> Claim | None:
    """Judge whether what is gained over the baseline is more than a temperature would give it."""
    differences, base = comparison.differences(), comparison.baseline
    gains = [
        name
        for name, scores in differences.items()
        if "nll_calibrated" in scores and rival_difference(name, "nll", comparison).high < 0
    ]
    if not gains:
        return None
    best = min(gains, key=lambda name: differences[name]["nll_calibrated"].value)
    gain = rival_difference(best, "nll_calibrated", comparison)
    text = (
        f"At a temperature of its own, fitted on other examples, the NLL of {best} minus that of "
    )
    text += f"{base} is {with_interval(gain, 4)} nats"
    if gain.high < 0:
        return Claim(
            "Temperature", "good", f"{text}: more is gained than a temperature would give."
        )
    text += f": with some 50 labels or more, a temperature for {base} may do as well, in one pass."
    return Claim("Temperature", "uncertain", text)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison in which a method has gained over the baseline."""
    if subject.comparison and (claim := temperature_claim(subject.comparison)):
        yield claim


CHECK = Check(
    code="MCBN004",
    name="temperature-may-do",
    looks_at=(
        "The NLL of a method that gains over the baseline, minus that of the baseline, each at a "
        "temperature of its own fitted on other examples."
    ),
    threshold="An interval that does not lie below 0.",
    source=(
        "A temperature needs one pass and a few labels (Guo et al. 2017); a gain that it gives as "
        "well is no gain of the method."
    ),
    remedy=(
        "Fit a temperature to the baseline on held-out labels (mcbn.fit_temperature, or "
        "--recalibrate temperature) and compare with that."
    ),
    judge=judge,
)
