"""laplace-torch: as an oracle for the last layer, and its posteriors as samplers."""

import warnings

import pytest
import torch
from models import examples, make_network
from posteriors import Posterior
from scipy import optimize
from snapshots import assert_same, snapshot
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.network.isolation import StreamStates, random_streams

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of functions of PyTorch that are old
    from laplace import Laplace

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),
    pytest.mark.filterwarnings("ignore:By default `link_approx` is"),
]
COUNT = 50
STRUCTURES = {"kron": "kronecker", "full": "full"}
NOISE = 0.6


def network(*, bias=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3, bias=bias)
        return nn.Sequential(*layers).double().eval()


def data(kind):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(COUNT, 4, generator=generator, dtype=torch.float64)
    if kind == "classification":
        return TensorDataset(x, torch.randint(3, (COUNT,), generator=generator))
    return TensorDataset(x, torch.randn(COUNT, 3, generator=generator, dtype=torch.float64))


def oracle(model, kind, subset, structure, **options):
    """A posterior that laplace-torch has fitted."""
    if kind == "regression":
        options["sigma_noise"] = torch.tensor([NOISE], dtype=torch.float64)
    with random_streams(0, "oracle"):
        la = Laplace(model, kind, subset_of_weights=subset, hessian_structure=structure, **options)
        la.fit(DataLoader(data(kind), batch_size=16))
    return la


def ours(model, kind, structure, **options):
    likelihood = "categorical" if kind == "classification" else mcbn.Gaussian(NOISE**-2)
    return mcbn.LastLayerLaplace.fit(
        model, data(kind), likelihood=likelihood, structure=STRUCTURES[structure], **options
    )


CASES = [(kind, structure, bias) for kind in ("classification", "regression")
         for structure in STRUCTURES for bias in (False, True)]  # fmt: skip


@pytest.mark.parametrize(("kind", "structure", "bias"), CASES)
def test_the_last_layer_has_the_posterior_of_laplace_torch(kind, structure, bias):
    # It multiplies full curvatures by the unit vectors in float32.
    close = {"rtol": 1e-5, "atol": 1e-5} if structure == "full" else {"rtol": 1e-9, "atol": 1e-9}
    model = network(bias=bias)
    la = oracle(model, kind, "last_layer", structure)
    posterior = ours(model, kind, structure, prior_precision=0.7)
    evidence = la.log_marginal_likelihood(prior_precision=torch.tensor(0.7, dtype=torch.float64))
    assert_close(posterior.log_marginal_likelihood, float(evidence), **close)
    x = examples("1d of 2-D", 9)
    mean, variance = la._glm_predictive_distribution(x)
    assert_close(posterior.output_covariance(x), variance, **close)
    assert_close(mcbn.Deterministic(model)(x)[0], mean, rtol=1e-12, atol=1e-12)
    # Weights first and then biases there, output by output here.
    shape = posterior.mean.shape
    order = torch.arange(shape.numel()).reshape(shape)
    order = torch.cat([order[:, :6].flatten(), order[:, 6:].flatten()])
    units = torch.eye(shape.numel(), dtype=torch.float64)
    roots = torch.stack([posterior.curvature.apply(lambda v: (v + 0.7).sqrt(), unit.reshape(shape))
                         .flatten() for unit in units])  # fmt: skip
    precision = (roots @ roots)[order][:, order]
    found = la.posterior_precision
    found = found if structure == "full" else found.bmm(units, exponent=1)
    assert_close(precision, found, **close)


