"""Detection and risk-coverage against counting of pairs, scipy, torchmetrics and enumeration."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from mcbn.evaluation import detection


def scored(count=400, gap=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(count, generator=generator) < 0.3
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    return noise + gap * positive, positive


@st.composite
def tied(draw):
    """Few distinct scores, both classes present."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=0, max_size=25))
    pairs += [(draw(st.integers(0, 5)), True), (draw(st.integers(0, 5)), False)]
    return torch.tensor([float(s) for s, _ in pairs]), torch.tensor([p for _, p in pairs])


def auroc_by_pairs(scores, positive):
    wins = [
        (a > b) + 0.5 * (a == b)
        for a, b in itertools.product(scores[positive].tolist(), scores[~positive].tolist())
    ]
    return sum(wins) / len(wins)


def thresholds_by_loop(scores, positive):
    """Of each distinct threshold from above: true and false positive counts."""
    for threshold in sorted(set(scores.tolist()), reverse=True):
        flagged = scores >= threshold
        yield int((flagged & positive).sum()), int((flagged & ~positive).sum())


def aupr_by_loop(scores, positive):
    total, before = 0.0, 0
    for hits, false in thresholds_by_loop(scores, positive):
        total += (hits - before) * hits / (hits + false)
        before = hits
    return total / int(positive.sum())


def fpr95_by_loop(scores, positive):
    for hits, false in thresholds_by_loop(scores, positive):
        if 20 * hits >= 19 * int(positive.sum()):
            return false / int((~positive).sum())
    raise RuntimeError("the lowest threshold finds all")


LOOPS = [
    (detection.auroc, auroc_by_pairs),
    (detection.aupr, aupr_by_loop),
    (detection.fpr95, fpr95_by_loop),
]
MEASURES = [measure for measure, _ in LOOPS]


@pytest.mark.parametrize(("measure", "loop"), LOOPS)
@given(tied())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_measures_agree_with_a_loop_under_ties(measure, loop, data):
    assert measure(*data) == pytest.approx(loop(*data), rel=1e-10)


@pytest.mark.parametrize(("measure", "loop"), LOOPS)
def test_measures_agree_with_a_loop_without_ties(measure, loop):
    assert measure(*scored()) == pytest.approx(loop(*scored()), rel=1e-10)


@pytest.mark.parametrize("share", [19, 20, 37, 38, 100])
def test_fpr95_at_recall_of_exactly_95_percent(share):
    # `share` positives above all but the lowest; 19 of 20 and 95 of 100 are just enough.
    scores = torch.arange(share + 10, 0, -1).double()
    positive = torch.cat([torch.arange(share) >= 0, torch.zeros(10).bool()])
    order = torch.cat([torch.arange(share - 1), torch.arange(share, share + 10)])
    order = torch.cat([order, torch.tensor([share - 1])])
    expected = 0.0 if 20 * (share - 1) >= 19 * share else 1.0
    assert detection.fpr95(scores, positive[order]) == expected


def test_fpr95_on_a_straight_diagonal():
    # One positive and one negative at each of 40 scores; a thinned curve would answer 1.
    positive = torch.arange(80) < 40
    assert detection.fpr95(torch.arange(40.0).repeat(2), positive) == 0.95


def test_auroc_is_the_mann_whitney_statistic():
    scores, positive = scored()
    u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    count = int(positive.sum())
    assert detection.auroc(scores, positive) == pytest.approx(
        u / (count * (len(scores) - count)), rel=1e-12
    )


def test_measures_agree_with_torchmetrics_on_probabilities():
    scores, positive = scored()
    scores = torch.special.ndtr(scores)
    for measure, other in (
        (detection.auroc, reference.binary_auroc),
        (detection.aupr, reference.binary_average_precision),
    ):
        expected = float(other(scores, positive.int()))
        assert measure(scores, positive) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("scale", "shift"), [(1e4, 0.0), (1e-4, 0.0), (1.0, 1e4), (1e4, -1e6)])
def test_only_the_order_counts_at_any_scale(measure, scale, shift):
    scores, positive = scored()
    scores = (scores * 1000).round() / 1000
    assert measure(scale * scores + shift, positive) == pytest.approx(
        measure(scores, positive), rel=1e-12
    )
    large = (1e4 * scores).float()
    assert measure(large, positive) == pytest.approx(measure(large.double(), positive), rel=0)


