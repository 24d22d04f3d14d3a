"""Statistics of a layer with a forward of its own, found by its train mode."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mcbn.network.train_mode import agrees, moments, nearly_agrees, train_mode_statistics

N, L, C = 8, 6, 4
X = 2 * torch.rand(N, L, C, generator=torch.Generator().manual_seed(0)) + torch.arange(C)
MASK = torch.rand(N, L, generator=torch.Generator().manual_seed(1)) < 0.6


class Masked(nn.BatchNorm1d):
    """Batch norm of (N, L, C) where a mask says so, as PyTorch stores it."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[mask] = super().forward(x[mask])
        return out


class Biased(Masked):
    """The same, written out; the variance that it stores is the one that it divides by."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = x[mask].mean(0), x[mask].var(0, correction=0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return (x - mean) / (variance + self.eps).sqrt() * mask[..., None]


class ChannelsLast(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Drops(ChannelsLast):
    """With dropout after it, which is no part of the comparison."""

    def __init__(self) -> None:
        super().__init__(C)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(super().forward(x))


class Renormalized(nn.BatchNorm1d):
    """Batch renormalisation: train mode corrects towards the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, deviation = x.mean(0), (x.var(0, correction=0) + self.eps).sqrt()
        running = (self.running_var + self.eps).sqrt()
        ratio = (deviation / running).clamp(0.5, 2)
        shift = ((mean - self.running_mean) / running).clamp(-1, 1)
        super().forward(x)
        return (x - mean) / deviation * ratio + shift


class Ghost(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(2) if self.training else [x]
        return torch.cat([super(Ghost, self).forward(part) for part in parts])


class Noisy(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.training * torch.rand_like(x)


SERVED = {
    "masked": (Masked, (X, MASK), X[MASK]),
    "masked, biased": (Biased, (X, MASK), X[MASK]),
    "channels last": (ChannelsLast, (X,), X.flatten(0, 1)),
    "as many positions as channels": (ChannelsLast, (X[:, :C],), X[:, :C].flatten(0, 1)),
    "dropout": (lambda _: Drops(), (X,), X.flatten(0, 1)),
}


@pytest.mark.parametrize("momentum", [0.1, 1e-3, 0.0, 1.0, None])
@pytest.mark.parametrize("kind", SERVED)
def test_statistics_are_those_of_the_values_that_count(kind, momentum):
    build, args, values = SERVED[kind]
    layer = build(C)
    if kind == "masked, biased" and momentum is None:
        pytest.skip("written for a number")
    layer.momentum = momentum
    expected = values.mean(0), values.var(0, correction=0)
    found = train_mode_statistics(layer, (args, {}))
    assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert agrees(layer, (args, {}), expected)
    assert nearly_agrees(layer, (args, {}), expected)
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e9])
def test_dead_and_huge_activations_have_statistics(scale):
    x = scale * (X - 1) + 1e-3
    found = train_mode_statistics(Masked(C), ((x, MASK), {}))
    values = x[MASK].double()
    expected = values.mean(0).float(), values.var(0, correction=0).float()
    assert_close(found, expected, rtol=1e-5, atol=1e-12)
    layer, table = Masked(C), torch.ones(N, L, dtype=torch.bool)
    assert agrees(layer, ((x, table), {}), moments((x.flatten(0, 1),), {}))


def test_moments_of_the_wrong_axis_are_told_from_the_right_ones():
    layer, x = ChannelsLast(C), X[:, :C]
    assert not agrees(layer, ((x,), {}), moments((x,), {}))  # those of the positions
    assert not nearly_agrees(layer, ((x,), {}), moments((x,), {}))


@pytest.mark.parametrize("layer", [Renormalized, Ghost, Noisy])
def test_what_is_no_batch_norm_in_train_mode_has_no_statistics(layer):
    x = X.flatten(0, 1)
    assert train_mode_statistics(layer(C), ((x,), {})) is None
    assert not agrees(layer(C), ((x,), {}), moments((x,), {}))


def test_arguments_by_name_and_random_streams_stay_as_they_are():
    x, before = X.clone(), torch.get_rng_state()
    layer = Drops()
    assert train_mode_statistics(layer, ((), {"x": x})) is not None
    assert torch.equal(x, X)
    assert torch.equal(torch.get_rng_state(), before)
    assert_close(layer.running_mean, torch.zeros(C), rtol=0, atol=0)
