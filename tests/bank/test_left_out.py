"""Layers without a draw are named: ghosts, layers used otherwise or not at all, unknown buffers."""

import pytest
import torch
from models import randomized, without_seed
from torch import nn
from torch.nn import functional

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

C = 4
DATA = torch.rand(64, C, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """A plain layer, and another that is used in some way."""

    def __init__(self, other):
        super().__init__()
        self.other, self.plain, self.head = other, nn.BatchNorm1d(C), nn.Linear(C, 2)

    def use(self, x):
        return self.other(x)

    def forward(self, x):
        return self.head(self.plain(self.use(x)))


class ByTensors(Network):
    def use(self, x):
        norm = self.other
        return functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training
        )


class NotAtAll(Network):
    def use(self, x):
        return self.other(x) if self.training else x


class ByItsForward(Network):
    def use(self, x):
        return self.other.forward(x)


class Ghost(nn.BatchNorm1d):
    def forward(self, x):
        parts = x.chunk(2) if self.training else [x]
        return torch.cat([super(Ghost, self).forward(part) for part in parts])


class Activated(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x).relu()


class Normalizer(nn.Module):
    """Uses its running statistics in train mode too, which go on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(C))
        self.register_buffer("running_var", torch.ones(C))

    def forward(self, x):
        if self.training:
            self.running_mean.lerp_(x.mean(0), 0.1)
            self.running_var.lerp_(x.var(0), 0.1)
        return (x - self.running_mean) / (self.running_var + 1e-5).sqrt()


class OtherNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("moving_mean", torch.zeros(C))
        self.register_buffer("moving_var", torch.ones(C))

    def forward(self, x):
        mean, variance = self.moving_mean, self.moving_var
        if self.training:
            mean, variance = x.mean(0), x.var(0, correction=0)
            self.moving_mean.lerp_(mean, 0.1)
            self.moving_var.lerp_(variance, 0.1)
        return (x - mean) / (variance + 1e-5).sqrt()


class Whitening(nn.Module):
    """Divides by a running covariance."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(C))
        self.register_buffer("running_covariance", torch.eye(C))

    def forward(self, x):
        mean, covariance = self.running_mean, self.running_covariance
        if self.training:
            mean, covariance = x.mean(0), x.T.cov(correction=0)
            self.running_mean.lerp_(mean, 0.1)
            self.running_covariance.lerp_(covariance, 0.1)
        return torch.linalg.solve(covariance + 0.01 * torch.eye(C), (x - mean).T).T


class Late(OtherNames):
    """Makes its statistics when it first trains."""

    def __init__(self):
        nn.Module.__init__(self)
        self.register_buffer("moving_mean", torch.zeros(C))
        self.register_buffer("moving_var", None)

    def forward(self, x):
        if self.training:
            self.moving_mean, self.moving_var = x.mean(0), x.var(0, correction=0)
        deviation = 1 if self.moving_var is None else (self.moving_var + 1e-5).sqrt()
        return (x - self.moving_mean) / deviation


class OfInstances(nn.InstanceNorm1d):
    """Statistics of each example, of a class of its own."""

    def forward(self, x):
        return super().forward(x[:, :, None].expand(-1, -1, 2)).mean(2)


class KeptInEval(Network):
    def train(self, mode=True):
        super().train(mode)
        self.other.eval()
        return self


TOLD = {
    "ghost": (lambda: Network(Ghost(C)), r"'other' \(Ghost\) first: what train mode does"),
    "normaliser": (lambda: Network(Normalizer()), r"'other' \(Normalizer\) .* train mode"),
    "by its tensors": (lambda: ByTensors(nn.BatchNorm1d(C)), "'other' first.* its tensors alone"),
    "not at all": (lambda: NotAtAll(nn.BatchNorm1d(C)), "'other' first, so nothing is drawn"),
    "by its forward": (lambda: ByItsForward(Activated(C)), "'other' first, so nothing is drawn"),
    "whitening": (lambda: Network(Whitening()), r"'other' \(Whitening\) .* in train mode"),
    "made late": (lambda: Network(Late()), r"'other' \(Late\) .* in train mode"),
    "other names": (lambda: Network(OtherNames()), r"'other' \(OtherNames\) .* rename them"),
}


def built(build):
    return randomized(without_seed(build)).eval()


def collected(network):
    batches = mcbn.minibatches(DATA, batch_size=8, draws=3)
    return mcbn.collect(network, batches, progress=False)


@pytest.mark.parametrize("kind", TOLD)
def test_a_layer_without_a_draw_is_named(kind):
    build, words = TOLD[kind]
    network = built(build)
    with pytest.warns(UserWarning, match=words):
        bank = collected(network)
    assert list(bank.statistics) == ["plain.running_mean", "plain.running_var"]
    assert "'other'" in str(mcbn.inspect(network, DATA, batch_size=8))


@pytest.mark.parametrize("kind", ["ghost", "normaliser", "by its tensors", "by its forward"])
def test_a_network_without_any_draw_is_refused(kind):
    network = built(TOLD[kind][0])
    network.plain = nn.Identity()
    with pytest.raises(ValueError, match="'other'"):
        collected(network)
    assert not mcbn.inspect(network, DATA, batch_size=8).servable


def test_statistics_of_instances_are_not_missed():
    network = built(lambda: Network(OfInstances(C, track_running_stats=True)))
    assert len(collected(network).statistics) == 2


def test_a_layer_that_training_kept_in_eval_mode_is_told_and_drawn():
    with pytest.warns(UserWarning, match="frozen in training .the first is 'other'"):
        bank = collected(built(lambda: KeptInEval(nn.BatchNorm1d(C))))
    assert len(bank.statistics) == 4


class ChannelsLast(nn.BatchNorm1d):
    """Of the names that PyTorch's fused transformer reads, instead of a call."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(C, 2, 8, 0.0, batch_first=True)
        self.block.norm1, self.block.norm2 = ChannelsLast(C), ChannelsLast(C)
        self.plain = nn.BatchNorm1d(C)

    def forward(self, x):
        return self.plain(self.block(x[:, None].expand(-1, 3, -1)).mean(1))


def test_a_path_that_skips_layers_in_eval_mode_is_refused_and_its_remedy_works():
    network = built(Transformer)
    with pytest.raises(ValueError, match=r"'block\.norm1' and others.*set_fastpath_enabled"):
        collected(network)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert len(collected(network).statistics) == 6
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
