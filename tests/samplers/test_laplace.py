"""Last-layer Laplace: closed forms of linear regression, Hessians, Kronecker products, draws."""

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from law import holds
from models import examples, make_network
from scipy import optimize, stats
from snapshots import assert_same, snapshot
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.network.isolation import StreamStates
from mcbn.samplers import curvature as curvatures
from mcbn.samplers import laplace

FEATURES = 4
COUNT = 60


def network(outputs=3, *, bias=True, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(3, FEATURES), nn.BatchNorm1d(FEATURES), nn.Tanh())
        return nn.Sequential(*body, nn.Linear(FEATURES, outputs, bias=bias)).double().eval()


def inputs(count=COUNT, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)


def design(model, x):
    """The inputs of the last layer, and ones where it has a bias."""
    features = model[:-1](x).detach()
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    return features if model[-1].bias is None else torch.cat([features, ones], 1)


def set_weights(model, weights):
    with torch.no_grad():
        model[-1].weight.copy_(weights[:, :FEATURES])
        if model[-1].bias is not None:
            model[-1].bias.copy_(weights[:, FEATURES])


def labels(kind, outputs, seed=2):
    generator = torch.Generator().manual_seed(seed)
    if kind == "categorical":
        return torch.randint(outputs, (COUNT,), generator=generator)
    if kind == "bernoulli":
        return torch.randint(2, (COUNT, outputs), generator=generator)
    return torch.randn(COUNT, outputs, generator=generator, dtype=torch.float64)


KINDS = {"categorical": "categorical", "bernoulli": "bernoulli",
         "gaussian": mcbn.Gaussian((0.5, 2.0, 3.0))}  # fmt: skip


def fitted(kind="categorical", structure="full", *, bias=True, outputs=3, **options):
    model = network(outputs, bias=bias)
    options = {"likelihood": KINDS[kind], "structure": structure, **options}
    return mcbn.LastLayerLaplace.fit(model, inputs(), labels(kind, outputs), **options)


def covariance(posterior):
    """The posterior covariance over the flat weights, by its product with each of them."""
    shape, size = posterior.mean.shape, posterior.mean.numel()
    columns = [
        posterior.curvature.apply(lambda v: 1 / (v + posterior.prior_precision), unit)
        for unit in torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    ]
    return torch.stack(columns).reshape(size, size)


# Bayesian linear regression, whose posterior and evidence are known.


def regression(precision, prior, outputs=1, *, bias=True):
    """A network whose last layer is the posterior mean of a linear regression on its features."""
    model, x = network(outputs, bias=bias), inputs()
    targets = labels("gaussian", outputs)
    phi = design(model, x)
    identity = torch.eye(phi.shape[1], dtype=torch.float64)
    rows = [
        torch.linalg.solve(tau * phi.T @ phi + prior * identity, tau * phi.T @ y)
        for tau, y in zip(precision, targets.T, strict=True)
    ]
    set_weights(model, torch.stack(rows))
    return model, x, targets, phi.numpy()


def evidence(phi, targets, precision, prior):
    """The log-density of the targets with the weights integrated out, by scipy."""
    return sum(
        stats.multivariate_normal(np.zeros(len(phi)), phi @ phi.T / prior + np.eye(len(phi)) / tau)
        .logpdf(y.numpy())
        for tau, y in zip(precision, targets.T, strict=True)
    )  # fmt: skip


EXACT = [(structure, bias, outputs)
         for structure in ("full", "kronecker") for bias in (False, True) for outputs in (1, 2)
         if structure == "full" or not bias]  # fmt: skip


