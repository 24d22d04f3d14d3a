"""Whether the epistemic standard deviation shrinks as training examples are added."""

from collections.abc import Iterator, Sequence

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark
from mcbn.checks.spread import FLAT_SLOPE
from mcbn.checks.subject import Subject
from mcbn.study.summary import span
from mcbn.study.trends import Trend, sweeps, trends


def contraction(trends: Sequence[Trend]) -> tuple[Claim, ...]:
    """Whether the epistemic sd at fixed M shrinks as training examples are added.

    Judged at the largest M, where the study varies N in a single sweep.
    """
    at_fixed_size = [trend for trend in trends if trend.batch_size is not None]
    if len({trend.sweep for trend in at_fixed_size}) != 1:
        return ()
    trend = at_fixed_size[-1]
    text = (
        f"With more training examples at fixed M = {trend.batch_size}, the epistemic standard "
        f"deviation of {trend.method} scales as N to the power {span(trend.estimate, 2)}."
    )
    mark: Mark = "uncertain"
    if trend.estimate.low > FLAT_SLOPE:
        text += " It does not contract as more data should make it: M would have to grow."
        mark = "bad"
    elif trend.estimate.high < 0:
        text += " It shrinks, as it also does for a network that becomes more confident."
    else:
        text += " Whether it contracts is uncertain."
    return (Claim("More data", mark, text),)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a study that varies the number of training examples."""
    if subject.study and not subject.comparison:
        found = (trend for sweep in sweeps(subject.study, "N") for trend in trends(sweep))
        yield from contraction(tuple(found))


CHECK = Check(
    code="MCBN021",
    name="no-contraction",
    looks_at=(
        "The log-log slope of the epistemic standard deviation against the number N of training "
        "examples, at fixed M."
    ),
    threshold="An interval of the slope that lies above -0.25.",
    source=(
        "The standard deviation of a posterior falls as N to the power -1/2 (Bernstein-von Mises)."
    ),
    remedy=("Choose M by N: mcbn.choose_batch_size on held-out examples of the larger data."),
    judge=judge,
)
