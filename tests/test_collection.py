"""The laws of a bank: what a draw is, that it is exact, that nothing else moves."""

import copy

import pytest
import timm
import torch
import torchvision
from models import CASES, examples, made, shaken, train_mode_output, without_seed
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mcbn

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def snapshot(model):
    """Everything of a model that a call must leave as it was."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [id(value) for value in (*model.parameters(), *model.buffers())],
        [module.training for module in model.modules()],
        [value.requires_grad for value in model.parameters()],
        [value.grad is None for value in model.parameters()],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks),
             len(m._forward_pre_hooks_with_kwargs))
            for m in model.modules()
        ],
    )  # fmt: skip


def assert_same(before, after):
    assert before[1:] == after[1:]
    assert_close(before[0], after[0], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_own_statistics_give_the_train_mode_output(name, dtype, training):
    model, batch = made(name, dtype).train(training), examples(name, 7, dtype)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, [batch]))
    tolerance = TOLERANCE[dtype]
    expected = train_mode_output(model, batch)
    assert_close(sampler(batch)[0], expected, rtol=tolerance, atol=tolerance)


PUBLISHED = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=10),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_obey_the_identity_law(name, dtype):
    model = without_seed(PUBLISHED[name]).to(dtype).eval()
    # Enough values a channel in float32; few in float64, whose depthwise convolutions are slow.
    shape = (8, 3, 64, 64) if dtype == torch.float32 else (4, 3, 32, 32)
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, [batch]))
    expected = train_mode_output(model, batch)
    # Relative to the largest logit: a small one is a difference of large activations.
    tolerance = TOLERANCE[dtype] * float(expected.abs().max())
    assert_close(sampler(batch)[0], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_a_bank_of_the_running_statistics_reproduces_eval(name):
    model, batch = made(name), examples(name, 7)
    drawn = mcbn.collect(model, [batch])
    bank = mcbn.Bank(
        {key: value[None] for key, value in drawn.trained.items()}, drawn.trained, batch_size=7
    )
    with torch.no_grad():
        assert_close(mcbn.MCBatchNorm(model, bank)(batch)[0], model(batch), rtol=0, atol=0)
