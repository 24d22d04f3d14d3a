"""The threshold of selective prediction keeps its bound: by enumeration, and another formula."""

import math
from itertools import combinations_with_replacement

import pytest
import torch
from scipy.stats import binom, multinomial

import mcbn
from mcbn.evaluation.detection import THRESHOLDS

# A population of three kinds of examples: uncertainty, probability, whether the network is wrong.
KINDS = [(0, 0.5, False), (1, 0.19, False), (1, 0.31, True)]


def drawn(counts):
    rows = [kind for kind, count in zip(KINDS, counts, strict=True) for _ in range(count)]
    uncertainty = torch.tensor([float(row[0]) for row in rows])
    return uncertainty, torch.tensor([row[2] for row in rows])


def true_risk(threshold):
    answered = [kind for kind in KINDS if kind[0] < threshold]
    return sum(p for _, p, wrong in answered if wrong) / sum(p for _, p, _ in answered)


def test_the_level_holds_exactly_over_all_held_out_sets_of_a_small_population():
    """Summed over all 231 held-out sets of 20: the bound fails with probability 0.2 at most."""
    failed, held = 0.0, 0.0
    for chosen in combinations_with_replacement(range(len(KINDS)), 20):
        counts = [chosen.count(kind) for kind in range(len(KINDS))]
        chance = multinomial.pmf(counts, 20, [kind[1] for kind in KINDS])
        try:
            rule = mcbn.choose_abstention(*drawn(counts), risk=0.3, level=0.8)
        except ValueError:
            continue
        if true_risk(rule.threshold) > 0.3:
            failed += chance
        else:
            held += chance
    assert 0 < failed <= 0.2
    assert held > 0.1, "a threshold is rule where there is one"


def test_the_bound_is_that_of_clopper_and_pearson():
    """At the bound, as few errors as were seen are just as unlikely as was allowed."""
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.rand(2000, generator=generator)
    wrong = torch.rand(2000, generator=generator) < uncertainty / 3
    rule = mcbn.choose_abstention(uncertainty, wrong, risk=0.1, level=0.9)
    answered = uncertainty < rule.threshold
    total, errors = int(answered.sum()), int((answered & wrong).sum())
    assert rule.coverage == total / 2000
    assert rule.risk == errors / total
    assert binom.cdf(errors, total, rule.bound) == pytest.approx(0.1 / THRESHOLDS, rel=1e-6)
    assert rule.risk < rule.bound <= 0.1
    # The next threshold of the grid would not do.
    more = total + 2000 // THRESHOLDS
    later = wrong[uncertainty.argsort()][:more]
    assert binom.cdf(int(later.sum()), more, 0.1) > 0.1 / THRESHOLDS


def test_all_is_answered_where_all_is_right():
    rule = mcbn.choose_abstention(torch.arange(500.0), torch.zeros(500).bool(), risk=0.05)
    assert (rule.threshold, rule.coverage, rule.risk) == (math.inf, 1.0, 0.0)
    # Without errors: (1 - bound)^n = chance.
    assert rule.bound == pytest.approx(1 - (0.05 / THRESHOLDS) ** (1 / 500))


def test_equal_uncertainties_are_answered_together_or_not_at_all():
    uncertainty = torch.tensor([0.1] * 150 + [0.2] * 50)
    wrong = torch.arange(200) >= 150
    rule = mcbn.choose_abstention(uncertainty, wrong, risk=0.1)
    assert rule.coverage == 0.75
    assert 0.1 < rule.threshold <= float(torch.tensor(0.2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wrong": torch.ones(9).bool()}, "from 9 held-out examples"),
        ({"wrong": torch.zeros(9).bool()}, "give more of them"),
        ({"risk": 0.0}, "risk"),
        ({"level": 1.0}, "level"),
        ({"uncertainty": torch.full((9,), torch.nan)}, "finite"),
    ],
)
def test_bad_arguments_and_bounds_that_cannot_be_reached(change, reason):
    given = {"uncertainty": torch.arange(9.0), "wrong": torch.zeros(9).bool(), "risk": 0.1}
    given = {**given, **change}
    with pytest.raises(ValueError, match=reason):
        mcbn.choose_abstention(given.pop("uncertainty"), given.pop("wrong"), **given)
