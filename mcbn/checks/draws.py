"""Whether the draws of each method are enough to compare it by."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence, curve_error
from mcbn.evaluation.finite_draws import DrawError
from mcbn.evaluation.glossary import number

# Error of the draws divided by the half-width of the interval: enough draws, too few draws.
GOOD_RATIO, BAD_RATIO = 0.25, 1.0


@dataclass(frozen=True)
class DrawsJudged:
    """What the draws of a method do to its NLL, beside what the test examples do.

    Attributes:
        error: bias and Monte Carlo error, of the difference from the baseline where `paired`.
        half_width: of the interval of that NLL or difference.
        paired: whether both are of a difference.
    """

    error: DrawError
    half_width: float
    paired: bool

    @property
    def ratio(self) -> float:
        """The error of the draws relative to that of the examples; NaN where one is not known."""
        # Of an infinite interval every error is a vanishing part, which says nothing.
        known = 0 < self.half_width < math.inf
        return self.error.size / self.half_width if known else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self.error), "half_width": self.half_width, "paired": self.paired}


def judged_draws(
    comparison: Comparison, convergence: Mapping[str, Convergence]
) -> dict[str, DrawsJudged]:
    """The methods of several draws, as far as these are known.

    Args:
        comparison: of methods.
        convergence: curves by method, for those whose draws it does not know.
    """
    found, differences = {}, comparison.differences()
    for name, entry in comparison.entries.items():
        draws = entry.evaluation.draw_count
        error = comparison.draw_error(name) if draws > 1 else None
        paired = error is not None and name != comparison.baseline
        if error is None and name in convergence:
            error = curve_error(convergence[name], draws)
        if error is not None:
            score = differences[name]["nll"] if paired else entry.evaluation["nll"]
            found[name] = DrawsJudged(error, (score.high - score.low) / 2, paired)
    return found


def draws_claim(comparison: Comparison, convergence: Mapping[str, Convergence]) -> Claim | None:
    """Judge the method whose draws matter most beside the choice of test examples."""
    judged = judged_draws(comparison, convergence)
    if not judged:
        return None
    # NaN, where nothing can be said, before all others.
    name = max(judged, key=lambda each: (math.isnan(judged[each].ratio), judged[each].ratio))
    worst, draws = judged[name], judged[name].error.draws
    minus = f" minus that of {comparison.baseline}" if worst.paired else ""
    text = (
        f"With T = {draws} draws the NLL of {name}{minus} has a bias of {worst.error.bias:.2g} "
        f"nats and a Monte Carlo error of {worst.error.error:.2g}"
    )
    if math.isnan(worst.error.size):
        text = f"The Monte Carlo error of {name} with T = {draws} draws is unknown"
    if math.isnan(worst.ratio):
        text += "; it cannot be compared with an interval of the NLL, to say whether T is enough."
        return Claim("Draws", "uncertain", text)
    text += (
        f", together {number(worst.ratio * 100, 0)}% of the half-width of its interval, "
        f"{worst.half_width:.2g}"
    )
    if worst.ratio <= GOOD_RATIO:
        return Claim("Draws", "good", f"{text}: the draws are enough.")
    needed = worst.error.draws_for(GOOD_RATIO * worst.half_width)
    mark: Mark = "uncertain" if worst.ratio <= BAD_RATIO else "bad"
    return Claim("Draws", mark, f"{text}: the draws are not enough; about {needed} would be.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison with methods of several draws."""
    if subject.comparison and (claim := draws_claim(subject.comparison, subject.convergence)):
        yield claim


CHECK = Check(
    code="MCBN008",
    name="too-few-draws",
    looks_at=(
        "The bias and the Monte Carlo error of the NLL of T draws, of the difference from the "
        "baseline."
    ),
    threshold=(
        "Together above a quarter of the half-width of the interval of that difference; above all "
        "of it is an issue."
    ),
    source="A quarter adds 3% to the half-width where the two are independent.",
    remedy="Collect more draws; the sentence says about how many.",
    judge=judge,
)