@pytest.mark.parametrize(("structure", "bias", "outputs"), EXACT)
def test_of_linear_regression_it_is_exact(structure, bias, outputs):
    """Two factors are exact without a bias: its curvature is that of the weights as well."""
    precision, prior = [2.0, 0.7][:outputs], 0.3
    model, x, targets, phi = regression(precision, prior, outputs, bias=bias)
    posterior = mcbn.LastLayerLaplace.fit(
        model, x, targets, likelihood=mcbn.Gaussian(precision), structure=structure,
        prior_precision=prior,
    )  # fmt: skip
    expected = evidence(phi, targets, precision, prior)
    assert_close(posterior.log_marginal_likelihood, expected, rtol=1e-10, atol=1e-10)
    blocks = [np.linalg.inv(tau * phi.T @ phi + prior * np.eye(phi.shape[1])) for tau in precision]
    found = covariance(posterior)
    assert_close(found, torch.block_diag(*map(torch.tensor, blocks)), rtol=1e-10, atol=1e-10)
    new = inputs(5, seed=9)
    rows = design(model, new).numpy()
    variances = torch.tensor(np.stack([np.sum(rows @ b * rows, 1) for b in blocks], 1))
    assert_close(
        posterior.output_covariance(new), variances.diag_embed(), rtol=1e-10, atol=1e-10
    )  # fmt: skip


