"""Claims on studies: primary tests, what they could have found, and intervals that are possible."""

import numpy as np
import pytest
from equal_methods import at_most
from scipy import stats
from synthetic_studies import classification_plan, made_study

from mcbn.checks.study_detection import detection_claims
from mcbn.checks.study_methods import CHECK
from mcbn.checks.subject import Subject
from mcbn.evaluation import glossary
from mcbn.report.report import Report
from mcbn.study.contrasts import contrasts
from mcbn.study.plan import DataAxes, InferenceAxes, TrainingAxes
from mcbn.study.results import Point, Result, Study, bounded, bounded_difference
from mcbn.study.summary import means

pytestmark = pytest.mark.unchecked


def runs(quick, slow=1000):
    return pytest.mark.parametrize("runs", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def plan(seeds=5, **changes):
    given = {
        "training": TrainingAxes(batch_sizes=(32, 64)),
        "inference": InferenceAxes(batch_sizes=(8, 32, 64)),
        "methods": ("Deterministic", "MCBN", "MC Dropout", "Deep ensemble"),
        "data": DataAxes(),
        "seeds": tuple(range(seeds)),
    }
    return classification_plan(**given | changes)


PLANS = {seeds: plan(seeds) for seeds in (3, 5)}
CELLS = {seeds: each.cells() for seeds, each in PLANS.items()}


def drawn(generator, *, seeds=5, gain=0.0, at=None):
    """A study of methods that are alike, but for a gain of MCBN at some M, or at all."""
    shift = generator.normal(0, 3, seeds)
    results = tuple(
        Result(
            cell,
            {"nll": 10 + shift[cell.network.seed] + generator.normal()
                    - gain * (cell.method == "MCBN" and at in (None, cell.batch_size))},
            {},
        )
        for cell in CELLS[seeds]
    )  # fmt: skip
    return Study(PLANS[seeds], results, {}, 0)


def said(study):
    return {claim.topic: claim for claim in CHECK.judge(Subject(study=study))}


@runs(60)
def test_methods_that_are_alike_are_rarely_called_better_or_worse(runs):
    """Six primary tests: nominal 5% of studies, without correction about 20%."""
    generator = np.random.default_rng(0)
    alarms = best = 0
    for _ in range(runs):
        claims = said(drawn(generator))
        alarms += claims["MCBN"].mark != "uncertain" or "better in 0, significantly worse in 0" not\
            in claims["MCBN"].sentence  # fmt: skip
        best += claims["Best method"].mark == "good"
    assert at_most(alarms, runs)
    assert at_most(best, runs)


@runs(40)
def test_what_the_claim_says_could_be_found_is_found_in_80_percent(runs):
    """A gain of detectable(5, tests=6) standard deviations, here sqrt 2 for a difference of two.

    Each of the six tests finds it in 80%, so any of them in more.
    """
    generator = np.random.default_rng(1)
    found = sum(said(drawn(generator, gain=3.1 * 2**0.5))["MCBN"].mark == "good"
                for _ in range(runs))  # fmt: skip
    assert found / runs > 0.8


def test_an_exploratory_difference_is_not_called_good():
    """MCBN is far better at M = 8 alone, which is not the M of training."""
    claims = said(drawn(np.random.default_rng(0), gain=60.0, at=8))
    best = claims["Best method"]
    assert "MCBN, M = 8" in best.sentence
    assert "significant after correction for 8 exploratory tests" in best.sentence
    assert "confirm it with new seeds" in best.sentence
    assert best.mark == "uncertain"
    assert "Exploring the other M against Deterministic: " in claims["MCBN"].sentence
    assert "significantly better in 0, significantly worse in 0" in claims["MCBN"].sentence
    primary = said(drawn(np.random.default_rng(0), gain=60.0))
    assert primary["MCBN"].mark == "good"
    assert "significantly better in 6, significantly worse in 0" in primary["MCBN"].sentence


@pytest.mark.parametrize(("seeds", "warned"), [(3, True), (5, False)])
def test_few_seeds_are_warned_of_with_what_they_could_find(seeds, warned):
    study = drawn(np.random.default_rng(0), seeds=seeds)
    claims = said(study)
    assert ("Power" in claims) == warned
    tests = [each for each in contrasts({"": study}, "nll") if each.primary]
    largest = glossary.significant(max(each.detectable for each in tests), 2)
    assert f"differences below {largest} nats are found in fewer than 80%" in (
        claims["MCBN"].sentence
    )
    if warned:
        assert claims["Power"].mark == "uncertain"
        assert "With 3 seeds and splits and 6 primary tests" in claims["Power"].sentence
        assert "has to be 8.0 standard deviations" in claims["Power"].sentence
        assert "does not mean equal" in claims["Power"].sentence


def test_json_has_what_each_test_could_have_found():
    numbers = Report.from_study(drawn(np.random.default_rng(0))).to_dict()
    tests = numbers["parts"][0]["contrasts"]["nll"]
    assert sum(each["primary"] for each in tests) == 6
    assert all(each["detectable"] > each["sd"] > 0 for each in tests)


def test_a_mean_beyond_the_range_of_its_name_stays_in_its_interval():
    assert bounded(Point(-2.0, -3.0, -1.0), "nll") == Point(-2.0, -2.0, -1.0)


@pytest.mark.parametrize(
    ("score", "ends"),
    [("accuracy", (0, 1)), ("auroc_rotated_by_entropy", (0, 1)), ("nll", (0, np.inf)),
     ("ece_debiased", (0, 1)), ("brier", (0, 2)), ("pll", (-np.inf, np.inf)),
     ("mutual_information_rotated", (0, np.inf)), ("coverage_90", (0, 1)), ("cats",
     (-np.inf, np.inf))],
)  # fmt: skip
def test_intervals_end_where_scores_do(score, ends):
    wide = Point(0.5, -9.0, 9.0)
    found = bounded(wide, score)
    assert (found.mean, found.low, found.high) == (0.5, max(-9, ends[0]), min(9, ends[1]))
    reach = ends[1] - ends[0]
    gap = bounded_difference(wide, score)
    assert (gap.low, gap.high) == (max(-9, -reach), min(9, reach))


def test_no_printed_interval_leaves_the_possible():
    def scores(cell):
        at = cell.network.seed
        return {"nll": (0.1, 1.9, 0.2)[at], "accuracy": (0.99, 0.6, 1.0)[at],
                "ece_debiased": (0.0, 0.3, 0.01)[at]}  # fmt: skip

    study = made_study(plan(3), scores)
    for each in means(study, ("nll", "accuracy", "ece_debiased")):
        for name, estimate in each.scores.items():
            low, high = glossary.limits(name)
            assert low <= estimate.low < estimate.mean < estimate.high <= high
        point = study.point("accuracy", each.method, training_batch_size=each.training_batch_size,
                            batch_size=each.batch_size)  # fmt: skip
        assert point == each.scores["accuracy"]
    assert any(each.scores["accuracy"].high == 1 for each in means(study, ("accuracy",)))


@runs(60)
def test_the_best_of_useless_batch_sizes_is_rarely_called_useful(runs):
    """AUROC 0.5 at six pairs of batch sizes: nominal 2.5%, without correction 12%."""
    made = plan(data=DataAxes(outside=("rotated",)))
    cells, generator = made.cells(), np.random.default_rng(0)
    alarms = 0
    for _ in range(runs):
        name = "auroc_rotated_by_mutual_information"
        results = tuple(Result(cell, {name: generator.normal(0.5, 0.02)}, {}) for cell in cells)
        (claim,) = detection_claims(Study(made, results, {}, 0))
        alarms += claim.mark != "bad"
    assert at_most(alarms, runs, 0.025)


def test_the_interval_of_detection_holds_for_all_pairs_of_batch_sizes():
    """Student's at a level of 1 - 0.05 / 6 for the six of them."""
    made = plan(data=DataAxes(outside=("rotated",)))
    generator, name = np.random.default_rng(0), "auroc_rotated_by_mutual_information"
    results = tuple(
        Result(cell, {name: generator.normal(0.6, 0.02)}, {}) for cell in made.cells()
    )  # fmt: skip
    study = Study(made, results, {}, 0)
    values = [
        list(study.values(name, "MCBN", training_batch_size=size, batch_size=m).values())
        for size in (32, 64) for m in (8, 32, 64)
    ]  # fmt: skip
    best = max(values, key=np.mean)
    interval = stats.ttest_1samp(best, 0).confidence_interval(1 - 0.05 / 6)
    (claim,) = detection_claims(study)
    expected = f"{np.mean(best):.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    assert f"AUROC {expected}" in claim.sentence
