"""All checks, and what comes of those that apply to a subject."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mcbn.checks import (
    augmentation,
    banks,
    batch_size,
    best_method,
    calibration,
    coverage,
    draws,
    drift,
    epistemic_ranking,
    equal_draws,
    equal_methods,
    errors,
    few_examples,
    groups,
    more_data,
    out_of_distribution,
    recommendation,
    replicates,
    seeds,
    spread,
    study_detection,
    study_methods,
    targets,
    temperature,
    temperature_bound,
)
from mcbn.checks.check import Check, CheckResult
from mcbn.checks.claim import Claim, Status
from mcbn.checks.codes import require_codes
from mcbn.checks.networks import OF_NETWORKS
from mcbn.checks.subject import Subject

# In the order in which a verdict reads: what to trust, what to use, then what weakens it.
CHECKS: tuple[Check, ...] = tuple(
    module.CHECK
    for module in (
        recommendation, replicates, seeds, calibration, best_method, temperature, augmentation,
        errors, epistemic_ranking, batch_size, spread, study_methods, out_of_distribution,
        study_detection, coverage, draws, groups, drift, more_data, temperature_bound, banks,
        equal_draws, equal_methods, few_examples, targets,
    )
)  # fmt: skip
# By code, with those of a network.
CODES: Mapping[str, Check] = {
    check.code: check for check in sorted((*CHECKS, *OF_NETWORKS), key=lambda each: each.code)
}


@dataclass(frozen=True)
class Checked:
    """What came of all checks.

    Attributes:
        results: of each check that was not ignored, in the order of the catalogue.
        ignored: codes of those that were.
    """

    results: tuple[CheckResult, ...]
    ignored: tuple[str, ...] = ()

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Everything that was said: the verdict."""
        return tuple(claim for result in self.results for claim in result.claims)

    def of(self, status: Status) -> tuple[CheckResult, ...]:
        """The checks of one status."""
        return tuple(result for result in self.results if result.status == status)

    def to_dict(self) -> list[dict[str, Any]]:
        """Each check with its status and what it says."""
        return [
            {
                "code": result.check.code,
                "name": result.check.name,
                "status": result.status,
                "claims": [
                    {"topic": claim.topic, "status": claim.status, "sentence": claim.sentence,
                     "remedy": claim.remedy}
                    for claim in result.claims
                ],
            }
            for result in self.results
        ]  # fmt: skip


def check_all(subject: Subject, *, ignore: Collection[str] = ()) -> Checked:
    """Make every check of a subject.

    Args:
        subject: what is known.
        ignore: codes of checks that are left out.

    Raises:
        ValueError: there is no check of a code.
    """
    require_codes(ignore)
    made = tuple(check(subject) for check in CHECKS if check.code not in ignore)
    return Checked(made, tuple(ignore))
