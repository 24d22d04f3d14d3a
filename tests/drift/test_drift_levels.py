"""How often draws and mini-batches that are alike are taken for drift, by simulation."""

import numpy as np
import pytest
import torch

import mcbn
from mcbn.drift.drift_test import MAX_SHARE
from mcbn.drift.ranks import rank_sum_p_value
from mcbn.drift.reference import Reference

CHANNELS, BATCH = 6, 8
AT_ONCE = 500  # runs, each of which is a layer of one bank


def statistics(values):
    """Means and biased variances, by run, of mini-batches of (draws, examples, runs, channels)."""
    means, variances = values.mean(1), values.var(1, correction=0)
    return {
        f"{run}.running_{kind}": rows[:, run]
        for run in range(values.shape[2])
        for kind, rows in (("mean", means), ("var", variances))
    }


def banked(values):
    """A bank of the draws of these mini-batches."""
    found = statistics(values)
    return mcbn.Bank(found, {name: rows[0] for name, rows in found.items()}, values.shape[1])


def examples(chance, *shape):
    """Skewed and correlated values of the channels."""
    values = torch.tensor(chance.standard_gamma(2.0, (*shape, AT_ONCE, CHANNELS)))
    return values + values.roll(1, -1)


def rejections(runs, make, *, alpha=0.05):
    """The share of runs that are rejected; `make` returns mini-batches of a bank and new ones."""
    rejected = []
    for seed in range(runs // AT_ONCE):
        draws, new = make(np.random.default_rng(seed))
        reference = Reference.from_bank(banked(draws))
        found = reference.distances(statistics(new)).layers
        rejected += [
            rank_sum_p_value(reference.calibration.layers[run], values) <= alpha
            for run, values in found.items()
        ]
    return sum(rejected) / runs


def disjoint(batches, draws=78):
    """Mini-batches that share no example."""
    return lambda chance: examples(chance, draws + batches, BATCH).split([draws, batches])


# 39 draws to compare with: 2 of 40 ranks are at most alpha. Within 2.3 standard deviations each.
QUICK = (2000, 0.039, 0.061)
FULL = pytest.param(10_000, 0.045, 0.055, marks=pytest.mark.slow)


@pytest.mark.parametrize(("runs", "low", "high"), [QUICK, FULL])
@pytest.mark.parametrize("batches", [1, 4])
def test_the_level_is_alpha_of_mini_batches_that_share_no_example(batches, runs, low, high):
    assert low <= rejections(runs, disjoint(batches)) <= high


def finite(population, *, new):
    """Draws of some examples, and a mini-batch of the same or of new ones."""

    def make(chance):
        known = examples(chance, population)
        rows = [chance.permuted(np.tile(np.arange(population), (AT_ONCE, 1)), axis=1)[:, :BATCH]
                for _ in range(79)]  # fmt: skip
        drawn = torch.stack([known[row.T, np.arange(AT_ONCE)] for row in rows])
        return drawn[:78], examples(chance, 1, BATCH) if new else drawn[78:]

    return make


@pytest.mark.parametrize(("runs", "low", "high"), [QUICK, FULL])
def test_the_level_is_alpha_of_more_mini_batches_of_the_same_examples(runs, low, high):
    assert low <= rejections(runs, finite(20, new=False)) <= high


def test_new_examples_are_further_off_than_draws_that_share_theirs():
    """Which a bank of fewer examples than 50 M is warned of; there the level is about 0.06."""
    assert rejections(500, finite(12, new=True)) > 0.15
    assert rejections(2000, finite(round(BATCH / MAX_SHARE), new=True)) < 0.075


def moved(shift, factor, batches=1):
    def make(chance):
        draws, new = disjoint(batches)(chance)
        return draws, shift + factor * new

    return make


def test_power_grows_with_the_shift_and_with_the_mini_batches():
    small, large = (rejections(500, moved(shift, 1.0)) for shift in (0.7, 2.0))
    assert 0.06 < small < large
    assert large > 0.8
    assert rejections(500, moved(0.7, 1.0, 6)) > small + 0.2
    assert rejections(500, moved(0.0, 2.5)) > 0.8  # the spread alone
