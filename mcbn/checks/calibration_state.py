"""How calibrated a method is, in a word, with the number behind it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.confidence_gap import confidence_gap
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.glossary import number

StateName = Literal[
    "calibrated", "over-confident", "under-confident", "biased", "uneven", "uncertain"
]


@dataclass(frozen=True)
class CalibrationState:
    """How calibrated a method is.

    Attributes:
        name: the state; "uneven" is calibrated on average, but not at every confidence or in every
            class, and "uncertain" means that there are too few examples to say.
        value: confidence minus accuracy, or coverage of the intervals.
        low: lower end of its interval.
        high: upper end.
        shown: the value in words, such as "+5.1 points".
    """

    name: StateName
    value: float
    low: float
    high: float
    shown: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"state": self.name, "value": self.value, "low": self.low, "high": self.high}

    @property
    def text(self) -> str:
        """The state and its value."""
        return f"{self.name}, {self.shown}"

    @property
    def size(self) -> str:
        """By how much, as the end of a sentence; empty where there is nothing to add."""
        unsigned = self.shown.lstrip("+\N{MINUS SIGN}")
        return f" by {unsigned}" if unsigned else ""


def provisional_states(comparison: Comparison) -> dict[str, CalibrationState]:
    """By the gap alone."""
    found = {}
    for name in comparison.entries:
        value, low, high = confidence_gap(name, comparison)
        state: StateName = "uncertain"
        if low > 0:
            state = "over-confident"
        elif high < 0:
            state = "under-confident"
        elif (high - low) / 2 <= 0.02:
            state = "calibrated"
        shown = f"{number(100 * value, 1, signed=True)} points"
        found[name] = CalibrationState(state, value, low, high, shown)
    return found


def provisional_real_states(evaluations: Mapping[str, Evaluation]) -> dict[str, CalibrationState]:
    """By one coverage alone."""
    found = {}
    for name, each in evaluations.items():
        score = each["coverage_90"]
        state: StateName = "calibrated"
        if score.high < 0.9:
            state = "over-confident"
        elif score.low > 0.9:
            state = "under-confident"
        elif math.isnan(score.low):
            state = "uncertain"
        found[name] = CalibrationState(state, score.value, score.low, score.high, "")
    return found
