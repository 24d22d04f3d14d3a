"""Features: the inputs of a layer, against networks that are cut before it."""

import pytest
import torch
from snapshots import assert_same, snapshot
from torch import nn
from torch.testing import assert_close

from mcbn.samplers.features import Features


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten()
        )
        return nn.Sequential(body, nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)).eval()


def batch(rows=7):
    return torch.randn(rows, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def test_they_go_into_the_last_layer():
    model, x = network(), batch()
    before = snapshot(model)
    features = Features(model)(x)
    assert_same(before, snapshot(model))
    assert_close(features, model[:3](x).detach()[None], rtol=0, atol=0)
    assert not features.requires_grad
    assert Features(model).layer == "3"


def test_of_a_named_layer():
    model, x = network(), batch()
    assert_close(Features(model, layer="1")(x)[0], model[0](x).detach(), rtol=0, atol=0)


def test_they_are_as_the_layer_was_given_them():
    """The ReLU after it writes into what the flatten gave."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            hidden = self.first(x)
            answer = self.last(hidden)
            hidden.zero_()
            return answer

    with torch.random.fork_rng():
        model = Late().eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    assert_close(Features(model)(x)[0], model.first(x).detach(), rtol=0, atol=0)


def test_a_layer_that_is_not_called_once_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.last(x))

    with torch.random.fork_rng():
        model = Twice().eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    with pytest.raises(ValueError, match="got 0 calls of 'idle'; give layer="):
        Features(model)(x)
    with pytest.raises(ValueError, match="got 2 calls of 'last'; give layer="):
        Features(model, layer="last")(x)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected the name of a layer among"):
        Features(network(), layer="head")
    with pytest.raises(ValueError, match="got ''; give layer="):
        Features(nn.Sequential(nn.ReLU()))


def test_a_layer_that_is_given_no_tensor_is_refused():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Identity(), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.inner((x,))[0])

    with torch.random.fork_rng():
        model = Nested().eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    with pytest.raises(TypeError, match="expected a layer that is given a tensor, got tuple"):
        Features(model, layer="inner")(x)


def test_it_says_what_it_takes():
    assert str(Features(network())) == "Features of Sequential: inputs of 3"
