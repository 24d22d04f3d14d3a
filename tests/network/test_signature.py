"""The state of a network: what changes it, and what does not."""

from types import SimpleNamespace

import pytest
import torch
from models import without_seed
from torch import nn

from mcbn.network.signature import signature

SETTING = {"depth": 1}


def scaled(factor):
    def scale(x):
        return factor * x

    def change(value):
        nonlocal factor
        factor = value

    return scale, change


class Settable(nn.Module):
    """A network with settings wherever people keep them."""

    exits = 2

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(2, 2), "age"
        self.config = SimpleNamespace(inner={"heads": ["age", "sex"], "flags": {"on"}})
        self.scale, self.change = scaled(1.0)
        self.table = torch.ones(2)

    def forward(self, x):
        return self.scale(self.layer(x)) * SETTING["depth"]


def in_a_closure(net):
    net.change(2.0)


def of_the_class(net):
    type(net).exits = 3


def outside(net):
    SETTING["depth"] = 2


CHANGES = {
    "an attribute": lambda net: setattr(net, "head", "sex"),
    "a new attribute": lambda net: setattr(net, "temperature", 2.0),
    "an object inside": lambda net: net.config.inner["heads"].reverse(),
    "a set inside": lambda net: net.config.inner["flags"].clear(),
    "a closure": in_a_closure,
    "the class": of_the_class,
    "a global name": outside,
    "a tensor that is no buffer": lambda net: net.table.mul_(2),
    "another module": lambda net: setattr(net, "layer", without_seed(lambda: nn.Linear(2, 2))),
    "a cast": lambda net: net.half(),
    "a hook": lambda net: net.register_forward_hook(lambda *_: None),
    "another forward": lambda net: setattr(net, "forward", lambda x: x),
    "a setting of a layer": lambda net: setattr(net.layer, "in_features", 3),
}


@pytest.fixture
def net():
    yield without_seed(Settable)
    Settable.exits, SETTING["depth"] = 2, 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_is_another_after(name, net):
    before = signature(net)
    assert signature(net) == before
    CHANGES[name](net)
    assert signature(net) != before


def test_values_of_weights_and_a_way_back_are_the_same_state(net):
    before = signature(net)
    with torch.no_grad():
        net.layer.weight.mul_(2)
    net.head = "sex"
    net.head = "age"
    assert signature(net) == before


def test_autocast_is_another_state(net):
    before = signature(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert signature(net) != before
