"""Wrapped networks: the statistics are those of the network inside."""

import pytest
import torch
from models import examples, make_network, train_mode_output, without_seed
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.network.batchnorm import unwrapped

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

NAME = "1d of 2-D"


def compiled(network):
    return torch.compile(network, backend="eager")


class Parallel(nn.Module):
    """A stand-in, by name, for the class that needs a process group."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        raise AssertionError("a forward of the wrapper may wait for other processes")


Parallel.__name__ = "DistributedDataParallel"
WRAPPERS = {
    "compiled": compiled,
    "data parallel": nn.DataParallel,
    "distributed": Parallel,
    "distributed, of compiled": lambda network: Parallel(compiled(network)),
}
SAMPLERS = {
    "mcbn": lambda model, bank: mcbn.MCBatchNorm(model, bank),
    "linearised": lambda model, bank: mcbn.LinearizedBatchNorm(model, bank),
    "dropout": lambda model, bank: mcbn.MCDropout(model, draws=3),
    "last-layer Laplace": lambda model, bank: mcbn.LastLayerLaplace.fit(
        model, examples(NAME, 30), torch.arange(30) % 3, draws=3
    ),
    "augmented": lambda model, bank: mcbn.Augmented(model, mcbn.RandomShift((1,)), draws=3),
    "ensemble": lambda model, bank: mcbn.DeepEnsemble([model, model]),
    "deterministic": lambda model, bank: mcbn.Deterministic(model),
}


@pytest.fixture(params=WRAPPERS)
def wrapped(request):
    return WRAPPERS[request.param](make_network(NAME))


def batches():
    return [examples(NAME, 8, seed=seed) for seed in range(6)]


def test_a_bank_is_that_of_the_network_inside(wrapped):
    plain = unwrapped(wrapped)
    assert type(plain) is nn.Sequential
    assert unwrapped(plain) is plain
    bank, expected = mcbn.collect(wrapped, batches()), mcbn.collect(plain, batches())
    assert_close(dict(bank.statistics), dict(expected.statistics), rtol=0, atol=0)
    assert (bank.model, bank.weights) == (expected.model, expected.weights)
    bank.require_model(wrapped)
    bank.require_model(plain)
    batch = batches()[0]
    rows = mcbn.MCBatchNorm(wrapped, expected)(batch)
    assert_close(rows[0], train_mode_output(plain, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_the_same_as_with_the_network_inside(wrapped, sampler):
    plain = unwrapped(wrapped)
    bank = mcbn.collect(plain, batches())
    outputs, expected = (SAMPLERS[sampler](model, bank)(batches()[0]) for model in (wrapped, plain))
    assert_close(outputs, expected, rtol=0, atol=0)


def test_an_exported_program_uses_the_bank_of_its_network_and_gives_none():
    # It takes as many examples as it was exported with, so no engine can be tried on fewer.
    network, batch = make_network(NAME), batches()[0]
    program = torch.export.export(network, (batch,)).module()
    with pytest.raises(ValueError, match=r"exported program.* collect from the network"):
        mcbn.collect(program, batches())
    bank = mcbn.collect(network, batches())
    expected = mcbn.MCBatchNorm(network, bank, engine="loop")(batch)
    assert_close(mcbn.MCBatchNorm(program, bank)(batch), expected, rtol=1e-12, atol=1e-12)


def test_weights_may_still_change_their_size():
    """Sharded weights do between two passes; an array that shares their memory would forbid it."""
    model, batch = make_network(NAME), batches()[0]
    mcbn.MCBatchNorm(model, mcbn.collect(model, batches()))(batch)
    assert all(weight.untyped_storage().resizable() for weight in model.parameters())


def test_autocast_inside_a_network_is_kept():
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_network(NAME, torch.float32)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(x)

    model, batch = Cast().eval(), examples(NAME, 8, torch.float32)
    bank = mcbn.collect(model, [batch, batch + 1])
    for engine in ("auto", "folded", "batched"):
        assert mcbn.MCBatchNorm(model, bank, engine=engine)(batch).dtype == torch.bfloat16


def test_a_trace_that_fails_prints_nothing(capfd):
    """A traced `isinstance` differs from the network's own, and fx prints the code that fails."""

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
            self.mix = nn.Conv2d(6, 3, 1)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.mix(torch.cat([x, x], 1) if isinstance(x, torch.Tensor) else x))

    model = without_seed(Joined).eval()
    batch = examples("2d", 8, torch.float32)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, [batch, batch + 1]), engine="folded")
    assert_close(sampler(batch)[0], train_mode_output(model, batch), rtol=1e-5, atol=1e-5)
    assert capfd.readouterr() == ("", "")
