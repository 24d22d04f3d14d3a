"""Mini-batches that share a pass have the statistics that they have in passes of their own."""

import pytest
import torch
from models import dense, examples, make_network, randomized, without_seed
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.bank import draws, grouping
from mcbn.bank.full_batches import ROWS, CountedBatch
from mcbn.network.batchnorm import batch_norm_layers

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SIZE = 8


class Activated(nn.BatchNorm1d):
    """A batch norm whose forward adds an activation."""

    def forward(self, x):
        return torch.tanh(super().forward(x)) + 1


class WithSkip(nn.BatchNorm1d):
    """A batch norm whose forward also uses its raw input."""

    def forward(self, x):
        return super().forward(x) + x


class LookAlike(nn.Module):
    """A batch norm that is not one of PyTorch."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = x.mean(0), x.var(0, correction=0)
            self.running_mean, self.running_var = mean.detach(), variance.detach()
        return (x - mean) * (variance + 1e-5).rsqrt()


class Applied(nn.Module):
    """Applies a function before, between and after two batch norms."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.mix = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.between = between

    def forward(self, x):
        return self.second(self.mix(self.between(self.first(x))))


def build(name, dtype):
    return randomized(without_seed(NETWORKS[name])).to(dtype).eval()


NETWORKS = {
    "dense": lambda: dense(nn.BatchNorm1d(6)),
    "affine=False": lambda: dense(nn.BatchNorm1d(6, affine=False)),
    "momentum=None": lambda: dense(nn.BatchNorm1d(6, momentum=None)),
    "eps": lambda: dense(nn.BatchNorm1d(6, eps=0.3)),
    "eps above 1": lambda: dense(nn.BatchNorm1d(6, eps=2.0)),
    "sync": lambda: dense(nn.SyncBatchNorm(6)),
    "subclass": lambda: dense(Activated(6)),
    "single layer": lambda: nn.BatchNorm1d(4),
    "residual": lambda: Applied(lambda x: torch.relu(x) + x),
    "no weights": lambda: nn.Sequential(nn.BatchNorm1d(4, affine=False)),
}
SINGLE_PASSES = {
    "look-alike": lambda: dense(LookAlike(6)),
    "uses its raw input": lambda: dense(WithSkip(6)),
    "mixes examples": lambda: Applied(lambda x: x - x.amax(0)),
    "mixes neighbours": lambda: Applied(lambda x: x + x.roll(1, 0)),
    "fixed number of rows": lambda: Applied(lambda x: x.reshape(SIZE, 4)),
    "noise": lambda: Applied(lambda x: x + torch.randn_like(x)),
    "three axes inside": lambda: nn.Sequential(
        nn.BatchNorm1d(4), nn.Unflatten(1, (4, 1)), nn.BatchNorm1d(4)
    ),
}


def collected(monkeypatch, model, batches, *, together):
    """A bank, and the number of mini-batches that had a pass of their own."""
    single = []
    original = draws.batch_statistics
    with monkeypatch.context() as patch:
        patch.setattr(
            draws, "batch_statistics", lambda *a, **k: single.append(0) or original(*a, **k)
        )
        if not together:
            patch.setattr(draws, "group_size", lambda *_: 1)
        return mcbn.collect(model, batches, limit=None), len(single)


def assert_statistics_close(actual, expected, tolerance):
    """Relative to the size of what is averaged: rounding of an activation x moves (x - mean)^2."""
    assert actual.keys() == expected.keys()
    for name in (name for name in expected if name.endswith("running_mean")):
        other = name.replace("running_mean", "running_var")
        mean, variance = expected[name], expected[other]
        deviation = variance.sqrt()
        gap = (actual[name] - mean).abs() / (mean.abs() + deviation)
        assert float(gap.max()) <= tolerance
        gap = (actual[other] - variance).abs() / (variance + deviation * mean.abs())
        assert float(gap.max()) <= tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_statistics_of_a_shared_pass_are_those_of_single_passes(name, dtype, monkeypatch):
    model = build(name, dtype)
    # 150 draws: the first in a pass of its own, then two groups of 64 and a smaller one.
    batches = mcbn.minibatches(examples("1d of 2-D", 400, dtype), batch_size=SIZE, draws=150)
    bank, single = collected(monkeypatch, model, batches, together=True)
    expected, all_single = collected(monkeypatch, model, batches, together=False)
    assert (single, all_single, len(bank)) == (1, 150, 150)
    assert {rows.dtype for rows in bank.statistics.values()} == {dtype}
    assert_statistics_close(bank.statistics, expected.statistics, TOLERANCE[dtype])


def test_means_far_from_zero_keep_their_variance(monkeypatch):
    """Sums of squares would lose all of it: a mean of 1,000 deviations in float32."""
    model = build("single layer", torch.float32)
    data = examples("1d of 2-D", 400, torch.float32) + 2000.0
    batches = mcbn.minibatches(data, batch_size=SIZE, draws=100)
    bank, single = collected(monkeypatch, model, batches, together=True)
    exact = torch.stack([batch.double().var(0, correction=0) for batch in batches])
    assert single == 1
    assert_close(bank.statistics["running_var"].double(), exact, rtol=1e-4, atol=0)


