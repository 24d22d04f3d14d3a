"""The smallest difference that a design can find: by simulation and in the limit."""

import math

import numpy as np
import pytest
from scipy import stats

from mcbn.evaluation.significance import holm
from mcbn.study.power import detectable


def test_three_seeds_and_45_tests_need_22_standard_deviations():
    assert round(detectable(3, tests=45)) == 22


@pytest.mark.parametrize(("pairs", "tests"), [(3, 1), (3, 9), (5, 3), (10, 45), (200, 3)])
def test_it_is_found_in_80_percent_of_studies(pairs, tests):
    """100,000 paired t tests at the first threshold of Holm's method: to 0.5%."""
    generator = np.random.default_rng(0)
    batches = [generator.normal(detectable(pairs, tests=tests), 1, (20_000, pairs))
               for _ in range(5)]  # fmt: skip
    p_values = np.concatenate([stats.ttest_1samp(each, 0, axis=1).pvalue for each in batches])
    assert (p_values < 0.05 / tests).mean() == pytest.approx(0.8, abs=0.005)


def test_of_very_many_seeds_it_is_that_of_the_normal_law():
    expected = (stats.norm.isf(0.025 / 3) + stats.norm.ppf(0.8)) / 1e5**0.5
    assert detectable(100_000, tests=3) == pytest.approx(expected, rel=1e-3)


def test_more_power_fewer_seeds_and_more_tests_need_more():
    assert detectable(5, tests=3, power=0.95) > detectable(5, tests=3)
    assert detectable(4, tests=3) > detectable(5, tests=3)
    assert detectable(5, tests=4) > detectable(5, tests=3)
    assert math.isnan(detectable(1, tests=3))


def test_holm_finds_it_in_no_fewer_studies_when_other_tests_are_significant():
    assert holm([0.049 / 3, 1e-9, 1e-9])[0] < holm([0.049 / 3, 0.5, 0.5])[0]
