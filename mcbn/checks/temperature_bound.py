"""Whether what was fitted on held-out data lies at a bound of its search."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.recalibration.apply import in_words


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge every fit that was searched for between two bounds."""
    fits = {name: fit for name, fit in subject.recalibrations.items() if hasattr(fit, "at_bound")}
    for name, fit in fits.items():
        if fit.at_bound is not None:
            text = (
                f"What was fitted to {name} lies at the {fit.at_bound} bound of its search "
                f"({in_words(fit)}), so the held-out labels do not tell which is best."
            )
            yield Claim("Recalibration", "bad", text)
    if fits and all(fit.at_bound is None for fit in fits.values()):
        what = "The fit lies" if len(fits) == 1 else f"All {len(fits)} fits lie"
        yield Claim("Recalibration", "good", f"{what} inside the bounds of the search.")


CHECK = Check(
    code="MCBN010",
    name="temperature-at-bound",
    looks_at="The temperature, or factor on the variance, that was fitted on held-out data.",
    threshold="A value at a bound of its search: 0.01 or 100 for a temperature.",
    source=(
        "Beyond the bound the held-out score would be better still, as where every held-out answer "
        "is right: no value is best."
    ),
    remedy="Hold out more labels, some of them answered wrongly, or give a larger prior.",
    judge=judge,
)