def test_the_prior_precision_of_linear_regression_is_that_of_the_largest_evidence():
    """MacKay's fixed point: the mean of each fit is that under the prior chosen before."""
    prior, tau = 1.0, 1.5
    for _ in range(200):
        model, x, targets, phi = regression([tau], prior)
        posterior = mcbn.LastLayerLaplace.fit(
            model, x, targets, likelihood=mcbn.Gaussian(tau), structure="full"
        )
        prior = posterior.prior_precision
    best = optimize.minimize_scalar(
        lambda log: -evidence(phi, targets, [tau], math.exp(log)), bounds=(-7, 7),
        method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert_close(math.log(prior), best.x, rtol=0, atol=1e-4)


# The curvature, against Hessians of PyTorch and products of NumPy.


def loss(kind, outputs, targets):
    """Minus the log-likelihood, but for what does not hang on the outputs."""
    if kind == "categorical":
        return cross_entropy(outputs, targets, reduction="sum")
    if kind == "bernoulli":
        return binary_cross_entropy_with_logits(outputs, targets.double(), reduction="sum")
    precision = torch.tensor(KINDS["gaussian"].precision)
    return (precision * (outputs - targets).square()).sum() / 2


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_full_curvature_is_the_hessian_of_the_loss(kind, bias):
    posterior = fitted(kind, bias=bias, prior_precision=0.8)
    phi, targets = design(posterior.model, inputs()), labels(kind, 3)

    def total(flat):
        return loss(kind, phi @ flat.reshape(posterior.mean.shape).T, targets)

    hessian = torch.autograd.functional.hessian(total, posterior.mean.flatten())
    precision = hessian + 0.8 * torch.eye(len(hessian), dtype=torch.float64)
    assert_close(covariance(posterior), precision.inverse(), rtol=1e-8, atol=1e-10)
    assert_close(
        posterior.curvature.eigenvalues.flatten(), torch.linalg.eigvalsh(hessian).clamp(min=0),
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_factors_are_the_summed_curvature_of_outputs_and_the_mean_of_features(kind, bias):
    posterior = fitted(kind, "kronecker", bias=bias, prior_precision=0.8)
    model, targets = posterior.model, labels(kind, 3)
    phi = model[:-1](inputs()).detach()
    each = [
        torch.autograd.functional.hessian(
            lambda row, y=y: loss(kind, row[None], y[None]), posterior.model[-1](feature).detach()
        )
        for feature, y in zip(phi, targets, strict=True)
    ]
    output, features = torch.stack(each).sum(0), phi.T @ phi / COUNT
    pieces = [torch.kron(output, features), *([output] if bias else [])]
    precision = torch.block_diag(*pieces)
    precision += 0.8 * torch.eye(len(precision), dtype=torch.float64)
    # From the weights and then the biases to output by output.
    size = FEATURES + bias
    order = torch.arange(3 * size).reshape(3, size)
    order = torch.cat([order[:, :FEATURES].flatten(), order[:, FEATURES:].flatten()])
    found = covariance(posterior)[order][:, order]
    assert_close(found, precision.inverse(), rtol=1e-9, atol=1e-11)
    expected = posterior.log_likelihood - 0.5 * float(
        torch.logdet(precision) - len(precision) * math.log(0.8)
        + 0.8 * posterior.mean.square().sum()
    )  # fmt: skip
    assert_close(posterior.log_marginal_likelihood, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_likelihood_is_that_of_scipy(kind):
    posterior, targets = fitted(kind), labels(kind, 3)
    outputs = posterior.model(inputs()).detach().numpy()
    if kind == "gaussian":
        scale = np.array(KINDS["gaussian"].precision) ** -0.5
        expected = stats.norm(outputs, scale).logpdf(targets.numpy()).sum()
    elif kind == "bernoulli":
        expected = stats.bernoulli(1 / (1 + np.exp(-outputs))).logpmf(targets.numpy()).sum()
    else:
        chances = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
        expected = np.log(chances[np.arange(COUNT), targets.numpy()]).sum()
    assert_close(posterior.log_likelihood, float(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("structure", ["full", "kronecker"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_precision_maximises_the_marginal_likelihood(kind, structure):
    posterior = fitted(kind, structure)

    def lost(log):
        return -replace(posterior, prior_precision=math.exp(log)).log_marginal_likelihood

    scan = np.linspace(-12, 12, 97)
    values = [lost(log) for log in scan]
    start = scan[int(np.argmin(values))]
    best = optimize.minimize_scalar(
        lost, bounds=(start - 0.5, start + 0.5), method="bounded", options={"xatol": 1e-10}
    )
    assert_close(math.log(posterior.prior_precision), best.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_the_covariance_of_outputs_is_that_of_their_jacobian(structure):
    posterior, x = fitted(structure=structure), inputs(6, seed=5)
    phi = design(posterior.model, x)
    jacobians = torch.stack([torch.kron(torch.eye(3, dtype=torch.float64), row) for row in phi])
    jacobians = jacobians.reshape(6, 3, -1)
    expected = jacobians @ covariance(posterior) @ jacobians.mT
    assert_close(posterior.output_covariance(x), expected, rtol=1e-9, atol=1e-11)


# Draws.


@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_draws_are_of_the_posterior(structure):
    """Whitened by the covariance, the draws of all weights are independent standard normals."""
    posterior = fitted(structure=structure, draws=400, seed=3)
    rows = torch.stack([(posterior.weights(t) - posterior.mean).flatten() for t in range(400)])
    factor = torch.linalg.cholesky(covariance(posterior))
    white = torch.linalg.solve_triangular(factor, rows.T, upper=False).T.numpy()
    assert holds(stats.kstest(white.flatten(), "norm").pvalue)
    moments = white.T @ white
    size = white.shape[1]
    # The likelihood ratio of the covariance against the identity, with Bartlett's correction.
    scatter = moments / 400
    ratio = 400 * (np.trace(scatter) - np.linalg.slogdet(scatter)[1] - size)
    correction = 1 - (2 * size + 1 - 2 / (size + 1)) / (6 * 400)
    degrees = size * (size + 1) / 2
    assert holds(stats.chi2(degrees).sf(ratio * correction))
    assert holds(stats.chi2(degrees).cdf(ratio * correction))


@pytest.mark.parametrize("structure", ["full", "kronecker"])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_those_of_the_network_with_the_weights_of_a_draw(structure, bias):
    posterior, x = fitted(structure=structure, bias=bias, draws=5), inputs(9, seed=4)
    found = posterior(x)
    for index in range(5):
        twin = copy.deepcopy(posterior.model)
        set_weights(twin, posterior.weights(index))
        assert_close(found[index], twin(x).detach(), rtol=1e-12, atol=1e-12)
        assert_close(posterior.draw(index, x), found[index], rtol=0, atol=0)
    assert float(found.std(0).min()) > 0


def test_a_draw_depends_on_its_seed_and_index_alone(monkeypatch):
    posterior, x = fitted(draws=6, seed=1), inputs(9, seed=4)
    expected = posterior(x)
    assert_close(replace(posterior, draws=2)(x), expected[:2], rtol=0, atol=0)
    assert not torch.equal(replace(posterior, seed=2)(x), expected)
    assert not torch.equal(expected[0], expected[1])
    monkeypatch.setattr(laplace, "MAX_KEPT", 0)
    assert_close(replace(posterior, draws=6)(x), expected, rtol=0, atol=0)


def test_draws_do_not_hang_on_the_signs_of_eigenvectors():
    posterior = fitted(structure="kronecker")
    curvature = posterior.curvature
    flipped = replace(posterior, curvature=replace(
        curvature, output_vectors=-curvature.output_vectors,
        input_vectors=curvature.input_vectors * torch.tensor([1, -1, 1, -1, 1])))  # fmt: skip
    assert_close(flipped.weights(3), posterior.weights(3), rtol=1e-12, atol=1e-12)


def test_the_network_runs_once_for_all_draws():
    calls = []
    model = network()
    model[0].register_forward_hook(lambda *_: calls.append(1))
    posterior = mcbn.LastLayerLaplace.fit(model, inputs(), labels("categorical", 3), draws=50)
    posterior(inputs(8))  # the first time, a few are passed alone as well
    calls.clear()
    posterior(inputs(8))
    assert len(calls) == 1


def test_the_network_is_left_as_it_was():
    model = network().train()
    before, streams = snapshot(model), StreamStates.now()
    posterior = mcbn.LastLayerLaplace.fit(model, inputs(), labels("categorical", 3))
    posterior(inputs(7))
    assert_same(before, snapshot(model))
    assert streams.unmoved()
    assert model.training


# The data.


def test_the_posterior_does_not_hang_on_batches_or_order():
    model, x, y = network(), inputs(), labels("categorical", 3)
    data = TensorDataset(x, y)
    expected = mcbn.LastLayerLaplace.fit(model, x, y)
    shuffled = DataLoader(data, batch_size=11, shuffle=True)
    for found in (
        mcbn.LastLayerLaplace.fit(model, data, batch_size=7),
        mcbn.LastLayerLaplace.fit(model, shuffled),
        mcbn.LastLayerLaplace.fit(model, x.numpy(), y.tolist()),
        mcbn.LastLayerLaplace.fit(
            model, DataLoader([{"a": r, "b": t} for r, t in zip(x, y, strict=True)], 9),
            targets=y, select=lambda batch: batch["a"]),
    ):  # fmt: skip
        assert_close(found.prior_precision, expected.prior_precision, rtol=1e-10, atol=0)
        assert_close(found.weights(2), expected.weights(2), rtol=1e-9, atol=1e-11)
        assert_close(
            found.log_marginal_likelihood, expected.log_marginal_likelihood, rtol=1e-10, atol=0
        )


def test_targets_of_one_output_need_no_axis():
    model, x, y = network(1), inputs(), labels("gaussian", 1)
    one, other = (
        mcbn.LastLayerLaplace.fit(model, x, given, likelihood=mcbn.Gaussian(2.0))
        for given in (y, y[:, 0])
    )
    assert one.log_likelihood == other.log_likelihood


def test_more_data_narrow_the_posterior():
    model, x, y = network(), inputs(), labels("categorical", 3)
    few = mcbn.LastLayerLaplace.fit(model, x[:20], y[:20], prior_precision=1.0)
    many = mcbn.LastLayerLaplace.fit(model, x, y, prior_precision=1.0)
    new = inputs(5, seed=5)
    variances = [p.output_covariance(new).diagonal(dim1=1, dim2=2) for p in (few, many)]
    assert bool((variances[0] > variances[1]).all())


# What is refused, and what is said.


class Ends(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.net, self.end = network(), end

    def forward(self, x):
        return self.end(self.net, x)


REFUSED = {
    "a softmax after it": (lambda: Ends(lambda n, x: n(x).softmax(1)), "something comes after it"),
    "a scale after it": (lambda: Ends(lambda n, x: 1.5 * n(x)), "something comes after it"),
    "called twice": (lambda: Ends(lambda n, x: n(x) + n[-1](n[:-1](x))), "got 2 calls of 'net.3'"),
    "not called": (lambda: nn.Sequential(Ends(lambda n, x: n[:-1](x))), "got 0 calls"),
    "a convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 2, 1), nn.Flatten()).double(),
        "ends in a dense layer, torch.nn.Linear, got Conv1d at '1'"),
    "no layer": (lambda: nn.Sequential(nn.BatchNorm1d(3)).double(), "got none at None"),
    "an axis dropped": (lambda: Ends(lambda n, x: n(x)[:, 0]), r"got \(60,\) from a layer"),
    "positions": (
        lambda: nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Linear(1, 2)).double(),
        "one vector of outputs per example"),
    "trained to zeros": (
        lambda: nn.Sequential(nn.Linear(3, 3).double().apply(lambda m: m.weight.data.zero_())
                              .apply(lambda m: m.bias.data.zero_())), "got zeros"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_do_not_return_a_dense_layer_are_refused(name):
    build, message = REFUSED[name]
    with torch.random.fork_rng():
        model = build().eval()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        mcbn.LastLayerLaplace.fit(model, inputs(), labels("categorical", 2))
    assert_same(before, snapshot(model))


def test_another_layer_may_be_named():
    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.idle = network(), nn.Linear(2, 2).double()

        def forward(self, x):
            return {"logits": self.head(x)}

    with torch.random.fork_rng():
        model = Twin().eval()
    options = {"layer": "head.3", "output": lambda answer: answer["logits"], "draws": 3}
    posterior = mcbn.LastLayerLaplace.fit(model, inputs(), labels("categorical", 3), **options)
    expected = mcbn.LastLayerLaplace.fit(model.head, inputs(), labels("categorical", 3), draws=3)
    assert_close(posterior(inputs(5)), expected(inputs(5)), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="got none at 'nowhere'; give layer="):
        mcbn.LastLayerLaplace.fit(model, inputs(), layer="nowhere", targets=[0] * COUNT)


ARGUMENTS = {
    "no draws": ({"draws": 0}, "at least 1 draw"),
    "a negative prior": ({"prior_precision": -1.0}, "positive, finite prior_precision"),
    "no structure": ({"structure": "diag"}, "a structure among"),
    "another likelihood": ({"likelihood": "poisson"}, "the likelihood 'categorical', 'bernoulli'"),
    "noise by the network": ({"likelihood": mcbn.Gaussian()}, "fit the precision"),
    "precisions of two": (
        {"likelihood": mcbn.Gaussian((1.0, 2.0)), "targets": labels("gaussian", 3)},
        "a precision for each of 3 outputs, got 2"),
    "too few targets": ({"targets": torch.zeros(5).long()}, "one target per example"),
    "too many targets": ({"targets": torch.zeros(99).long()}, "60 examples and 99 targets"),
    "a class too many": ({"targets": torch.full((COUNT,), 3)}, "labels from 0 to 2"),
    "labels that are unknown": (
        {"likelihood": "bernoulli", "targets": -labels("bernoulli", 3)}, "labels that are 0 or 1"),
    "targets of other outputs": (
        {"likelihood": mcbn.Gaussian(1.0), "targets": labels("gaussian", 2)}, "same shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.unchecked
def test_arguments_that_do_not_fit_are_refused(name):
    options, message = ARGUMENTS[name]
    options = {"targets": labels("categorical", 3), **options}
    with pytest.raises(ValueError, match=message):
        mcbn.LastLayerLaplace.fit(network(), inputs(), options.pop("targets"), **options)


@pytest.mark.unchecked
def test_other_data_are_refused():
    model, x, y = network(), inputs(), labels("categorical", 3)
    with pytest.raises(TypeError, match="expected targets beside a Tensor"):
        mcbn.LastLayerLaplace.fit(model, x)
    with pytest.raises(TypeError, match="of an integer type"):
        mcbn.LastLayerLaplace.fit(model, x, y.double())
    with pytest.raises(ValueError, match="one that shuffles"):
        mcbn.LastLayerLaplace.fit(model, DataLoader(TensorDataset(x), 5, shuffle=True), y)
    with pytest.raises(ValueError, match="at least one example to fit to"):
        mcbn.LastLayerLaplace.fit(model, TensorDataset(x[:0], y[:0]))
    with pytest.raises(ValueError, match="logits of at least 2 classes"):
        mcbn.LastLayerLaplace.fit(network(1), x, y)
    with pytest.raises(ValueError, match="expected finite numbers in the inputs"):
        mcbn.LastLayerLaplace.fit(model, x / 0, y)


def test_a_full_curvature_of_many_weights_is_refused(monkeypatch):
    monkeypatch.setattr(curvatures, "MAX_FULL", 14)
    with pytest.raises(ValueError, match=r"at most 14 weights .* got 15; give structure="):
        fitted()
    fitted(structure="kronecker")


def test_a_network_that_was_trained_further_is_refused():
    posterior = fitted()
    with torch.no_grad():
        posterior.model[-1].weight[0, 0] += 1
    with pytest.raises(ValueError, match="that the posterior was fitted to, got others"):
        posterior(inputs(3))


def test_a_network_that_was_moved_to_another_type_is_not():
    posterior, x = fitted(draws=4), inputs(5)
    expected = posterior(x)
    posterior.model.float()
    found = posterior(x)
    assert found.dtype == torch.float32
    assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
    posterior.model.bfloat16()
    assert posterior(x).dtype == torch.bfloat16


def test_a_network_that_is_sure_of_all_its_data_is_told_of():
    model, x = network(), inputs()
    set_weights(model, 1e6 * torch.cat([model[-1].weight, model[-1].bias[:, None]], 1).detach())
    y = model(x).argmax(1)
    with pytest.warns(UserWarning, match="at the lowest prior precision searched"):
        posterior = mcbn.LastLayerLaplace.fit(model, x, y)
    high = posterior.mean.numel() / float(posterior.mean.square().sum())
    assert_close(posterior.prior_precision, 1e-6 * high, rtol=1e-9, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcbn.LastLayerLaplace.fit(model, x, y, prior_precision=1.0)


def test_a_hidden_sigmoid_is_not_taken_for_the_end():
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3)).double().eval()
    x = examples("1d of 2-D", 20)
    posterior = mcbn.LastLayerLaplace.fit(model, x, torch.arange(20) % 3, draws=3)
    assert len(mcbn.predict(posterior, x)) == 20
    assert len(mcbn.predict(mcbn.Deterministic(model), x)) == 20
    loader = DataLoader(TensorDataset(x), batch_size=6)
    assert len(mcbn.predict(posterior, loader, batch_size=7)) == 20


def test_it_says_what_it_is():
    posterior = mcbn.LastLayerLaplace.fit(
        make_network("1d of 2-D"), examples("1d of 2-D", 12), torch.arange(12) % 3,
        prior_precision=2.0, draws=8, seed=4,
    )  # fmt: skip
    assert repr(posterior) == (
        "LastLayerLaplace of Sequential: T = 8, seed 4, kronecker posterior of 21 weights of 6, "
        "prior precision 2"
    )
    assert len(posterior) == 8
    with pytest.raises(ValueError, match="a draw from 0 to 7"):
        posterior.weights(8)
