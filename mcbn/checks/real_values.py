"""Calibration and best method of forecasts of real values."""

import math
from collections.abc import Mapping

from mcbn.checks.claim import Claim, with_interval
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import paired
from mcbn.evaluation.evaluation import Evaluation

NOMINAL = 0.9  # level of the intervals whose coverage is scored


def coverage_claim(name: str, evaluation: Evaluation) -> Claim:
    """Whether the central intervals of a method contain the intended share of true values."""
    score = evaluation["coverage_90"]
    interval = glossary.interval(score.low, score.high, _percent)
    share = f"{_percent(score.value)}% {interval}".rstrip()
    text = (
        f"The central {100 * NOMINAL:.0f}% intervals of {name} contain {share} of the true values"
    )
    error = f"its PIT error is {with_interval(evaluation['pit_error'])}."
    if score.high < NOMINAL:
        return Claim("Calibration", "bad", f"{text}: it is over-confident; {error}")
    if score.low > NOMINAL:
        return Claim("Calibration", "bad", f"{text}: it is under-confident; {error}")
    if not interval:
        return Claim("Calibration", "uncertain", f"{text}; {error}")
    return Claim("Calibration", "good", f"{text}, as intended; {error}")


def best_real_claim(evaluations: Mapping[str, Evaluation]) -> Claim:
    """Whether any method has a higher predictive log-likelihood than the first."""
    baseline, *others = evaluations
    values = {name: evaluation["pll"].value for name, evaluation in evaluations.items()}
    if not max(values.values()) > -math.inf or any(map(math.isnan, values.values())):
        return Claim(
            "Best method", "uncertain", "No PLL is finite, so no method is the best by it."
        )
    best = max(values, key=lambda name: values[name])
    rival = best if best != baseline else max(others, key=lambda name: values[name])
    gain = paired(evaluations)[rival]["pll"]
    text = (
        f"{best} has the highest PLL, {with_interval(evaluations[best]['pll'])}: the difference "
        f"{rival} minus {baseline} is {with_interval(gain, 4)} nats"
    )
    if gain.low > 0:
        return Claim("Best method", "good", f"{text}, which is beyond chance.")
    if gain.high < 0:
        return Claim("Best method", "bad", f"{text}, so no method improves on {baseline}.")
    return Claim("Best method", "uncertain", f"{text}, which is not significant.")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