@given(tied())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_auroc_of_the_opposite_is_its_complement(data):
    scores, positive = data
    plain = detection.auroc(scores, positive)
    assert detection.auroc(-scores, positive) == pytest.approx(1 - plain, abs=1e-12)
    assert detection.auroc(scores, ~positive) == pytest.approx(1 - plain, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_order_and_doubling_of_examples_do_not_matter(measure):
    scores, positive = scored()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    plain = measure(scores, positive)
    assert measure(scores[order], positive[order]) == pytest.approx(plain, rel=1e-12)
    assert measure(scores.repeat(2), positive.repeat(2)) == pytest.approx(plain, rel=1e-12)


def test_the_ends_of_the_scale():
    positive = torch.arange(40) < 10
    perfect, tie = positive.double(), torch.zeros(40)
    assert [measure(perfect, positive) for measure in MEASURES] == [1.0, 1.0, 0.0]
    assert [measure(-perfect, positive) for measure in MEASURES] == [0.0, 0.25, 1.0]
    assert [measure(tie, positive) for measure in MEASURES] == [0.5, 0.25, 1.0]


def test_a_useful_and_a_useless_detector_are_distinguished():
    """4000 examples: chance AUROC has a standard error of 0.01; false alarm below 1e-4."""
    useful, useless = scored(4000, gap=2.0), scored(4000, gap=0.0)
    assert detection.auroc(*useful) == pytest.approx(stats.norm.cdf(2 / math.sqrt(2)), abs=0.03)
    assert detection.auroc(*useless) == pytest.approx(0.5, abs=0.04)
    assert detection.fpr95(*useless) == pytest.approx(0.95, abs=0.04)
    assert detection.fpr95(*useful) < 0.5
    assert detection.aupr(*useless) == pytest.approx(0.3, abs=0.05)


def test_out_of_distribution_takes_the_outside_as_positive():
    inside, outside = torch.tensor([0.1, 0.2, 0.3, 0.6]), torch.tensor([0.5, 0.7])
    result = detection.out_of_distribution(inside, outside)
    assert result == detection.Separation(auroc=7 / 8, aupr=0.5 + 0.5 * 2 / 3, fpr95=0.25)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_class_is_refused(measure):
    for positive in (torch.ones(3).bool(), torch.zeros(3).bool()):
        with pytest.raises(ValueError, match="positive and negative examples"):
            measure(torch.rand(3, generator=torch.Generator()), positive)


@pytest.mark.parametrize("measure", MEASURES)
def test_bad_scores_are_refused(measure):
    positive = torch.tensor([True, False])
    with pytest.raises(ValueError, match=r"1 NaN or infinite of 2, the first at index \(1,\)"):
        measure(torch.tensor([0.0, math.nan]), positive)
    with pytest.raises(ValueError, match="at least one value"):
        measure(torch.ones(0), positive[:0])
    with pytest.raises(TypeError, match=r"Bool|torch.bool"):
        measure(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))


def test_an_empty_or_broken_side_is_named():
    some = torch.ones(2)
    with pytest.raises(ValueError, match="inside_uncertainty"):
        detection.out_of_distribution(some[:0], some)
    with pytest.raises(ValueError, match="outside_uncertainty"):
        detection.out_of_distribution(some, some * math.inf)


def curve_by_loop(uncertainty, loss):
    """Risk and accepted loss at every coverage, without ties."""
    order = np.argsort(uncertainty)
    accepted = np.array([sum(loss[i] for i in order[:k]) for k in range(1, len(loss) + 1)])
    return accepted / np.arange(1, len(loss) + 1), accepted


