"""The verdict of a study page: plain sentences computed from the numbers, each with a mark."""

import math
from collections.abc import Iterator, Sequence

from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.report.claims import Claim, Mark
from mcbn.report.study_sweeps import Trend
from mcbn.report.study_tables import SIGNIFICANT
from mcbn.study.contrasts import BASELINE, Contrast, count
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point
from mcbn.study.slopes import Slope
from mcbn.study.summary import best, main_score, pooled, span

# An epistemic sd whose slope lies above this keeps most of itself over the M of a usual study.
FLAT = -0.25
GOOD_AUROC, GUESSING = 0.8, 0.5


def state(study: Study) -> tuple[Claim, ...]:
    """What is finished, failed and missing, and whether there is anything to repeat it."""
    done, failed = len(study.results), len(study.failures)
    total = done + failed + study.missing
    claims = [Claim("Cells", "good", f"All {total} cells are finished.")]
    if failed or study.missing:
        parts = [f"{done} of {total} cells are finished"]
        if failed:
            parts.append(f"{failed} failed (the reasons are listed below)")
        if study.missing:
            parts.append(f"{study.missing} {'is' if study.missing == 1 else 'are'} missing")
        text = "; ".join(parts) + ". What is shown rests on the finished ones alone."
        claims = [Claim("Cells", "bad" if failed else "uncertain", text)]
    replicates = {(r.cell.network.split, r.cell.network.seed) for r in study.results}
    if len(replicates) == 1:
        text = (
            "There is a single seed and split, so nothing here can be told from chance: there are "
            "no bands, no intervals and no tests. Add seeds."
        )
        claims.append(Claim("Replicates", "bad", text))
    return tuple(claims)


def verdict(part: str, study: Study, tests: Sequence[Contrast]) -> tuple[Claim, ...]:
    """Judge one part of a study, in the order a reader asks.

    Args:
        part: its name.
        study: of this part.
        tests: the paired tests of its main score, of all parts together.
    """
    own = [test for test in tests if test.part == part and not math.isnan(test.p_value)]
    claims = [
        _spread(study),
        _best_claim(study, own, count(tests)),
        _against_baseline(own, count(tests)),
        *_outside(study),
    ]
    return tuple(claim for claim in claims if claim)


def _spread(study: Study) -> Claim | None:
    slope = pooled(study, "epistemic_sd")
    if slope is None:
        return None
    first, last = slope.batch_sizes[0], slope.batch_sizes[-1]
    found, known = slope.estimate, not math.isnan(slope.estimate.low)
    low, high = (found.low, found.high) if known else (found.mean, found.mean)
    left = (last / first) ** found.mean
    text = (
        f"The epistemic standard deviation of {slope.method} goes as M to the power "
        f"{span(found, 2)}: by that, M = {last} has {left:.2g} times what M = {first} has. "
        + _against_theory(slope, known)
    )
    mark: Mark = "uncertain"
    if high < FLAT:
        text += " A large inference batch leaves little of it."
        mark = "bad" if known else "uncertain"
    elif low > FLAT:
        text += " Most of it is kept at large M."
        mark = "good" if known else "uncertain"
    return Claim("Epistemic spread", mark, text)


def _against_theory(slope: Slope, known: bool) -> str:
    theory = "the power \N{MINUS SIGN}1/2 that theory gives to first order"
    if not known:
        return f"One replicate cannot tell whether that is {theory}."
    found, text = slope.estimate, "That"
    if slope.corrected:
        found = slope.corrected
        text = f"Without the effect of drawing from N examples only it is {span(found, 2)}, which"
    if found.low <= slope.expected <= found.high:
        return f"{text} cannot be told apart from {theory}."
    way = "slower" if found.mean > slope.expected else "steeper"
    return f"{text} is {way} than {theory}."


