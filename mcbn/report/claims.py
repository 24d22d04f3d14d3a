"""The verdict of a report: plain sentences computed from the numbers, each with a mark."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats
from torch import Tensor

from mcbn.evaluation import bootstrap, glossary, scores
from mcbn.evaluation.compare import Comparison, Entry
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.evaluate import Score
from mcbn.evaluation.glossary import number
from mcbn.evaluation.subgroups import FEW, Subgroup, loss_name, worst
from mcbn.study.results import Study
from mcbn.study.slopes import slopes, spreads

SCORE = "mutual_information"


@dataclass(frozen=True)
class Decay:
    """How mean mutual information of MCBN falls with the inference batch size M.

    Attributes:
        slope: of log mutual information against log M, mean over networks; -1 is as 1 / M.
        low: lower end of its Student-t interval over seeds; NaN with a single one.
        high: upper end.
        factor: geometric mean over networks of mutual information at the smallest M over the
            largest.
        smallest: smallest M.
        largest: largest M.
        networks: how many trained networks this is from.
    """

    slope: float
    low: float
    high: float
    factor: float
    smallest: int
    largest: int
    networks: int


def confidence_gap(entry: Entry, targets: Tensor) -> tuple[float, float, float]:
    """Mean confidence less accuracy with a normal interval; above 0 is over-confident.

    Positions of one example hang together, so they are averaged before the spread is taken.
    """
    predictive = entry.predictive
    correct = scores.correct(predictive.probabilities, targets.to(predictive.confidence.device))
    gaps = (predictive.confidence - correct.double()).reshape(len(correct), -1).mean(1)
    mean = float(gaps.mean())
    if len(gaps) < 2:
        return mean, math.nan, math.nan
    quantile = float(stats.norm.isf((1 - entry.evaluation.level) / 2))
    half = quantile * float(gaps.std()) / len(gaps) ** 0.5
    return mean, mean - half, mean + half


def decay(study: Study) -> Decay | None:
    """Fit the log-log slope of each network; None without two batch sizes of some information."""
    known = [slope for slope in slopes(study, SCORE) if slope.method == "MCBN"]
    if not known:
        return None
    last = known[-1]  # of all training batch sizes together, if there are several
    falls = []
    for size in study.training_batch_sizes:
        rows = spreads(study, SCORE, "MCBN", size)
        falls += [math.log(row[0] / row[-1]) for row in rows.values.values()] if rows else []
    return Decay(
        last.estimate.mean, last.estimate.low, last.estimate.high,
        math.exp(statistics.fmean(falls)), last.batch_sizes[0], last.batch_sizes[-1], len(falls),
    )  # fmt: skip


def monte_carlo_error(found: Convergence, draws: int) -> float:
    """Spread of the NLL at `draws` draws, carried on as one over their root; NaN if unknown.

    Taken from the largest groups of which there are at least 8: fewer give no steady spread, and
    smaller groups are further from where the root law holds.
    """
    known = [
        (size, spread)
        for size, spread in zip(found.draws, found.spread, strict=True)
        if math.isfinite(spread)
    ]
    if not known:
        return math.nan
    steady = [pair for pair in known if found.draws[-1] // pair[0] >= 8] or known[:1]
    size, spread = steady[-1]
    return spread * math.sqrt(size / draws)


Mark = Literal["good", "uncertain", "bad"]
# A gap of a point is nothing to act on; an interval wider than this says too little to praise.
SMALL_GAP, WIDE_GAP = 0.01, 0.02
ALPHA = 0.05  # of the test of the worst group, after Holm's correction
ENOUGH, TOO_MUCH = 0.25, 1.0  # Monte Carlo error over the half-width of the interval


@dataclass(frozen=True)
class Claim:
    """One sentence of the verdict.

    Attributes:
        topic: what it is about.
        mark: "good", "uncertain" (nothing can be said for sure) or "bad".
        sentence: plain text.
    """

    topic: str
    mark: Mark
    sentence: str


def verdict(
    comparison: Comparison, study: Study | None, convergence: Mapping[str, Convergence]
) -> tuple[Claim, ...]:
    """Judge what was measured, in the order a reader asks."""
    claims = [
        _calibration(comparison),
        _best(comparison),
        _errors(comparison),
        _study(study) if study else None,
        _outside(comparison),
        _draws(comparison, convergence),
    ]
    return tuple(claim for claim in claims if claim)


def group_claim(method: str, column: str, groups: Sequence[Subgroup]) -> Claim:
    """Name the worst group of a column, and say whether it is worse beyond chance."""
    found, name = worst(groups), loss_name(groups)
    few = sum(group.is_small for group in groups)
    score = glossary.label(name)
    text = (
        f"Of {len(groups)} groups by {column}, {method} does worst on {found.name} "
        f"({found.size:,} examples): {score} {with_span(found.scores[name])}"
    )
    if math.isnan(found.adjusted):
        text += ". It cannot be tested against the other examples"
    elif found.adjusted < ALPHA:
        text += f", unlike on the other examples ({glossary.probability(found.adjusted)}"
    else:
        text += (
            f", which cannot be told apart from the others ({glossary.probability(found.adjusted)}"
        )
    if not math.isnan(found.adjusted):
        text += f" by Holm's method over the {len(groups)} groups)"
    if few:
        text += f". {few} {'groups have' if few > 1 else 'group has'} fewer than {FEW} examples"
    return Claim("Groups", "bad" if found.adjusted < ALPHA else "uncertain", f"{text}.")


def _span(low: float, high: float, digits: int) -> str:
    if math.isnan(low) or math.isnan(high):
        return "(no interval)"
    return f"[{number(low, digits)}, {number(high, digits)}]"


def with_span(score: Score, digits: int = 3) -> str:
    """A score's value and its interval, as text."""
    return f"{number(score.value, digits)} {_span(score.low, score.high, digits)}"


