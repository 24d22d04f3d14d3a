"""Gradients of predictions with respect to batch-norm statistics and the batch size."""

import pytest
import torch
from models import CASES, Frozen, examples, make_network
from snapshots import assert_same, snapshot
from torch import nn
from torch.testing import assert_close

import mcbn

pytestmark = pytest.mark.filterwarnings(
    "ignore::mcbn.InconsistentBankWarning", "ignore:.*were frozen:UserWarning"
)


def bank_of(model, name, size=8):
    return mcbn.collect(model, mcbn.minibatches(examples(name, 60), batch_size=size, draws=4))


def sized(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", CASES)
def test_the_differentiable_path_gives_the_ordinary_outputs(name):
    """Subclasses with an activation and shared layers included, to rounding."""
    model = make_network(name)
    bank, x = bank_of(model, name), examples(name, 5, seed=4)
    tracked = mcbn.MCBatchNorm(model, bank.rescale(sized(5.0)))(x)
    assert tracked.requires_grad
    expected = mcbn.MCBatchNorm(model, bank.rescale(5.0))(x)
    assert not expected.requires_grad
    assert_close(tracked.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_in_the_batch_size_is_that_of_finite_differences(name):
    model = make_network(name)
    bank, x = bank_of(model, name), examples(name, 5, seed=4)
    weights = torch.randn(
        mcbn.Deterministic(model)(x).shape[1:],
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )

    def score(size):
        return (mcbn.MCBatchNorm(model, bank.rescale(size))(x) * weights).square().mean()

    size = sized(6.0)
    (gradient,) = torch.autograd.grad(score(size), size)
    step = 1e-4
    expected = (score(6.0 + step) - score(6.0 - step)) / (2 * step)
    assert gradient.abs() > 1e-6
    assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


def test_gradients_reach_every_statistic():
    model = make_network("1d of 2-D")
    bank = bank_of(model, "1d of 2-D")
    statistics = {n: v.clone().requires_grad_() for n, v in bank.statistics.items()}
    x = examples("1d of 2-D", 5)

    def outputs(*values):
        changed = mcbn.Bank(dict(zip(statistics, values, strict=True)), bank.trained, batch_size=8)
        return mcbn.MCBatchNorm(model, changed)(x)

    assert torch.autograd.gradcheck(outputs, tuple(statistics.values()))


def test_inputs_and_batch_size_may_require_gradients_at_once():
    model = make_network("2d")
    bank, x = bank_of(model, "2d"), examples("2d", 3).requires_grad_()
    size = sized(6.0)
    outputs = mcbn.MCBatchNorm(model, bank.rescale(size))(x)
    gradients = torch.autograd.grad(outputs.square().sum(), [x, size])
    (alone,) = torch.autograd.grad(mcbn.MCBatchNorm(model, bank.rescale(6.0))(x).square().sum(), x)
    assert_close(gradients[0], alone, rtol=1e-10, atol=1e-10)
    assert gradients[1].abs() > 0


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_unchanged(training):
    model = make_network("1d of 2-D").train(training)
    before = snapshot(model)
    bank = bank_of(model, "1d of 2-D")
    sampler = mcbn.MCBatchNorm(model, bank.rescale(sized(6.0)))
    x = examples("1d of 2-D", 5)
    sampler(x).sum().backward()
    next(iter(sampler.passes(x)))
    with pytest.raises(RuntimeError):
        sampler(torch.zeros(2, 9, dtype=torch.float64))
    assert_same(before, snapshot(model))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_half_used_iterator_leaves_nothing_switched():
    model = make_network("1d of 2-D")
    x = examples("1d of 2-D", 5)
    expected = model(x).detach()
    passes = mcbn.MCBatchNorm(model, bank_of(model, "1d of 2-D").rescale(sized(6.0))).passes(x)
    next(passes)
    assert_close(model(x).detach(), expected, rtol=0, atol=0)
    with torch.no_grad():
        assert not next(passes).requires_grad


def test_activations_given_by_keyword_are_normalised_too():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(input=x)

    model = Named().double().eval()
    x = examples("is batch norm", 6)
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=4, draws=3))
    tracked = mcbn.MCBatchNorm(model, bank.rescale(sized(3.0)))(x).detach()
    assert_close(tracked, mcbn.MCBatchNorm(model, bank.rescale(3.0))(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_frozen_layers_with_an_epsilon_have_gradients(library):
    model, _ = Frozen.pair(library)
    model = model.double()
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=4, draws=3))
    tracked = mcbn.MCBatchNorm(model, bank.rescale(sized(3.0)))(x).detach()
    expected = mcbn.MCBatchNorm(model, bank.rescale(3.0))(x)
    assert_close(tracked, expected, rtol=1e-12, atol=1e-12)


def test_a_layer_without_an_epsilon_is_refused_by_name():
    model, _ = Frozen.pair("transformers")
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=4, draws=3))
    with pytest.raises(ValueError, match=r"known epsilon, got 'norm' \(DetrFrozenBatchNorm2d\)"):
        mcbn.MCBatchNorm(model, bank.rescale(sized(3.0)))(x)
    assert mcbn.MCBatchNorm(model, bank.rescale(3.0))(x).shape[0] == 3


def test_float32_networks_have_gradients_in_a_float64_batch_size():
    model = make_network("2d", torch.float32)
    x = examples("2d", 5, torch.float32)
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=4, draws=3))
    size = sized(6.0)
    outputs = mcbn.MCBatchNorm(model, bank.rescale(size))(x)
    assert outputs.dtype == torch.float32
    expected = mcbn.MCBatchNorm(model, bank.rescale(6.0))(x)
    assert_close(outputs.detach(), expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(outputs.square().sum(), size)
    assert gradient.abs() > 0


def test_a_bank_whose_size_requires_gradients_can_be_printed_and_saved(tmp_path):
    """Warnings are errors here, and PyTorch warns of numbers made of such tensors."""
    model = make_network("1d of 2-D")
    bank = bank_of(model, "1d of 2-D").rescale(sized(6.5))
    assert "batch_size=6.5" in repr(bank)
    assert bank.size == 6.5
    detached = {name: rows.detach() for name, rows in bank.statistics.items()}
    mcbn.Bank(detached, bank.trained, bank.batch_size).save(tmp_path / "bank")
    assert mcbn.Bank.load(tmp_path / "bank").batch_size == 6.5
