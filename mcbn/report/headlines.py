"""The headline of a report: whether the model can be trusted, and with which method."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import combinations

from mcbn.checks.calibration_states import WORDS, CalibrationState
from mcbn.checks.catalogue import Checked
from mcbn.checks.claim import Claim, interval_text, listed
from mcbn.checks.differences import rival_difference
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.glossary import number
from mcbn.evaluation.intervals import difference
from mcbn.evaluation.simultaneous import simultaneous_interval

BEST, TEMPERATURE = "MCBN003", "MCBN004"


def said_by(checked: Checked, code: str) -> Claim | None:
    """The first claim of a check; None where it is not applicable or was ignored."""
    return next((claim for claim in checked.claims if claim.code == code), None)


def picked(
    values: Mapping[str, float], better: Collection[str], checked: Checked, *, lowest: bool
) -> str:
    """The method to use: the best of those shown to be better, else the baseline, the first.

    The best of all need not be among them: its difference may be large and uncertain.

    Args:
        values: the score that decides, by method.
        better: the methods that are shown to be better than the baseline.
        checked: what the checks say.
        lowest: whether the lowest value is the best.
    """
    if said_by(checked, BEST) is None or not better:
        return next(iter(values))
    return (min if lowest else max)(better, key=lambda name: values[name])


def method_headline(
    baseline: str,
    pick: str,
    states: Mapping[str, CalibrationState],
    checked: Checked,
    *,
    count: str,
    by_gap: bool,
) -> str:
    """One sentence: can the baseline be trusted, and which method does better?

    Args:
        baseline: its name.
        pick: the method to use.
        states: how calibrated each method is.
        checked: what the checks say.
        count: the test examples, in words.
        by_gap: whether the gap says by how much, in points.
    """
    trust = f"{_trust(baseline, states[baseline], count, by_gap=by_gap)}."
    trust = trust[0].upper() + trust[1:] if states[baseline].state == "biased" else trust
    claim = said_by(checked, BEST)
    if claim is None:
        return trust
    if pick == baseline:
        said = "improves on it" if claim.mark == "bad" else "is shown to be better"
        return f"{trust} No method {said}."
    return f"{trust} Use {pick}: it predicts better{_as_well(states[pick])}."


def _trust(name: str, state: CalibrationState, count: str, *, by_gap: bool) -> str:
    size = f" by {number(abs(100 * state.gap), 1)} points" if by_gap else ""
    return {
        "calibrated": f"{name} is calibrated, as far as {count} show",
        "over-confident": f"{name} is over-confident{size}",
        "under-confident": f"{name} is under-confident{size}",
        "biased": f"the forecasts of {name} are biased",
        "uneven": f"{name} is calibrated on average, but not everywhere",
        "uncertain": f"{count} are too few to say whether {name} is calibrated",
    }[state.state]


def _as_well(state: CalibrationState) -> str:
    return {
        "calibrated": " and is calibrated",
        "over-confident": ", but is over-confident too",
        "under-confident": ", but is under-confident",
        "biased": ", but is biased",
        "uneven": ", but is not calibrated everywhere",
        "uncertain": "",
    }[state.state]


def points(state: CalibrationState) -> str:
    """The gap of a method in points, without its interval."""
    return f"{number(100 * state.gap, 1, signed=True)} points"


def method_lede(
    comparison: Comparison, pick: str, states: Mapping[str, CalibrationState], checked: Checked
) -> str:
    """What the headline rests on: the gain of the pick, and what MCBN does at its best."""
    base = comparison.baseline
    sentences = []
    if pick != base:
        sentences += [
            _gain(comparison, pick), *_temperature(comparison, pick, checked),
            *_as_good(comparison, pick),
        ]  # fmt: skip
    elif claim := said_by(checked, BEST):
        sentences.append(claim.sentence)
    others = [name for name in comparison.entries if "MCBN" in name and name not in (base, pick)]
    if others:
        nlls = {name: comparison.evaluations[name]["nll"].value for name in others}
        name = min(others, key=lambda each: nlls[each])
        state = f"{WORDS[states[name].state]}, {points(states[name])}"
        sentences.append(f"{_gain(comparison, name)[:-1]}; it is {state}.")
    return " ".join(sentences)


def as_good(evaluations: Mapping[str, Evaluation], pick: str, score: str) -> list[str]:
    """The methods that are not shown to be worse than the one to use, the baseline left out.

    By paired intervals that hold for all pairs of methods at once, since the pick was chosen after
    looking at all of them.

    Args:
        evaluations: of all methods, the baseline first.
        pick: the method to use.
        score: that decides, and of which less is better.
    """
    _, *names = evaluations
    level, pairs = evaluations[pick].level, {}
    for one, other in combinations(sorted(names, key=lambda name: name == pick), 2):
        first, second = evaluations[one][score], evaluations[other][score]
        pairs[one, other] = replace(
            first, value=first.value - second.value,
            replicates=difference(first.replicates, second.replicates, level),
        )  # fmt: skip
    keyed = {f"{one}\0{other}": each for (one, other), each in pairs.items()}
    lows = {
        one: simultaneous_interval(f"{one}\0{other}", keyed, level)[0]
        for one, other in pairs
        if other == pick
    }
    return [name for name in names if name in lows and not lows[name] > 0]


def _as_good(comparison: Comparison, pick: str) -> list[str]:
    names = as_good(comparison.evaluations, pick, "nll")
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    return [f"{listed(names)} {verb} not shown to be worse than {pick}."]


def _temperature(comparison: Comparison, pick: str, checked: Checked) -> list[str]:
    """Whether a temperature would give the baseline as much as the pick gains.

    Of the pick itself: the check judges the method that gains most, which may be another.
    """
    base = comparison.baseline
    known = "nll_calibrated" in comparison.differences()[pick]
    if not known or said_by(checked, TEMPERATURE) is None:
        return []
    if rival_difference(pick, "nll_calibrated", comparison).high < 0:
        return [f"That is more than a temperature would give {base}."]
    return [f"A temperature for {base} may do as well."]


def _gain(comparison: Comparison, name: str) -> str:
    gap = rival_difference(name, "nll", comparison)
    value, low, high = gap.value, gap.low, gap.high
    if math.isnan(value):
        return f"The NLL of {name} cannot be compared."
    if low <= 0 <= high or math.isnan(low):
        return (
            f"The NLL of {name} is not significantly different: {number(value, 3, signed=True)} "
            f"{interval_text(low, high, 3)} nats."
        )
    way = "lower" if value < 0 else "higher"
    least, most = sorted((abs(low), abs(high)))
    by = f"{number(abs(value), 3)} {interval_text(least, most, 3)} nats"
    return f"The NLL of {name} is {way} by {by}."