def _calibration(comparison: Comparison) -> Claim:
    name = comparison.baseline
    entry = comparison.entries[name]
    gap, low, high = confidence_gap(entry, comparison.targets)
    error = entry.evaluation["ece_debiased"]
    points = f"{number(abs(gap) * 100, 1)} points"
    ends = sorted((abs(low), abs(high))) if low * high > 0 else [low, high]
    span = _span(ends[0] * 100, ends[1] * 100, 1)
    tail = f"its debiased calibration error is {with_span(error)}."
    if error.value == 0:  # clipped there: a value at the end of its interval would look too sure
        tail = "its debiased calibration error is 0, no more than chance explains."
    accuracy = entry.evaluation["accuracy"].value
    facts = f"{accuracy:.1%} right at a mean confidence of {accuracy + gap:.1%}".replace("%", " %")
    if low > 0 or high < 0:
        word = "over-confident" if gap > 0 else "under-confident"
        mark: Mark = "bad" if abs(gap) >= SMALL_GAP else "good"
        little = "" if mark == "bad" else "slightly "
        text = f"{name} is {little}{word}, by {points} {span} ({facts}); {tail}"
        if mark == "good" and error.low > 2 * SMALL_GAP:
            mark = "bad"
        return Claim("Calibration", mark, text)
    signed = f"{number(gap * 100, 1, signed=True)} points {span}"
    text = f"{name} cannot be told apart from one that is neither over- nor under-confident"
    if error.low > SMALL_GAP:
        text = f"{name} is right on average but miscalibrated in places"
        mark = "bad"
    else:
        mark = "good" if (high - low) / 2 <= WIDE_GAP else "uncertain"
    return Claim("Calibration", mark, f"{text}: confidence less accuracy is {signed}; {tail}")


def _best(comparison: Comparison) -> Claim | None:
    values = {name: found.evaluation["nll"].value for name, found in comparison.entries.items()}
    if len(values) < 2 or any(math.isnan(value) for value in values.values()):
        return None
    base = comparison.baseline
    differences = comparison.differences()
    best = min(values, key=lambda name: values[name])
    rival = best if best != base else min(differences, key=lambda name: values[name])
    found = differences[rival]["nll"]
    size = f"{number(abs(found.value), 4)} nats"
    span = _span(*_unsigned(found), 4)
    apart = found.low > 0 or found.high < 0
    nll = with_span(comparison.entries[best].evaluation["nll"])
    if best != base and apart:
        text = f"{best} has the lowest NLL, {nll}: {size} {span} below {base}, which is beyond "
        return Claim("Best method", "good", text + "chance.")
    if best != base:
        text = (
            f"{best} has the lowest NLL, {nll}, but cannot be told apart from {base}: the paired "
            f"difference is {number(found.value, 4)} {_span(found.low, found.high, 4)} nats."
        )
        return Claim("Best method", "uncertain", text)
    if apart:
        text = f"No method improves on {base}, whose NLL is {nll}: the closest, {rival}, is "
        return Claim("Best method", "bad", f"{text}{size} {span} worse.")
    text = (
        f"No method has a lower NLL than {base}, {nll}; the closest, {rival}, cannot be told apart "
        f"from it: {number(found.value, 4)} {_span(found.low, found.high, 4)} nats."
    )
    return Claim("Best method", "uncertain", text)


def _unsigned(score: Score) -> tuple[float, float]:
    """Ends of the interval of a difference's size, where it is on one side of zero."""
    if score.value < 0:
        return -score.high, -score.low
    return score.low, score.high


def _errors(comparison: Comparison) -> Claim | None:
    known = {
        name: found.evaluation["auroc_of_errors"]
        for name, found in comparison.entries.items()
        if not math.isnan(found.evaluation["auroc_of_errors"].value)
    }
    if not known:
        return None
    best = max(known, key=lambda name: known[name].value)
    mark = _auroc_mark(known[best])
    word = {
        "good": "ranks its own errors well",
        "uncertain": "ranks its own errors only in part",
        "bad": "cannot be shown to rank its own errors better than guessing",
    }[mark]
    also = ""
    if best != comparison.baseline and comparison.baseline in known:
        also = f"; {comparison.baseline} reaches {with_span(known[comparison.baseline])}"
    text = f"{best} {word}: AUROC {with_span(known[best])} of wrong against right answers{also}."
    return Claim("Errors", mark, text)


