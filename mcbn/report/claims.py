"""The verdict of a comparison: plain sentences computed from the numbers, each with a mark."""

import math
from collections.abc import Mapping, Sequence

from scipy import stats

from mcbn.evaluation import bootstrap, glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.glossary import number
from mcbn.evaluation.subgroups import MIN_EXAMPLES, Subgroup, loss_name, worst
from mcbn.predictive.bernoulli import UNKNOWN
from mcbn.report.claim import Claim, Mark, auroc_mark, interval_text, with_interval
from mcbn.report.decay import decay
from mcbn.report.draw_errors import judged_draws
from mcbn.report.rival_claims import best_claim, errors_claim, temperature_claim
from mcbn.study.results import Study

OOD_AUROC = "auroc_out_of_distribution"


def confidence_gap(name: str, comparison: Comparison) -> tuple[float, float, float]:
    """Mean confidence minus accuracy, with a normal interval; above 0 is over-confident.

    Of several labels it is their mean probability minus their frequency. Positions and labels of
    one example are not independent, nor are the rows of a cluster, so their sums are what the
    standard error is taken of.

    Returns:
        The gap, and the lower and upper end of its interval.
    """
    sums, sizes = comparison.forecasts(name).confidence_gaps(comparison.units)
    mean = float(sums.sum() / sizes.sum())
    residuals = (sums - mean * sizes) * len(sums) / sizes.sum()
    if len(residuals) < 2:
        return mean, math.nan, math.nan
    level = comparison.evaluations[name].level
    half = float(stats.norm.isf((1 - level) / 2)) * float(residuals.std()) / len(residuals) ** 0.5
    return mean, mean - half, mean + half


# A smaller gap needs no action; a wider half-interval is too uncertain to be called good.
SMALL_GAP, WIDE_GAP = 0.01, 0.02
CLASS_GAP = 0.02  # of the probability of a class, mean over classes
ALPHA = 0.05  # level of the test of the worst group, after Holm's correction
# Error of the draws divided by the half-width of the interval: enough draws, too few draws.
GOOD_RATIO, BAD_RATIO = 0.25, 1.0


def verdict(
    comparison: Comparison, study: Study | None, convergence: Mapping[str, Convergence]
) -> tuple[Claim, ...]:
    """Judge a comparison, and a study and convergence curves where there are any."""
    claims = [
        _calibration(comparison),
        best_claim(comparison),
        temperature_claim(comparison),
        errors_claim(comparison),
        _study(study) if study else None,
        _out_of_distribution(comparison),
        _draws(comparison, convergence),
    ]
    return tuple(claim for claim in claims if claim)


def group_claim(method: str, column: str, groups: Sequence[Subgroup]) -> Claim:
    """Name the worst group of a column, and say whether it differs from the other examples."""
    group, name = worst(groups), loss_name(groups)
    small = sum(each.is_small for each in groups)
    text = (
        f"Of {len(groups)} groups by {column}, {method} does worst on {group.name} "
        f"({group.size:,} examples): {glossary.label(name)} {with_interval(group.scores[name])}"
    )
    infinite = sum(math.isinf(each.scores[name].value) for each in groups)
    if infinite > 1:
        text += (
            f", infinite as that of {infinite - 1} other {'groups' if infinite > 2 else 'group'}"
        )
    significant = group.adjusted < ALPHA
    if math.isnan(group.adjusted):
        text += ". It cannot be tested against the other examples"
    else:
        text += (
            f", {'' if significant else 'not '}significantly different from the other examples "
            f"({glossary.probability(group.adjusted)} by Holm's method over the {len(groups)} "
            "groups)"
        )
    if small:
        have = "groups have" if small > 1 else "group has"
        text += f". {small} {have} fewer than {MIN_EXAMPLES} examples"
    return Claim("Groups", "bad" if significant else "uncertain", f"{text}.")


def _calibration(comparison: Comparison) -> Claim:
    name = comparison.baseline
    entry = comparison.entries[name]
    gap, low, high = confidence_gap(name, comparison)
    error = entry.evaluation["ece_debiased"]
    tail = f"its debiased calibration error is {with_interval(error)}."
    # Clipped at 0, the lower end of its interval: the number would look more certain than it is.
    if error.value == 0:
        tail = "its debiased calibration error is 0, no more than expected by chance."
    if low > 0 or high < 0:
        return _miscalibrated(comparison, name, (gap, low, high), tail)
    signed = f"{number(gap * 100, 1, signed=True)} points {interval_text(low * 100, high * 100, 1)}"
    what = "confidence minus accuracy"
    if comparison.has_labels:
        what = "the mean probability of a label minus the share of labels that are there"
    mark: Mark = "good" if (high - low) / 2 <= WIDE_GAP else "uncertain"
    text = f"{name} is neither significantly over- nor under-confident"
    if comparison.has_labels:
        text = f"{name} neither over- nor underestimates labels significantly"
    of_classes = entry.evaluation["ece_classwise"]
    if of_classes.low > CLASS_GAP:
        text, mark = f"{name} is calibrated on average but not in every class", "bad"
        tail = f"the calibration error of single classes is {with_interval(of_classes)}."
    if error.low > SMALL_GAP:
        text, mark = f"{name} is calibrated on average but not at every confidence", "bad"
    return Claim("Calibration", mark, f"{text}: {what} is {signed}; {tail}")


