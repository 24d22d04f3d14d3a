"""The verdict of a study: plain sentences computed from the numbers, each with a mark."""

import math
from collections.abc import Iterator, Mapping, Sequence

from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.report.claim import Claim, Mark
from mcbn.report.study_sweeps import Trend
from mcbn.report.study_tables import ALPHA
from mcbn.study.choice import BatchSizeChoice
from mcbn.study.contrasts import BASELINE, Contrast, count
from mcbn.study.given import TRAINED
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point
from mcbn.study.slopes import Slope
from mcbn.study.summary import best, main_score, pooled, span

# With a log-log slope above this, most of the epistemic sd remains over the usual range of M.
FLAT_SLOPE = -0.25
GOOD_AUROC, GUESSING = 0.8, 0.5


def completeness(study: Study) -> tuple[Claim, ...]:
    """How many cells are finished, failed and missing, and whether there are replicates."""
    done, failed = len(study.results), len(study.failures)
    total = done + failed + study.missing
    claims = [Claim("Cells", "good", f"All {total} cells are finished.")]
    if failed or study.missing:
        parts = [f"{done} of {total} cells are finished"]
        if failed:
            parts.append(f"{failed} failed (the reasons are listed below)")
        if study.missing:
            parts.append(f"{study.missing} {'is' if study.missing == 1 else 'are'} missing")
        text = "; ".join(parts) + ". The results below are of the finished cells alone."
        claims = [Claim("Cells", "bad" if failed else "uncertain", text)]
    replicates = {(r.cell.network.split, r.cell.network.seed) for r in study.results}
    if study.plan.given.fit == TRAINED:
        text = (
            "One trained network was swept, so there are no intervals over training and no tests: "
            "a difference may be chance. mcbn.compare gives intervals over examples."
        )
        claims.append(Claim("Replicates", "uncertain", text))
    elif len(replicates) == 1:
        text = (
            "There is a single seed and split, so no effect can be distinguished from chance: "
            "there are no bands, no intervals and no tests. Add seeds."
        )
        claims.append(Claim("Replicates", "bad", text))
    return tuple(claims)


def recommendation(choice: BatchSizeChoice) -> Claim:
    """The batch size that a sweep recommends, and whether it can be trusted."""
    where = "inside the range that was searched"
    if choice.at_bound is not None:
        where = f"at the {choice.at_bound} end of the search: sweep further sizes there"
    low, high = choice.flat
    text = (
        f"M = {choice.best:.3g} has the best log score on the validation examples, {where}; sizes "
        f"from {low:.3g} to {high:.3g} are not significantly different."
    )
    doubts = "".join(f" Doubt: {doubt}." for doubt in choice.doubts)
    sure = choice.at_bound is None and not choice.doubts
    return Claim("Batch size", "good" if sure else "uncertain", text + doubts)


def verdict(part: str, study: Study, tests: Sequence[Contrast]) -> tuple[Claim, ...]:
    """Judge one part of a study.

    Args:
        part: its name.
        study: of this part.
        tests: the paired tests of its main score, of all parts together.
    """
    part_tests = [test for test in tests if test.part == part and not math.isnan(test.p_value)]
    claims = [
        _spread(study),
        _best(study, part_tests, count(tests)),
        _against_baseline(part_tests, count(tests)),
        *_out_of_distribution(study),
    ]
    return tuple(claim for claim in claims if claim)


def _spread(study: Study) -> Claim | None:
    slope = pooled(study, "epistemic_sd")
    if slope is None:
        return None
    first, last = slope.batch_sizes[0], slope.batch_sizes[-1]
    estimate, has_interval = slope.estimate, not math.isnan(slope.estimate.low)
    low, high = (estimate.low, estimate.high) if has_interval else (estimate.mean, estimate.mean)
    ratio = (last / first) ** estimate.mean
    text = (
        f"The epistemic standard deviation of {slope.method} scales as M to the power "
        f"{span(estimate, 2)}: by that, at M = {last} it is {ratio:.2g} times that at M = {first}. "
        + _against_theory(slope)
    )
    mark: Mark = "uncertain"
    if high < FLAT_SLOPE:
        text += " Little of it remains at a large inference batch size."
        mark = "bad" if has_interval else "uncertain"
    elif low > FLAT_SLOPE:
        text += " Most of it remains at large M."
        mark = "good" if has_interval else "uncertain"
    return Claim("Epistemic spread", mark, text)


