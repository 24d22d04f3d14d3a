"""Reliability, bins that add: against a loop, scikit-learn, scipy and exact enumeration."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law import DEVIATIONS
from scipy import stats
from sklearn.calibration import calibration_curve
from torch.testing import assert_close

from mcbn import validation
from mcbn.evaluation.reliability import Reliability

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def forecaster(count=3000, power=1.0, seed=0):
    """Confidence and outcomes; `power` 1 is calibrated, above it over-, below underconfident."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, generator=generator, dtype=torch.float64) * 0.5 + 0.5
    correct = torch.rand(count, generator=generator, dtype=torch.float64) < truth
    odds = (truth / (1 - truth)) ** power
    return odds / (1 + odds), correct


def bins_by_loop(confidence, correct, edges):
    """Counts, correct counts and confidence sums of right-closed bins, one value at a time."""
    rows = [[0, 0, []] for _ in edges[1:]]
    for c, y in zip(confidence.tolist(), correct.tolist(), strict=True):
        b = next((i for i in range(len(rows)) if c <= edges[i + 1]), len(rows) - 1)
        rows[b][0] += 1
        rows[b][1] += y
        rows[b][2].append(c)
    return [(n, k, math.fsum(c)) for n, k, c in rows]


@st.composite
def examples(draw):
    """Values on a coarse grid, so that ties, edges, 0 and 1 all occur."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40))
    confidence = torch.tensor([c / 20 for c, _ in pairs], dtype=torch.float64)
    return confidence, torch.tensor([y for _, y in pairs])


def same(first, second):
    names = ("counts", "correct_counts", "confidence_parts", "edges")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


@given(examples(), st.integers(1, 20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bins_agree_with_a_loop(data, bins):
    confidence, correct = data
    result = Reliability.from_predictions(confidence, correct, bins=bins)
    rows = bins_by_loop(confidence, correct, [k / bins for k in range(bins + 1)])
    assert result.counts.tolist() == [n for n, _, _ in rows]
    assert result.correct_counts.tolist() == [k for _, k, _ in rows]
    mean = torch.tensor([c / n if n else math.nan for n, _, c in rows], dtype=torch.float64)
    assert_close(result.confidence, mean, equal_nan=True, **TIGHT)
    gaps = [(n, abs(k - c) / n) for n, k, c in rows if n]
    ece = sum(n * gap for n, gap in gaps) / len(correct)
    assert result.expected_error == pytest.approx(ece, abs=1e-12)
    assert result.maximum_error == pytest.approx(max(gap for _, gap in gaps), abs=1e-12)
    square = sum(n * gap**2 for n, gap in gaps) / len(correct)
    assert result.root_mean_square_error == pytest.approx(math.sqrt(square), abs=1e-8)


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_bins_agree_with_scikit_learn(bins):
    confidence, correct = forecaster()
    result = Reliability.from_predictions(confidence, correct, bins=bins)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins)
    full = result.counts > 0
    assert_close(result.accuracy[full], torch.from_numpy(accuracy), **TIGHT)
    assert_close(result.confidence[full], torch.from_numpy(mean), **TIGHT)


def test_edges_belong_to_the_bin_below_and_the_ends_stay_inside():
    confidence = torch.tensor([0.0, 0.1, 0.3, 0.7, 0.9, 1.0], dtype=torch.float64)
    result = Reliability.from_predictions(confidence, confidence > 0.5, bins=10)
    assert result.counts.tolist() == [2, 0, 1, 0, 0, 0, 1, 0, 1, 1]


def test_every_fraction_is_the_right_end_of_its_bin():
    for bins in range(1, 100):
        confidence = torch.tensor([k / bins for k in range(bins + 1)], dtype=torch.float64)
        result = Reliability.from_predictions(confidence, confidence > 0.5, bins=bins)
        assert result.counts.tolist() == [2] + [1] * (bins - 1)


def test_empty_bins_are_nan_and_weigh_nothing():
    result = Reliability.from_predictions(torch.tensor([0.9, 0.9]), torch.tensor([True, False]))
    assert int(result.accuracy.isnan().sum()) == int(result.confidence.isnan().sum()) == 14
    for ends in (result.interval(), result.consistency_band()):
        for end in ends:
            assert torch.equal(end.isnan(), result.counts == 0)
    assert result.expected_error == pytest.approx(0.4, abs=1e-7)
    assert result.maximum_error == pytest.approx(0.4, abs=1e-7)


@given(examples(), examples(), st.integers(1, 20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_sum_is_that_of_both_sets_to_the_last_bit(first, second, bins):
    parts = [Reliability.from_predictions(*data, bins=bins) for data in (first, second)]
    confidence, correct = (torch.cat(pair) for pair in zip(first, second, strict=True))
    whole = Reliability.from_predictions(confidence, correct, bins=bins)
    assert same(parts[0] + parts[1], whole)
    assert same(parts[1] + parts[0], whole)


def test_many_splits_and_any_order_agree_to_the_last_bit():
    confidence, correct = forecaster(count=10_007)
    whole = Reliability.from_predictions(confidence, correct)
    order = torch.randperm(10_007, generator=torch.Generator().manual_seed(2))
    assert same(Reliability.from_predictions(confidence[order], correct[order]), whole)
    pieces = zip(confidence[order].split(97), correct[order].split(97), strict=True)
    first, *others = (Reliability.from_predictions(c, y) for c, y in pieces)
    total = sum(others, start=first)
    assert same(total, whole)
    assert total.expected_error == whole.expected_error


@given(examples())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_doubling_every_example_changes_no_error(data):
    once = Reliability.from_predictions(*data)
    twice = once + once
    assert twice.expected_error == pytest.approx(once.expected_error, abs=1e-15)
    assert twice.maximum_error == pytest.approx(once.maximum_error, abs=1e-15)


def test_confidence_keeps_the_precision_of_float64():
    confidence = torch.tensor([math.pi / 4, 1e-9, 1 / 3], dtype=torch.float64)
    for value in confidence:
        result = Reliability.from_predictions(value[None], torch.tensor([True]), bins=1)
        assert float(result.confidence) == pytest.approx(float(value), abs=2.0**-52)


def test_other_edges_are_not_added():
    data = torch.tensor([0.5]), torch.tensor([True])
    with pytest.raises(ValueError, match="same edges"):
        Reliability.from_predictions(*data) + Reliability.from_predictions(*data, bins=14)


def equal_mass_by_loop(confidence, bins):
    """The inner edges: the value at rank ceil(k n / bins), once each, and not the largest."""
    ordered = sorted(confidence.tolist())
    edges = []
    for k in range(1, bins):
        value = ordered[max(math.ceil(k * len(ordered) / bins) - 1, 0)]
        if value < ordered[-1] and value not in edges:
            edges.append(value)
    return [0.0, *edges, 1.0]


@given(examples(), st.integers(1, 20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_mass_bins_agree_with_a_loop_and_do_not_split_ties(data, bins):
    confidence, correct = data
    result = Reliability.from_quantiles(confidence, correct, bins=bins)
    assert result.edges.tolist() == equal_mass_by_loop(confidence, bins)
    assert int(result.counts.min()) > 0
    assert int(result.counts.sum()) == len(correct)
    assert [n for n, _, _ in bins_by_loop(confidence, correct, result.edges.tolist())] == (
        result.counts.tolist()
    )


def test_equal_mass_bins_of_distinct_values_are_those_of_numpy():
    confidence, correct = forecaster(count=1000)
    result = Reliability.from_quantiles(confidence, correct, bins=7)
    order = np.argsort(confidence.numpy())
    stops = [math.ceil(k * 1000 / 7) for k in range(1, 7)]
    chunks = np.split(order, stops)
    assert result.counts.tolist() == [len(chunk) for chunk in chunks]
    accuracy = [correct.numpy()[chunk].mean() for chunk in chunks]
    mean = [confidence.numpy()[chunk].mean() for chunk in chunks]
    assert_close(result.accuracy, torch.tensor(accuracy), **TIGHT)
    assert_close(result.confidence, torch.tensor(mean), **TIGHT)


def test_equal_mass_of_one_repeated_value_is_one_bin():
    for value in (0.0, 0.7, 1.0):
        confidence = torch.full((9,), value)
        result = Reliability.from_quantiles(confidence, torch.arange(9) < 5)
        assert result.counts.tolist() == [9]


def test_a_second_set_joins_equal_mass_bins_by_their_edges():
    first, second = forecaster(seed=1), forecaster(seed=2)
    bins = Reliability.from_quantiles(*first)
    joined = bins + Reliability.from_edges(*second, bins.edges)
    whole = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
    assert same(joined, Reliability.from_edges(*whole, bins.edges))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_interval_is_the_wilson_interval_of_scipy(level):
    confidence, correct = forecaster(count=80)
    sure = torch.tensor([0.1, 0.1, 0.2]), torch.tensor([False, False, True])
    result = Reliability.from_predictions(
        torch.cat([confidence, sure[0]]), torch.cat([correct, sure[1]]), bins=20
    )
    lower, upper = result.interval(level=level)
    for b in torch.nonzero(result.counts).flatten().tolist():
        test = stats.binomtest(int(result.correct_counts[b]), int(result.counts[b]))
        reference = test.proportion_ci(level, method="wilson")
        assert float(lower[b]) == pytest.approx(reference.low, rel=1e-10, abs=1e-12)
        assert float(upper[b]) == pytest.approx(reference.high, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("right", [True, False])
def test_interval_of_all_right_or_all_wrong_ends_at_the_end(right):
    """Not a rounding error beyond it, at any count."""
    for count in range(1, 200):
        confidence = torch.full((count,), 0.5)
        result = Reliability.from_predictions(confidence, torch.full((count,), right), bins=1)
        lower, upper = (float(end) for end in result.interval())
        assert 0 <= lower < upper <= 1
        assert (upper if right else lower) == pytest.approx(float(right), abs=1e-15)


def test_levels_that_are_not_fractions_are_refused():
    result = Reliability.from_predictions(torch.tensor([0.5]), torch.tensor([True]))
    for ends in (result.interval, result.consistency_band):
        with pytest.raises(ValueError, match="expected level strictly between 0 and 1, got 95"):
            ends(level=95)


def test_consistency_band_is_the_binomial_one():
    confidence = torch.full((10,), 0.7, dtype=torch.float64)
    result = Reliability.from_predictions(confidence, torch.arange(10) < 7, bins=1)
    lower, upper = result.consistency_band(level=0.9)
    exact = stats.binom.interval(0.9, 10, 0.7)
    assert [float(lower), float(upper)] == [exact[0] / 10, exact[1] / 10]


def poisson_binomial(probabilities):
    """The law of the number of successes, by convolution."""
    law = np.ones(1)
    for p in probabilities:
        law = np.convolve(law, [1 - p, p])
    return law


@pytest.mark.parametrize("bins", [1, 5])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_consistency_band_covers_a_calibrated_forecaster(bins, level):
    """Exact: the Poisson-binomial law of each bin, from the confidences that fell into it."""
    confidence, correct = forecaster(count=60)
    result = Reliability.from_predictions(confidence, correct, bins=bins)
    lower, upper = result.consistency_band(level=level)
    for b in torch.nonzero(result.counts).flatten().tolist():
        inside = (confidence > result.edges[b]) & (confidence <= result.edges[b + 1])
        law = poisson_binomial(confidence[inside].numpy())
        rates = np.arange(len(law)) / (len(law) - 1)
        within = (rates >= float(lower[b]) - 1e-12) & (rates <= float(upper[b]) + 1e-12)
        assert law[within].sum() >= level
        # Not by being wide: one success less at both ends would not do.
        assert law[within][1:-1].sum() < level + 0.06


def test_consistency_band_at_certainty_is_a_point():
    confidence = torch.tensor([0.0, 0.0, 1.0, 1.0])
    result = Reliability.from_predictions(confidence, confidence > 0.5, bins=2)
    for end in result.consistency_band():
        assert end.tolist() == [0.0, 1.0]


def outside(power, seed):
    result = Reliability.from_predictions(*forecaster(power=power, seed=seed), bins=10)
    full = result.counts > 0
    lower, upper = result.consistency_band(level=0.99)
    accuracy = result.accuracy
    return int((accuracy < lower)[full].sum()), int((accuracy > upper)[full].sum())


def test_consistency_band_distinguishes_three_forecasters():
    """Of at most 10 bins, those outside a 99% band; 100 calibrated sets leave it 1% of the time."""
    left = sum(sum(outside(1.0, seed)) for seed in range(100))
    bins = 100 * 5
    assert left <= 0.01 * bins + 4 * math.sqrt(bins * 0.01 * 0.99)
    over, under = outside(3.0, 7), outside(0.3, 7)
    assert over[0] >= 3
    assert over[1] == 0
    assert under[1] >= 2
    assert under[0] == 0


def test_debiased_square_error_is_zero_on_average_when_calibrated():
    """400 sets of 4 x 25 examples."""
    generator = torch.Generator().manual_seed(11)
    confidence = torch.tensor([0.2, 0.5, 0.7, 0.9], dtype=torch.float64).repeat(25)
    plain, debiased = [], []
    for _ in range(400):
        correct = torch.rand(100, generator=generator, dtype=torch.float64) < confidence
        result = Reliability.from_predictions(confidence, correct, bins=10)
        plain.append(result.root_mean_square_error**2)
        debiased.append(result.debiased_square_error)
    error = np.std(debiased) / math.sqrt(400)
    assert abs(np.mean(debiased)) < DEVIATIONS * error
    assert np.mean(plain) > 20 * error
    assert min(debiased) < 0


def test_debiased_square_error_by_hand():
    # One bin of 3 with 2 correct, one of a single example, which counts 0.
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.1], dtype=torch.float64)
    result = Reliability.from_predictions(confidence, torch.tensor([True, True, False, True]))
    exact = 3 / 4 * ((0.9 - 2 / 3) ** 2 - (2 / 9) / 2)
    assert result.debiased_square_error == pytest.approx(exact, rel=1e-10)


def test_half_a_million_float32_values_are_summed_exactly():
    # Multiples of 2^-20 are exact in float32, so the mean is known to the last bit.
    steps = torch.arange(2**19, 2**20)
    confidence = (steps / 2**20).float()
    correct = steps % 4 != 0
    result = Reliability.from_predictions(confidence, correct, bins=1)
    exact = int(steps.sum()) / 2**20 / len(steps)
    assert float(result.confidence) == exact
    assert result.expected_error == pytest.approx(abs(0.75 - exact), rel=1e-12)


def test_rounding_over_one_is_one_and_more_is_refused():
    correct = torch.tensor([True])
    result = Reliability.from_predictions(torch.tensor([1 + 1e-7]), correct)
    assert float(result.confidence[-1]) == 1.0
    for bad in (1.1, -1e-9, math.nan, math.inf):
        with pytest.raises(ValueError, match="confidence"):
            Reliability.from_predictions(torch.tensor([bad]), correct)


def test_bad_input_is_refused():
    confidence, correct = torch.tensor([0.5, 0.7]), torch.tensor([True, False])
    with pytest.raises(ValueError, match="at least 1 bin, got 0"):
        Reliability.from_predictions(confidence, correct, bins=0)
    with pytest.raises(ValueError, match="at least 1 bin, got -3"):
        Reliability.from_quantiles(confidence, correct, bins=-3)
    with pytest.raises(ValueError, match="at least one value"):
        Reliability.from_predictions(confidence[:0], correct[:0])
    for edges in ([0.0, 0.5], [0.0, 0.7, 0.3, 1.0], [1.0]):
        with pytest.raises(ValueError, match="edges that rise"):
            Reliability.from_edges(confidence, correct, torch.tensor(edges).double())
    result = Reliability.from_predictions(confidence, correct)
    for band in (result.interval, result.consistency_band):
        with pytest.raises(ValueError, match="between 0 and 1"):
            band(level=1.0)


def test_the_checks_say_what_was_expected():
    with pytest.raises(ValueError, match=r"confidence with one axis, got shape \(2, 2\)"):
        validation.unit_interval(torch.ones(2, 2), "confidence")
    with pytest.raises(TypeError, match=r"torch.bool, got torch.int64"):
        validation.mask(torch.ones(2).long(), "correct", torch.ones(2), "confidence")
    with pytest.raises(ValueError, match="correct and confidence of the same shape"):
        validation.mask(torch.ones(3).bool(), "correct", torch.ones(2), "confidence")


def test_fifteen_bins_of_equal_mass_are_the_default_and_one_edge_is_refused():
    confidence, correct = forecaster(count=200)
    assert len(Reliability.from_quantiles(confidence, correct).counts) == 15
    with pytest.raises(ValueError, match="take those of another Reliability"):
        Reliability.from_edges(confidence, correct, torch.tensor([0.5], dtype=torch.float64))
