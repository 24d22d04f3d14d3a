"""Detectors of other libraries, by stand-ins that behave as those of pytorch-ood."""

import as_found
import pytest
import torch
from models import examples, make_network
from torch.testing import assert_close

import mcbn
from mcbn.uncertainty.neighbors import vectors

NAME = "1d of 2-D"


class Energy:
    """As `pytorch_ood.detector.EnergyBased`: higher is more likely out of distribution."""

    def __init__(self, model):
        self.model = model

    def predict(self, x):
        return -self.model(x).logsumexp(1)


class Gradient(Energy):
    """As `pytorch_ood.detector.ODIN`: steps along gradients, with those of weights left behind."""

    def predict(self, x):
        x = x.clone().requires_grad_()
        self.model(x).amax(1).sum().backward()
        return super().predict(x - 0.1 * x.grad.sign())


class Centre:
    """As detectors of features: fitted by the user, with an encoder or without one."""

    def __init__(self, encoder=None):
        self.encoder = encoder

    def fit_features(self, z, y):
        self.centre = z.mean(0)
        return self

    def predict_features(self, z):
        return (z - self.centre).norm(dim=1, keepdim=True)

    def predict(self, x):
        return self.predict_features(self.encoder(x))


class Bare:
    __slots__ = ()

    def predict(self, x):
        return x.abs().mean(1)


def user_network():
    """In train mode, with gradients of the user's."""
    network = make_network(NAME).train()
    network[4].weight.grad = torch.ones_like(network[4].weight)
    return network


def test_a_detector_of_inputs_has_its_own_numbers_in_eval_mode():
    network, inputs = user_network(), examples(NAME, 20)
    detector = mcbn.ExternalDetector(Energy(network))
    assert detector.name == "Energy"
    predictive = mcbn.predict(mcbn.Deterministic(network), inputs)
    assert_close(detector(inputs), predictive.energy, rtol=1e-5, atol=1e-6)
    cut = mcbn.ExternalDetector(Energy(network), batch_size=7)
    assert_close(cut(inputs), detector(inputs), rtol=1e-5, atol=1e-6)


def test_a_detector_may_use_gradients_and_leaves_none():
    network, inputs = user_network(), examples(NAME, 20)
    before = as_found.model(network)
    found = mcbn.ExternalDetector(Gradient(network))(inputs)
    assert not found.requires_grad
    assert not as_found.moved(before, as_found.model(network))
    network.eval()
    x = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).amax(1).sum(), x)
    with torch.no_grad():
        expected = -network(inputs - 0.1 * gradient.sign()).logsumexp(1)
    assert_close(found, expected.double(), rtol=1e-5, atol=1e-6)


def test_a_detector_of_features_is_given_those_of_the_network():
    network, training, new = user_network(), examples(NAME, 30), examples(NAME, 9, seed=1)
    known = mcbn.NearestNeighbors.fit(network, training, k=1, normalized=False)
    fitted = Centre().fit_features(known.training, torch.zeros(30))
    found = mcbn.ExternalDetector(fitted, model=network, name="centre")(new)
    features = vectors(known.features, known.features(new)[0], normalized=False)
    expected = (features - known.training.mean(0)).norm(dim=1)
    assert_close(found, expected.double(), rtol=1e-5, atol=1e-6)


def test_a_method_of_a_network_is_in_eval_mode_too():
    network, inputs = user_network(), examples(NAME, 9)
    with torch.no_grad():
        fitted = Centre(network.forward).fit_features(make_network(NAME)(inputs), None)
        expected = (make_network(NAME)(inputs) - fitted.centre).norm(dim=1)
    assert_close(mcbn.ExternalDetector(fitted)(inputs), expected.double(), rtol=1e-5, atol=1e-6)
    assert network.training


def test_a_detector_without_attributes_takes_inputs():
    inputs = torch.arange(6.0).reshape(3, 2)
    assert_close(mcbn.ExternalDetector(Bare())(inputs), torch.tensor([0.5, 2.5, 4.5]).double())


@pytest.mark.unchecked
def test_what_is_no_detector_is_refused():
    network, inputs = make_network(NAME), examples(NAME, 9)
    with pytest.raises(TypeError, match="method predict, got Sequential"):
        mcbn.ExternalDetector(network)
    with pytest.raises(TypeError, match="method predict_features, got Energy"):
        mcbn.ExternalDetector(Energy(network), model=network)

    class Labels(Energy):
        def predict(self, x):
            return super().predict(x).detach().numpy()

    with pytest.raises(TypeError, match="a tensor from predict of Labels, got ndarray"):
        mcbn.ExternalDetector(Labels(network))(inputs)

    class Infinite(Energy):
        def predict(self, x):
            return super().predict(x) / 0

    with pytest.raises(ValueError, match="finite numbers in the score 'Infinite'"):
        mcbn.ExternalDetector(Infinite(network))(inputs)

    class Mean(Energy):
        def predict(self, x):
            return super().predict(x).mean()

    with pytest.raises(ValueError, match="one number per example"):
        mcbn.ExternalDetector(Mean(network))(inputs)
