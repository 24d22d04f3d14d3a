"""The batch-norm layers of a network: which count, and what they say of themselves."""

import pytest
import torch
from models import Frozen, examples
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.network.batchnorm import epsilon_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*were frozen in training", "ignore::mcbn.InconsistentBankWarning"
)


def test_the_epsilon_of_a_layer_is_a_float():
    assert epsilon_of("norm", nn.BatchNorm1d(3, eps=1)) == 1.0
    assert isinstance(epsilon_of("norm", nn.BatchNorm1d(3, eps=1)), float)


@pytest.mark.parametrize("value", [None, "1e-5", torch.tensor(1e-5)])
def test_an_epsilon_that_is_not_a_number_is_refused_by_the_name_of_the_layer(value):
    layer = nn.BatchNorm1d(3)
    layer.eps = value
    with pytest.raises(ValueError, match=r"known epsilon, got 'a\.norm' \(BatchNorm1d\) with eps"):
        epsilon_of("a.norm", layer)


@pytest.mark.parametrize("sampler", ["loop", "linearised"])
def test_a_layer_that_is_given_its_epsilon_is_compatible_with_gradients(sampler):
    """The remedy that the error names works."""
    model, twin = Frozen.pair("transformers")
    x = examples("2d", 6, torch.float32)
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=4, draws=3))

    def drawn(network):
        if sampler == "linearised":
            return mcbn.LinearizedBatchNorm(
                network, bank, exact=0, output=lambda raw: raw.mean((2, 3))
            )(x)
        size = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        return mcbn.MCBatchNorm(network, bank.rescale(size))(x).detach()

    with pytest.raises(ValueError, match="set the layer's attribute eps"):
        drawn(model)
    model.norm.eps = 1e-5  # what its forward adds
    with_epsilon = drawn(model)
    bank = mcbn.collect(twin, mcbn.minibatches(x, batch_size=4, draws=3))
    assert_close(with_epsilon, drawn(twin), rtol=1e-4, atol=1e-4)
