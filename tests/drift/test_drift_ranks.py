"""P values by ranks and the bets on them, against enumeration, integrals and simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mcbn.drift import ranks
from mcbn.drift.martingale import BETS, JUMP, Jumper, reachable
from mcbn.drift.ranks import rank_sum_p_value, required_calibration, smoothed_rank


def enumerated(calibration, observed):
    """The share of choices of the observed among all values with a rank sum of at least theirs.

    Of equal values the observed ones are ranked lower.
    """
    values = [(v, 0) for v in observed] + [(v, 1) for v in calibration]
    order = sorted(range(len(values)), key=lambda k: values[k])
    rank = {k: place for place, k in enumerate(order)}
    count = len(observed)
    found = sum(rank[k] for k in range(count))
    sums = [sum(chosen) for chosen in itertools.combinations(range(len(values)), count)]
    return sum(each >= found for each in sums) / len(sums)


@pytest.mark.parametrize(("draws", "batches"), [(1, 1), (6, 1), (5, 2), (4, 4), (7, 3), (2, 6)])
@pytest.mark.parametrize("tied", [False, True])
def test_the_p_value_is_the_share_of_all_choices(draws, batches, tied):
    chance = np.random.default_rng(draws + 10 * batches)
    for _ in range(30):
        if tied:
            values = chance.integers(0, 4, draws + batches).astype(float)
        else:
            values = chance.normal(size=draws + batches)
        calibration, observed = values[:draws], values[draws:]
        p_value = rank_sum_p_value(torch.tensor(calibration), torch.tensor(observed))
        assert p_value == pytest.approx(enumerated(calibration, observed), abs=1e-12)
        if not tied:
            test = stats.mannwhitneyu(observed, calibration, alternative="greater", method="exact")
            assert p_value == pytest.approx(test.pvalue, abs=1e-12)
        if batches == 1:
            conformal = (1 + (calibration >= observed[0]).sum()) / (draws + 1)
            assert p_value == pytest.approx(conformal, abs=1e-12)


def test_ties_never_lower_a_p_value():
    chance = np.random.default_rng(0)
    for _ in range(50):
        values = torch.tensor(chance.integers(0, 3, 8).astype(float))
        broken = values + torch.tensor(chance.uniform(0, 0.1, 8))
        tied = rank_sum_p_value(values[:5], values[5:])
        assert tied >= rank_sum_p_value(broken[:5], broken[5:]) - 1e-12


def test_the_normal_distribution_takes_over_where_counting_would_be_long(monkeypatch):
    chance = torch.Generator().manual_seed(0)
    values = torch.randn(200, generator=chance, dtype=torch.float64)
    for shift in (0.0, 0.2, 0.4):
        observed = values[100:] + shift
        exact = rank_sum_p_value(values[:100], observed)
        with monkeypatch.context() as context:
            context.setattr(ranks, "MAX_EXACT_PAIRS", 9_999)
            near = rank_sum_p_value(values[:100], observed)
        test = [stats.mannwhitneyu(observed, values[:100], alternative="greater", method=method)
                for method in ("exact", "asymptotic")]  # fmt: skip
        assert (exact, near) == pytest.approx([each.pvalue for each in test], abs=1e-9)
        assert 0 < abs(exact - near) < 1e-3


@pytest.mark.parametrize("batches", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01])
def test_the_draws_that_are_asked_for_are_just_enough(alpha, batches):
    draws = required_calibration(alpha, batches)
    smallest = [
        rank_sum_p_value(torch.zeros(n), torch.arange(1.0, batches + 1))
        for n in (draws, draws - 1)
        if n
    ]
    assert smallest[0] <= alpha * (1 + 1e-9)
    assert all(p > alpha for p in smallest[1:])


def test_a_smoothed_rank_is_uniform_whatever_the_values():
    """Of every place of a value among others, ties included, the tie-breakers fill [0, 1]."""
    for values in ([3.0, 1.0, 2.0, 5.0], [1.0, 1.0, 2.0, 2.0], [4.0] * 4):
        whole = torch.tensor(values)
        found = [
            smoothed_rank(torch.cat([whole[:k], whole[k + 1 :]]), values[k], tie)
            for k in range(4)
            for tie in (np.arange(400) + 0.5) / 400
        ]
        assert stats.kstest(found, "uniform").statistic < 0.002


def streams(count, draws, length, *, seed=0, shift=0.0):
    """Smoothed ranks of streams, each among its calibration and all before."""
    chance = np.random.default_rng(seed)
    values = chance.gamma(2.0, size=(count, draws + length))
    values[:, draws:] += shift
    ties = chance.random((count, length))
    return np.array([
        [smoothed_rank(row[:draws + t], float(row[draws + t]), tie[t]) for t in range(length)]
        for row, tie in zip(torch.tensor(values), ties, strict=True)
    ])  # fmt: skip


def test_p_values_of_a_stream_are_uniform_and_independent():
    p_values = streams(2000, 9, 6)
    for step in p_values.T:
        assert stats.kstest(step, "uniform").pvalue > 0.001
    correlations = np.corrcoef(p_values.T)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 4 / math.sqrt(2000)
    # The sum of all is spread as that of independent ones, as of a fixed calibration it is not.
    assert p_values.sum(1).var() == pytest.approx(6 / 12, rel=0.1)


@pytest.mark.parametrize("bet", BETS)
def test_a_bet_pays_one_on_average(bet):
    assert integrate.quad(bet, 0, 1)[0] == pytest.approx(1, abs=1e-7)
    assert all(bet(p) >= bet(p + 0.1) for p in np.linspace(0.01, 0.9, 9))


def test_wealth_keeps_its_mean_at_every_step():
    jumper = Jumper()
    assert jumper.total == pytest.approx(1)
    for p_value in (0.3, 0.01, 0.9, 0.002):
        jumper = jumper.bet(p_value)
        mean = integrate.quad(lambda p, now=jumper: now.bet(p).total, 0, 1)[0]
        assert mean == pytest.approx(jumper.total, rel=1e-7)


def wealth(p_values):
    """The same wealth, as a product of matrices."""
    mixing = (1 - JUMP) * np.eye(3) + JUMP / 3
    state, found = np.full(3, 1 / 3), []
    for p in p_values:
        state = np.diag([1, 2 - 2 * p, p**-0.5 / 2]) @ mixing @ state
        found.append(state.sum())
    return np.array(found)


def test_wealth_is_that_of_a_product_of_matrices():
    p_values = np.random.default_rng(1).random(30) ** 2
    jumper, found = Jumper(), []
    for p in p_values:
        jumper = jumper.bet(p)
        found.append(jumper.total)
    np.testing.assert_allclose(found, wealth(p_values), rtol=1e-12)


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_few_streams_without_drift_ever_reach_an_alarm(count):
    """Ville's inequality: at most alpha, in e values that may be looked at after every step."""
    evidence = np.array([wealth(row) for row in streams(count, 19, 40, seed=2)])
    for alpha in (0.2, 0.05):
        share = (evidence.max(1) >= 1 / alpha).mean()
        assert share <= alpha + 2 * math.sqrt(alpha / count)
        assert share > 0  # or the bound would say nothing
    # Cut off, since the mean of the rest hangs on a few streams.
    assert np.minimum(evidence, 50).mean(0).max() < 1 + 4 * 2 / math.sqrt(count)


def test_drift_is_seen_soon_after_it_begins():
    evidence = np.array([wealth(row) for row in streams(100, 32, 15, seed=3, shift=8.0)])
    assert ((evidence >= 100).any(1)).all()


@pytest.mark.parametrize("draws", [5, 8, 19])
def test_what_is_reachable_is_the_wealth_of_a_total_drift(draws):
    p_values = [t / 2 / (draws + t) for t in range(1, 2 * draws + 1)]
    assert reachable(draws) == pytest.approx(wealth(p_values).max())
