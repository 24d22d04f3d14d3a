"""The threshold of abstaining keeps its promise: by enumeration, and by an independent bound."""

import math
from itertools import combinations_with_replacement

import pytest
import torch
from scipy.stats import binom, multinomial

import mcbn
from mcbn.evaluation.detection import STEPS

# A world of three kinds of examples: uncertainty, probability, whether the network is wrong.
KINDS = [(0, 0.5, False), (1, 0.19, False), (1, 0.31, True)]


def drawn(counts):
    rows = [kind for kind, count in zip(KINDS, counts, strict=True) for _ in range(count)]
    uncertainty = torch.tensor([float(row[0]) for row in rows])
    return uncertainty, torch.tensor([row[2] for row in rows])


def true_risk(threshold):
    answered = [kind for kind in KINDS if kind[0] < threshold]
    return sum(p for _, p, wrong in answered if wrong) / sum(p for _, p, _ in answered)


def test_every_held_out_set_of_a_small_world_together():
    """Summed over all 231 held-out sets of 20, the promise is broken as seldom as it says."""
    broken, kept = 0.0, 0.0
    for chosen in combinations_with_replacement(range(len(KINDS)), 20):
        counts = [chosen.count(kind) for kind in range(len(KINDS))]
        chance = multinomial.pmf(counts, 20, [kind[1] for kind in KINDS])
        try:
            found = mcbn.choose_abstention(*drawn(counts), risk=0.3, confidence=0.8)
        except ValueError:
            continue
        if true_risk(found.threshold) > 0.3:
            broken += chance
        else:
            kept += chance
    assert 0 < broken <= 0.2
    assert kept > 0.1, "a promise is made where there is one to make"


def test_the_bound_is_that_of_clopper_and_pearson():
    """At the bound, as few errors as were seen are just as unlikely as was allowed."""
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.rand(2000, generator=generator)
    wrong = torch.rand(2000, generator=generator) < uncertainty / 3
    found = mcbn.choose_abstention(uncertainty, wrong, risk=0.1, confidence=0.9)
    answered = uncertainty < found.threshold
    total, errors = int(answered.sum()), int((answered & wrong).sum())
    assert found.coverage == total / 2000
    assert found.risk == errors / total
    assert binom.cdf(errors, total, found.bound) == pytest.approx(0.1 / STEPS, rel=1e-6)
    assert found.risk < found.bound <= 0.1
    # The next threshold of the grid would not do.
    more = total + 2000 // STEPS
    later = wrong[uncertainty.argsort()][:more]
    assert binom.cdf(int(later.sum()), more, 0.1) > 0.1 / STEPS


def test_all_is_answered_where_all_is_right():
    found = mcbn.choose_abstention(torch.arange(500.0), torch.zeros(500).bool(), risk=0.05)
    assert (found.threshold, found.coverage, found.risk) == (math.inf, 1.0, 0.0)
    # Without errors: (1 - bound)^n = chance.
    assert found.bound == pytest.approx(1 - (0.05 / STEPS) ** (1 / 500))


def test_equal_uncertainties_are_answered_together_or_not_at_all():
    uncertainty = torch.tensor([0.1] * 150 + [0.2] * 50)
    wrong = torch.arange(200) >= 150
    found = mcbn.choose_abstention(uncertainty, wrong, risk=0.1)
    assert found.coverage == 0.75
    assert 0.1 < found.threshold <= float(torch.tensor(0.2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wrong": torch.ones(9).bool()}, "from 9 held-out examples"),
        ({"wrong": torch.zeros(9).bool()}, "give more of them"),
        ({"risk": 0.0}, "risk"),
        ({"confidence": 1.0}, "confidence"),
        ({"uncertainty": torch.full((9,), torch.nan)}, "finite"),
    ],
)
def test_mistakes_and_promises_that_cannot_be_made(change, reason):
    given = {"uncertainty": torch.arange(9.0), "wrong": torch.zeros(9).bool(), "risk": 0.1}
    given = {**given, **change}
    with pytest.raises(ValueError, match=reason):
        mcbn.choose_abstention(given.pop("uncertainty"), given.pop("wrong"), **given)
