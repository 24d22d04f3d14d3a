"""Mini-batches and the ELBO: objectives and training against closed forms and enumeration."""

import importlib
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributions

ROOT = Path(__file__).parents[2]
FOLDER = "experiments.reproductions"


@pytest.fixture
def code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    names = ("model", "forms", "training", "dropout")
    modules = {name: importlib.import_module(f"{FOLDER}.minibatch_elbo_{name}") for name in names}
    modules["exact"] = importlib.import_module(f"{FOLDER}.elbo_model")
    modules["script"] = importlib.import_module(f"{FOLDER}.minibatch_elbo")
    return SimpleNamespace(**modules)


def within(estimates, truth, *, errors=4.0):
    """Four standard errors: one false alarm in 16,000 for each comparison."""
    error = estimates.std(0) / len(estimates) ** 0.5
    torch.testing.assert_close(
        (estimates.mean(0) - truth) / error, torch.zeros_like(error), atol=errors, rtol=0.0
    )


def linear(code, seeds=2, examples=32, features=3, precision=4.0):
    """Linear regression, with correlated inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(seeds, examples, features, generator=generator)
    x[..., 1] += x[..., 0]
    noise = torch.randn(seeds, examples, generator=generator)
    y = x @ torch.tensor([0.5, -0.3, 0.2]) + 0.4 + noise / precision**0.5
    return code.model.Data(x, y, x, y, precision)


def test_training_reaches_the_mean_field_optimum_of_linear_regression(code):
    data = linear(code)
    problem = code.forms.Problem(data, code.model.Shape(3, depth=0), "plain")
    starts = code.forms.start(problem, 2)
    schedule = code.training.Schedule(200, 4, kept=1, tolerance=0.0)
    training = code.script.trainer(problem, starts, torch.tensor([0.03, 0.1]), schedule)
    best = optimum_of_linear(code, data)
    mean, log_sd = code.forms.posterior(training.free, problem)
    gaps = (mean - best.mean) / best.sd
    torch.testing.assert_close(gaps, torch.zeros_like(gaps), atol=0.25, rtol=0.0)
    torch.testing.assert_close(log_sd.exp(), best.sd, atol=0.0, rtol=0.05)
    values = code.forms.estimated(training.free[None], problem, draws=4096, seed=9)[:, 0]
    within(values.unflatten(0, (-1, 16)).mean(1), best.elbo, errors=4.0)
    assert torch.all(best.elbo < best.evidence)
    assert torch.all(training.gain.abs() < 0.005)


def optimum_of_linear(code, data):
    """Mean-field optimum, its ELBO and the evidence, for each example; by linear algebra."""
    ones = torch.ones(*data.x.shape[:2], 1)
    design = torch.cat([data.x, ones], -1).double()
    prior = code.model.prior_sd(code.model.Shape(3, depth=0)).double()
    precision = data.precision * design.mT @ design + torch.diag(prior**-2)
    right = data.precision * (design.mT @ data.y.double()[..., None])
    mean = torch.linalg.solve(precision, right)[..., 0]
    sd = precision.diagonal(dim1=-2, dim2=-1) ** -0.5
    covariance = design @ torch.diag(prior**2) @ design.mT
    covariance = covariance + torch.eye(design.shape[1]).double() / data.precision
    normal = distributions.MultivariateNormal(torch.zeros(design.shape[1]).double(), covariance)
    evidence = normal.log_prob(data.y.double())
    # The ELBO is the evidence minus KL(q || posterior).
    true = distributions.MultivariateNormal(mean, precision_matrix=precision)
    q = distributions.MultivariateNormal(mean, torch.diag_embed(sd**2))
    count = design.shape[1]
    elbo = (evidence - distributions.kl_divergence(q, true)) / count
    parts = {"mean": mean, "sd": sd, "elbo": elbo, "evidence": evidence / count}
    return SimpleNamespace(**{key: value.float() for key, value in parts.items()})


def unit(code, *, gamma, beta):
    """One linear batch-norm unit of one input; its v is large, so that epsilon does not matter."""
    shape = code.model.Shape(1, 1, 1, 1, batch_norm=True, activation=torch.nn.Identity())
    return torch.tensor([1000.0, beta, gamma, 1.0, 0.0]), shape


def test_bias_of_one_unit_agrees_with_the_enumeration_of_its_mini_batches(code):
    """The exact bias is tau gamma gamma' (E s_B - 1): in a batch the mean of z^2 is always 1."""
    x = torch.tensor([-2.0, -1.5, 0.1, 0.3, 0.4, 1.0, 2.0, 5.0])
    zeta = (x - x.mean()) / x.std(correction=0)
    own, other, tau = 0.7, 1.1, 3.0
    flat, shape = unit(code, gamma=own, beta=0.2)
    y = (other * zeta + 0.2)[None]
    data = code.model.Data(x[None, :, None], y, x[None, :, None], y, tau)
    problem = code.forms.Problem(data, shape, "batch norm")
    free = torch.cat([flat, torch.full_like(flat, -30.0)])[None]
    rows = code.forms.bias(free, problem, (2, 4), draws=4000, seed=1)[..., 0]
    for size, row in zip((2, 4), rows, strict=True):
        spreads = [zeta[list(each)].std(correction=0) for each in combinations(range(8), size)]
        truth = tau * own * other * (torch.stack(spreads).mean() - 1)
        within(row, truth)
        assert truth < -0.1


