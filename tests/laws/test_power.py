"""Power of the statistical tests: no false alarm on fresh seeds, and planted errors are detected.

The threshold is `law.ALPHA`, one in a thousand million. A planted error has to be detected in each
of 1,000 repetitions: at the 95% level its chance of being missed is then below 0.003, and by the
margins far smaller.
"""

import ast
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from law import ALPHA, COMPARISONS, FALSE_ALARMS, MAX_COMPARISONS, holds
from scipy import stats
from torch import nn

import mcbn

SIZE, DRAWS, INPUT = 4, 1000, 0.7  # M, T, and the input of the unit
POPULATION = 64


def test_every_file_that_compares_with_chance_is_listed():
    files = set()
    tests = Path(__file__).parents[1]
    for path in tests.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "law":
                files.add(path.relative_to(tests).as_posix())
    assert files == set(COMPARISONS)
    assert sum(COMPARISONS.values()) <= MAX_COMPARISONS
    assert pytest.approx(FALSE_ALARMS) == ALPHA * MAX_COMPARISONS


# Statistics: p values of means and variances of T mini-batches, of chosen examples, of masks.


@functools.cache
def law_of_one_layer():
    """Noncentral t distribution of sqrt(M - 1) (x - mean) / sd at a fixed x, as a table."""
    places = np.sinh(np.linspace(-7, 7, 20_001))
    return places, stats.nct.cdf(places, SIZE - 1, INPUT * SIZE**0.5)


def by_the_t_law(means, variances):
    """Kolmogorov-Smirnov test against the distribution with a biased variance."""
    values = np.sort((INPUT - means) / np.sqrt(variances) * (SIZE - 1) ** 0.5)
    law = np.interp(values, *law_of_one_layer())
    steps = np.arange(len(values) + 1) / len(values)
    distance = max((steps[1:] - law).max(), (law - steps[:-1]).max())
    return float(stats.kstwo.sf(distance, len(values)))


def by_chi_squared(statistic, freedom):
    """Two-sided p value of a sum of squares."""
    law = stats.chi2(freedom)
    return float(2 * min(law.cdf(statistic), law.sf(statistic)))


def by_the_spread(means, variances):
    """For normal data M times a biased variance, and M times a squared mean, are chi-squared."""
    within = by_chi_squared(SIZE * variances.sum(), len(means) * (SIZE - 1))
    between = by_chi_squared(SIZE * np.square(means).sum(), len(means))
    return min(1.0, 2 * min(within, between))


def by_the_finite_factor(means, variance, size):
    """Variance of means of M of N examples without replacement; the means are nearly normal."""
    expected = variance / size * (POPULATION - size) / (POPULATION - 1)
    return by_chi_squared((len(means) - 1) * means.var(ddof=1) / expected, len(means) - 1)


def by_the_subsets(chosen):
    """Chi-squared test of the six pairs of four examples; the same example twice is no pair."""
    counts = [int((chosen == pair).all(1).sum()) for pair in itertools.combinations(range(4), 2)]
    return 0.0 if sum(counts) < len(chosen) else float(stats.chisquare(counts).pvalue)


def by_the_masks(active):
    """Exact binomial test that successive masks agree on a unit with probability one half."""
    agreed = active[1:] == active[:-1]
    return float(stats.binomtest(int(agreed.sum()), agreed.size).pvalue)


# P values of this package, by a fresh seed.


def collected(seed):
    data = torch.randn(DRAWS * SIZE, 1, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(seed))  # fmt: skip
    model = nn.Sequential(nn.BatchNorm1d(1, eps=1e-12, affine=False)).double()
    bank = mcbn.collect(model, data.split(SIZE))
    moments = [bank.statistics[f"0.running_{name}"][:, 0].numpy() for name in ("mean", "var")]
    return min(1.0, 2 * min(by_the_t_law(*moments), by_the_spread(*moments)))


def means_of_few(seed):
    data = np.random.default_rng(0).uniform(size=POPULATION)
    batches = mcbn.minibatches(torch.from_numpy(data), batch_size=8, draws=DRAWS, seed=seed)
    means = np.array([data[batches.indices(draw)].mean() for draw in range(DRAWS)])
    return by_the_finite_factor(means, data.var(), 8)


def pairs_of_four(seed):
    batches = mcbn.minibatches(torch.arange(4.0), batch_size=2, draws=DRAWS, seed=seed)
    return by_the_subsets(np.sort([batches.indices(draw) for draw in range(DRAWS)], axis=1))


def masks(seed):
    sampler = mcbn.MCDropout(nn.Sequential(nn.Dropout(0.5)), draws=40, seed=seed)
    return by_the_masks((sampler(torch.ones(1, 64))[:, 0] > 0).numpy())


SOUND = {
    "t law": collected,
    "finite factor": means_of_few,
    "subsets": pairs_of_four,
    "masks": masks,
}


@pytest.mark.parametrize("seeds", [3, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SOUND)
def test_fresh_seeds_give_no_alarm(name, seeds):
    p_values = [SOUND[name](1000 + seed) for seed in range(seeds)]
    assert all(map(holds, p_values))
    # And the p values are uniform, neither all large nor all small.
    if seeds == 200:
        assert holds(stats.binomtest(sum(p < 0.05 for p in p_values), 200, 0.05).pvalue)


# Planted errors.


def statistics(generator):
    batches = generator.standard_normal((DRAWS, SIZE))
    return batches.mean(1), batches.var(1)


def unbiased_variance(generator):
    means, variances = statistics(generator)
    return by_the_spread(means, variances * SIZE / (SIZE - 1))


def eval_mode(_):
    """The running statistics, the same in every draw."""
    return by_the_t_law(np.zeros(DRAWS), np.ones(DRAWS))


def never_reset(generator):
    """A cumulative average instead of momentum 1: it depends on all draws since the first."""
    count = np.arange(1, DRAWS + 1)
    return by_the_t_law(*(values.cumsum() / count for values in statistics(generator)))


def momentum_of_two(generator):
    """Each draw averaged with the one before: momentum 1/2 instead of 1."""
    return by_the_spread(*(0.5 * (values + np.roll(values, 1)) for values in statistics(generator)))


def with_replacement(generator):
    return by_the_subsets(np.sort(generator.integers(4, size=(DRAWS, 2)), axis=1))


def without_finite_factor(generator):
    """Half of all examples at a time, drawn with replacement: twice the variance."""
    data = np.random.default_rng(0).uniform(size=POPULATION)
    means = data[generator.integers(POPULATION, size=(DRAWS, 32))].mean(1)
    return by_the_finite_factor(means, data.var(), 32)


def shared_mask(generator):
    return by_the_masks(np.repeat(generator.random((1, 64)) < 0.5, 40, axis=0))


PLANTED = (
    unbiased_variance, eval_mode, never_reset, momentum_of_two, with_replacement,
    without_finite_factor, shared_mask,
)  # fmt: skip


@pytest.mark.parametrize("repetitions", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("error", PLANTED, ids=lambda error: error.__name__)
def test_planted_errors_are_detected_every_time(error, repetitions):
    generator = np.random.default_rng(11)
    assert not any(holds(error(generator)) for _ in range(repetitions))


@pytest.mark.parametrize("statistic", [by_the_t_law, by_the_spread])
@pytest.mark.parametrize("repetitions", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_statistics_give_no_alarm_where_nothing_is_planted(statistic, repetitions):
    generator = np.random.default_rng(12)
    assert all(holds(statistic(*statistics(generator))) for _ in range(repetitions))
