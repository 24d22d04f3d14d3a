"""What is said of several methods beside each other, by intervals that hold for all at once."""

import math
from collections.abc import Mapping
from dataclasses import replace

from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.glossary import number
from mcbn.evaluation.simultaneous import simultaneous_interval
from mcbn.report.claim import Claim, auroc_mark, interval_text, with_interval


def best_claim(comparison: Comparison) -> Claim | None:
    """Whether any method is better than the baseline, by intervals that hold for all at once."""
    values = {name: entry.evaluation["nll"].value for name, entry in comparison.entries.items()}
    if len(values) < 2 or any(math.isnan(value) for value in values.values()):
        return None
    if math.isinf(min(values.values())):
        text = (
            "Every method gives probability 0 to some true class, so no NLL is finite or the best."
        )
        return Claim("Best method", "uncertain", text)
    base = comparison.baseline
    differences = comparison.differences()
    best = min(values, key=lambda name: values[name])
    rival = best if best != base else min(differences, key=lambda name: values[name])
    difference = _difference(differences, rival, "nll", comparison)
    signed = f"{with_interval(difference, 4)} nats"
    unsigned = (
        f"{number(abs(difference.value), 4)} {interval_text(*_size_ends(difference), 4)} nats"
    )
    significant = difference.low > 0 or difference.high < 0
    nll = with_interval(comparison.entries[best].evaluation["nll"])
    if best != base and significant:
        text = f"{best} has the lowest NLL, {nll}: lower than {base} beyond chance, by {unsigned}."
        return Claim("Best method", "good", text)
    if best != base:
        text = (
            f"{best} has the lowest NLL, {nll}, but is not significantly different from {base}: "
            f"the paired difference is {signed}."
        )
        return Claim("Best method", "uncertain", text)
    if significant:
        text = f"No method improves on {base}, whose NLL is {nll}: the closest, {rival}, is "
        return Claim("Best method", "bad", f"{text}significantly worse, by {unsigned}.")
    text = (
        f"No method has a lower NLL than {base}, {nll}; the closest, {rival}, is not significantly "
        f"different: the paired difference is {signed}."
    )
    return Claim("Best method", "uncertain", text)


def temperature_claim(comparison: Comparison) -> Claim | None:
    """Judge whether what is gained over the baseline is more than a temperature would give it."""
    differences, base = comparison.differences(), comparison.baseline
    gains = [
        name
        for name, scores in differences.items()
        if "nll_calibrated" in scores and _difference(differences, name, "nll", comparison).high < 0
    ]
    if not gains:
        return None
    best = min(gains, key=lambda name: differences[name]["nll_calibrated"].value)
    gain = _difference(differences, best, "nll_calibrated", comparison)
    text = (
        f"At a temperature of its own, fitted on other examples, the NLL of {best} minus that of "
    )
    text += f"{base} is {with_interval(gain, 4)} nats"
    if gain.high < 0:
        return Claim(
            "Temperature", "good", f"{text}: more is gained than a temperature would give."
        )
    text += f": with some 50 labels or more, a temperature for {base} may do as well, in one pass."
    return Claim("Temperature", "uncertain", text)


def errors_claim(comparison: Comparison) -> Claim | None:
    """Whether errors are found, by the method with the least risk over all coverages.

    Methods are compared by risk, since each has errors of its own: one that answers some examples
    at random, with little confidence, finds its own errors well and still makes more of them.
    """
    known = {
        name: entry.evaluation
        for name, entry in comparison.entries.items()
        if not math.isnan(entry.evaluation["auroc_of_errors"].value)
    }
    if not known:
        return None
    best = min(known, key=lambda name: known[name]["aurc"].value)
    mark = auroc_mark(known[best]["auroc_of_errors"])
    what = {
        "good": "detects its own errors well",
        "uncertain": "detects its own errors only partly",
        "bad": "does not detect its own errors significantly better than guessing",
    }[mark]
    auroc = with_interval(known[best]["auroc_of_errors"])
    text = f"{best} {what}: AUROC {auroc} of wrong against right answers"
    if len(comparison.entries) > 1:
        text += f", and has the lowest risk, AURC {with_interval(known[best]['aurc'], 4)}"
    if best != comparison.baseline and comparison.baseline in known:
        gap = _difference(comparison.differences(), best, "aurc", comparison)
        clear = "significantly less" if gap.high < 0 else "not significantly less"
        text += f", {clear} than {comparison.baseline}: the paired difference is "
        text += with_interval(gap, 4)
    return Claim("Errors", mark, f"{text}.")


def _difference(
    differences: Mapping[str, Mapping[str, Score]], name: str, score: str, comparison: Comparison
) -> Score:
    """The difference of one rival, with an interval that holds for those of all rivals at once."""
    of_score = {rival: scores[score] for rival, scores in differences.items() if score in scores}
    level = comparison.evaluations[comparison.baseline].level
    low, high = simultaneous_interval(name, of_score, level)
    return replace(of_score[name], low=low, high=high)


def _size_ends(difference: Score) -> tuple[float, float]:
    """Ends of the interval of a difference's absolute value, where it does not contain zero."""
    if difference.value < 0:
        return -difference.high, -difference.low
    return difference.low, difference.high