def _best_claim(study: Study, tests: Sequence[Contrast], total: int) -> Claim | None:
    score = main_score(study)
    found = best(study, score)
    if found is None:
        return None
    word = "highest" if BETTER[score] == "higher" else "lowest"
    label = glossary.label(score)
    text = f"The {word} mean {label}, {span(found.found, 4)} nats, is that of {found}."
    if BASELINE not in study.methods:
        return Claim("Best method", "uncertain", f"{text} {BASELINE} was not run beside it.")
    if found.method == BASELINE:
        return Claim("Best method", "bad", f"{text} No other method has a better one.")
    test = next((each for each in tests if found.is_of(each)), None)
    if test is None:
        text += f" It could not be tested against {BASELINE}."
        return Claim("Best method", "uncertain", text)
    beyond = test.adjusted < SIGNIFICANT
    text += (
        f" Less that of {BASELINE} on the same networks it is {span(test.difference, 4)}, "
        f"{'beyond' if beyond else 'not beyond'} chance after correction for {_tests(total)} "
        f"({glossary.probability(test.adjusted)})."
    )
    # The best of all means may yet be worse than Deterministic on the same networks.
    mark: Mark = "good" if test.better else "bad"
    return Claim("Best method", mark if beyond else "uncertain", text)


def _tests(total: int) -> str:
    return "1 test" if total == 1 else f"{total} tests"


def _against_baseline(tests: Sequence[Contrast], total: int) -> Claim | None:
    """How MCBN fares against Deterministic over all pairs of batch sizes."""
    chosen = [test for test in tests if test.method == "MCBN" and test.other == BASELINE]
    if not chosen:
        return None
    sure = [test for test in chosen if test.adjusted < SIGNIFICANT]
    better = sum(test.better for test in sure)
    worse = len(sure) - better
    text = (
        f"MCBN was tested against {BASELINE} at {len(chosen)} pairs of batch sizes: its "
        f"{glossary.label(chosen[0].score)} is better at {better}, worse at {worse}, and not told "
        f"apart at {len(chosen) - len(sure)}, after correction for {_tests(total)}."
    )
    mark: Mark = "uncertain" if bool(better) == bool(worse) else "good" if better else "bad"
    return Claim("MCBN", mark, text)


def contraction(trends: Sequence[Trend]) -> tuple[Claim, ...]:
    """Whether the epistemic sd at fixed M shrinks as training examples are added."""
    chosen = [trend for trend in trends if trend.batch_size is not None]
    claims = []
    for trend in chosen[-1:] if len({trend.sweep for trend in chosen}) == 1 else ():
        found = trend.estimate
        text = (
            f"With more training examples at fixed M = {trend.batch_size}, the epistemic standard "
            f"deviation of {trend.method} goes as N to the power {span(found, 2)}."
        )
        mark: Mark = "uncertain"
        if found.low > FLAT:
            text += " It does not contract as more data should make it: M would have to grow."
            mark = "bad"
        elif found.high < 0:
            text += " It shrinks, which a network that is surer of its classes does by itself."
        else:
            text += " Whether it contracts cannot be told for sure."
        claims.append(Claim("More data", mark, text))
    return tuple(claims)


def _outside(study: Study) -> Iterator[Claim]:
    over = [name for name in study.methods if name in OVER_BATCH_SIZES]
    if not over:
        return
    method = "MCBN" if "MCBN" in over else over[0]
    for name in study.outside:
        score = f"auroc_{name}_by_mutual_information"
        found = {
            (size, batch_size): point(list(values.values()))
            for size in study.training_batch_sizes
            for batch_size in study.batch_sizes
            if (
                values := study.values(
                    score, method, training_batch_size=size, batch_size=batch_size
                )
            )
        }
        known = {at: auroc for at, auroc in found.items() if math.isfinite(auroc.mean)}
        if known:
            yield _told_apart(name, method, known)


def _told_apart(name: str, method: str, known: dict[tuple[int, int], Point]) -> Claim:
    top = max(known, key=lambda at: known[at].mean)
    size, batch_size = top
    best_one = known[top]
    mark: Mark = "uncertain"
    if best_one.low > GOOD_AUROC:
        mark, word = "good", "tells it apart well"
    elif math.isnan(best_one.low):
        word = "tells it apart as far as one replicate can show"
    elif best_one.low > GUESSING:
        word = "tells it apart in part"
    else:
        mark, word = "bad", "cannot be shown to tell it apart"
    largest = max(at[1] for at in known if at[0] == size)
    text = (
        f"Outside set {name}: the mutual information of {method} {word}, best with "
        f"M = {batch_size} trained at {size}: AUROC {span(best_one, 3)}"
    )
    if largest != batch_size:
        text += f"; with M = {largest} there, {span(known[size, largest], 3)}"
    return Claim("Outside", mark, f"{text}.")
