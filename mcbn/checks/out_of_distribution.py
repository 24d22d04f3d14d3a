"""Whether out-of-distribution examples are detected."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, auroc_mark, interval_text, with_interval
from mcbn.checks.subject import Subject
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import NO_REPLICATES, Score
from mcbn.evaluation.glossary import number
from mcbn.evaluation.simultaneous import simultaneous_interval

OOD_AUROC = "auroc_out_of_distribution"

Place = tuple[str, str]  # a method and a score of uncertainty; of a detector its name and nothing
Aurocs = Mapping[str, Mapping[Place, Score]]  # of each out-of-distribution set


def out_of_distribution_claim(comparison: Comparison) -> Claim | None:
    """Judge the set that is hardest to detect; None without sets.

    Methods are compared by the first score of uncertainty that all have, and the best of all
    methods, scores and detectors is named beside it. Intervals hold for all sets, methods and
    scores at once, since the best of them, of the hardest set, is what is looked at.
    """
    by = common_score(comparison)
    if by is None:
        return None
    aurocs = _aurocs(comparison)
    best = {
        ood_set: max((place for place in found if place[1] == by), key=lambda p: found[p].value)
        for ood_set, found in aurocs.items()
    }
    hardest = min(best, key=lambda ood_set: aurocs[ood_set][best[ood_set]].value)
    place, base = best[hardest], (comparison.baseline, by)
    score = _at_once(hardest, place, aurocs, comparison)
    mark = auroc_mark(score)
    what = {
        "good": "detects it well",
        "uncertain": "detects it only partly",
        "bad": "does not detect it significantly better than guessing",
    }[mark]
    which = "out-of-distribution set"
    which = f"The {which}" if len(best) == 1 else f"The hardest of {len(best)} {which}s"
    text = (
        f"{which} is {hardest}: by {glossary.uncertainty(by)} the best method, {place[0]}, {what}, "
        f"AUROC {with_interval(score)}"
    )
    if place != base:
        text += _against(hardest, place, base, aurocs, comparison)
    text += f".{_beside(hardest, by, aurocs, comparison)}"
    return Claim("Out of distribution", mark, text + _best_of_all(hardest, by, aurocs, comparison))


def common_score(comparison: Comparison) -> str | None:
    """The first score of uncertainty that every method has."""
    entries = comparison.entries.values()
    if not comparison.entries[comparison.baseline].separation:
        return None
    every = (
        name
        for name in comparison.uncertainties
        if all(name in by for entry in entries for by in entry.separation.values())
    )
    return next(every, None)


def _aurocs(comparison: Comparison) -> Aurocs:
    """The AUROC of each set by every method and score, and by every detector."""
    return {
        ood_set: {
            (method, name): scores[OOD_AUROC]
            for method, entry in comparison.entries.items()
            for name, scores in entry.separation[ood_set].items()
        }
        | {
            (name, ""): detector.separation[ood_set][OOD_AUROC]
            for name, detector in comparison.detectors.items()
        }
        for ood_set in comparison.entries[comparison.baseline].separation
    }


def _at_once(ood_set: str, place: Place, aurocs: Aurocs, comparison: Comparison) -> Score:
    """One AUROC, with an interval that holds for those of all sets at once."""
    every = {(each, p): score for each, found in aurocs.items() for p, score in found.items()}
    score = _of_all((ood_set, place), every, comparison)
    return replace(score, low=max(score.low, 0.0), high=min(score.high, 1.0))


def _difference(
    ood_set: str, place: Place, base: Place, aurocs: Aurocs, comparison: Comparison
) -> Score:
    """One AUROC minus that of the baseline, with an interval that holds for all of all sets.

    One seed and the same numbers of examples give the same resamples, so those of a set are paired.
    """
    every = {
        (each, p): _minus(score, found[base])
        for each, found in aurocs.items()
        for p, score in found.items()
        if p != base
    }
    return _of_all((ood_set, place), every, comparison)


def _minus(score: Score, other: Score) -> Score:
    paired = score.replicates.shape == other.replicates.shape
    replicates = score.replicates - other.replicates if paired else NO_REPLICATES
    return replace(score, value=score.value - other.value, replicates=replicates)


def _of_all(
    key: tuple[str, Place], every: Mapping[tuple[str, Place], Score], comparison: Comparison
) -> Score:
    """One of several scores, with an interval that holds for those that were resampled alike."""
    chosen = every[key]
    alike = {
        str(each): score
        for each, score in every.items()
        if score.replicates.shape == chosen.replicates.shape
    }
    level = comparison.evaluations[comparison.baseline].level
    low, high = simultaneous_interval(str(key), alike, level)
    return replace(chosen, low=low, high=high)


def _against(
    ood_set: str, place: Place, base: Place, aurocs: Aurocs, comparison: Comparison
) -> str:
    gap = _difference(ood_set, place, base, aurocs, comparison)
    gain = f"{number(gap.value, 3)} {interval_text(gap.low, gap.high, 3)}"
    words = base[0] if base[1] == place[1] else f"{base[0]} by {glossary.uncertainty(base[1])}"
    if gap.low > 0:
        return f", significantly more than {words}, by {gain}"
    return f", not significantly different from {words}: the paired difference is {gain}"


def _beside(ood_set: str, by: str, aurocs: Aurocs, comparison: Comparison) -> str:
    """The best AUROC of each other score and of each detector, since they may rank differently."""
    found = aurocs[ood_set]
    names = dict.fromkeys(name for _, name in found if name != by)
    parts = []
    for name in names:
        best = max((place for place in found if place[1] == name), key=lambda p: found[p].value)
        score = with_interval(_at_once(ood_set, best, aurocs, comparison))
        count = len(comparison.detectors)
        which = "the detector" if count == 1 else f"the best of {count} detectors,"
        how = f"by {glossary.uncertainty(name)}" if name else which
        parts.append(f"{how} {best[0]} reaches {score}")
    text = "; ".join(parts)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _best_of_all(ood_set: str, by: str, aurocs: Aurocs, comparison: Comparison) -> str:
    """The best of all methods, scores and detectors, where it is by another score."""
    found, base = aurocs[ood_set], (comparison.baseline, by)
    best = max(found, key=lambda place: found[place].value)
    if best[1] == by:
        return ""
    name = f"{best[0]} by {glossary.uncertainty(best[1])}" if best[1] else best[0]
    return f" Best of all is {name}{_against(ood_set, best, base, aurocs, comparison)}."


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison with out-of-distribution sets."""
    if subject.comparison and (claim := out_of_distribution_claim(subject.comparison)):
        yield claim


CHECK = Check(
    code="MCBN009",
    name="not-detected",
    looks_at=(
        "The AUROC of out-of-distribution against test examples, of the set that is hardest to "
        "detect."
    ),
    threshold=(
        "An interval that lies above 0.8 passes; one that reaches 0.5 is an issue. It holds for "
        "all sets, methods and scores at once."
    ),
    source=(
        "0.5 is guessing; 0.8 is a convention for good discrimination (Hosmer and Lemeshow 2000); "
        "Romano and Wolf 2005 for intervals that hold at once."
    ),
    remedy=(
        "Compare energy and nearest neighbours (uncertainties=, detectors=), which often detect "
        "what entropy does not."
    ),
    judge=judge,
)
