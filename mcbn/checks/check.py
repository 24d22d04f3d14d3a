"""A check: what it looks at, from which value on it is an issue, and what it says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mcbn.checks.claim import Claim, Status
from mcbn.checks.subject import Subject

ORDER: tuple[Status, ...] = ("issue", "tip", "passed")  # the most pressing first


@dataclass(frozen=True)
class Check:
    """One thing that is looked at, with a code as linters have it.

    Attributes:
        code: "MCBN" and three digits; it never changes its meaning.
        name: a few words for lists and addresses, such as "worse-than-temperature".
        looks_at: what is measured.
        threshold: from which value on it is a tip or an issue.
        source: why that value.
        remedy: what to do about it.
        judge: what it says of a subject; nothing where it is not applicable. None of a check of a
            network or of its bank, which `inspect` and `collect` make.
    """

    code: str
    name: str
    looks_at: str
    threshold: str
    source: str
    remedy: str
    judge: Callable[[Subject], Iterable[Claim]] | None = None

    def __call__(self, subject: Subject) -> "CheckResult":
        """Judge a subject."""
        said = self.judge(subject) if self.judge else ()
        return CheckResult(self, tuple(map(self._signed, said)))

    def _signed(self, claim: Claim) -> Claim:
        """A claim with the code and, where something is to be done, the remedy of this check."""
        remedy = "" if claim.mark == "good" else claim.remedy or self.remedy
        return replace(claim, code=self.code, remedy=remedy)


@dataclass(frozen=True)
class CheckResult:
    """What came of one check.

    Attributes:
        check: the check.
        claims: what it says; empty where it is not applicable.
    """

    check: Check
    claims: tuple[Claim, ...]

    @property
    def status(self) -> Status:
        """That of the most pressing claim."""
        said = {claim.status for claim in self.claims}
        return next((status for status in ORDER if status in said), "not applicable")
