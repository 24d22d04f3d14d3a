"""Draws of dropout that share a pass: the bits of single draws, and who goes alone."""

import pytest
import torch
from torch import nn

import mcbn
from mcbn.network.known_conducts import conducts_of
from mcbn.samplers import masked_passes
from mcbn.tasks.networks import convnet, mlp

DRAWS = 9


def network(build=mlp, *shape, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(*shape, **options).eval()


def rows(count=20, features=13, seed=0):
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def single(sampler, x):
    return torch.stack([sampler.draw(draw, x) for draw in range(len(sampler))])


def plans(model):
    return list(masked_passes._plans.get(conducts_of(model)[0], {}).values())


CASES = {
    "dense": (lambda: network(mlp, 13, 3, dropout=0.2), rows(), {}),
    "images": (lambda: network(convnet, 1, 4, dropout=0.2), rows(20, 144).view(20, 1, 12, 12), {}),
    "put in": (lambda: network(mlp, 13, 3, dropout=0.0), rows(), {"insert": 0.3}),
    "one example": (lambda: network(mlp, 13, 3, dropout=0.2), rows(1), {}),
    "alpha": (lambda: nn.Sequential(nn.SELU(), nn.AlphaDropout(0.2)).eval(), rows(), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_that_share_a_pass_are_the_single_draws(name):
    build, x, options = CASES[name]
    model = build()
    sampler = mcbn.MCDropout(model, draws=DRAWS, seed=3, **options)
    torch.testing.assert_close(sampler(x), single(sampler, x), rtol=1e-6, atol=1e-6)
    (plan,) = plans(model)
    assert plan.calls


def test_passes_are_as_many_as_fit(monkeypatch):
    """Nine draws, four to a pass: three passes of the network."""
    model, x = network(mlp, 13, 3, dropout=0.2), rows()
    sampler = mcbn.MCDropout(model, draws=DRAWS)
    expected = sampler(x)
    (plan,) = plans(model)
    monkeypatch.setattr(
        "mcbn.samplers.vmap.DENSE_VALUES", 4 * plan.cost.values * len(x)
    )  # fmt: skip
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    sampler(x)  # the hook is a new state, which is tried
    calls.clear()
    assert torch.equal(sampler(x), expected)
    assert len(calls) == 3


def test_so_many_examples_that_one_draw_fills_a_pass_go_alone(monkeypatch):
    """A plan serves up to twice as many examples as it was made for, one draw to a pass."""
    model, x = network(mlp, 13, 3, dropout=0.2), rows(32)
    sampler = mcbn.MCDropout(model, draws=DRAWS)
    sampler(x[:16])
    (plan,) = plans(model)
    monkeypatch.setattr("mcbn.samplers.vmap.DENSE_VALUES", 2 * plan.cost.values * 16)
    for count in (31, 32):
        assert torch.equal(sampler(x[:count]), single(sampler, x[:count]))
    assert plans(model) == [plan, None]


def test_seeds_and_numbers_of_draws_have_masks_of_their_own():
    model, x = network(mlp, 13, 3, dropout=0.2), rows()
    one, other = (mcbn.MCDropout(model, draws=DRAWS, seed=seed) for seed in (0, 1))
    fewer = mcbn.MCDropout(model, draws=4)
    assert not torch.equal(one(x), other(x))
    assert torch.equal(fewer(x), one(x)[:4])
    assert torch.equal(other(x), single(other, x))


def test_masks_are_drawn_once_where_they_are_small(monkeypatch):
    model, x = network(mlp, 13, 3, dropout=0.2), rows()
    sampler = mcbn.MCDropout(model, draws=DRAWS)
    expected = sampler(x)
    drawn = masked_passes.DrawnMasks.drawn
    calls = []
    monkeypatch.setattr(
        masked_passes.DrawnMasks, "drawn", lambda *a: calls.append(1) or drawn(*a)
    )  # fmt: skip
    assert torch.equal(sampler(x), expected)
    assert not calls
    monkeypatch.setattr(masked_passes, "MAX_KNOWN", 0)
    plans(model)[0].known.clear()
    assert torch.equal(sampler(x), expected)
    assert not plans(model)[0].known


class ByRow(nn.Module):
    """Calls its dropout for one row after another."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        return torch.stack([self.drop(row[None])[0] for row in x])


@pytest.mark.filterwarnings("ignore:The network's output for an example depends on the other")
def test_a_layer_that_is_called_for_each_row_goes_alone():
    model, x = ByRow().eval(), rows()
    sampler = mcbn.MCDropout(model, draws=DRAWS)
    assert torch.equal(sampler(x), single(sampler, x))
    assert plans(model) == [None]


class ByValue(nn.Module):
    """Takes a path by the values it is given."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        return self.drop(x) if x.sum() != 0.125 else x


def test_a_path_by_values_goes_alone():
    model, x = ByValue().eval(), rows()
    sampler = mcbn.MCDropout(model, draws=DRAWS)
    assert torch.equal(sampler(x), single(sampler, x))
    assert plans(model) == []


def test_gradients_flow_as_in_single_draws():
    model = network(mlp, 13, 3, dropout=0.2)
    sampler = mcbn.MCDropout(model, draws=3)
    x = rows().requires_grad_()
    (gradient,) = torch.autograd.grad(sampler(x).sum(), x)
    alone = sum(torch.autograd.grad(sampler.draw(k, x).sum(), x)[0] for k in range(3))
    torch.testing.assert_close(gradient, alone)
