"""Whether a method of a study is better than the plain network over seeds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark
from mcbn.checks.subject import Subject
from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.study.contrasts import ALPHA, BASELINE, Contrast, count
from mcbn.study.results import Study
from mcbn.study.summary import best, main_score, span


def best_claim(study: Study, tests: Sequence[Contrast], total: int) -> Claim | None:
    """The best mean of the main score, and whether it differs from Deterministic."""
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


def mcbn_claim(tests: Sequence[Contrast], total: int) -> Claim | None:
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


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge each part of a study by the planned tests of its main score."""
    if subject.comparison:
        return
    for name, part in subject.study_parts.items():
        every = subject.main_tests[main_score(part)]
        tests = [test for test in every if test.part == name and not math.isnan(test.p_value)]
        for claim in (best_claim(part, tests, count(tests)), mcbn_claim(tests, count(tests))):
            if claim:
                yield replace(claim, part=name)


CHECK = Check(
    code="MCBN019",
    name="no-method-better-over-seeds",
    looks_at="Planned paired differences of the main score over seeds and splits.",
    threshold=(
        "A p value below 0.05 by the paired t test, after Holm's correction for all planned tests."
    ),
    source="Holm 1979: the chance of any false alarm among the tests is at most 5%.",
    remedy="Add seeds; or use the plain network.",
    judge=judge,
)
