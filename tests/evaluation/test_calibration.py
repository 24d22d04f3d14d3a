"""Calibration errors against loops, quadrature, relplot, torchmetrics and closed forms."""

import inspect
import itertools
import math
from functools import partial

import numpy as np
import pytest
import relplot
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from law import DEVIATIONS
from scipy import integrate, stats
from torch.testing import assert_close

from mcbn.evaluation import calibration
from mcbn.evaluation.calibration import Reliability


def forecaster(count=3000, power=1.0, seed=0):
    """Confidence and outcomes; `power` 1 is calibrated, above it over-, below underconfident."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, generator=generator, dtype=torch.float64) * 0.5 + 0.5
    correct = torch.rand(count, generator=generator, dtype=torch.float64) < truth
    odds = (truth / (1 - truth)) ** power
    return odds / (1 + odds), correct


ERRORS = [
    calibration.expected_calibration_error,
    calibration.debiased_calibration_error,
    calibration.smooth_calibration_error,
]


def test_one_bin_holds_full_certainty():
    # torchmetrics puts 1.0 in a bin of its own and answers 0.75.
    confidence, correct = torch.tensor([1.0, 0.5]), torch.tensor([False, True])
    for norm in ("l1", "l2", "max"):
        error = calibration.expected_calibration_error(confidence, correct, bins=1, norm=norm)
        assert error == pytest.approx(0.25, rel=1e-12)


def test_errors_by_hand():
    confidence = torch.tensor([0.6, 0.6, 0.6, 1.0, 1.0, 0.0], dtype=torch.float64)
    correct = torch.tensor([True, False, False, True, False, False])
    gaps = [(3, 0.6 - 1 / 3), (2, 0.5), (1, 0.0)]
    exact = {
        "l1": sum(n * g for n, g in gaps) / 6,
        "l2": math.sqrt(sum(n * g**2 for n, g in gaps) / 6),
        "max": 0.5,
    }
    for norm, value in exact.items():
        for options in ({"bins": 5}, {"bins": 6, "binning": "mass"}):
            error = calibration.expected_calibration_error(
                confidence, correct, norm=norm, **options
            )
            assert error == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equal_width_agrees_with_torchmetrics_below_one(bins, norm):
    confidence, correct = forecaster(power=1.7)
    # Its bins are left-closed and it works in float32: no value near an edge, float32 tolerance.
    confidence = (confidence * 997).floor() / 997 + 3e-4
    result = calibration.expected_calibration_error(confidence, correct, bins=bins, norm=norm)
    other = reference.binary_calibration_error(confidence, correct.int(), n_bins=bins, norm=norm)
    assert result == pytest.approx(float(other), rel=1e-5)


def test_equal_mass_agrees_with_numpy():
    confidence, correct = forecaster(count=1001, power=2.0)
    order = np.argsort(confidence.numpy())
    gaps = (correct.double() - confidence).numpy()[order]
    chunks = np.split(gaps, [math.ceil(k * 1001 / 15) for k in range(1, 15)])
    exact = sum(abs(chunk.sum()) for chunk in chunks) / 1001
    result = calibration.expected_calibration_error(confidence, correct, binning="mass")
    assert result == pytest.approx(exact, rel=1e-10)


def test_debiased_error_agrees_with_numpy_and_is_clipped():
    confidence, correct = forecaster(count=600, power=2.0)
    order = np.argsort(confidence.numpy())
    total = 0.0
    for index in np.array_split(order, 10):
        c, y = confidence.numpy()[index], correct.numpy()[index].astype(float)
        # The variance of the mean outcome, by numpy instead of by the formula.
        total += len(index) / 600 * ((c.mean() - y.mean()) ** 2 - y.var(ddof=1) / len(index))
    result = calibration.debiased_calibration_error(confidence, correct, bins=10)
    assert result == pytest.approx(math.sqrt(total), rel=1e-10)
    plain = calibration.expected_calibration_error(
        confidence, correct, bins=10, binning="mass", norm="l2", debiased=True
    )
    assert plain == result
    half = torch.full((10,), 0.5)
    assert calibration.debiased_calibration_error(half, torch.arange(10) < 5) == 0.0


def test_debiased_width_bins_are_not_equal_mass_ones():
    data = forecaster(count=400, power=2.0)
    options = {"bins": 10, "norm": "l2", "debiased": True}
    exact = math.sqrt(Reliability.from_predictions(*data, bins=10).debiased_square_error)
    assert calibration.expected_calibration_error(*data, **options) == pytest.approx(exact)


def test_classwise_agrees_with_a_loop_and_with_two_classes_by_hand():
    generator = torch.Generator().manual_seed(4)
    probabilities = torch.randn(60, 3, generator=generator).double().softmax(1)
    targets = torch.randint(3, (60,), generator=generator)
    edges = [k / 15 for k in range(16)]
    total = 0.0
    for c in range(3):
        for low, high in itertools.pairwise(edges):
            residuals = [
                float(targets[i] == c) - float(probabilities[i, c])
                for i in range(60)
                if low < float(probabilities[i, c]) <= high
            ]
            total += abs(sum(residuals)) / 60 / 3
    result = calibration.classwise_calibration_error(probabilities, targets)
    assert result == pytest.approx(total, rel=1e-10)
    image = probabilities.reshape(3, 4, 5, 3).permute(0, 3, 1, 2)
    shaped = calibration.classwise_calibration_error(image, targets.reshape(3, 4, 5))
    assert shaped == pytest.approx(total, rel=1e-10)


def test_fifteen_bins_are_the_default_and_others_are_taken():
    probabilities = torch.randn(90, 3, generator=torch.Generator().manual_seed(4)).softmax(1)
    labels = torch.randint(3, (90,), generator=torch.Generator().manual_seed(5))
    binned = [
        partial(calibration.expected_calibration_error, *forecaster(count=90)),
        partial(calibration.debiased_calibration_error, *forecaster(count=90)),
        partial(calibration.classwise_calibration_error, probabilities, labels),
    ]
    for error in binned:
        assert error() == error(bins=15)
        assert len({error(bins=bins) for bins in (2, 14, 15, 16)}) == 4


def test_classwise_of_two_classes_is_the_binary_error_in_mirrored_bins():
    confidence, correct = forecaster(count=500)
    both = torch.stack([1 - confidence, confidence], 1)
    single = calibration.expected_calibration_error(confidence, correct)
    result = calibration.classwise_calibration_error(both, correct.long())
    assert result == pytest.approx(single, rel=1e-9)


@pytest.mark.parametrize("power", [0.3, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("count", [50, 3000])
def test_smooth_error_agrees_with_relplot(power, count):
    confidence, correct = forecaster(count=count, power=power)
    # Away from the ends, where relplot 1.0.3 loses half of the mass of the last cell of its grid.
    confidence = confidence.clamp(max=0.98)
    other = relplot.smECE(confidence.numpy(), correct.double().numpy())
    result = calibration.smooth_calibration_error(confidence, correct)
    assert result == pytest.approx(float(other), abs=1e-3)


def smooth_by_quadrature(confidence, correct, width):
    """The definition: Gaussians and their mirror images, the absolute value integrated."""
    c, r = confidence.numpy(), (correct.double() - confidence).numpy() / len(confidence)
    images = np.concatenate([2 * k + sign * c for k in range(-4, 5) for sign in (1, -1)])
    weights = np.tile(r, 18)

    def height(t):
        return abs(float(weights @ stats.norm.pdf(t, images, width)))

    grid = np.linspace(0, 1, 41)
    return sum(integrate.quad(height, *ends)[0] for ends in itertools.pairwise(grid))


@pytest.mark.parametrize("power", [0.3, 3.0])
def test_smooth_error_is_its_own_bandwidth(power):
    confidence, correct = forecaster(count=40, power=power, seed=3)
    confidence[:5] = 1.0
    result = calibration.smooth_calibration_error(confidence, correct)
    assert smooth_by_quadrature(confidence, correct, result) == pytest.approx(result, rel=1e-6)


@pytest.mark.parametrize("stated", [0.0, 0.3, 0.85, 1.0])
@pytest.mark.parametrize("hits", [0, 60, 100])
def test_smooth_error_of_one_stated_value_is_the_gap(stated, hits):
    confidence = torch.full((100,), stated, dtype=torch.float64)
    result = calibration.smooth_calibration_error(confidence, torch.arange(100) < hits)
    assert result == pytest.approx(abs(hits / 100 - stated), abs=1e-9)


@pytest.mark.parametrize("error", ERRORS)
def test_certain_and_right_is_perfect_certain_and_wrong_is_worst(error):
    confidence = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert error(confidence, confidence > 0.5) == 0.0
    assert error(torch.ones(4), torch.zeros(4).bool()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("error", ERRORS)
def test_errors_distinguish_three_forecasters(error):
    """Calibrated below 0.03 at 3000 examples (about 0.009 expected), the others far above."""
    calibrated, over, under = (error(*forecaster(power=p)) for p in (1.0, 4.0, 0.2))
    assert calibrated < 0.03
    assert over > 0.08
    assert under > 0.08


@pytest.mark.parametrize("error", ERRORS)
@given(st.permutations(range(30)))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_the_order_of_examples_does_not_matter(error, order):
    confidence, correct = forecaster(count=30, power=2.0)
    index = torch.tensor(order)
    assert error(confidence[index], correct[index]) == pytest.approx(
        error(confidence, correct), abs=1e-12
    )


@pytest.mark.parametrize("error", ERRORS[::2])
def test_doubling_every_example_changes_nothing(error):
    confidence, correct = forecaster(count=300, power=2.0)
    doubled = error(confidence.repeat(2), correct.repeat(2))
    assert doubled == pytest.approx(error(confidence, correct), abs=1e-12)


def test_half_a_million_float32_values():
    """Sums in float32 would lose digits; here they are exact."""
    generator = torch.Generator().manual_seed(0)
    # Multiples of 2^-20: float32 holds them, and Python's integers the sums.
    steps = torch.randint(2**19, 2**20, (500_000,), generator=generator)
    confidence = (steps / 2**20).float()
    correct = torch.rand(500_000, generator=generator) < confidence + 3e-4
    result = calibration.expected_calibration_error(confidence, correct)
    index = (steps * 15 + 2**20 - 1) // 2**20 - 1
    hits = np.bincount(index, weights=correct, minlength=15)
    sums = np.bincount(index, weights=steps, minlength=15) / 2**20
    assert result == pytest.approx(np.abs(hits - sums).sum() / 500_000, rel=1e-10)


def test_logits_are_refused():
    for error in ERRORS:
        with pytest.raises(ValueError, match="softmax"):
            error(torch.tensor([0.2, 1.7]), torch.tensor([True, False]))


def gap_by_quadrature(pit):
    def height(u):
        return abs(float((pit <= u).mean()) - u)

    ends = np.unique(np.concatenate([[0.0], pit, [1.0]]))
    pairs = itertools.pairwise(ends)
    return sum(integrate.quad(height, a, b, points=[(a + b) / 2])[0] for a, b in pairs)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_quantile_error_agrees_with_quadrature(steps):
    pit = np.array(steps) / 12
    result = calibration.quantile_calibration_error(torch.from_numpy(pit))
    assert result == pytest.approx(gap_by_quadrature(pit), abs=1e-7)
    assert 1 / (4 * len(pit)) - 1e-12 <= result <= 0.5


def test_quantile_error_agrees_with_a_fine_grid():
    pit = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
    grid = (np.arange(200_000) + 0.5) / 200_000
    heights = np.searchsorted(np.sort(pit.numpy()), grid, side="right") / 50
    result = calibration.quantile_calibration_error(pit)
    assert result == pytest.approx(np.abs(heights - grid).mean(), abs=1e-6)


def test_quantile_error_in_closed_form():
    for count in (1, 4, 1000):
        even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        result = calibration.quantile_calibration_error(even.flip(0))
        # Heights k / count in float32 would be off by 1e-8.
        assert result == pytest.approx(1 / (4 * count), rel=1e-10)
    assert calibration.quantile_calibration_error(torch.full((3,), 0.4, dtype=torch.float64)) == (
        pytest.approx((0.4**2 + 0.6**2) / 2, rel=1e-14)
    )
    # U^2 has the distribution function sqrt(u): the integral of sqrt(u) - u is 1/6.
    squared = ((torch.arange(100_000).double() + 0.5) / 100_000) ** 2
    result = calibration.quantile_calibration_error(squared)
    assert result == pytest.approx(1 / 6, abs=1e-5)


def test_quantile_error_distinguishes_three_forecasters():
    """Targets N(0, 1), stated deviations 1, 1/2 and 2; 4000 examples, noise about 0.005."""
    targets = torch.randn(4000, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    right, over, under = (
        calibration.quantile_calibration_error(torch.special.ndtr(targets / s))
        for s in (1.0, 0.5, 2.0)
    )
    assert right < 0.02
    assert over > 0.05
    assert under > 0.05


def test_pit_band_holds_the_whole_curve():
    """2000 samples of 30 at 90%."""
    generator = torch.Generator().manual_seed(6)
    pits = torch.rand(2000, 30, generator=generator, dtype=torch.float64).sort(1).values
    ranks = torch.arange(30) / 30
    distance = torch.maximum((pits - ranks).amax(1), (ranks + 1 / 30 - pits).amax(1))
    covered = float((distance <= calibration.pit_band(30, level=0.9)).double().mean())
    assert abs(covered - 0.9) < DEVIATIONS * math.sqrt(0.09 / 2000)


def test_pit_band_in_two_limits():
    # One value u strays by max(u, 1 - u), which is below w with probability 2 w - 1.
    assert calibration.pit_band(1, level=0.9) == pytest.approx(0.95, rel=1e-10)
    # And the bound of Dvoretzky, Kiefer, Wolfowitz and Massart is sharp for many.
    for count, rel in ((100, 0.03), (100_000, 1e-3)):
        bound = math.sqrt(math.log(2 / 0.05) / (2 * count))
        band = calibration.pit_band(count)
        assert band <= bound
        assert band == pytest.approx(bound, rel=rel)


def test_half_precision_is_summed_in_float64():
    confidence = torch.full((5000,), 0.75, dtype=torch.float16)
    correct = torch.arange(5000) < 3000
    for error in ERRORS[::2]:
        assert error(confidence, correct) == pytest.approx(0.15, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, y: calibration.expected_calibration_error(c, y, norm="l2", bins=0), "1 bin"),
        (lambda c, y: calibration.expected_calibration_error(c, y, debiased=True), "norm 'l2'"),
        (lambda c, y: calibration.smooth_calibration_error(c * math.nan, y), "2 NaN"),
        (lambda c, y: calibration.quantile_calibration_error(c + 1), "expected pit from 0 to 1"),
        (lambda c, y: calibration.quantile_calibration_error(c[:0]), "at least one value"),
        (lambda c, y: calibration.pit_band(0), "count of at least 1"),
        (
            lambda c, y: calibration.classwise_calibration_error(
                torch.full((2, 2), 0.5), y.long(), bins=0
            ),
            "1 bin",
        ),
        (lambda c, y: calibration.pit_band(5, level=0.0), "expected level strictly between"),
        (
            lambda c, y: calibration.classwise_calibration_error(torch.ones(2, 2), y.long()),
            "sum to 1",
        ),
        (
            lambda c, y: calibration.classwise_calibration_error(torch.ones(2, 1), y.long()),
            "labels from 0 to 0",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([0.5, 0.7]), torch.tensor([True, False]))


def test_unknown_options_are_refused():
    # Unwrapped, because the type checks of the test run would refuse them first.
    error = inspect.unwrap(calibration.expected_calibration_error)
    data = torch.tensor([0.5]), torch.tensor([True])
    for options in ({"norm": "l3"}, {"binning": "size"}):
        with pytest.raises(ValueError, match="choose one of each"):
            error(*data, **options)


def test_correct_that_is_not_bool_is_refused():
    with pytest.raises(TypeError, match=r"Bool|torch.bool"):
        calibration.expected_calibration_error(torch.tensor([0.5]), torch.tensor([1]))


def test_float32_and_float64_agree_where_both_hold_the_values():
    confidence = torch.tensor([0.5, 0.75, 1.0])
    correct = torch.tensor([True, False, True])
    both = [
        torch.tensor([error(c, correct) for error in ERRORS])
        for c in (confidence, confidence.double())
    ]
    assert_close(both[0], both[1], rtol=0, atol=0)
