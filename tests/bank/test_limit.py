"""What large batches have, measured by one larger pass, and what rescaling makes of it."""

import pytest
import torch
from models import without_seed
from torch import nn

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
DEEP = "4.running_mean"


@pytest.fixture(scope="module")
def data():
    """Inputs with heavy tails, which a small batch normalises otherwise than a large one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 6, dtype=torch.float64, generator=generator)
    return noise.sign() * noise.abs() ** 1.5


@pytest.fixture(scope="module")
def network():
    return without_seed(
        lambda: nn.Sequential(
            nn.Linear(6, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 40), nn.BatchNorm1d(40)
        )
    ).double().eval()  # fmt: skip


def collected(network, data, size, draws, seed=0, **options):
    batches = mcbn.minibatches(data, batch_size=size, draws=draws, seed=seed, replacement=True)
    return mcbn.collect(network, batches, **options)


def off(rescaled, real):
    """Root mean square over channels of the gap between mean statistics, in sd of a real draw."""
    gap = rescaled.statistics[DEEP].mean(0) - real.statistics[DEEP].mean(0)
    return float((gap / real.statistics[DEEP].std(0)).square().mean().sqrt())


@pytest.mark.parametrize("size", [8, 64])
def test_the_means_of_deep_layers_are_those_really_collected(network, data, size):
    """Up to the noise by which two real banks differ; without the limit they are far off."""
    real, again = (collected(network, data, size, 600, seed=seed, limit=None) for seed in (1, 2))
    known = collected(network, data, 16, 600, limit="all").rescale(size)
    unknown = collected(network, data, 16, 600, limit=None).rescale(size)
    noise = off(again, real)
    assert off(known, real) < 2 * noise
    assert off(unknown, real) > 4 * noise


def test_the_bias_is_that_of_the_new_size_after_rescaling(network, data):
    """Two steps are one."""
    bank = collected(network, data, 16, 40)
    once, twice = bank.rescale(128), bank.rescale(32).rescale(128)
    for name, rows in once.statistics.items():
        torch.testing.assert_close(twice.statistics[name], rows)
        torch.testing.assert_close(twice.bias[name], once.bias[name])


def test_merging_leaves_the_limit_where_it_was(network, data):
    """The means of deep layers keep their whole bias, which rescaling then takes away."""
    bank = collected(network, data, 16, 40)
    whole = bank.merge(4)
    for name, rows in whole.coordinates().items():
        limit = bank.coordinates()[name].mean(0) - bank.bias[name]
        torch.testing.assert_close(rows.mean(0) - whole.bias[name], limit)
    torch.testing.assert_close(whole.bias[DEEP], bank.bias[DEEP])


def test_one_more_pass_is_all_that_it_takes(network, data, monkeypatch):
    from mcbn.bank import limit  # noqa: PLC0415

    passed = []
    original = limit.batch_statistics

    def watched(model, layers, batch, own, **options):
        passed.append(batch.examples)
        return original(model, layers, batch, own, **options)

    monkeypatch.setattr(limit, "batch_statistics", watched)
    collected(network, data, 16, 40, limit=100)
    assert passed == [96]
    collected(network, data, 16, 40, limit=None)
    collected(network, data, 16, 1)
    assert passed == [96]


class OfEight(nn.Module):
    """Takes batches of eight alone."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(x.reshape(8, 6))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(x + torch.rand_like(x))


@pytest.mark.filterwarnings("ignore:The network's outputs are random")
@pytest.mark.parametrize("kind", [OfEight, Noisy])
def test_where_it_cannot_be_had_it_is_left_out_and_rescaling_says_so(kind, data):
    model = without_seed(kind).double().eval()
    bank = collected(model, data, 8, 12)
    assert bank.bias == {}
    # A network of a single layer has no deep ones, of which to say so.
    statistics = {f"{i}.{n}": v for i in range(2) for n, v in bank.statistics.items()}
    both = mcbn.Bank(statistics, {}, 8, epsilon={n: 1e-5 for n in statistics if "var" in n})
    assert any("was not collected" in doubt for doubt in both.doubts(16))


def test_batches_whose_rows_are_no_examples_are_not_put_together(data):
    frames = [data[start : start + 24].reshape(24, 6) for start in range(0, 240, 24)]
    model = without_seed(lambda: nn.BatchNorm1d(6)).double().eval()
    bank = mcbn.collect(model, frames, size=lambda batch: len(batch) // 3)
    assert (bank.batch_size, bank.bias) == (8, {})
