"""Whether test-time augmentation does better than MCBN."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, with_interval
from mcbn.checks.differences import simultaneous_difference
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison

# Classes of samplers, as entries of a comparison know them.
AUGMENTED, MCBN = "Augmented", "MCBatchNorm"


def augmentation_claim(comparison: Comparison) -> Claim | None:
    """Compare the best augmented method with the best by MCBN; None where one is missing."""
    scores = comparison.evaluations
    by_kind = {
        kind: [name for name, entry in comparison.entries.items() if entry.kind == kind]
        for kind in (AUGMENTED, MCBN)
    }
    if not all(by_kind.values()):
        return None
    mcbn = min(by_kind[MCBN], key=lambda name: scores[name]["nll"].value)
    differences = {name: scores[name].minus(scores[mcbn]) for name in by_kind[AUGMENTED]}
    best = min(differences, key=lambda name: differences[name]["nll"].value)
    gain = simultaneous_difference(best, "nll", differences, scores[mcbn].level)
    text = f"The NLL of {best}, which augments its inputs, minus that of {mcbn} is "
    text += f"{with_interval(gain, 4)} nats"
    if gain.high < 0:
        return Claim("Augmentation", "uncertain", f"{text}: augmentation does better.")
    if gain.low > 0:
        return Claim("Augmentation", "good", f"{text}: {mcbn} does better.")
    return Claim("Augmentation", "uncertain", f"{text}, which is not significant.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison of samplers, one of which augments."""
    if subject.comparison and (claim := augmentation_claim(subject.comparison)):
        yield claim


CHECK = Check(
    code="MCBN005",
    name="augmentation-does-better",
    looks_at=(
        "The NLL of the best method with test-time augmentation (mcbn.Augmented) minus that of the "
        "best by MCBN. Files of predictions do not know their sampler, so there it is not made."
    ),
    threshold="An interval, for all augmented methods at once, that does not lie above 0.",
    source=(
        "Augmentation costs as many passes and needs no bank; on pictures it often gains more: "
        "see docs/what_to_pick.md."
    ),
    remedy=(
        "Augment the plain network, or MCBN itself: mcbn.Augmented(mcbn.MCBatchNorm(model, bank), "
        "transform) costs one pass per draw."
    ),
    judge=judge,
)
