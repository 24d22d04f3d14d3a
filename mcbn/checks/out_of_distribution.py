"""Whether out-of-distribution examples are detected."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, auroc_mark, interval_text, with_interval
from mcbn.checks.subject import Subject
from mcbn.evaluation import bootstrap, glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.glossary import number

OOD_AUROC = "auroc_out_of_distribution"


def out_of_distribution_claim(comparison: Comparison) -> Claim | None:
    """Judge the set that is hardest to detect; None without sets."""
    base = comparison.entries[comparison.baseline]
    by = common_score(comparison)
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


def common_score(comparison: Comparison) -> str | None:
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
    threshold="An interval that lies above 0.8 passes; one that reaches 0.5 is an issue.",
    source=(
        "0.5 is guessing; 0.8 is a convention for good discrimination (Hosmer and Lemeshow 2000)."
    ),
    remedy=(
        "Compare energy and nearest neighbours (uncertainties=, detectors=), which often detect "
        "what entropy does not."
    ),
    judge=judge,
)