def test_bias_of_a_gaussian_unit_falls_as_three_quarters_over_m(code):
    """E s_B = sqrt(2/M) Gamma(M/2) / Gamma((M-1)/2) = 1 - 3/(4M) + O(1/M^2)."""
    sizes, logs = (16, 64), torch.lgamma
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 512, 1, generator=generator)
    flat, shape = unit(code, gamma=1.0, beta=0.0)
    zeta = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    data = code.model.Data(x, zeta[..., 0], x, zeta[..., 0], 1.0)
    problem = code.forms.Problem(data, shape, "batch norm")
    free = torch.cat([flat, torch.full_like(flat, -30.0)]).expand(200, -1)
    rows = code.forms.bias(free, problem, sizes, draws=2, seed=1).mean(1)
    for size, row in zip(sizes, rows, strict=True):
        half = torch.tensor(size / 2)
        root = (2 / size) ** 0.5 * (logs(half) - logs(half - 0.5)).exp()
        # Within N values standardised by their own spread: E s_M / E s_N - 1.
        whole = torch.tensor(256.0)
        root_all = (2 / 512) ** 0.5 * (logs(whole) - logs(whole - 0.5)).exp()
        within(row, root / root_all - 1)


def test_the_minibatch_objective_agrees_with_that_of_one_unit_by_quadrature(code):
    exact, model = code.exact, code.model
    data = exact.sample(32, 0)
    form = exact.Form(batch_norm=True)
    q = exact.posterior(exact.start(data, form), data, form)
    q = exact.Posterior(q.mean, q.factor, torch.stack([q.output[0], 0 * q.output[1] + 1e-9]))
    batches = exact.cut(32, 8, 1, 0)
    expected = exact.minibatch_elbo(q, data, batches) + exact.divergence(q)
    nodes, weights = exact.hermite(exact.NODES_3D, 3)
    drawn = q.mean + nodes @ q.factor.T
    a, b = drawn[:, :2], drawn[:, 2]
    spread = torch.einsum("pk,kl,pl->p", a, data.covariance, a).sqrt()
    rest = [b + a @ data.mean, spread, q.output[0].expand(len(a)), torch.zeros_like(b)]
    flat = torch.cat([1000 * a, torch.stack(rest, 1)], 1)
    order = batches.flatten()
    shape = model.Shape(2, 1, 1, 1, batch_norm=True)
    outputs = model.forward(flat, data.x[order], shape, batch_size=8).outputs
    fits = model.log_likelihood(outputs, data.y[order], exact.OBSERVED_PRECISION)
    torch.testing.assert_close(32 * (weights[:, 0] @ fits), expected, rtol=1e-8, atol=0.0)


def networks(code, batch_norm, count=3):
    shape = code.model.Shape(2, 1, 4, 2, batch_norm=batch_norm)
    generator = torch.Generator().manual_seed(0)
    count_parameters = len(code.model.prior_sd(shape))
    flat = torch.randn(count, count_parameters, generator=generator, dtype=torch.float64)
    x = torch.randn(count, 24, 2, generator=generator, dtype=torch.float64)
    return flat, x, shape