def _miscalibrated(
    comparison: Comparison, name: str, gap_interval: tuple[float, float, float], tail: str
) -> Claim:
    """The claim on a method whose confidence differs significantly from its accuracy."""
    entry = comparison.entries[name]
    gap, low, high = gap_interval
    ends = sorted((abs(low) * 100, abs(high) * 100))
    points = f"{number(abs(gap) * 100, 1)} points {interval_text(ends[0], ends[1], 1)}"
    is_large = abs(gap) >= SMALL_GAP
    degree = "" if is_large else "slightly "
    if comparison.has_labels:
        targets = comparison.known_targets
        share = float(targets[targets != UNKNOWN].double().mean())
        facts = f"{share:.1%} of the labels are there, mean probability {share + gap:.1%}"
        does = f"{degree}{'overestimates' if gap > 0 else 'underestimates'} labels"
    else:
        accuracy = entry.evaluation["accuracy"].value
        facts = f"accuracy {accuracy:.1%}, mean confidence {accuracy + gap:.1%}"
        does = f"is {degree}{'over' if gap > 0 else 'under'}-confident"
    is_bad = is_large or entry.evaluation["ece_debiased"].low > 2 * SMALL_GAP
    text = f"{name} {does}, by {points} ({facts}); {tail}"
    return Claim("Calibration", "bad" if is_bad else "good", text)


def _study(study: Study) -> Claim | None:
    fit = decay(study)
    if fit is None:
        return None
    networks = f"{fit.networks} networks" if fit.networks > 1 else "one network"
    text = (
        f"MCBN's mutual information scales as M to the power {number(fit.slope, 2)} "
        f"{interval_text(fit.low, fit.high, 2)} over {networks}: from M = {fit.smallest} to "
        f"M = {fit.largest} it changes by a factor of 1/{fit.factor:.3g}"
    )
    # Without an interval the slope alone decides what is said, but not that it is good or bad.
    is_single = math.isnan(fit.low)
    high = fit.slope if is_single else fit.high
    low = fit.slope if is_single else fit.low
    if high < -0.5:
        rate = "roughly as 1/M" if low < -0.75 and high > -1.25 else "clearly"
        text += f". It falls {rate}, so with a large inference batch MCBN is nearly deterministic"
        return Claim("Batch size", "uncertain" if is_single else "bad", f"{text}.")
    if low > -0.5:
        text += ". Most of it remains at large batch sizes"
        return Claim("Batch size", "uncertain" if is_single else "good", f"{text}.")
    return Claim("Batch size", "uncertain", f"{text}. How fast it falls is uncertain.")


def _out_of_distribution(comparison: Comparison) -> Claim | None:
    base = comparison.entries[comparison.baseline]
    by = _common_score(comparison)
    if not base.separation or by is None:
        return None
    best: dict[str, tuple[str, Score]] = {}  # method and AUROC by out-of-distribution set
    for ood_set in base.separation:
        aurocs = {
            name: e.separation[ood_set][by][OOD_AUROC] for name, e in comparison.entries.items()
        }
        best_name = max(aurocs, key=lambda name: aurocs[name].value)
        best[ood_set] = best_name, aurocs[best_name]
    hardest = min(best, key=lambda ood_set: best[ood_set][1].value)
    name, score = best[hardest]
    mark = auroc_mark(score)
    what = {
        "good": "detects it well",
        "uncertain": "detects it only partly",
        "bad": "does not detect it significantly better than guessing",
    }[mark]
    which = "out-of-distribution set"
    which = f"The {which}" if len(best) == 1 else f"The hardest of {len(best)} {which}s"
    words = glossary.uncertainty(by)
    text = (
        f"{which} is {hardest}: by {words} the best method, {name}, {what}, AUROC "
        f"{with_interval(score)}"
    )
    if name != comparison.baseline:
        other = base.separation[hardest][by][OOD_AUROC]
        text += _against(score, other, comparison.baseline, base.evaluation.level)
    return Claim("Out of distribution", mark, f"{text}.{_beside(comparison, hardest, by)}")


def _common_score(comparison: Comparison) -> str | None:
    """The first score of uncertainty that every method has."""
    entries = comparison.entries.values()
    every = (
        name
        for name in comparison.uncertainties
        if all(name in by for entry in entries for by in entry.separation.values())
    )
    return next(every, None)


def _beside(comparison: Comparison, ood_set: str, by: str) -> str:
    """The best AUROC of each other score and of each detector, since they may rank differently."""
    found = []
    for name in comparison.uncertainties:
        scores = {
            method: entry.separation[ood_set][name][OOD_AUROC]
            for method, entry in comparison.entries.items()
            if name in entry.separation[ood_set]
        }
        if name != by and scores:
            best = max(scores, key=lambda method: scores[method].value)
            words = glossary.uncertainty(name)
            found.append(f"by {words} {best} reaches {with_interval(scores[best])}")
    detected = {
        name: each.separation[ood_set][OOD_AUROC] for name, each in comparison.detectors.items()
    }
    if detected:
        best = max(detected, key=lambda name: detected[name].value)
        which = "the detector" if len(detected) == 1 else f"the best of {len(detected)} detectors,"
        found.append(f"{which} {best} reaches {with_interval(detected[best])}")
    text = "; ".join(found)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _against(score: Score, other: Score, base: str, level: float) -> str:
    # One seed and the same numbers of examples give the same resamples, so the two are paired.
    if score.replicates.shape != other.replicates.shape:
        return f"; {base} reaches {with_interval(other)}"
    low, high = bootstrap.percentile_interval(score.replicates - other.replicates, level)
    gain = f"{number(score.value - other.value, 3)} {interval_text(low, high, 3)}"
    if low > 0:
        return f", significantly more than {base}, by {gain}"
    return f", not significantly different from {base}: the paired difference is {gain}"


def _draws(comparison: Comparison, convergence: Mapping[str, Convergence]) -> Claim | None:
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
