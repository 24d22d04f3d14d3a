"""Layers with a forward of their own: draws are what train mode gives, or the layer is named."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import mcbn
from mcbn.bank.posteriors import FactorizedPosterior, JointPosterior

CHANNELS, LENGTH, M, DRAWS = 4, 6, 8, 6

# These networks were never trained.
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


class Moving(nn.Module):
    """Batch norm written out: moments over some values, in buffers of some shape."""

    def __init__(self, shape: tuple[int, ...] = (CHANNELS,)) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))
        self.eps = 1e-5

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2)), x.var((0, 2), correction=0)

    def expanded(self, statistic: Tensor, x: Tensor) -> Tensor:
        return statistic.reshape(1, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = self.moments(x)
            self.running_mean.lerp_(mean.detach(), 0.1)
            self.running_var.lerp_(variance.detach(), 0.1)
        deviation = (self.expanded(variance, x) + self.eps).sqrt()
        return (x - self.expanded(mean, x)) / deviation


class OfAll(Moving):
    """One mean and one variance for all channels."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean(), x.var(correction=0)


class WithAxes(Moving):
    """Buffers of the shape (1, channels, 1)."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2), keepdim=True), x.var((0, 2), correction=0, keepdim=True)

    def expanded(self, statistic: Tensor, x: Tensor) -> Tensor:
        return statistic


class OfHalves(Moving):
    """Statistics of their own for the first and the second half of the positions."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        halves = x.unflatten(2, (2, -1))
        return halves.mean((0, 3)), halves.var((0, 3), correction=0)

    def expanded(self, statistic: Tensor, x: Tensor) -> Tensor:
        return statistic.repeat_interleave(x.shape[2] // 2, 1)


class Masked(Moving):
    """Moments over the values that count, where `held` has a mask."""

    def __init__(self, held: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        if held is not None:
            self.held = held

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = x.transpose(1, 2)[self.mask()]
        return values.mean(0), values.var(0, correction=0)

    def mask(self) -> Tensor:
        return self.held["mask"]


class MaskedFromAfar(Masked):
    """Its mask is where nobody looks for it."""

    def __init__(self, held: dict[str, Tensor]) -> None:
        super().__init__()
        self.mask = lambda: held["mask"]


class Complex(Moving):
    """A complex mean."""

    def __init__(self) -> None:
        super().__init__()
        self.running_mean = self.running_mean.to(torch.complex64)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2)), x.var((0, 2), correction=0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.complex(x, x.roll(1, 2))).abs()


class NotCopied(WithAxes):
    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError("not to be copied")


class Network(nn.Module):
    """A dense network around one layer; a mask is put where the layer finds it."""

    def __init__(self, layer: nn.Module, held: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(3, CHANNELS, 1), layer
        self.last = nn.Conv1d(CHANNELS, 2, 1)
        self.held = [held]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.held[0] is not None:
            self.held[0]["mask"] = mask
        return self.last(self.norm(self.first(x)))


def surrounded(layer: nn.Module) -> nn.Module:
    """The layer with a function around its forward, which a copy of it shares."""
    inner = layer.forward
    layer.forward = lambda x: 2 * inner(x)
    return layer


HELD: dict[str, Tensor] = {}
BUILDERS = {
    "one mean for all channels": lambda: Network(OfAll(())),
    "further axes": lambda: Network(WithAxes((1, CHANNELS, 1))),
    "a table": lambda: Network(OfHalves((CHANNELS, 2))),
    "a mask that it holds": lambda: Network(Masked(HELD), HELD),
    "a function around it": lambda: Network(surrounded(WithAxes((1, CHANNELS, 1)))),
    "a function around a mask": lambda: Network(surrounded(Masked(HELD)), HELD),
    "not to be copied": lambda: Network(NotCopied((1, CHANNELS, 1))),
}


def batches(ragged_from: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Mini-batches, and masks that leave nothing out before one of them."""
    generator = torch.Generator().manual_seed(1)
    random = partial(torch.rand, generator=generator)
    return [
        (3 * random(M, 3, LENGTH), random(M, LENGTH) < (2.0 if draw < ragged_from else 0.6))
        for draw in range(DRAWS)
    ]


def built(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def collected(network: nn.Module, given: list[tuple[Tensor, Tensor]]) -> mcbn.Bank:
    return mcbn.collect(network, given, select=lambda batch: batch, progress=False)


def in_train_mode(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What the network itself gives in train mode; its buffers are put back."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad():
        output = network.train()(*batch)
        for name, buffer in before.items():
            network.get_buffer(name).copy_(buffer)
    network.eval()
    return output


@pytest.mark.parametrize("ragged_from", [0, 1, 2])
@pytest.mark.parametrize("kind", BUILDERS)
def test_every_draw_gives_what_train_mode_gave(kind, ragged_from):
    network, given = built(BUILDERS[kind]), batches(ragged_from)
    bank = collected(network, given)
    for draw, batch in enumerate(given):
        expected = in_train_mode(network, batch)
        output = torch.func.functional_call(network, bank.state(draw), batch)
        assert_close(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["one mean for all channels", "further axes", "a table"])
def test_statistics_of_any_shape_are_a_bank(kind, tmp_path):
    network, given = built(BUILDERS[kind]), batches()
    loader = torch.utils.data.DataLoader(given, batch_size=None, collate_fn=tuple)
    bank = collected(network, loader)
    bank.save(tmp_path / "bank.st")
    loaded = mcbn.Bank.load(tmp_path / "bank.st")
    assert_close(dict(loaded.statistics), dict(bank.statistics), rtol=0, atol=0)
    many = [
        bank.thin(3),
        bank.rescale(16),
        JointPosterior.from_bank(bank).sample(3),
        FactorizedPosterior.from_bank(bank).sample(3),
    ]
    for each in many:
        assert each.statistics["norm.running_var"].shape[1:] == network.norm.running_var.shape
        assert mcbn.MCBatchNorm(network, each)(given[0])[0].shape == (M, 2, LENGTH)


def test_a_mask_from_afar_is_told_once_it_matters():
    held: dict[str, Tensor] = {}
    network = built(lambda: Network(MaskedFromAfar(held), held))
    given = batches(2)  # as the first two mini-batches have none, the third is taken as they were
    with pytest.raises(ValueError, match=r"'norm' \(MaskedFromAfar\).* give it as an argument"):
        collected(network, given)
    assert len(collected(network, batches(1))) == DRAWS  # none was taken so


def test_complex_statistics_are_left_out():
    network = built(lambda: Network(Complex()))
    with pytest.raises(ValueError, match=r"'norm' \(Complex\), whose train mode"):
        collected(network, batches())
    network.last = nn.Sequential(network.last, nn.BatchNorm1d(2)).eval()
    with pytest.warns(UserWarning, match=r"'norm' \(Complex\).*train mode"):
        bank = collected(network, batches())
    assert list(bank.statistics) == ["last.1.running_mean", "last.1.running_var"]


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_layer_is_left_as_it_was(kind):
    network = built(BUILDERS[kind])
    before = copy.deepcopy(dict(network.state_dict()))
    forwards = [vars(module).get("forward") for module in network.modules()]
    collected(network, batches())
    assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    assert [vars(module).get("forward") for module in network.modules()] == forwards
    assert not any(module.training for module in network.modules())
