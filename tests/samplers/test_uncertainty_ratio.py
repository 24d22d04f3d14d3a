"""Ratios of uncertainties: against scipy and numpy, and how often the interval has the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

from mcbn.samplers.uncertainty_ratio import (
    UncertaintyRatio,
    chosen_uncertainty,
    paired_ratio,
    parts,
    ratio_to,
)

SHAPES = [(5, 3, 4), (2, 1, 2), (6, 2, 3, 2), (4, 2, 5, 2, 3)]


def drawn(shape, seed=0, scale=3.0):
    values = np.random.default_rng(seed).normal(size=shape) * scale
    return torch.from_numpy(values)


def gammas(pairs, draws, seed=0):
    """Skewed parts with something in common; the ratio of their means is 0.8."""
    generator = np.random.default_rng(seed)
    common = generator.gamma(2.0, size=(pairs, draws))
    approximate = 0.8 * (0.7 * common + 0.3 * generator.gamma(2.0, size=(pairs, draws)))
    return torch.from_numpy(approximate), torch.from_numpy(common)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_of_the_parts_is_the_mutual_information_of_scipy(shape):
    logits = drawn(shape)
    p = special.softmax(logits.numpy(), axis=2)
    expected = stats.entropy(p.mean(0), axis=1) - stats.entropy(p, axis=2).mean(0)
    actual = parts(logits, "mutual information")
    assert actual.shape == shape[:1]
    assert actual.mean().item() == pytest.approx(expected.mean(), rel=1e-12)
    assert actual.min() > 0


def test_each_part_is_the_divergence_from_the_mean():
    logits = drawn((5, 3, 4))
    p = special.softmax(logits.numpy(), axis=2)
    expected = stats.entropy(p, np.broadcast_to(p.mean(0), p.shape), axis=2).mean(1)
    assert_close(parts(logits, "mutual information").numpy(), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", [*SHAPES, (7, 3)])
def test_the_mean_of_the_parts_is_the_variance_of_numpy(shape):
    outputs = drawn(shape) + 4
    expected = outputs.numpy().var(0).mean()
    assert parts(outputs, "variance").mean().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("of", ["mutual information", "variance"])
def test_equal_draws_have_no_uncertainty(of, dtype):
    """Not even that of rounding; thirds of 1,000, the mean of which is rounded."""
    same = (drawn((1, 4, 3), scale=1000.0) / 3).to(dtype).expand(7, -1, -1)
    assert_close(parts(same, of), torch.zeros(7).double(), rtol=0, atol=0)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[1000.0, 0.0, -1000.0]], [[0.0, 1000.0, -1000.0]]])
    assert_close(parts(logits, "mutual information"), torch.full((2,), math.log(2)).double())


@pytest.mark.unchecked
@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_has_the_true_ratio_nearly_always(paired):
    """In 95% of cases; with 64 skewed draws in 91% at least. Of 400, 3 standard errors are 3.8%."""
    cases = zip(*gammas(400, 64), strict=True)
    # That of independent draws is the interval for a reference that is known.
    known = torch.full((64,), 2.0).double()
    found = [
        paired_ratio(a, e, "variance") if paired else ratio_to(a, known, "variance")
        for a, e in cases
    ]
    covered = np.mean([r.low <= 0.8 <= r.high for r in found])
    assert 0.91 - 0.038 < covered < 0.95 + 0.038


def test_the_width_is_that_of_the_delta_method():
    """For 2,000 draws the ratio is normal; 1,000 resamples give the width to some 10%."""
    approximate, exact = (rows[0] for rows in gammas(1, 2000))
    ratio = paired_ratio(approximate, exact, "variance")
    value = (approximate.mean() / exact.mean()).item()
    assert ratio.value == pytest.approx(value, rel=1e-12)
    error = ((approximate - value * exact).std() / exact.mean() / 2000**0.5).item()
    assert (ratio.high - ratio.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_pairs_that_agree_leave_no_doubt():
    exact = gammas(1, 30)[1][0]
    ratio = paired_ratio(0.9 * exact, exact, "variance")
    actual = torch.tensor([ratio.value, ratio.low, ratio.high])
    assert_close(actual, torch.full((3,), 0.9), rtol=1e-6, atol=0)
    assert ratio.trusted


@pytest.mark.unchecked
def test_numbers_of_draws_that_differ_do_not_bias_the_ratio():
    """Samples of 3 and of 40,000 of one distribution; in the mean of 2,000, 5 standard errors."""
    many = parts(drawn((40_000, 1, 1)), "variance")
    few = [parts(rows, "variance") for rows in drawn((2000, 3, 1, 1), seed=1)]
    values = torch.tensor([ratio_to(each, many, "variance").value for each in few])
    assert values.mean().item() == pytest.approx(1, abs=5 * values.std().item() / 2000**0.5)


def test_nothing_that_varies_is_no_error_and_one_alone_that_varies_is():
    zero, some = torch.zeros(5).double(), torch.ones(5).double()
    both, only_exact, only_linear = (
        paired_ratio(a, e, "variance") for a, e in ((zero, zero), (zero, some), (some, zero))
    )
    assert (both.value, both.low, both.high) == (1, 1, 1)
    assert both.verdict == "Trusted"
    assert (only_exact.value, only_exact.verdict) == (0, "Not to be trusted")
    assert (only_linear.value, only_linear.low, only_linear.high) == (math.inf,) * 3
    assert only_linear.verdict == "Not to be trusted"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.85, 1.15, "Trusted"),
        (0.84, 1.0, "Undecided"),
        (1.0, 1.16, "Undecided"),
        (0.5, 2.0, "Undecided"),
        (0.5, 0.84, "Not to be trusted"),
        (1.16, 9.0, "Not to be trusted"),
        (math.nan, math.nan, "Not to be trusted"),
        (0.9, math.nan, "Not to be trusted"),
    ],
)
def test_the_whole_interval_decides(low, high, verdict):
    ratio = UncertaintyRatio("variance", 1.0, low, high)
    assert ratio.verdict == verdict
    assert ratio.trusted == (verdict == "Trusted")


def test_the_uncertainty_is_chosen_by_the_outputs():
    logits = drawn((50, 3))
    assert chosen_uncertainty(None, logits) == "mutual information"
    assert chosen_uncertainty(None, logits.softmax(1)) == "variance"
    assert chosen_uncertainty(None, logits.sigmoid()) == "variance"
    assert chosen_uncertainty(None, logits[:, :1]) == "variance"
    assert chosen_uncertainty(None, logits[:, 0]) == "variance"
    assert chosen_uncertainty("variance", logits) == "variance"
    with pytest.raises(ValueError, match=r'at least 2 classes, got \(50, 1\); give of="variance"'):
        chosen_uncertainty("mutual information", logits[:, :1])
