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


def by_family(found):
    return [[test for test in found if test.primary == kind] for kind in (True, False)]


def test_primary_are_the_declared_comparisons_and_no_others():
    primary, _ = by_family(compared(made_study(plan(), seeded)))
    assert {(t.method, t.batch_size, t.other, t.other_batch_size) for t in primary} == {
        ("MCBN", 64, "Deterministic", None),
        ("MCBN", 64, "MC Dropout, p = 0.1", None),
        ("MCBN", 64, "Deep ensemble", None),
    }


def lower(cell):
    """A score by which MCBN is a little better, so that some tests are significant."""
    return {"nll": seeded(cell)["nll"] - 0.3 * (cell.method == "MCBN")}


def test_each_family_is_corrected_by_itself_over_all_parts_of_a_study():
    two = made_study(plan(data=DataAxes(names=("digits", "mnist"), train_sizes=(1000,))), lower)
    found = compared(two)
    assert {test.part for test in found} == {"digits", "mnist"}
    for family, size in zip(by_family(found), (6, 14), strict=True):
        assert count(family) == len(family) == size
        assert [test.adjusted for test in family] == holm([test.p_value for test in family])
        smallest = min(family, key=lambda test: test.p_value)
        assert smallest.adjusted == pytest.approx(min(1, size * smallest.p_value))
        assert smallest.adjusted < 0.5


def test_a_test_that_two_parts_share_is_counted_once():
    """Methods without a T are the same cells whatever T of the others is."""
    study = made_study(plan(inference=InferenceAxes(batch_sizes=(8, 64), draws=(4, 16))), lower)
    found = compared(study)
    primary, others = by_family(found)
    assert (len(primary), count(primary)) == (6, 6)
    assert (len(others), count(others)) == (14, 13)  # the ensemble against Deterministic is one
    for family in (primary, others):
        smallest = min(family, key=lambda test: test.p_value)
        assert smallest.adjusted == pytest.approx(min(1, count(family) * smallest.p_value))
    twice = [test for test in found if (test.method, test.other) == ("Deep ensemble",
             "Deterministic")]  # fmt: skip
    assert twice[0].adjusted == twice[1].adjusted
    assert {test.part for test in twice} == {"T = 4", "T = 16"}


def test_what_a_test_could_have_found_is_its_power():
    """The noncentral t at the first threshold of Holm's method, by 200,000 studies: 80% to 0.5%."""
    found, _ = by_family(compared(made_study(plan(), lower)))
    generator = np.random.default_rng(0)
    for test in found:
        drawn = generator.normal(test.detectable, test.sd, (200_000, 5))
        p_values = stats.ttest_1samp(drawn, 0, axis=1).pvalue
        assert (p_values < 0.05 / 3).mean() == pytest.approx(0.8, abs=0.005)


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
    """400 studies of methods that are all alike: at most 5% + 3 standard errors have an alarm.

    In each of the two families. Without correction about a third would. One that is far better is
    found in every one of 50.
    """
    generator = np.random.default_rng(1)
    cells, raw, studies = plan().cells(), 0, 400
    alarms = [0, 0]
    for _ in range(studies):
        found = compared(drawn_study(cells, generator))
        for place, family in enumerate(by_family(found)):
            alarms[place] += any(test.adjusted < 0.05 for test in family)
        raw += any(test.p_value < 0.05 for test in found)
    assert max(alarms) / studies < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
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