def test_risk_coverage_agrees_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.rand(50, generator=generator, dtype=torch.float64)
    loss = torch.rand(50, generator=generator, dtype=torch.float64)
    result = detection.risk_coverage(uncertainty, loss)
    risk, accepted = curve_by_loop(uncertainty.numpy(), loss.numpy())
    best, _ = curve_by_loop(loss.numpy(), loss.numpy())
    assert_close(result.risk, torch.from_numpy(risk), rtol=1e-10, atol=0)
    assert_close(result.coverage, torch.arange(1, 51).double() / 50, rtol=1e-15, atol=0)
    assert result.area == pytest.approx(risk.mean(), rel=1e-10)
    assert result.excess_area == pytest.approx(risk.mean() - best.mean(), rel=1e-10)
    area = np.trapezoid(np.concatenate([[0], accepted]) / 50, np.arange(51) / 50)
    assert result.generalized_area == pytest.approx(area, rel=1e-10)


def test_ties_are_the_mean_over_all_orders():
    uncertainty = torch.tensor([0.5, 0.1, 0.5, 0.5, 0.9])
    loss = torch.tensor([1.0, 0.0, 0.25, 4.0, 2.0])
    broken = []
    for order in itertools.permutations(range(3)):
        parted = uncertainty.double()
        parted[[0, 2, 3]] += 1e-3 * torch.tensor(order).double()
        broken.append(detection.risk_coverage(parted, loss))
    result = detection.risk_coverage(uncertainty, loss)
    mean = torch.stack([curve.risk for curve in broken]).mean(0)
    assert_close(result.risk, mean, rtol=1e-12, atol=0)
    for name in ("area", "excess_area", "generalized_area"):
        mean = np.mean([getattr(curve, name) for curve in broken])
        assert getattr(result, name) == pytest.approx(mean, rel=1e-12)


@given(tied())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_generalised_area_of_errors_has_a_closed_form(data):
    uncertainty, errors = data
    accuracy = 1 - float(errors.double().mean())
    wrong_order = 1 - detection.auroc(uncertainty, errors)
    exact = wrong_order * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    result = detection.risk_coverage(uncertainty, errors)
    assert result.generalized_area == pytest.approx(exact, abs=1e-12)


@given(tied())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_order_beats_the_oracle_and_full_coverage_is_the_mean(data):
    uncertainty, errors = data
    result = detection.risk_coverage(uncertainty, errors)
    assert result.excess_area >= -1e-15
    assert float(result.risk[-1]) == pytest.approx(float(errors.double().mean()), rel=1e-12)
    assert float(result.coverage[-1]) == 1.0
    assert detection.risk_coverage(errors.double(), errors).excess_area == pytest.approx(
        0, abs=1e-15
    )


def test_all_ties_are_a_flat_curve():
    result = detection.risk_coverage(torch.zeros(8), torch.arange(8) < 2)
    assert_close(result.risk, torch.full((8,), 0.25, dtype=torch.float64), rtol=1e-15, atol=0)
    assert result.generalized_area == pytest.approx(0.125, rel=1e-12)


def test_risk_by_hand():
    result = detection.risk_coverage(
        torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    )
    assert_close(
        result.risk, torch.tensor([0, 1 / 2, 1 / 3, 1 / 2], dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert result.area == pytest.approx(1 / 3, rel=1e-12)
    assert result.excess_area == pytest.approx(1 / 3 - (1 / 3 + 1 / 2) / 4, rel=1e-12)
    # Accepted losses 0, 1, 1, 2 of 4; trapezoids from 0.
    assert result.generalized_area == pytest.approx((0 + 0.5 + 1 + 1.5) / 16, rel=1e-12)


def test_a_useful_uncertainty_is_better_than_a_useless_and_a_reversed_one():
    uncertainty, errors = scored(2000, gap=2.0)
    noise, _ = scored(2000, seed=5)
    useful, useless, wrong = (
        detection.risk_coverage(u, errors) for u in (uncertainty, noise, -uncertainty)
    )
    for name in ("area", "excess_area", "generalized_area"):
        values = [getattr(curve, name) for curve in (useful, useless, wrong)]
        assert values[0] < 0.7 * values[1]
        assert values[2] > 1.3 * values[1]


def test_losses_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="uncertainty and loss of the same shape"):
        inspect.unwrap(detection.risk_coverage)(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="2 NaN"):
        detection.risk_coverage(torch.ones(2), torch.full((2,), math.nan))
    with pytest.raises(ValueError, match="at least one value"):
        detection.risk_coverage(torch.ones(0), torch.ones(0))
