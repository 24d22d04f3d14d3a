"""What a check says: a sentence with its mark, code and remedy, and how numbers are written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

from mcbn.evaluation import glossary
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.glossary import number

Mark = Literal["good", "uncertain", "bad"]
Status = Literal["passed", "tip", "issue", "not applicable"]
STATUSES: Mapping[Mark, Status] = {"good": "passed", "uncertain": "tip", "bad": "issue"}


@dataclass(frozen=True)
class Claim:
    """One sentence of a verdict.

    Attributes:
        topic: what it is about.
        mark: "good", "uncertain" (the data do not decide, or something is worth knowing) or "bad".
        sentence: plain text.
        remedy: what to do about it, in plain text; empty where nothing need be done.
        code: of the check that says it, such as "MCBN004".
        part: of a study, whose name it is; empty where it is about the whole.
    """

    topic: str
    mark: Mark
    sentence: str
    remedy: str = ""
    code: str = ""
    part: str = ""

    @property
    def status(self) -> Status:
        """The mark in words: "passed", "tip" or "issue"."""
        return STATUSES[self.mark]

    def to_dict(self) -> dict[str, str]:
        """Its values, with the status."""
        return {**asdict(self), "status": self.status}


def with_interval(score: Score, digits: int = 3) -> str:
    """A score's value and its interval, as text."""
    return f"{number(score.value, digits)} {interval_text(score.low, score.high, digits)}"


def interval_text(low: float, high: float, digits: int) -> str:
    """The two ends of an interval, or that there is none."""
    return glossary.interval(low, high, partial(number, digits=digits), missing="(no interval)")


def auroc_mark(score: Score) -> Mark:
    """Good where it is clearly above 0.8, bad where it is not clearly above guessing."""
    if score.low > 0.8:
        return "good"
    return "uncertain" if score.low > 0.5 or math.isnan(score.low) else "bad"


def listed(names: Sequence[str]) -> str:
    """At least one name, in words: "a", "a and b", "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