def _against_theory(slope: Slope) -> str:
    theory = "the power \N{MINUS SIGN}1/2 that theory gives to first order"
    if math.isnan(slope.estimate.low):
        return f"A single replicate cannot be tested against {theory}."
    estimate, text = slope.estimate, "That"
    if slope.corrected:
        estimate = slope.corrected
        text = f"Corrected for drawing without replacement it is {span(estimate, 2)}, which"
    if estimate.low <= slope.expected <= estimate.high:
        return f"{text} is not significantly different from {theory}."
    way = "slower" if estimate.mean > slope.expected else "steeper"
    return f"{text} is significantly {way} than {theory}."


def _best(study: Study, tests: Sequence[Contrast], total: int) -> Claim | None:
    score = main_score(study)
    top = best(study, score)
    if top is None:
        return None
    word = "highest" if BETTER[score] == "higher" else "lowest"
    label = glossary.label(score)
    text = f"The {word} mean {label}, {span(top.estimate, 4)} nats, is that of {top}."
    if BASELINE not in study.methods:
        return Claim("Best method", "uncertain", f"{text} {BASELINE} is not part of the study.")
    if top.method == BASELINE:
        return Claim("Best method", "bad", f"{text} No other method is better.")
    test = next((each for each in tests if top.is_tested_by(each)), None)
    if test is None:
        text += f" It could not be tested against {BASELINE}."
        return Claim("Best method", "uncertain", text)
    is_significant = test.adjusted < ALPHA
    text += (
        f" The difference from {BASELINE} on the same networks is {span(test.difference, 4)}, "
        f"{'significant' if is_significant else 'not significant'} after correction for "
        f"{_tests(total)} ({glossary.probability(test.adjusted)})."
    )
    # The best of all means may still be worse than Deterministic on the same networks.
    mark: Mark = "good" if test.better else "bad"
    return Claim("Best method", mark if is_significant else "uncertain", text)


def _tests(total: int) -> str:
    return "1 test" if total == 1 else f"{total} tests"


def _against_baseline(tests: Sequence[Contrast], total: int) -> Claim | None:
    """Compare MCBN with Deterministic over all pairs of batch sizes."""
    mcbn_tests = [test for test in tests if test.method == "MCBN" and test.other == BASELINE]
    if not mcbn_tests:
        return None
    significant = [test for test in mcbn_tests if test.adjusted < ALPHA]
    better = sum(test.better for test in significant)
    worse = len(significant) - better
    text = (
        f"MCBN was tested against {BASELINE} at {len(mcbn_tests)} pairs of batch sizes: its "
        f"{glossary.label(mcbn_tests[0].score)} is significantly better at {better}, significantly "
        f"worse at {worse}, and not significantly different at "
        f"{len(mcbn_tests) - len(significant)}, after correction for {_tests(total)}."
    )
    mark: Mark = "uncertain" if bool(better) == bool(worse) else "good" if better else "bad"
    return Claim("MCBN", mark, text)


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


def _out_of_distribution(study: Study) -> Iterator[Claim]:
    over = [name for name in study.methods if name in OVER_BATCH_SIZES]
    if not over:
        return
    method = "MCBN" if "MCBN" in over else over[0]
    for name in study.outside:
        score = f"auroc_{name}_by_mutual_information"
        aurocs = {}
        for size in study.training_batch_sizes:
            for batch_size in study.batch_sizes:
                values = study.values(
                    score, method, training_batch_size=size, batch_size=batch_size
                )
                if values and math.isfinite((auroc := point(list(values.values()))).mean):
                    aurocs[size, batch_size] = auroc
        if aurocs:
            yield _detection(name, method, aurocs)


def _detection(ood_set: str, method: str, aurocs: Mapping[tuple[int, int], Point]) -> Claim:
    """How well a method detects a set.

    Args:
        ood_set: name of the out-of-distribution set.
        method: name of the method.
        aurocs: by training and inference batch size.
    """
    size, batch_size = max(aurocs, key=lambda sizes: aurocs[sizes].mean)
    top = aurocs[size, batch_size]
    mark: Mark = "uncertain"
    if top.low > GOOD_AUROC:
        mark, word = "good", "detects it well"
    elif math.isnan(top.low):
        word = "detects it, as far as a single replicate shows"
    elif top.low > GUESSING:
        word = "detects it only partly"
    else:
        mark, word = "bad", "does not detect it significantly better than guessing"
    text = (
        f"Out-of-distribution set {ood_set}: the mutual information of {method} {word}, best with "
        f"M = {batch_size} trained at {size}: AUROC {span(top, 3)}"
    )
    largest = max(other for trained, other in aurocs if trained == size)
    if largest != batch_size:
        text += f"; with M = {largest} there, {span(aurocs[size, largest], 3)}"
    return Claim("Out of distribution", mark, f"{text}.")
