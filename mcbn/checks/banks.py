"""Whether the bank of a method agrees with the running statistics of its network."""

from collections.abc import Iterator

from mcbn.bank.consistency import MAX_EXCESS, Consistency
from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject


def bank_claim(name: str, consistency: Consistency) -> Claim:
    """Say whether noise explains the gaps between draws and running statistics."""
    gap = f"the typical gap is {consistency.excess:.1f} times what noise explains"
    if consistency.passed:
        text = f"The bank of {name} agrees with the running statistics of its network"
        return Claim("Bank", "good", f"{text}: {gap}.")
    text = f"The bank of {name} disagrees with the running statistics of its network"
    ratio = f"and the median ratio of variances {consistency.variance_ratio:.3g}"
    tail = "so its predictions differ from the trained network's for other reasons than noise"
    return Claim("Bank", "bad", f"{text}: {gap}, {ratio}, {tail}.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge every known bank."""
    for name, consistency in subject.known_banks.items():
        yield bank_claim(name, consistency)


CHECK = Check(
    code="MCBN001",
    name="bank-disagrees",
    looks_at=(
        "The gap between the mean of a bank's draws and the network's running statistics, in units "
        "of the noise of both, of the typical layer."
    ),
    threshold=f"A gap of more than {MAX_EXCESS:g} times the noise.",
    source=(
        "On a published CIFAR-10 network banks of mini-batches with the training augmentation had "
        "gaps of 0.6 to 0.8 times the noise, and banks without it of 5 to 6: see docs/experiments."
    ),
    remedy=(
        "Collect from mini-batches that went through the training transform, augmentation included."
    ),
    judge=judge,
)
