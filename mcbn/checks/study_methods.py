"""Whether a method of a study is better than the plain network over seeds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark, listed
from mcbn.checks.subject import Subject
from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER, number, significant
from mcbn.study.contrasts import ALPHA, BASELINE, Contrast, count
from mcbn.study.power import FEW_SEEDS, detectable
from mcbn.study.results import Study
from mcbn.study.summary import best, main_score, span


def best_claim(study: Study, tests: Sequence[Contrast], every: Sequence[Contrast]) -> Claim | None:
    """The best mean of the main score, and whether it differs from Deterministic.

    Only a primary test can call it better: an exploratory one is of a method that was chosen
    because its mean is the best.

    Args:
        study: of one part.
        tests: of its main score.
        every: of all parts, over which it was corrected.
    """
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
        f"{_family(every, is_primary=test.primary)} ({glossary.probability(test.adjusted)})."
    )
    if is_significant and not test.primary:
        text += " It was not declared before the data were seen: confirm it with new seeds."
    # The best of all means may still be worse than Deterministic on the same networks.
    mark: Mark = "good" if test.better else "bad"
    sure = is_significant and test.primary
    return Claim("Best method", mark if sure else "uncertain", text)


def _family(every: Sequence[Contrast], *, is_primary: bool) -> str:
    total = count([test for test in every if test.primary == is_primary])
    kind = "primary" if is_primary else "exploratory"
    return f"1 {kind} test" if total == 1 else f"{total} {kind} tests"


def mcbn_claim(tests: Sequence[Contrast], every: Sequence[Contrast]) -> Claim | None:
    """What the primary comparisons of MCBN found, and what they could have found."""
    primary = [test for test in tests if test.primary]
    if not primary:
        return None
    better, worse, same = _counts(primary)
    rivals = dict.fromkeys(test.other for test in primary)
    text = (
        f"MCBN, at the M nearest to that of training, was compared with {listed(list(rivals))}: "
        f"its {glossary.label(primary[0].score)} is significantly better in {better}, "
        f"significantly worse in {worse} and not significantly different in {same} of "
        f"{better + worse + same} comparisons, after correction for "
        f"{_family(every, is_primary=True)}."
    )
    if same:
        least = max(test.detectable for test in primary if test.adjusted >= ALPHA)
        text += (
            f" That does not mean equal: differences below {significant(least, 2)} nats are found "
            "in fewer than 80% of such studies."
        )
    explored = [t for t in tests if not t.primary and (t.method, t.other) == ("MCBN", BASELINE)]
    if explored:
        above, below, rest = _counts(explored)
        text += (
            f" Exploring the other M against {BASELINE}: better at {above}, worse at {below}, not "
            f"significantly different at {rest}, after correction for "
            f"{_family(every, is_primary=False)}."
        )
    mark: Mark = "uncertain" if bool(better) == bool(worse) else "good" if better else "bad"
    return Claim("MCBN", mark, text)


def _counts(tests: Sequence[Contrast]) -> tuple[int, int, int]:
    """How many are significantly better, significantly worse, and neither."""
    clear = [test for test in tests if test.adjusted < ALPHA]
    better = sum(test.better for test in clear)
    return better, len(clear) - better, len(tests) - len(clear)


def power_claim(tests: Sequence[Contrast], every: Sequence[Contrast]) -> Claim | None:
    """Warn of a study of so few seeds that only huge differences can be found."""
    primary = [test for test in tests if test.primary]
    pairs = min((test.pairs for test in primary), default=FEW_SEEDS)
    if pairs >= FEW_SEEDS:
        return None
    total = count([test for test in every if test.primary])
    needed, with_more = (
        number(detectable(seeds, tests=total), 1) for seeds in (pairs, 2 * FEW_SEEDS)
    )
    least = significant(min(test.detectable for test in primary), 2)
    text = (
        f"With {pairs} seeds and splits and {_family(every, is_primary=True)}, a difference has to "
        f"be {needed} standard deviations of the paired differences, here at least {least} nats, "
        'to be found in 80% of such studies. "Not significantly different" does not mean equal; '
        f"with {2 * FEW_SEEDS} seeds {with_more} standard deviations would do."
    )
    return Claim("Power", "uncertain", text)


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge each part of a study by the planned tests of its main score."""
    if subject.comparison:
        return
    for name, part in subject.study_parts.items():
        every = [
            test for test in subject.main_tests[main_score(part)] if not math.isnan(test.p_value)
        ]
        tests = [test for test in every if test.part == name]
        said = (best_claim(part, tests, every), mcbn_claim(tests, every), power_claim(tests, every))
        for claim in said:
            if claim:
                yield replace(claim, part=name)


CHECK = Check(
    code="MCBN019",
    name="no-method-better-over-seeds",
    looks_at=(
        "Paired differences of the main score over seeds and splits: of MCBN, at the M nearest to "
        "that of training, from Deterministic, MC Dropout and Deep ensemble; all others explore."
    ),
    threshold=(
        "A p value below 0.05 by the paired t test, after Holm's correction for the primary tests; "
        "fewer than 5 seeds and splits are a tip."
    ),
    source=(
        "Holm 1979: the chance of any false alarm among the primary tests is at most 5%. With 3 "
        "seeds and 9 tests a difference of 10 standard deviations is needed."
    ),
    remedy="Add seeds; or use the plain network.",
    judge=judge,
)