@pytest.mark.parametrize(("kind", "structure", "bias"), CASES)
def test_the_best_prior_precision_is_that_of_laplace_torch(kind, structure, bias):
    model = network(bias=bias)
    la = oracle(model, kind, "last_layer", structure)
    best = optimize.minimize_scalar(
        lambda log: -float(la.log_marginal_likelihood(
            prior_precision=torch.tensor(log, dtype=torch.float64).exp())),
        bounds=(-6, 6), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    found = torch.tensor(ours(model, kind, structure).prior_precision, dtype=torch.float64)
    assert_close(float(found.log()), best.x, rtol=0, atol=1e-4)
    la.optimize_prior_precision(method="marglik", n_steps=800, lr=0.05)
    assert_close(float(found), float(la.prior_precision), rtol=1e-3, atol=0)


POSTERIORS = [
    ("last_layer", "kron"), ("last_layer", "full"), ("last_layer", "diag"), ("all", "full"),
    ("all", "diag"), ("subnetwork", "full"), ("subnetwork", "diag"),
]  # fmt: skip


def fitted(subset, structure):
    options = {"subnetwork_indices": torch.arange(5)} if subset == "subnetwork" else {}
    return oracle(network(), "classification", subset, structure, **options)


@pytest.mark.parametrize(("subset", "structure"), POSTERIORS)
def test_draws_are_those_of_laplace_torch(subset, structure):
    """Its own predictions by one draw of the weights, under the same random stream."""
    la, x = fitted(subset, structure), examples("1d of 2-D", 9)
    with random_streams(0):
        la.sample(1)  # it keeps a factorisation from the first
    before, streams = snapshot(la.model), StreamStates.now()
    kept = {name: value for name, value in vars(la).items() if name != "model"}
    parameters = list(la.model.parameters())
    sampler = mcbn.LaplaceSampler(la, draws=4, seed=3)
    found = sampler(x)
    assert streams.unmoved()
    assert_same(before, snapshot(la.model))
    assert all(a is b for a, b in zip(parameters, la.model.parameters(), strict=True))
    assert all(vars(la)[name] is value for name, value in kept.items())
    for index in range(4):
        with random_streams(3, "laplace", index):
            expected = la._nn_predictive_samples(x, n_samples=1)[0]
        assert_close(found[index].softmax(1), expected.detach(), rtol=1e-12, atol=1e-12)
        assert_close(sampler.draw(index, x), found[index], rtol=0, atol=0)
    assert float(found.std(0).max()) > 0


def test_scores_and_predictions_take_it():
    la, x = fitted("last_layer", "kron"), examples("1d of 2-D", 12)
    sampler = mcbn.LaplaceSampler(la, draws=6)
    predictive = mcbn.predict(sampler, x)
    assert predictive.draw_count == 6
    assert mcbn.evaluate(predictive, torch.arange(12) % 3, resamples=3)["nll"].value > 0


def test_what_laplace_torch_has_not_fitted_is_refused():
    model = network()
    la = Laplace(model, "classification", subset_of_weights="last_layer", hessian_structure="kron")
    with pytest.raises(ValueError, match="posterior of the weights of its network, got one of oth"):
        mcbn.LaplaceSampler(la)


@pytest.mark.unchecked
def test_other_posteriors_are_refused():
    with pytest.raises(TypeError, match="a posterior of laplace-torch, got Sequential; give what"):
        mcbn.LaplaceSampler(network())
    with pytest.raises(ValueError, match="at least 1 draw"):
        mcbn.LaplaceSampler(Posterior(network()), draws=0)
    posterior = Posterior(network())
    posterior.mean = posterior.mean[1:]
    with pytest.raises(ValueError, match=r"expected draws of 63 weights, got \(62,\)"):
        mcbn.LaplaceSampler(posterior)(examples("1d of 2-D", 3))
    posterior = Posterior(network())
    posterior.model = network()
    with pytest.raises(ValueError, match="got one of others; call its method fit first"):
        mcbn.LaplaceSampler(posterior)


def test_weights_of_recurrent_layers_are_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.last = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.last(self.rnn(x)[0][:, -1])

    with torch.random.fork_rng():
        model = Recurrent().eval()
    with pytest.raises(ValueError, match=r"outside recurrent layers.* got 'rnn.weight_ih_l0'"):
        mcbn.LaplaceSampler(Posterior(model))
    for parameter in model.rnn.parameters():
        parameter.requires_grad_(False)
    sampler = mcbn.LaplaceSampler(Posterior(model), draws=3)
    x = torch.randn(6, 7, 4, generator=torch.Generator().manual_seed(0))
    assert float(sampler(x).std(0).min()) > 0


def test_weights_that_modules_share_are_drawn_for_all():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.last.weight = self.first.weight

        def forward(self, x):
            return self.last(torch.tanh(self.first(x)))

    with torch.random.fork_rng():
        model = Tied().double().eval()
    posterior, x = Posterior(model), examples("1d of 2-D", 6)
    found = mcbn.LaplaceSampler(posterior, draws=1, seed=2)(x)[0]
    with random_streams(2, "laplace", 0):
        row = posterior.sample(1)[0]
    weight, *biases = row[:16].reshape(4, 4), row[16:20], row[20:]
    expected = torch.tanh(x @ weight.T + biases[0]) @ weight.T + biases[1]
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_it_says_whose_draws_they_are():
    sampler = mcbn.LaplaceSampler(Posterior(make_network("1d of 2-D")), draws=8, seed=4)
    assert repr(sampler) == "LaplaceSampler of Posterior of Sequential: T = 8, seed 4"
    assert len(sampler) == 8