def test_each_mini_batch_is_normalised_by_its_own_statistics():
    """The input of the second layer has mean 0 and variance 1 in each mini-batch."""
    model = nn.Sequential(nn.BatchNorm1d(4, eps=1e-9, affine=False), nn.BatchNorm1d(4)).double()
    batches = mcbn.minibatches(examples("1d of 2-D", 400), batch_size=SIZE, draws=100)
    statistics = mcbn.collect(model, batches).statistics
    assert_close(statistics["1.running_mean"], torch.zeros(100, 4).double(), rtol=0, atol=1e-12)
    assert_close(statistics["1.running_var"], torch.ones(100, 4).double(), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The network's output")
@pytest.mark.parametrize("name", SINGLE_PASSES)
def test_networks_that_cannot_share_a_pass_have_single_passes(name, monkeypatch):
    model = without_seed(SINGLE_PASSES[name]).eval()
    batches = mcbn.minibatches(examples("1d of 2-D", 400, torch.float32), batch_size=SIZE, draws=30)
    bank, single = collected(monkeypatch, model, batches, together=True)
    expected, _ = collected(monkeypatch, model, batches, together=False)
    assert single == 30
    assert_close(dict(bank.statistics), dict(expected.statistics), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["2d", "1d of 3-D", "timm BatchNormAct2d"])
def test_convolutions_have_single_passes(name, monkeypatch):
    batches = mcbn.minibatches(examples(name, 40), batch_size=SIZE, draws=5)
    assert collected(monkeypatch, make_network(name), batches, together=True)[1] == 5


@pytest.mark.parametrize("kind", ["half precision", "two inputs"])
def test_other_inputs_have_single_passes(kind, monkeypatch):
    data = examples("1d of 2-D", 40, torch.float32)
    if kind == "half precision":
        model, batches = build("dense", torch.bfloat16), list(data.bfloat16().split(SIZE))
    else:

        class Sum(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(4)

            def forward(self, left, right):
                return self.norm(left + right)

        model, batches = Sum(), [((part, part),) for part in data.split(SIZE)]
    assert collected(monkeypatch, model, batches, together=True)[1] == 5


@pytest.mark.parametrize("draws", [1, 2, 64, 65, 70])
def test_a_draw_does_not_depend_on_the_number_of_draws(draws):
    model, data = build("dense", torch.float32), examples("1d of 2-D", 400, torch.float32)
    long, short = (
        mcbn.collect(model, mcbn.minibatches(data, batch_size=SIZE, draws=count, seed=4))
        for count in (100, draws)
    )
    assert_close(dict(long.first(draws).statistics), dict(short.statistics), rtol=0, atol=0)


def test_the_model_and_the_random_streams_are_left_unchanged(monkeypatch):
    model = build("dense", torch.float64).train()
    buffers = {name: value.clone() for name, value in model.state_dict().items()}
    places = [id(value) for value in (*model.parameters(), *model.buffers())]
    stream = torch.get_rng_state()
    batches = mcbn.minibatches(examples("1d of 2-D", 400), batch_size=SIZE, draws=20)
    assert collected(monkeypatch, model, batches, together=True)[1] == 1
    assert_close(model.state_dict(), buffers, rtol=0, atol=0)
    assert places == [id(value) for value in (*model.parameters(), *model.buffers())]
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())
    assert torch.equal(stream, torch.get_rng_state())


def test_the_error_of_a_nan_names_its_draw():
    data = list(examples("1d of 2-D", 10 * SIZE).split(SIZE))
    data[7][3, 2] = float("nan")
    with pytest.raises(ValueError, match=r"mini-batch 7.* 1 NaN .*\(3, 2\)"):
        mcbn.collect(build("dense", torch.float64), data)


def test_a_loader_that_repeats_itself_is_refused_in_shared_passes():
    data = examples("1d of 2-D", 5 * SIZE, torch.float32)
    loader = DataLoader(TensorDataset(data), batch_size=SIZE)
    with pytest.raises(ValueError, match="got draw 5 equal to draw 0"):
        mcbn.collect(build("dense", torch.float32), loader, draws=12)


def test_memory_of_a_pass_is_bounded():
    batch = torch.zeros(128, 13)
    for width, size in ((50, 40), (1000, 2), (3000, 1)):
        model = wide(width)
        layers = batch_norm_layers(model)
        group_size = grouping.group_size(model, layers, CountedBatch(batch, len(batch), ROWS))
        assert group_size == size
        assert group_size == 1 or group_size * 128 * width <= grouping.MAX_VALUES_PER_PASS


def wide(width):
    return without_seed(lambda: nn.Sequential(nn.Linear(13, width), nn.BatchNorm1d(width)))
