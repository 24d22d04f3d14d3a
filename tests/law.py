"""Thresholds of statistical tests: the whole suite gives a false alarm once in a million seeds.

The tests that use them are listed in `TESTS`; each spends an equal part of the chance. Seeds are
fixed all the same, so a suite that passed once passes again.
"""

from scipy import stats

FALSE_ALARMS = 1e-6  # of all statistical tests together
# How many comparisons each statistical test makes, by file and name: held to the files by a test.
TESTS = {
    "test_collection.py::test_one_layer_obeys_the_non_central_t_law": 2,
    "test_collection.py::test_every_batch_of_a_small_population_is_equally_likely": 2,
    "test_collection.py::test_variance_of_the_means_falls_as_one_over_m_with_the_finite_factor": 3,
    "test_evaluation.py::test_rows_are_drawn_uniformly_with_replacement": 1,
    "test_evaluation.py::test_known_forecasters_of_real_targets_are_ranked_right": 1,
    "test_interval_coverage.py": 200,
    "test_power.py": 20,
}
ALPHA = FALSE_ALARMS / sum(TESTS.values())
DEVIATIONS = float(stats.norm.isf(ALPHA / 2))  # in place of four standard errors: 6


def holds(p_value: float) -> bool:
    """Whether a p value leaves the law standing."""
    return p_value > ALPHA


def share_is(hits: int, runs: int, low: float, high: float) -> bool:
    """Whether `hits` of `runs` may come from a chance between `low` and `high`: exact binomial."""
    few, many = stats.binom.cdf(hits, runs, low), stats.binom.sf(hits - 1, runs, high)
    return min(few, many) > ALPHA / 2
