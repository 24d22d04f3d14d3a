"""Intervals that hold at once: against the exact law of a largest deviation, and by simulation."""

import math

import pytest
import torch
from law import share_is
from scipy import stats

from mcbn.evaluation.bootstrap import percentile_interval, replicates
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.simultaneous import ClusterMeans, simultaneous_interval

RESAMPLES = 40_000


def score(value, drawn):
    return Score(value, math.nan, math.nan, "lower", drawn)


def deviations(count, correlation=0.0):
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(count, RESAMPLES, generator=generator).double()
    shared = torch.randn(RESAMPLES, generator=generator).double()
    return correlation**0.5 * shared + (1 - correlation) ** 0.5 * own


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_of_independent_differences_it_is_the_quantile_of_the_largest(count, level):
    """To 2%: the quantile of 40,000 resamples has a standard error below 0.5%."""
    scales = torch.arange(1.0, count + 1).double()
    drawn = scales[:, None] * deviations(count)
    differences = {str(k): score(float(k), k + drawn[k]) for k in range(count)}
    reach = stats.norm.ppf((1 + level ** (1 / count)) / 2)
    for k in range(count):
        low, high = simultaneous_interval(str(k), differences, level)
        assert (high - low) / 2 == pytest.approx(reach * float(scales[k]), rel=0.02)
        assert (high + low) / 2 == pytest.approx(k)


def test_of_equal_differences_it_is_that_of_one():
    drawn = deviations(1, 1.0)[0]
    several = {str(k): score(0.5, 0.5 + drawn) for k in range(9)}
    low, high = simultaneous_interval("3", several, 0.95)
    assert (low, high) == pytest.approx((0.5 - 1.96, 0.5 + 1.96), abs=0.03)


def test_of_a_single_difference_it_is_the_percentile_interval():
    alone = score(0.0, deviations(1)[0])
    assert simultaneous_interval("a", {"a": alone}, 0.9) == percentile_interval(
        alone.replicates, 0.9
    )


@pytest.mark.parametrize("strange", [math.inf, math.nan])
def test_what_has_no_standard_error_is_by_bonferroni(strange):
    drawn = deviations(2)
    drawn[1, 0] = strange
    differences = {"a": score(0.0, drawn[0]), "b": score(0.0, drawn[1])}
    assert simultaneous_interval("a", differences, 0.9) == percentile_interval(drawn[0], 0.95)
    still = {"a": score(0.0, drawn[0]), "b": score(0.0, torch.zeros(RESAMPLES).double())}
    assert simultaneous_interval("a", still, 0.9) == percentile_interval(drawn[0], 0.95)
    none = {name: score(0.0, torch.zeros(0).double()) for name in "ab"}
    assert all(math.isnan(end) for end in simultaneous_interval("a", none, 0.9))


def test_the_best_of_nine_equal_rivals_is_rarely_called_better():
    """300 test sets of 200 examples; nominal 2.5%, and 18% by the interval of one alone."""
    called, alone, runs = 0, 0, 300
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        gaps = torch.randn(200, 9, generator=generator).double()
        drawn = replicates(
            [{"gaps": gaps}], lambda c: {"mean": c["gaps"].mean(0)}, resamples=200, seed=0,
            progress=False,
        )["mean"]  # fmt: skip
        means = gaps.mean(0)
        differences = {str(k): score(float(means[k]), drawn[:, k]) for k in range(9)}
        best = str(int(means.argmin()))
        called += simultaneous_interval(best, differences, 0.95)[1] < 0
        alone += percentile_interval(drawn[:, int(best)], 0.95)[1] < 0
    assert share_is(called, runs, 0.005, 0.05)
    assert alone > 0.1 * runs


def test_the_interval_of_one_mean_of_few_clusters_is_that_of_student():
    sums = torch.tensor([[1.0, 2.0, 4.0, 0.0]], dtype=torch.float64)
    means = ClusterMeans.of_sums(sums, torch.ones(4).double(), torch.zeros(1).double())
    ((value, low, high),) = means.intervals(0.9)
    wanted = stats.t.interval(0.9, 3, sums.mean(), stats.sem(sums[0]))
    assert (value, low, high) == pytest.approx((1.75, *map(float, wanted)), rel=1e-9)
