"""Paired tests: an independent library, the definition of Holm's method, and false alarms."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic_studies import made_study, noise

from mcbn.evaluation.significance import holm, paired_test
from mcbn.study.contrasts import contrasts, count, matched
from mcbn.study.plan import DataAxes, InferenceAxes, Plan, TrainingAxes
from mcbn.study.results import Result, Study

METHODS = ("Deterministic", "MCBN", "Stochastic BN", "MC Dropout", "Deep ensemble")


def plan(**changes):
    given = {
        "training": TrainingAxes(batch_sizes=(32,)),
        "inference": InferenceAxes(batch_sizes=(8, 64)),
        "methods": METHODS,
        "seeds": (0, 1, 2, 3, 4),
    }
    return Plan(**given | changes)


def seeded(cell):
    """A score that depends on the seed far more than on the method."""
    return {"nll": 10 * cell.network.seed + 0.1 * noise(cell)}


def compared(study):
    return contrasts(study.parts(), "nll")


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        # Worked by hand: sorted .01 .02 .03 .04 times 4 3 2 1, then the running maximum.
        ([0.04, 0.01, 0.03, 0.02], [0.06, 0.04, 0.06, 0.06]),
        ([0.001, 0.5, 0.9], [0.003, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.02, math.nan, 0.03], [0.04, math.nan, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted, nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """Rejected at a level is what Bonferroni rejects in every set of hypotheses it belongs to."""
    every = range(len(p_values))
    sets = [chosen for size in every for chosen in combinations(every, size + 1)]
    worst = {chosen: min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets}
    expected = [max(value for chosen, value in worst.items() if i in chosen) for i in every]
    assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 3, 25])
def test_paired_test_is_that_of_scipy(count):
    generator = np.random.default_rng(count)
    one, other = generator.normal(0.4, 1, (2, count)) + generator.normal(0, 9, count)
    expected = stats.ttest_rel(one, other).pvalue
    assert paired_test((one - other).tolist()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "differences", [[], [0.1], [0.0, 0.0, 0.0], [0.2, 0.2, 0.2], [0.3, 0.1 + 0.2, 0.3]]
)
def test_no_test_is_made_of_what_has_no_spread(differences):
    assert math.isnan(paired_test(differences))


def test_contrast_pairs_the_seeds():
    study = made_study(plan(), seeded)
    found = {(test.method, test.batch_size, test.other): test for test in compared(study)}
    test = found["MCBN", 8, "Stochastic BN"]
    one, other = (
        study.values("nll", name, training_batch_size=32, batch_size=8)
        for name in ("MCBN", "Stochastic BN")
    )
    result = stats.ttest_rel(list(one.values()), list(other.values()))
    interval = result.confidence_interval(0.95)
    assert test.p_value == pytest.approx(result.pvalue)
    assert (test.difference.low, test.difference.high) == pytest.approx(tuple(interval))
    assert test.pairs == 5
    assert test.difference.high - test.difference.low < 1  # the seeds differ by 10


def test_pairs_are_matched_by_split_and_seed_not_by_order():
    def gap(cell):
        return (cell.method, cell.network.seed) in (("MCBN", 0), ("Deterministic", 4))

    found = compared(made_study(plan(), seeded, missing=gap))
    test = next(test for test in found if (test.method, test.other) == ("MCBN", "Deterministic"))
    assert test.pairs == 3
    assert abs(test.difference.mean) < 1


def test_undefined_scores_make_no_pair():
    def scores(cell):
        return {"nll": math.nan} if cell.network.seed == 2 else seeded(cell)

    assert {test.pairs for test in compared(made_study(plan(), scores))} == {4}
    assert compared(made_study(plan(), lambda cell: {})) == ()


def test_planned_comparisons_are_these_and_no_others():
    found = compared(made_study(plan(), seeded))
    assert {(t.method, t.batch_size, t.other, t.other_batch_size) for t in found} == {
        ("MCBN", 8, "Deterministic", None),
        ("MCBN", 64, "Deterministic", None),
        ("Stochastic BN", 8, "Deterministic", None),
        ("Stochastic BN", 64, "Deterministic", None),
        ("MC Dropout, p = 0.1", None, "Deterministic", None),
        ("Deep ensemble", None, "Deterministic", None),
        ("MCBN", 8, "Stochastic BN", 8),
        ("MCBN", 64, "Stochastic BN", 64),
        ("MCBN", 64, "MC Dropout, p = 0.1", None),
        ("MCBN", 64, "Deep ensemble", None),
    }
    assert len(found) == 10


@pytest.mark.parametrize(
    ("size", "nearest"), [(64, 128), (20, 8), (128, 128), (4096, 128), (2, 8), (32, 8)]
)
def test_matched_batch_size_is_the_nearest_by_ratio(size, nearest):
    assert matched((128, 8), size) == nearest  # 32 is as near to both


def test_correction_is_over_all_parts_of_a_study():
    two = made_study(
        plan(data=DataAxes(names=("digits", "mnist"), train_sizes=(1000,))), seeded
    )  # fmt: skip
    found = compared(two)
    assert {test.part for test in found} == {"digits", "mnist"}
    assert [test.adjusted for test in found] == holm([test.p_value for test in found])
    smallest = min(found, key=lambda test: test.p_value)
    assert smallest.adjusted == pytest.approx(min(1, 20 * smallest.p_value))


def test_a_test_that_two_parts_share_is_counted_once():
    """Methods without a T are the same cells whatever T of the others is."""
    study = made_study(plan(inference=InferenceAxes(batch_sizes=(8, 64), draws=(4, 16))), seeded)
    found = compared(study)
    assert len(found) == 20
    assert count(found) == 19  # of the ensemble against Deterministic there is one
    smallest = min(found, key=lambda test: test.p_value)
    assert smallest.adjusted == pytest.approx(min(1, 19 * smallest.p_value))
    twice = [test for test in found if (test.method, test.other) == ("Deep ensemble",
             "Deterministic")]  # fmt: skip
    assert twice[0].adjusted == twice[1].adjusted


def test_better_follows_the_direction_of_the_score():
    found = compared(made_study(plan(), lambda cell: {"nll": len(cell.method) + noise(cell) / 9}))
    for test in found:
        assert test.better == (test.difference.mean < 0)
        higher = replace(test, score="accuracy")
        assert higher.better == (test.difference.mean > 0)


@pytest.mark.parametrize("score", ["coverage_90", "mutual_information", "cats"])
def test_scores_without_a_better_direction_are_refused(score):
    with pytest.raises(ValueError, match="a score with a better direction"):
        contrasts(made_study(plan(), seeded).parts(), score)


def test_one_seed_makes_no_test():
    found = compared(made_study(plan(seeds=(0,)), seeded))
    assert len(found) == 10
    assert all(math.isnan(test.p_value) and math.isnan(test.adjusted) for test in found)


def test_false_alarms_stay_below_their_rate_and_true_differences_are_found():
    """400 studies of methods that are all alike: at most 5% + 4 standard errors have an alarm.

    Without correction about a third would. One that is far better is found in every one of 50.
    """
    generator = np.random.default_rng(1)
    cells, alarms, raw, studies = plan().cells(), 0, 0, 400
    for _ in range(studies):
        found = compared(drawn_study(cells, generator))
        alarms += any(test.adjusted < 0.05 for test in found)
        raw += any(test.p_value < 0.05 for test in found)
    assert alarms / studies < 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)
    assert raw / studies > 0.2
    for _ in range(50):
        found = compared(drawn_study(cells, generator, ensemble=-20.0))
        (test,) = (t for t in found if (t.method, t.other) == ("Deep ensemble", "Deterministic"))
        assert test.adjusted < 0.05
        assert test.better


def drawn_study(cells, generator, *, ensemble=0.0):
    seeds = generator.normal(0, 5, 5)
    results = tuple(
        Result(
            cell,
            {"nll": seeds[cell.network.seed] + generator.normal()
                    + ensemble * (cell.method == "Deep ensemble")},
            {},
        )
        for cell in cells
    )  # fmt: skip
    return Study(plan(), results, {}, 0)
