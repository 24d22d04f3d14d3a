"""The verb of the command line that checks predictions, or a study, as a linter checks code."""

import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from mcbn.checks.catalogue import Checked
from mcbn.checks.check import ORDER
from mcbn.checks.claim import Claim
from mcbn.cli import messages
from mcbn.cli.options.predictions import CheckOptions, ReportOptions
from mcbn.cli.options.study import StudyCheckOptions
from mcbn.cli.report import content_of_files
from mcbn.cli.values import names_of
from mcbn.report.study_content import StudyContent
from mcbn.study.results import Study

# One and several of a status, as the last line counts them.
COUNTED = {"issue": ("issue", "issues"), "tip": ("tip", "tips"), "passed": ("passed", "passed"),
           "not applicable": ("not applicable", "not applicable")}  # fmt: skip


def check(options: CheckOptions) -> None:
    """Check predictions of one or more methods on the same examples; exit with 1 for an issue."""
    known = {each.name for each in fields(ReportOptions)}
    shared = {name: value for name, value in vars(options).items() if name in known}
    content, _ = content_of_files(ReportOptions(**shared))
    _tell(content.checked, options)


def check_study(options: StudyCheckOptions) -> None:
    """Check a study; exit with 1 for an issue."""
    _tell(StudyContent(Study.load(options.study), names_of(options.ignore)).checked, options)


def _tell(checked: Checked, options: CheckOptions | StudyCheckOptions) -> None:
    """Print what the checks say, and end the process if there is something to do."""
    counts = {status: len(checked.of(status)) for status in COUNTED}  # type: ignore[arg-type]
    failed = counts["issue"] + (counts["tip"] if options.strict else 0) > 0
    numbers: dict[str, Any] = {
        "checks": checked.to_dict(), "counts": counts, "ignored": list(checked.ignored),
        "passed": not failed,
    }  # fmt: skip
    messages.show("\n".join(_lines(checked, counts)), numbers, json=options.json)
    if failed:
        sys.exit(1)


def _lines(checked: Checked, counts: dict[str, int]) -> Iterator[str]:
    """A line for each claim, the most pressing first, and one that counts the checks."""
    claims = checked.claims
    for status in ORDER:
        for claim in (each for each in claims if each.status == status):
            yield from _of_claim(claim)
    text = [f"{number} {COUNTED[status][number != 1]}" for status, number in counts.items()]
    if checked.ignored:
        text.append(f"{len(checked.ignored)} ignored")
    yield ", ".join(text)


def _of_claim(claim: Claim) -> Iterator[str]:
    """What a check says, and below it what to do."""
    status = messages.coloured(f"{claim.status:6}", messages.COLOURS[claim.status], sys.stdout)
    part = f"{claim.part}: " if claim.part else ""
    yield f"{claim.code} {status} {messages.on_a_line(part + claim.sentence)}"
    if claim.remedy:
        yield f"{'':15} -> {messages.on_a_line(claim.remedy)}"
