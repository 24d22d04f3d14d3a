"""The threshold of selective prediction for new patients: the bound by enumeration and simulation.

Scans of a patient are right or wrong together, so a bound that takes them for independent fails.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from law import ALPHA
from scipy import stats

import mcbn
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.detection import THRESHOLDS
from mcbn.evaluation.group_risk import PARTS, bounds_of_groups, upper_bound

RUNS = 200


def patients(seed, count=120, *, hard=0.25):
    """Scans of patients: nearly all of a patient's are wrong where the patient is hard to tell.

    The uncertainty says something of who is hard, and nothing of the scans of one patient.
    """
    generator = torch.Generator().manual_seed(seed)
    patient = torch.arange(count).repeat_interleave(
        torch.randint(1, 30, (count,), generator=generator)
    )
    is_hard = torch.rand(count, generator=generator) < hard
    doubt = torch.rand(count, generator=generator) + 0.5 * is_hard
    noise = 0.01 * torch.rand(len(patient), generator=generator)
    wrong = torch.rand(len(patient), generator=generator) < 0.95 * is_hard[patient]
    return doubt[patient] + noise, wrong, patient


@cache
def population(hard):
    return patients(10**6, 20_000, hard=hard)


def risk_below(threshold, hard):
    """The mean over new patients with an answer of the share of their answers that is wrong."""
    uncertainty, wrong, patient = population(hard)
    answered = (uncertainty < threshold).double()
    totals, errors = (torch.zeros(20_000).double().index_add(0, patient, each)
                      for each in (answered, answered * wrong))  # fmt: skip
    return float((errors / totals)[totals > 0].mean())


def failures(hard, risk, *, grouped):
    """In how many runs the risk of new patients is above what was allowed; and rules found."""
    failed = found = 0
    for seed in range(RUNS):
        uncertainty, wrong, patient = patients(seed, hard=hard)
        try:
            rule = mcbn.choose_abstention(
                uncertainty, wrong, risk=risk, level=0.9, group=patient if grouped else None
            )
        except ValueError:
            continue
        found += 1
        failed += risk_below(rule.threshold, hard) > risk
    return failed, found


def test_the_level_holds_for_new_patients_and_not_by_scans():
    """200 simulations at the level 0.9: at most a tenth of the rules break the promise."""
    failed, found = failures(0.25, 0.1, grouped=True)
    assert stats.binom.sf(failed - 1, RUNS, 0.1) > ALPHA, failed
    by_scan, _ = failures(0.25, 0.1, grouped=False)
    assert stats.binom.sf(by_scan - 1, RUNS, 0.1) < ALPHA, by_scan
    # Where nearly all patients are easy to tell, a rule is found all the same.
    failed, found = failures(0.02, 0.15, grouped=True)
    assert found > 0.9 * RUNS
    assert failed <= 0.1 * RUNS


@pytest.mark.parametrize("count", [1, 5, 20, 80])
@pytest.mark.parametrize("chance", [0.2, 0.05, 0.0025])
def test_the_bound_fails_as_seldom_as_said(count, chance):
    """By enumeration: of values 0 and 1, and of 0, 1/2 and 1, at every mean of a grid."""
    halves = np.arange(2 * count + 1)
    bounds = np.array([upper_bound(total / 2, count, chance) for total in halves])
    for mean in np.linspace(0.02, 0.98, 25):
        whole = stats.binom.pmf(halves // 2, count, mean) * (halves % 2 == 0)
        assert whole[bounds < mean].sum() <= chance
        # A value that is 0, 1/2 or 1 with the law of two coins; the sum is binomial as well.
        assert stats.binom.pmf(halves, 2 * count, mean)[bounds < mean].sum() <= chance


@pytest.mark.parametrize(("total", "count"), [(0.0, 30), (1.7, 40), (6.25, 25), (9.0, 10)])
def test_the_bound_is_the_largest_mean_that_neither_inequality_excludes(total, count):
    chance, mean = 0.01, total / count
    grid = np.linspace(mean + 1e-9, 1 - 1e-9, 200_001)
    divergence = stats.entropy([[mean], [1 - mean]], [grid, 1 - grid], axis=0)
    tail = np.minimum(np.exp(-count * divergence),
                      math.e * stats.binom.cdf(math.ceil(total), count, grid))  # fmt: skip
    expected = grid[tail >= chance].max()
    assert upper_bound(total, count, chance) == pytest.approx(expected, abs=1e-5)


def test_the_extremes():
    assert upper_bound(7.0, 7, 0.1) == 1.0
    assert upper_bound(0.0, 0, 0.1) == 1.0
    # Without errors it is the bound of Clopper and Pearson: (1 - bound)^n = chance.
    assert upper_bound(0.0, 50, 0.01) == pytest.approx(1 - 0.01 ** (1 / 50))


def test_the_rule_by_a_loop_over_patients():
    uncertainty, wrong, patient = patients(3, hard=0.02)
    rule = mcbn.choose_abstention(uncertainty, wrong, risk=0.2, group=[f"p{k}" for k in patient])
    setting = uncertainty[patient % PARTS == 0].sort().values
    places = [math.ceil(k * len(setting) / THRESHOLDS) for k in range(1, THRESHOLDS)]
    expected = []
    for threshold in [*(float(setting[k]) for k in places), math.inf]:
        shares, answered = [], []
        for name in range(120):
            if name % PARTS == 0:
                continue
            below = uncertainty[patient == name].double() < threshold
            answered.append(float(below.double().mean()))
            if below.any():
                shares.append(float(wrong[patient == name][below].double().mean()))
        bound = upper_bound(sum(shares), len(shares), 0.05 / THRESHOLDS)
        expected.append((threshold, np.mean(answered), np.mean(shares), bound))
    rows = bounds_of_groups(
        uncertainty.double(), wrong, Clusters(patient), thresholds=THRESHOLDS,
        chance=0.05 / THRESHOLDS,
    )  # fmt: skip
    for row, each in zip(rows, expected, strict=True):
        assert row == pytest.approx(each, rel=1e-6)
    found = rule.threshold, rule.coverage, rule.risk, rule.bound
    assert found == pytest.approx(max(row for row in expected if row[3] <= 0.2), rel=1e-6)


def test_examples_of_a_patient_count_once_and_their_order_does_not_matter():
    uncertainty, wrong, patient = patients(3, hard=0.02)
    rule = mcbn.choose_abstention(uncertainty, wrong, risk=0.2, group=patient)
    # Each scan of the patients that the bound is from comes five times.
    rows = torch.arange(len(patient)).repeat_interleave(torch.where(patient % PARTS == 0, 1, 5))
    again = mcbn.choose_abstention(uncertainty[rows], wrong[rows], risk=0.2, group=patient[rows])
    assert again.bound == pytest.approx(rule.bound)
    assert again.threshold == rule.threshold


def test_groups_that_do_not_fit_are_refused():
    uncertainty, wrong, patient = patients(0)
    with pytest.raises(ValueError, match="a group for each of"):
        mcbn.choose_abstention(uncertainty, wrong, risk=0.2, group=patient[1:])
    with pytest.raises(ValueError, match="expected groups of examples, got '7' for all"):
        mcbn.choose_abstention(uncertainty, wrong, risk=0.2, group=[7] * len(wrong))
    with pytest.raises(ValueError, match="at best from 2 held-out groups; give more of them"):
        mcbn.choose_abstention(torch.rand(9, generator=torch.Generator()), torch.zeros(9).bool(),
                               risk=0.2, group=[1] * 5 + [2] * 4)  # fmt: skip
