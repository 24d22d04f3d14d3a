"""Whether there are enough test examples to say how good a method is."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.evaluation import Evaluation

MAX_WIDTH = 0.1  # of the interval of a share
SHARES = {
    "accuracy": "accuracy",
    "coverage_90": "coverage of the central 90% intervals",
}


def precision_claim(name: str, evaluation: Evaluation) -> Claim | None:
    """Say within how much the accuracy, or coverage, is known; None where it has no interval."""
    score = next((each for each in SHARES if each in evaluation), None)
    if score is None:
        return None
    width = evaluation[score].high - evaluation[score].low
    if not width >= 0:  # NaN without resamples
        return None
    points = f"{100 * width:.1f} points"
    text = f"The interval of the {SHARES[score]} of {name} is {points} wide"
    text += f" with {evaluation.examples:,} test examples"
    if width <= MAX_WIDTH:
        return Claim("Test examples", "good", f"{text}.")
    # The width falls as one over the square root of the number of examples.
    needed = float(f"{evaluation.examples * (width / MAX_WIDTH) ** 2:.2g}")
    text += f": about {needed:,.0f} would make it {100 * MAX_WIDTH:g}"
    return Claim("Test examples", "uncertain", f"{text}.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge the baseline."""
    comparison = subject.comparison
    evaluations = comparison.evaluations if comparison else subject.evaluations
    if evaluations:
        name = subject.baseline
        if claim := precision_claim(name, evaluations[name]):
            yield claim


CHECK = Check(
    code="MCBN024",
    name="few-test-examples",
    looks_at="The width of the interval of the baseline's accuracy, or coverage of real values.",
    threshold=f"A width above {MAX_WIDTH:g}.",
    source=(
        "Methods rarely differ by so much, so that little could be said of any: about 400 examples "
        "at accuracy 0.5, and 140 at 0.9, are enough."
    ),
    remedy="Test on more examples, or more groups where these are resampled.",
    judge=judge,
)
