"""What rounding does to an answer, by explicit jackknives and by repetition."""

import math

import numpy as np
import pytest
import torch
from scipy.special import entr
from scipy.special import softmax as softmax_of

from mcbn.samplers.rounding_error import MAX_PLACES, RoundingError, rounding_error


def drawn(seed=0, draws=12, examples=6, classes=3, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    centre = 2 * torch.randn(examples, classes, generator=generator)
    return centre + spread * torch.randn(draws, examples, classes, generator=generator)


def information(logits):
    p = softmax_of(logits, -1)
    return entr(p.mean(0)).sum(-1) - entr(p).sum(-1).mean(0)


def jackknifed(values, statistic):
    """Monte Carlo variance of a statistic of draws, by leaving out one after another."""
    count = len(values)
    without = np.stack([statistic(np.delete(values, t, 0)) for t in range(count)])
    return (count - 1) / count * ((without - without.mean(0)) ** 2).sum(0)


MEANS = {
    "outputs": lambda rows: rows.mean(0),
    "spread": lambda rows: rows.std(0, ddof=1),
    "probabilities": lambda rows: softmax_of(rows, -1).mean(0),
    "information": lambda rows: information(rows)[:, None],
}


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("draws", [12, 48])
def test_each_error_is_its_share_of_an_explicit_jackknife(name, draws):
    exact = drawn().double()
    rounded = exact.bfloat16().double()
    statistic = MEANS[name]
    errors = (statistic(rounded.numpy()) - statistic(exact.numpy())) ** 2
    variances = jackknifed(exact.numpy(), statistic) * 12 / draws
    expected = math.sqrt((errors.mean(0) / variances.mean(0)).mean())
    found = rounding_error(exact, rounded, draws)
    assert getattr(found, name) == pytest.approx(expected, rel=1e-9)
    assert found.largest >= getattr(found, name)


def test_the_jackknife_gives_the_error_of_repeated_runs():
    """The mean over many runs of 40 draws moves as much as one run says: to 15%."""
    generator = torch.Generator().manual_seed(0)
    runs = torch.randn(200, 40, 50, 3, generator=generator)
    moved = runs.mean(1).std()
    found = rounding_error(runs[0], runs[0] + float(moved), 40)
    assert found.outputs == pytest.approx(1, rel=0.15)


def test_outputs_of_any_scale_count_alike():
    exact = drawn()
    rounded = exact.bfloat16().float()
    scale = torch.tensor([1.0, 1024.0, 2.0**-10])
    one, other = (rounding_error(exact * s, rounded * s, 12) for s in (1.0, scale))
    assert (other.outputs, other.spread) == pytest.approx((one.outputs, one.spread), rel=1e-9)


def test_nothing_rounded_is_no_error_and_any_rounding_of_equal_draws_is_too_much():
    exact = drawn()
    assert rounding_error(exact, exact.clone(), 12) == RoundingError(0.0, 0.0, 0.0, 0.0)
    equal = exact[:1].expand(5, -1, -1)
    assert rounding_error(equal, equal.bfloat16().float(), 12).largest == math.inf


def test_one_column_has_no_classes():
    exact = drawn(classes=1)
    found = rounding_error(exact, exact.bfloat16().float(), 12)
    assert found.outputs > 0
    assert (found.probabilities, found.information) == (0, 0)


def test_probabilities_are_taken_as_they_are():
    logits = drawn()
    exact, rounded = logits.softmax(-1), logits.bfloat16().float().softmax(-1)
    by_logits = rounding_error(logits, logits.bfloat16().float(), 12)
    found = rounding_error(exact, rounded, 12)
    assert found.information == pytest.approx(by_logits.information, rel=1e-3)


def test_a_class_that_is_ruled_out_in_both_counts_for_nothing():
    exact = drawn()
    rounded = exact.bfloat16().float()
    ruled, out = exact.clone(), rounded.clone()
    ruled[..., 0] = out[..., 0] = -math.inf
    found = rounding_error(ruled, out, 12)
    alone = rounding_error(exact[..., 1:], rounded[..., 1:], 12)
    assert found.information == pytest.approx(alone.information, rel=1e-9)
    assert math.isfinite(found.largest)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_cannot_be_compared_is_none(value):
    exact = drawn()
    rounded = exact.clone()
    rounded[3, 1, 1] = value
    assert rounding_error(exact, rounded, 12) is None
    assert rounding_error(exact, exact[:, :4], 12) is None
    assert rounding_error(exact[:1], exact[:1], 12) is None


def test_maps_are_compared_at_some_of_their_positions():
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(4, 2, 3, 64, 64, generator=generator)
    few = exact.flatten(3).movedim(2, -1).reshape(4, -1, 3)
    kept = torch.linspace(0, few.shape[1] - 1, MAX_PLACES).long()
    rounded = exact.bfloat16().float()
    expected = rounding_error(few[:, kept], few.bfloat16().float()[:, kept], 4)
    assert rounding_error(exact, rounded, 4) == expected
