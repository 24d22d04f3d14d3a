"""Calibration and best method of forecasts of real values."""

import math
from collections.abc import Mapping

from mcbn.checks.calibration_states import (
    SMALL_GAP,
    CalibrationState,
    State,
    mark_of,
    others,
)
from mcbn.checks.claim import Claim, interval_text, with_interval
from mcbn.checks.differences import simultaneous_difference
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import paired
from mcbn.evaluation.confidence_gap import Interval
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.glossary import number
from mcbn.evaluation.real_gaps import RealGaps, real_gap_intervals

# Smaller ones need no action: in standard deviations, or in those of a term of the PIT. Forecasts
# that are too narrow by a twentieth have a spread of 0.06.
SMALL_SHIFT = 0.05
WIDE_COVERAGE = 0.05  # half-width beyond which a coverage is too uncertain to be called right


def real_calibration_states(
    gaps: Mapping[str, RealGaps], *, level: float = 0.95
) -> Mapping[str, CalibrationState]:
    """The state of every method of real values, by intervals that hold for all methods at once.

    Over-confident forecasts are too narrow, under-confident ones too wide: by the spread of their
    PITs, or the coverage of the central 90% intervals. Biased ones lie above or below the true
    values, by more than they are too narrow or too wide; uneven ones have the wrong skew or tails.
    Each is significant, and at least 0.05, of the coverage 0.01.

    Args:
        gaps: how forecasts are off, by method.
        level: of all intervals together.
    """
    found = real_gap_intervals(gaps, level=level)
    return {
        name: CalibrationState(_state_of(each), *each["coverage"]) for name, each in found.items()
    }


def _state_of(gaps: Mapping[str, Interval]) -> State:
    bias, spread, coverage = (gaps[name][0] for name in ("bias", "spread", "coverage"))
    by_spread = _is_clear(gaps["spread"], SMALL_SHIFT)
    by_coverage = _is_clear(gaps["coverage"], SMALL_GAP)
    # A shift makes transforms spread as well, by less than itself.
    if _is_clear(gaps["bias"], SMALL_SHIFT) and abs(bias) >= abs(spread):
        return "biased"
    if by_spread or by_coverage:
        way = spread if by_spread else coverage
        return "over-confident" if way > 0 else "under-confident"
    if any(_is_clear(gaps[name], SMALL_SHIFT) for name in ("bias", "skew", "tails")):
        return "uneven"
    _, low, high = gaps["coverage"]
    return "calibrated" if (high - low) / 2 <= WIDE_COVERAGE else "uncertain"


def _is_clear(interval: Interval, least: float) -> bool:
    value, low, high = interval
    return (low > 0 or high < 0) and abs(value) >= least


def real_calibration_claim(
    evaluations: Mapping[str, Evaluation],
    gaps: Mapping[str, RealGaps],
    states: Mapping[str, CalibrationState],
) -> Claim:
    """Say how calibrated the baseline is, then each other method.

    Args:
        evaluations: of methods, the baseline first.
        gaps: how their forecasts are off.
        states: of the methods; without them, or without intervals, nothing is decided.
    """
    name, first = next(iter(evaluations.items()))
    score = first["coverage_90"]
    if not states or not len(score.replicates):
        return Claim("Calibration", "uncertain", f"{_coverage(name, first)}.")
    bias, low, high = real_gap_intervals(gaps, level=first.level)[name]["bias"]
    tail = (
        f"the true values lie {number(bias, 2, signed=True)} {interval_text(low, high, 2)} "
        f"standard deviations from its mean, and its PIT error is "
        f"{with_interval(first['pit_error'])}."
    )
    what = {
        "calibrated": ", as intended",
        "uncertain": ", which is too uncertain to call it calibrated",
        "uneven": ": it is right on average, but its shape is not",
    }.get(states[name].state, f": it is {states[name].state}")
    text = f"{_coverage(name, first)}{what}; {tail}"
    return Claim("Calibration", mark_of(states), text + others(states))


def _coverage(name: str, evaluation: Evaluation) -> str:
    score = evaluation["coverage_90"]
    share = f"{_percent(score.value)}% {glossary.interval(score.low, score.high, _percent)}"
    return f"The central 90% intervals of {name} contain {share.rstrip()} of the true values"


def best_real_claim(evaluations: Mapping[str, Evaluation]) -> Claim:
    """Whether any method has a higher predictive log-likelihood than the first.

    By intervals that hold for all rivals at once.
    """
    baseline, *rivals = evaluations
    values = {name: evaluation["pll"].value for name, evaluation in evaluations.items()}
    if not max(values.values()) > -math.inf or any(map(math.isnan, values.values())):
        return Claim(
            "Best method", "uncertain", "No PLL is finite, so no method is the best by it."
        )
    best = max(values, key=lambda name: values[name])
    rival = best if best != baseline else max(rivals, key=lambda name: values[name])
    level = evaluations[baseline].level
    gain = simultaneous_difference(rival, "pll", paired(evaluations), level)
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