def test_absorbed_means_are_the_plain_network_with_the_same_outputs(code):
    flat, x, shape = networks(code, batch_norm=True)
    plain = code.model.absorbed(flat, x, shape)
    bare = code.model.Shape(2, 1, 4, 2)
    normed = code.model.forward(flat, x, shape).outputs
    torch.testing.assert_close(code.model.forward(plain, x, bare).outputs, normed)
    whole = code.model.forward(flat, x, shape, batch_size=24).outputs
    torch.testing.assert_close(whole, normed, rtol=0.0, atol=0.0)
    rows = torch.cat([x, 3 * x], 1)
    both = code.model.forward(flat, rows, shape, statistics_of=24).outputs
    torch.testing.assert_close(both, code.model.forward(plain, rows, bare).outputs)


def test_mini_batches_do_not_see_each_other(code):
    flat, x, shape = networks(code, batch_norm=True)
    cut = code.model.forward(flat, x, shape, batch_size=8).outputs
    one = code.model.forward(flat, x[:, 8:16], shape).outputs
    torch.testing.assert_close(cut[:, 8:16], one)


def test_divergence_is_that_of_torch(code):
    shape = code.model.Shape(2, 1, 4, 2, batch_norm=True)
    prior = code.model.prior_sd(shape)
    generator = torch.Generator().manual_seed(0)
    mean, log_sd = torch.randn(2, len(prior), generator=generator)
    q = distributions.Normal(mean, log_sd.exp())
    truth = distributions.kl_divergence(q, distributions.Normal(0 * prior, prior)).sum()
    torch.testing.assert_close(code.model.divergence(mean, log_sd, prior), truth)


def test_dropout_objective_agrees_with_the_enumeration_of_masks(code):
    rate, count = 0.3, 6
    shape = code.model.Shape(2, 1, 2, 1)
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(len(code.model.prior_sd(shape)), generator=generator)
    x, y = torch.randn(count, 2, generator=generator), torch.randn(count, generator=generator)
    problem = code.dropout.Dropout(
        code.model.Data(x[None], y[None], x[None], y[None], 2.0), shape, torch.tensor([rate])
    )
    weight, bias, last, offset = flat[:4].view(2, 2), flat[4:6], flat[6:8], flat[8]
    hidden, fit = torch.tanh(x @ weight.T + bias), torch.zeros(())
    for mask in product((0.0, 1.0), repeat=2):
        kept = torch.tensor(mask)
        chance = (torch.where(kept == 1, 1 - rate, rate)).prod()
        mean = (hidden * kept / (1 - rate)) @ last + offset
        fit = fit + chance * distributions.Normal(mean, 0.5**0.5).log_prob(y).mean()
    # Prior variance 1/2 of all weights, 1 of biases; two masks of the entropy H(rate).
    cost = weight.square().sum() + (1 - rate) * last.square().sum()
    cost = cost + (bias.square().sum() + offset**2) / 2
    cost = cost - 2 * distributions.Bernoulli(torch.tensor(rate)).entropy()
    values = code.dropout.estimated(flat[None, None], problem, draws=20_000, seed=1)[:, 0, 0]
    within(values, fit - cost / count)


def test_dropout_penalises_the_plain_network_with_the_same_outputs(code):
    """Without masks, batch norm absorbed has the same objective."""
    flat, x, shape = networks(code, batch_norm=True, count=2)
    y = torch.zeros(2, 24, dtype=torch.float64)
    data, none = code.model.Data(x, y, x, y, 1.0), torch.tensor([0.0])
    plain = code.model.absorbed(flat, x, shape)
    values = [
        code.dropout.estimated(free[None], code.dropout.Dropout(data, each, none), draws=1, seed=0)
        for free, each in ((flat, shape), (plain, code.model.Shape(2, 1, 4, 2)))
    ]
    torch.testing.assert_close(*values)


def test_the_minibatch_objective_can_exceed_the_evidence_of_the_model_with_all_statistics(code):
    """An outlier: a mini-batch bounds z by sqrt(M - 1). Nothing is random but the division."""
    inner = torch.linspace(-1, 1, 63)
    x = torch.cat([inner, torch.tensor([60.0])])
    flat, shape = unit(code, gamma=1.0, beta=0.0)
    y = torch.cat([inner / inner.std(correction=0), torch.tensor([7**0.5])])[None]
    data = code.model.Data(x[None, :, None], y, x[None, :, None], y, 1.0)
    problem = code.forms.Problem(data, shape, "batch norm")
    free = torch.cat([flat, torch.full_like(flat, -30.0)])[None]
    (rows,) = code.forms.bias(free, problem, (8,), draws=32, seed=1)
    assert rows.min() > 0.1
