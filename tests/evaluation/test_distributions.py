"""Quantiles and rank correlations by special functions against scipy.stats."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from mcbn.evaluation import distributions, significance

pytestmark = pytest.mark.unchecked


@pytest.fixture
def generator():
    return np.random.default_rng(5)


@pytest.mark.parametrize("level", [1e-6, 0.025, 0.5, 0.95, 1 - 1e-6])
def test_binomial_quantiles_are_those_of_scipy(generator, level):
    count = generator.integers(0, 3000, 4000)
    probability = generator.random(4000)
    probability[:4] = [0, 1, np.nan, 1e-12]
    count[4:60] = 0
    count[60:120] = 1
    found = distributions.binomial_quantile(level, count, probability)
    np.testing.assert_array_equal(found, stats.binom.ppf(level, count, probability))


def test_a_binomial_quantile_has_its_level_exactly(generator):
    """At a level that k successes have to the last bit, the quantile is k, and beyond it k + 1."""
    for _ in range(300):
        count = int(generator.integers(2, 2000))
        chance = float(generator.uniform(0.05, 0.95))
        hits = int(stats.binom.median(count, chance))
        level = float(stats.binom.cdf(hits, count, chance))
        if level == special.bdtr(hits, count, chance) < 1:
            assert distributions.binomial_quantile(level, count, chance) == hits
            assert distributions.binomial_quantile(level + 1e-6, count, chance) == hits + 1


def test_the_beta_binomial_is_that_of_scipy(generator):
    for _ in range(200):
        count, alpha, beta = (int(each) for each in generator.integers(1, 400, 3))
        hits = int(generator.integers(0, count + 1))
        found = distributions.beta_binomial_cdf(hits, count, alpha, beta)
        assert found == pytest.approx(stats.betabinom.cdf(hits, count, alpha, beta), rel=1e-9)
    assert distributions.beta_binomial_cdf(7, 7, 2, 3) == pytest.approx(1, abs=1e-12)
    # Equally likely counts: (k + 1) / (n + 1).
    assert distributions.beta_binomial_cdf(2, 9, 1, 1) == pytest.approx(0.3, rel=1e-12)


@pytest.mark.parametrize("levels", [3, 40, 100_000])
def test_rank_correlations_are_those_of_scipy_with_and_without_ties(generator, levels):
    first = torch.from_numpy(generator.integers(0, levels, 500).astype(float))
    second = first + torch.from_numpy(generator.integers(0, levels, 500).astype(float))
    wanted = stats.spearmanr(first, second).statistic
    assert distributions.spearman(first, second) == pytest.approx(wanted, abs=1e-12)
    assert distributions.spearman(first, -first) == pytest.approx(-1, abs=1e-12)


def test_a_rank_correlation_with_a_constant_is_not_defined():
    assert np.isnan(distributions.spearman(torch.arange(5.0), torch.ones(5)))


@pytest.mark.parametrize(("few", "many", "shift"), [(2, 3, 0.0), (5, 80, 0.4), (400, 30, 3.0)])
def test_welch_is_that_of_scipy(generator, few, many, shift):
    first = torch.from_numpy(generator.normal(size=few))
    second = torch.from_numpy(generator.normal(shift, 3.0, size=many))
    wanted = stats.ttest_ind(first, second, equal_var=False).pvalue
    assert significance.welch(first, second) == pytest.approx(wanted, rel=1e-9)
