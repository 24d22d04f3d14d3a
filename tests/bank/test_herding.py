"""Kernel herding: few draws whose mean is near that of many."""

import pytest
import torch
from models import examples, make_network
from torch.testing import assert_close

import mcbn
from mcbn.bank.herding import herd

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def points(count=200, features=3):
    return torch.randn(count, features, generator=torch.Generator().manual_seed(0)).double()


def test_points_are_chosen_greedily_by_the_kernel_mean_discrepancy():
    """Each chosen point is the one that an exhaustive search finds best."""
    rows = points(30)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0)
    distances = ((scaled[:, None] - scaled[None]) ** 2).sum(2)
    kernel = torch.exp(-distances / distances.median())
    chosen = []
    for step in range(6):
        gains = {
            i: float(kernel[i].mean() - sum(kernel[i, j] for j in chosen) / (step + 1))
            for i in range(30)
            if i not in chosen
        }
        chosen.append(max(gains, key=gains.get))
    assert herd(rows, 6) == chosen


def test_the_mean_of_chosen_points_is_nearer_than_that_of_random_points():
    """16 of 200: at most a third of the error of random points, whose root mean square is 0.25."""
    rows = points()
    whole = rows.mean(0)
    plain = torch.stack([part.mean(0) - whole for part in rows[:192].split(16)]).square().mean()
    error = (rows[herd(rows, 16)].mean(0) - whole).square().mean()
    assert error.sqrt() < plain.sqrt() / 3


def test_units_of_a_feature_and_features_without_spread_do_not_matter():
    rows = points()
    scaled = torch.cat([rows * torch.tensor([1.0, 1e3, 1e-3]) + 5.0, torch.ones(200, 1)], 1)
    assert herd(rows, 20) == herd(scaled, 20)


def test_all_points_may_be_chosen_and_ties_go_to_the_first():
    assert sorted(herd(points(12), 12)) == list(range(12))
    assert herd(torch.ones(5, 2), 2) == [0, 1]


@pytest.mark.parametrize("count", [0, 13])
def test_a_count_below_one_or_above_the_points_is_refused(count):
    with pytest.raises(ValueError, match="expected from 1 to 12 draws"):
        herd(points(12), count)


def test_the_draws_of_a_thinned_bank_are_draws_of_the_bank():
    model = make_network("1d of 2-D")
    bank = mcbn.collect(model, mcbn.minibatches(examples("1d of 2-D", 60), batch_size=8, draws=40))
    thin = bank.thin(10)
    assert len(thin) == 10
    assert thin.batch_size == bank.batch_size
    x = examples("1d of 2-D", 7, seed=5)
    rows, every = mcbn.MCBatchNorm(model, thin)(x), mcbn.MCBatchNorm(model, bank)(x)
    for row in rows:
        assert ((every - row).abs().amax((1, 2)) < 1e-12).sum() == 1
    assert_close(bank.thin(40).statistics, dict(bank.statistics), rtol=0, atol=0)
