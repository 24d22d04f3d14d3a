"""Draws merged into those of larger mini-batches, and rescaled through channels that are dead."""

import pytest
import torch
from law import DEVIATIONS
from models import without_seed
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.bank.rescaling import dead_in_some, merged

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
MEAN, VARIANCE = "running_mean", "running_var"


def normals(count, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, dtype=torch.float64, generator=generator)


def layer_bank(data, size, draws, seed=0):
    batches = mcbn.minibatches(data, batch_size=size, draws=draws, seed=seed, replacement=True)
    return mcbn.collect(nn.BatchNorm1d(data.shape[1]).double().eval(), batches), batches


def moments(*batches):
    together = torch.cat(batches)
    return together.mean(0), together.var(0, correction=0)


def test_each_merged_draw_is_that_of_mini_batches_put_together():
    """For every draw there is a partner with which it has these moments; each is one once."""
    bank, batches = layer_bank(normals(60), size=5, draws=8)
    merged_bank = bank.merge(2)
    assert (merged_bank.batch_size, len(merged_bank)) == (10, 8)
    partners = []
    for draw in range(8):
        row = merged_bank.state(draw)
        for other in range(8):
            mean, variance = moments(batches[draw], batches[other])
            gap = torch.cat([row[MEAN] - mean, row[VARIANCE] - variance]).abs().max()
            if float(gap) < 1e-12:
                partners.append(other)
    assert sorted(partners) == list(range(8))


def test_merging_keeps_the_mean_over_draws_and_shrinks_the_spread():
    bank, _ = layer_bank(normals(5000, channels=1), size=8, draws=2000)
    for times in (2, 5):
        rows = bank.merge(times).statistics[MEAN]
        assert_close(rows.mean(0), bank.statistics[MEAN].mean(0))
        expected = bank.statistics[MEAN].std().item() * times**-0.5
        assert rows.std().item() == pytest.approx(expected, rel=DEVIATIONS * (2 * 2000) ** -0.5)


def test_between_whole_numbers_of_draws_nothing_jumps():
    bank, _ = layer_bank(normals(60), size=5, draws=12)

    def at(ratio):
        return merged(bank.statistics, torch.tensor(ratio, dtype=torch.float64))

    for whole in (1.0, 2.0, 3.0):
        for name, rows in at(whole).items():
            assert_close(at(whole + 1e-7)[name], rows, rtol=1e-5, atol=1e-5)
            assert_close(at(whole - 1e-7 if whole > 1 else 1.0)[name], rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("draws", [0, 13])
def test_as_many_as_there_are_can_be_merged(draws):
    bank, _ = layer_bank(normals(60), size=5, draws=12)
    with pytest.raises(ValueError, match="expected from 1 to 12 draws"):
        bank.merge(draws)
    assert len(bank.merge(12)) == 12


@pytest.fixture(scope="module")
def rarely_alive():
    """A channel before batch norm that few examples make positive: dead in most draws of 16."""
    model = without_seed(lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm1d(1))).double().eval()
    data = normals(20_000, channels=1, seed=1) - 2.0

    def bank(size, seed):
        batches = mcbn.minibatches(data, batch_size=size, draws=1500, seed=seed, replacement=True)
        return mcbn.collect(model, batches)

    return bank


def dead_share(bank):
    return float((bank.statistics["1.running_var"] < 1e-5).double().mean())


@pytest.mark.unchecked
@pytest.mark.parametrize("times", [2, 3, 4])
def test_channels_dead_in_some_draws_are_as_often_dead_as_really_collected(rarely_alive, times):
    held, real = rarely_alive(16, seed=0), rarely_alive(16 * times, seed=1)
    assert bool(dead_in_some(held.statistics, held.epsilon)["1.running_var"])
    assert 0.6 < dead_share(held) < 0.8
    rescaled = held.rescale(16 * times)
    error = (0.5 / 1500) ** 0.5
    assert dead_share(rescaled) == pytest.approx(dead_share(real), abs=DEVIATIONS * error)
    spreads = [bank.coordinates()["1.running_var"].std().item() for bank in (rescaled, real)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.15)


def test_downwards_dead_draws_stay_as_dead_and_it_is_told(rarely_alive):
    held = rarely_alive(16, seed=0)
    with pytest.warns(mcbn.RescalingWarning, match="dead in some draws"):
        smaller = held.rescale(8)
    assert dead_share(smaller) >= dead_share(held)
    rows, before = (bank.coordinates()["1.running_var"] for bank in (smaller, held))
    living = before[:, 0].topk(20).indices
    apart, apart_before = (each[living] - each[living[:1]] for each in (rows, before))
    assert_close(apart, 2**0.5 * apart_before)


def test_a_channel_dead_in_all_draws_stays_dead():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(1)).double().eval()
    bank = mcbn.collect(model, mcbn.minibatches(-normals(60, 1).abs(), batch_size=5, draws=6))
    assert not bool(dead_in_some(bank.statistics, bank.epsilon)["1.running_var"])
    assert bank.rescale(20).statistics["1.running_var"].eq(0).all()


def test_epsilon_decides_what_a_network_sees():
    """Variances far below epsilon are one to the network, and one to rescaling."""
    rows = torch.tensor([[1e-9], [1e-12], [1e-10], [1e-11]], dtype=torch.float64)
    bank = mcbn.Bank({MEAN: torch.zeros(4, 1), VARIANCE: rows}, {}, 16, epsilon={VARIANCE: 1e-5})
    assert bank.coordinates()[VARIANCE].std() < 1e-4
    assert bank.rescale(8).statistics[VARIANCE].max() < 2e-9
