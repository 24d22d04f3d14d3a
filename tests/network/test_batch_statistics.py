"""Networks that normalise by the batch at hand in eval mode are refused by name."""

import pytest
import torch
from models import without_seed
from torch import nn
from torch.nn import functional

from mcbn.network.batch_statistics import NormalizesByBatchError, refuses_batch_statistics

X = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    def __init__(self, use):
        super().__init__()
        self.part = nn.ModuleDict({"norm": nn.BatchNorm1d(4)})
        self.use = use

    def forward(self, x):
        return self.use(self.part["norm"], x)


def switched(norm, x):
    norm.train()
    return norm(x)


def switched_and_back(norm, x):
    output = switched(norm, x)
    norm.eval()
    return output


NAMED = {
    "its buffers": lambda norm, x: functional.batch_norm(
        x, norm.running_mean, norm.running_var, training=True),
    "its weight": lambda norm, x: functional.batch_norm(
        x, None, None, norm.weight, norm.bias, True),
    "by position": lambda norm, x: torch.batch_norm(
        x, norm.weight, norm.bias, None, None, True, 0.1, 1e-5, False),
    "train()": switched,
    "train() and eval()": switched_and_back,
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMED)
def test_the_layer_is_named(kind):
    model = without_seed(lambda: Network(NAMED[kind])).eval()
    with (
        pytest.raises(NormalizesByBatchError, match=r"got 'part\.norm', which normalises by the"),
        refuses_batch_statistics(model),
    ):
        model(X)


class Written(nn.Module):
    """Batch norm that calls no function of PyTorch for it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))

    def forward(self, x):
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = x.mean(0), x.var(0, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt()


def test_a_layer_of_its_own_that_is_switched_is_named():
    model = Network(switched)
    model.part["norm"] = Written()
    model.eval()
    with (
        pytest.raises(NormalizesByBatchError, match=r"got 'part\.norm', which normalises by the"),
        refuses_batch_statistics(model),
    ):
        model(X)


def test_a_call_without_a_layer_is_told():
    model = Network(lambda _, x: functional.batch_norm(x, None, None, training=True)).eval()
    with (
        pytest.raises(NormalizesByBatchError, match="a call of batch_norm with training=True"),
        refuses_batch_statistics(model),
    ):
        model(X)


@pytest.mark.parametrize(
    "use",
    [
        lambda norm, x: norm(x),
        lambda norm, x: functional.batch_norm(x, norm.running_mean, norm.running_var),
        lambda _, x: functional.instance_norm(x[:, None])[:, 0],
        lambda _, x: functional.group_norm(x, 2),
    ],
)
def test_other_normalisation_is_not(use):
    model = Network(use).eval()
    with refuses_batch_statistics(model):
        model(X)
