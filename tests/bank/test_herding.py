"""Herding: few draws whose mean is that of many."""

import pytest
import torch
from models import examples, make_network
from torch.testing import assert_close

import mcbn
from mcbn.bank.bank import herd

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def points(count=200, features=3):
    return torch.randn(count, features, generator=torch.Generator().manual_seed(0)).double()


def test_the_pick_is_greedy_by_the_kernel_mean_discrepancy():
    """Each point taken is the one that a search over all finds best, written out plainly."""
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


def test_its_mean_is_nearer_than_that_of_plain_draws():
    """16 of 200: a third of the plain error at most, which has a root mean square of 0.25."""
    rows = points()
    whole = rows.mean(0)
    plain = torch.stack([part.mean(0) - whole for part in rows[:192].split(16)]).square().mean()
    found = (rows[herd(rows, 16)].mean(0) - whole).square().mean()
    assert found.sqrt() < plain.sqrt() / 3


def test_units_of_a_feature_and_features_without_spread_do_not_matter():
    rows = points()
    scaled = torch.cat([rows * torch.tensor([1.0, 1e3, 1e-3]) + 5.0, torch.ones(200, 1)], 1)
    assert herd(rows, 20) == herd(scaled, 20)


def test_all_points_and_equal_points():
    assert sorted(herd(points(12), 12)) == list(range(12))
    assert herd(torch.ones(5, 2), 2) == [0, 1]


@pytest.mark.parametrize("count", [0, 13])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(ValueError, match="expected from 1 to 12 draws"):
        herd(points(12), count)


def test_a_thinned_bank_holds_draws_of_the_bank():
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
