"""Thresholds of statistical tests: on fresh seeds the suite gives a false alarm once in a million.

A comparison with chance takes its threshold from here, and its file is listed in `COMPARISONS` with
an upper bound on their number, slow ones included. Seeds are fixed all the same: a suite that
passed once passes again.
"""

from scipy import stats

FALSE_ALARMS = 1e-6  # chance that any statistical test of the whole suite fails on fresh seeds
MAX_COMPARISONS = 1000  # in the whole suite
ALPHA = FALSE_ALARMS / MAX_COMPARISONS
DEVIATIONS = float(stats.norm.isf(ALPHA / 2))  # how many standard errors that is: 6.1

COMPARISONS = {
    "bank/test_bank.py": 20,
    "checks/test_method_checks.py": 2,
    "checks/test_sets_cover.py": 4,
    "evaluation/test_calibration.py": 1,
    "evaluation/test_clusters.py": 24,
    "bank/test_collect.py": 7,
    "bank/test_merging.py": 5,
    "recalibration/test_conformal.py": 40,
    "recalibration/test_conformal_by.py": 30,
    "recalibration/test_conformal_groups.py": 16,
    "recalibration/test_conformal_labels.py": 8,
    "evaluation/test_evaluate.py": 5,
    "evaluation/test_group_abstention.py": 2,
    "evaluation/test_label_scores.py": 5,
    "predictive/test_gaussian.py": 20,
    "laws/test_interval_coverage.py": 400,
    "samplers/test_laplace.py": 6,
    "predictive/test_mixture.py": 1,
    "laws/test_power.py": 20,
    "evaluation/test_simultaneous.py": 1,
    "recalibration/test_apply.py": 6,
    "evaluation/test_reliability.py": 1,
    "study/test_groups.py": 6,
    "study/test_choose_layers.py": 12,
    "study/test_slopes.py": 2,
}


def holds(p_value: float) -> bool:
    """Whether a p value is no evidence against the tested law."""
    return p_value > ALPHA


def share_is(hits: int, runs: int, low: float, high: float) -> bool:
    """Whether `hits` of `runs` fit a probability from `low` to `high`: exact binomial test."""
    too_few, too_many = stats.binom.cdf(hits, runs, low), stats.binom.sf(hits - 1, runs, high)
    return min(too_few, too_many) > ALPHA / 2
