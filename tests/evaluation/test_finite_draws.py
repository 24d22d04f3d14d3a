"""Bias and Monte Carlo error of a finite number of draws: against enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from mcbn.evaluation.finite_draws import (
    DrawError,
    draw_error,
    extrapolated_nll,
    left_out,
    mutual_information_factor,
    target_logs,
)
from mcbn.predictive.categorical import Categorical

CHANCES = (0.5, 0.3, 0.2)
VALUES = (0.9, 0.6, 0.3)  # probability of the target by a draw of each kind


def logits(draws, rows=5, classes=4, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(draws, rows, classes, generator=generator).double()


def expected(function, draws):
    """The expectation over all sequences of draws, by how many there are of each kind."""
    total = 0.0
    for counts in itertools.product(range(draws + 1), repeat=3):
        if sum(counts) == draws:
            chance = stats.multinomial.pmf(counts, draws, CHANCES)
            kinds = np.repeat(VALUES, counts)
            total += chance * function(torch.from_numpy(kinds).log()[:, None])
    return total


def mean_loss(logs):
    return float(math.log(len(logs)) - logs.logsumexp(0).mean())


def test_logs_of_the_targets_are_those_of_the_predictive_of_each_draw():
    draws, targets = logits(3), torch.tensor([0, 1, 2, 3, 0])
    found = target_logs(draws, targets)
    for one, row in zip(draws, found, strict=True):
        known = Categorical(outputs="logits").summarize([one]).log_probabilities
        assert_close(row, known[torch.arange(5), targets], rtol=0, atol=1e-14)


def test_logs_of_positions():
    draws = logits(3, rows=24).reshape(3, 2, 4, 3, 4)
    targets = torch.arange(24).reshape(2, 3, 4) % 4
    found = target_logs(draws, targets)
    assert found.shape == (3, 2, 3, 4)
    assert_close(found[1, 1, 2, 3], draws[1, 1].log_softmax(0)[targets[1, 2, 3], 2, 3])


@pytest.mark.parametrize("draws", [2, 3, 7])
def test_each_draw_left_out_is_the_average_of_the_others(draws):
    logs = target_logs(logits(draws), torch.zeros(5).long())
    naive = [-torch.cat([logs[:t], logs[t + 1 :]]).exp().mean(0).log() for t in range(draws)]
    assert_close(left_out(logs), torch.stack(naive), rtol=1e-13, atol=0)


def test_one_draw_that_outweighs_all_others_loses_no_digits():
    logs = torch.tensor([[-1e-3], [-60.0], [-61.0]]).double()
    first = left_out(logs)[0]
    assert_close(first, -torch.tensor([-60.0, -61.0]).double().logsumexp(0)[None] + math.log(2))


def test_the_extrapolated_loss_is_right_to_second_order():
    """Its bias falls as 1/T^2, and that of the loss itself as 1/T; by enumeration of all draws."""
    limit = -math.log(np.dot(CHANCES, VALUES))
    sizes = (16, 32)
    plain, mended = (
        [expected(function, draws) - limit for draws in sizes]
        for function in (mean_loss, lambda logs: float(extrapolated_nll(logs).mean()))
    )
    rates = [math.log(gaps[1] / gaps[0], 2) for gaps in (plain, mended)]
    assert rates[0] == pytest.approx(-1, abs=0.05)
    assert rates[1] == pytest.approx(-2, abs=0.1)
    assert abs(mended[1]) < abs(plain[1]) / 20


def test_a_single_draw_keeps_its_loss():
    logs = target_logs(logits(1), torch.zeros(5).long())
    assert_close(extrapolated_nll(logs), -logs[0], rtol=0, atol=0)
    assert draw_error(logs) == DrawError(1, 0.0, 0.0)


def test_equal_draws_have_neither_bias_nor_error():
    logs = target_logs(logits(1).expand(6, -1, -1), torch.zeros(5).long())
    found = draw_error(logs)
    assert abs(found.bias) < 1e-14
    assert found.error < 1e-14
    assert_close(extrapolated_nll(logs), -logs[0], rtol=0, atol=1e-14)


def test_bias_and_error_are_those_of_the_jackknife():
    logs = target_logs(logits(6), torch.zeros(5).long())
    probabilities = logs.exp().numpy()
    whole = -np.log(probabilities.mean(0)).mean()
    parts = [-np.log(np.delete(probabilities, t, 0).mean(0)).mean() for t in range(6)]
    found = draw_error(logs)
    assert found.bias == pytest.approx(5 * (np.mean(parts) - whole), rel=1e-12)
    assert found.error == pytest.approx(math.sqrt(5 * np.var(parts)), rel=1e-12)
    assert float(extrapolated_nll(logs).mean()) == pytest.approx(whole - found.bias, rel=1e-12)


def test_the_error_is_the_spread_of_the_loss_over_other_draws():
    """Root mean square of 400 errors against the standard deviation of 400 losses."""
    logs = target_logs(logits(400 * 16, scale=0.7), torch.zeros(5).long()).reshape(400, 16, 5)
    losses = torch.tensor([mean_loss(each) for each in logs]).double()
    errors = torch.tensor([draw_error(each).error for each in logs]).double()
    spread = losses.std()
    # The standard error of a standard deviation of 400 is 1/sqrt(800) of it; six of them.
    assert abs(errors.square().mean().sqrt() / spread - 1) < 6 / math.sqrt(800)


def test_of_a_difference_biases_subtract_and_errors_add():
    first = target_logs(logits(6), torch.zeros(5).long())
    second = target_logs(logits(9, seed=1), torch.zeros(5).long())
    found, one, other = draw_error(first, second), draw_error(first), draw_error(second)
    assert found.bias == pytest.approx(one.bias - other.bias)
    assert found.error == pytest.approx(math.hypot(one.error, other.error))
    assert found.draws == 9


@pytest.mark.parametrize(("bias", "error"), [(0.03, 0.0), (0.0, 0.03), (0.02, 0.01), (-0.02, 0.01)])
def test_draws_that_are_enough(bias, error):
    """At that number the distance is no more than asked for; at one less it is more."""
    found = DrawError(16, bias, error)
    needed = found.draws_for(0.004)

    def distance(draws):
        ratio = 16 / draws
        return math.hypot(ratio * bias, math.sqrt(ratio) * error)

    assert distance(needed) <= 0.004 * (1 + 1e-12) < distance(needed - 1) * (1 + 1e-9)


def test_draws_are_enough_where_nothing_is_wrong():
    assert DrawError(16, 0.0, 0.0).draws_for(0.1) == 16


def test_the_factor_of_mutual_information_is_right_to_second_order():
    """By enumeration: a class of probability .5 +- d, whose mutual information is 2 d^2 at most."""
    shift, draws = 0.02, 4
    chances = torch.tensor([[0.5 + shift, 0.5 - shift], [0.5 - shift, 0.5 + shift]]).double()
    limit = math.log(2) - float(-(chances[0] * chances[0].log()).sum())
    found = 0.0
    for kinds in itertools.product(range(2), repeat=draws):
        rows = chances[list(kinds)].log()[:, None]
        found += float(Categorical(outputs="logits").summarize(rows).mutual_information) / 2**draws
    assert found * mutual_information_factor(draws) == pytest.approx(limit, rel=1e-3)
    assert found / limit == pytest.approx(3 / 4, rel=1e-3)
    assert math.isnan(mutual_information_factor(1))
    assert math.isnan(mutual_information_factor(0))
