"""MCBN013: how often conformal sets hold the target, against what exchangeable examples give."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasters import forecaster
from law import holds, share_is
from scipy import stats

from mcbn.checks.coverage import CHECK, coverage_claim, p_value
from mcbn.checks.subject import Subject
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.coverages import SetCoverage, set_coverages
from mcbn.recalibration.prediction_sets import Coverage


def row(value, *, examples=200, held_out=100, level=0.9, method="m", rule="conformal", part=""):
    return SetCoverage(
        method, rule, level, Coverage(value, value - 0.05, min(1.0, value + 0.05)), 2.0, None,
        part, examples, held_out,
    )  # fmt: skip


@pytest.mark.parametrize(("held_out", "examples", "level"), [(100, 200, 0.9), (19, 50, 0.8)])
def test_the_p_value_is_the_frequency_among_exchangeable_examples(held_out, examples, level):
    rng = np.random.default_rng(0)
    runs = 40_000
    # The set of a test example holds its target where its score is among the lowest.
    rank = int(np.ceil((held_out + 1) * level))
    bound = np.sort(rng.random((runs, held_out)), axis=1)[:, rank - 1]
    inside = (rng.random((runs, examples)) <= bound[:, None]).sum(1)
    for count in (int(examples * share) for share in (0.75, 0.85, 0.9)):
        found = p_value(row(count / examples, examples=examples, held_out=held_out, level=level))
        below = int((inside <= count).sum())
        assert holds(stats.binomtest(below, runs, found).pvalue)


def test_whole_sets_and_unknown_numbers_cannot_fail():
    assert p_value(row(0.1, held_out=5)) == 1.0  # of 5 no rank reaches 0.9, so the sets are whole
    assert p_value(row(0.1, examples=0)) == 1.0
    assert p_value(row(1.0)) == pytest.approx(1.0)


def predictions(seed, *, examples, shift=0.0):
    predictive, targets = forecaster(batch=examples, seed=seed)
    if shift:  # the targets of some examples become those of their least probable class
        wrong = torch.arange(examples) < shift * examples
        targets = torch.where(wrong, predictive.probabilities.argmin(1), targets)
    return Predictions("m", predictive, targets, f"d{seed}")


def judged(seed, *, shift=0.0):
    scored = predictions(seed, examples=150, shift=shift)
    held_out = predictions(seed + 50_000, examples=60)
    return CHECK(Subject(sets=set_coverages([scored], [held_out])))


def test_sets_of_exchangeable_examples_are_rarely_called_wrong():
    alarms = sum(judged(seed).status == "issue" for seed in range(200))
    assert share_is(alarms, 200, 0.0, 0.05)


def test_sets_of_other_examples_are_found():
    found = [judged(seed, shift=0.3) for seed in range(20)]
    assert all(each.status == "issue" for each in found)
    assert "fewer than chance explains" in found[0].claims[0].sentence


def test_the_numbers_are_those_of_examples_or_groups():
    scored, held_out = predictions(0, examples=150), predictions(1, examples=60)
    for each in set_coverages([scored], [held_out]):
        assert (each.examples, each.held_out) == (150, 60)


def test_the_worst_of_several_methods_is_corrected_for_their_number():
    single = p_value(row(0.82))
    assert 0.01 < single < 0.05
    assert coverage_claim([row(0.82)]).mark == "bad"
    five = [row(0.9, method=str(k)) for k in range(4)] + [row(0.82, method="low")]
    claim = coverage_claim(five)
    assert claim.mark == "good"
    assert "of low contain 82.0%" in claim.sentence
    assert f"p = {5 * single:.3f} by Bonferroni's method over 5 methods" in claim.sentence


def test_only_conformal_sets_of_all_examples_promise_anything():
    low = row(0.3)
    for each in (replace(low, rule="as predicted"), replace(low, rule="conformal by site"),
                 replace(low, part="a"), replace(low, held_out=0)):  # fmt: skip
        assert CHECK(Subject(sets=(each,))).status == "not applicable"
    assert CHECK(Subject(sets=(low,))).status == "issue"
    assert CHECK(Subject(sets=(row(0.99),))).status == "passed"