def _auroc_mark(score: Score) -> Mark:
    if score.low > 0.8:
        return "good"
    return "uncertain" if score.low > 0.5 or math.isnan(score.low) else "bad"


def _study(study: Study) -> Claim | None:
    found = decay(study)
    if found is None:
        return None
    networks = f"{found.networks} networks" if found.networks > 1 else "one network"
    span = _span(found.low, found.high, 2)
    text = (
        f"MCBN's mutual information goes as M to the power {number(found.slope, 2)} {span} over "
        f"{networks}: from M = {found.smallest} to M = {found.largest} it changes by a factor of "
        f"1/{found.factor:.3g}"
    )
    # Without an interval the slope alone decides what is said, but not that it is good or bad.
    high = found.slope if math.isnan(found.high) else found.high
    low = found.slope if math.isnan(found.low) else found.low
    if high < -0.5:
        near = "roughly as 1/M" if low < -0.75 and high > -1.25 else "clearly"
        end = f". It falls {near}, so MCBN with a large inference batch is nearly the plain network"
        return Claim(
            "Batch size", "uncertain" if math.isnan(found.low) else "bad", text + end + "."
        )
    if low > -0.5:
        mark: Mark = "uncertain" if math.isnan(found.low) else "good"
        return Claim("Batch size", mark, text + ". Most of it is kept at large batches.")
    return Claim("Batch size", "uncertain", text + ". How fast it falls cannot be told for sure.")


def _outside(comparison: Comparison) -> Claim | None:
    sets = list(comparison.entries[comparison.baseline].separation)
    if not sets:
        return None
    key, base = "auroc_out_of_distribution", comparison.baseline
    best = {}
    for place in sets:
        known = {name: e.separation[place][key] for name, e in comparison.entries.items()}
        name = max(known, key=lambda name: known[name].value)
        best[place] = (name, known[name])
    hardest = min(sets, key=lambda place: best[place][1].value)
    name, score = best[hardest]
    mark = _auroc_mark(score)
    word = {
        "good": "tells it apart well",
        "uncertain": "tells it apart only in part",
        "bad": "cannot be shown to tell it apart better than guessing",
    }[mark]
    which = "The outside set" if len(sets) == 1 else f"The hardest of {len(sets)} outside sets"
    text = f"{which} is {hardest}: at best, {name} {word}, AUROC {with_span(score)}"
    if name != base:
        other = comparison.entries[base].separation[hardest][key]
        text += _against(score, other, base, comparison.entries[name].evaluation.level)
    return Claim("Outside", mark, text + ".")


def _against(score: Score, other: Score, base: str, level: float) -> str:
    # One seed and the same numbers of rows draw the same rows, so the replicates are paired.
    if score.replicates.shape != other.replicates.shape:
        return f"; {base} reaches {with_span(other)}"
    low, high = bootstrap.percentile_interval(score.replicates - other.replicates, level)
    gain = f"{number(score.value - other.value, 3)} {_span(low, high, 3)}"
    if low > 0:
        return f", which is {gain} more than {base}"
    return f", which cannot be told apart from {base}: the paired difference is {gain}"


def _draws(comparison: Comparison, convergence: Mapping[str, Convergence]) -> Claim | None:
    worst = None
    for name, found in convergence.items():
        if name not in comparison.entries:
            continue
        entry = comparison.entries[name]
        score = entry.evaluation["nll"]
        half = (score.high - score.low) / 2
        error = monte_carlo_error(found, entry.predictive.draw_count)
        ratio = error / half if half > 0 else math.nan
        if worst is None or not ratio <= worst[0]:
            worst = (ratio, name, entry.predictive.draw_count, error, half)
    if worst is None:
        return None
    ratio, name, draws, error, half = worst
    text = f"{name} with T = {draws} draws has a Monte Carlo error of {error:.2g} nats in its NLL"
    if math.isnan(ratio):
        return Claim("Draws", "uncertain", f"{text.replace('nan', 'unknown size')}; without an "
                     "interval beside it, it cannot be said whether T is enough.")  # fmt: skip
    text += f", {number(ratio * 100, 0)} % of the interval's half-width of {half:.2g}"
    if ratio <= ENOUGH:
        return Claim("Draws", "good", f"{text}: the draws are enough.")
    more = math.ceil(draws * (ratio / ENOUGH) ** 2)
    mark: Mark = "uncertain" if ratio <= TOO_MUCH else "bad"
    return Claim("Draws", mark, f"{text}: the draws are not enough; about {more} would be.")
