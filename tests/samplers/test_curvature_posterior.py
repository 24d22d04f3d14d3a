"""A batch size per direction, compared with closed forms and with posteriors written out."""

from dataclasses import replace

import pytest
import torch
from models import randomized, without_seed
from one_unit import standard_normals
from torch import nn
from torch.func import functional_call, jacrev
from torch.testing import assert_close

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
DRAWS = 4000


def network():
    """Both kinds of batch norm: 14 statistics, 3 classes."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.SiLU(), nn.Linear(3, 3),
    )  # fmt: skip


def unit(*, gamma=0.7, sigma=1.3, kurtosis=3.0, size=50, draws=16):
    """A unit, data of a given kurtosis, and a bank that has exactly their covariance per example.

    Means and log-variances of mini-batches are independent where data are symmetric, with the
    variances sigma^2 / M and (kurtosis - 1) / M.
    """
    model = nn.BatchNorm1d(1, eps=1e-12).double().eval()
    with torch.no_grad():
        model.weight.fill_(gamma)
        model.bias.fill_(0.2)
    # A share of values is +-1 and the others 0, whose kurtosis is one over the share.
    ones = torch.ones(round(1000 / kurtosis), dtype=torch.float64)
    zeros = torch.zeros(1000 - len(ones), dtype=torch.float64)
    values = torch.cat([ones, -ones, zeros, zeros])
    values /= values.square().mean().sqrt()
    inputs = sigma * values[:, None] + 0.4
    kurtosis = float(values.pow(4).mean())
    first = standard_normals(draws)
    second = first.square() - first.square().mean()  # orthogonal to the first
    factor = ((draws - 1) / draws / size) ** 0.5  # of the unbiased variance
    means = 0.4 + sigma * factor * first
    logs = (kurtosis - 1) ** 0.5 * factor * second / second.square().mean().sqrt()
    logs += torch.tensor(sigma**2, dtype=torch.float64).log()
    statistics = {"running_mean": means[:, None], "running_var": logs.exp()[:, None]}
    center = {"running_mean": torch.tensor([0.4], dtype=torch.float64),
              "running_var": torch.tensor([sigma**2], dtype=torch.float64)}  # fmt: skip
    # The limit is where the draws have their middle.
    bias = {name: torch.zeros(1, dtype=torch.float64) for name in statistics}
    epsilon = {"running_var": 1e-12}
    bank = mcbn.Bank(statistics, center, batch_size=size, epsilon=epsilon, bias=bias)
    return model, bank, inputs, kurtosis


@pytest.mark.parametrize("kurtosis", [3.0, 8.0])
def test_one_unit_has_the_batch_sizes_of_its_closed_form(kurtosis):
    """N tau gamma^2 + M_p of the mean; (kurtosis - 1)/4 times that curvature of the variance."""
    model, bank, inputs, kurtosis = unit(kurtosis=kurtosis)
    posterior = mcbn.CurvaturePosterior.fit(
        model, bank, inputs, likelihood=mcbn.Gaussian(precision=2.0), population=900,
        prior_batch_size=3.0,
    )  # fmt: skip
    of_mean = 900 * 2.0 * 0.7**2
    expected = sorted([of_mean + 3, (kurtosis - 1) / 4 * of_mean + 3], reverse=True)
    assert_close(posterior.batch_sizes.tolist(), expected, rtol=1e-9, atol=0)
    determined = sum(1 - 3 / size for size in expected)
    assert posterior.effective_dimensions == pytest.approx(determined, rel=1e-9)


def collected(draws=64, **options):
    model = randomized(without_seed(network)).double().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, 6, 5, generator=generator, dtype=torch.float64)
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=16, draws=draws), limit=128)
    return model, bank, x, mcbn.CurvaturePosterior.fit(model, bank, x[:40], **options)


def points(bank, names):
    """Coordinates of a bank, computed independently of the package."""
    rows = [
        (bank.statistics[n].double() + bank.epsilon[n]).log()
        if n.endswith("var")
        else bank.statistics[n].double()
        for n in names
    ]
    return torch.cat(rows, 1)


def written_out(model, bank, center, inputs, hessian):
    """The precision of all statistics, by automatic differentiation of the network itself."""
    names = list(bank.statistics)
    sizes = [bank.statistics[n].shape[1] for n in names]

    def outputs(flat, x):
        parts = dict(zip(names, flat.split(sizes), strict=True))
        # The functional form has no derivative in running statistics: they are put in as weights.
        state = affine(model, parts, bank.epsilon)
        return functional_call(model, state, (x[None],))[0]

    flat = torch.cat([center[n] for n in names])
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for x in inputs:
        rows = jacrev(outputs)(flat, x)
        total += rows.T @ hessian(outputs(flat, x)) @ rows
    prior = torch.cov(points(bank, names).T) / (1 / bank.size - 1 / bank.population)
    return total / len(inputs) * bank.population, prior


def affine(model, parts, epsilon):
    """Weights and biases of batch norm that normalise by given statistics, whatever it has."""
    state = {name: value.detach() for name, value in model.named_parameters()}
    state |= dict(model.named_buffers())
    for name in [n for n in parts if n.endswith("running_mean")]:
        stem = name.removesuffix("running_mean")
        mean, log = parts[name], parts[stem + "running_var"]
        now = (state[stem + "running_var"] + epsilon[stem + "running_var"]).sqrt()
        scale = state[stem + "weight"] * (-log / 2).exp()
        state[stem + "bias"] = state[stem + "bias"] + scale * (state[stem + "running_mean"] - mean)
        state[stem + "weight"] = scale * now
    return state


def softmax_hessian(logits):
    chances = logits.softmax(0)
    return chances.diag() - chances[:, None] * chances


@pytest.mark.parametrize("prior", [1.0, 20.0])
def test_draws_have_the_covariance_of_the_posterior_written_out(prior):
    """With more draws than statistics the span is everything: precision N H + M_p C^-1."""
    model, bank, x, posterior = collected(prior_batch_size=prior)
    names = list(bank.statistics)
    precision, covariance = written_out(model, bank, posterior.center, x[:40], softmax_hessian)
    assert len(bank) > 2 * len(covariance)
    # In units of each statistic's own spread, in which matrices can be inverted.
    unit = covariance.diag().sqrt()
    correlation, scaled = covariance / unit / unit[:, None], precision * unit * unit[:, None]
    expected = scaled + prior * torch.linalg.inv(correlation)
    found = torch.cov((points(posterior.rescaled(), names) / unit).T)
    half = torch.linalg.cholesky(expected)
    identity = torch.eye(len(found), dtype=torch.float64)
    assert_close(half.T @ found @ half, identity, rtol=0, atol=1e-4)


def test_the_mean_of_the_draws_is_the_limit_of_large_batches():
    _, bank, _, posterior = collected()
    rescaled = posterior.rescaled()
    whole = bank.rescale(bank.population).first(1)
    mean = points(rescaled, list(bank.statistics)).mean(0)
    assert_close(mean, points(whole, list(bank.statistics))[0], rtol=0, atol=1e-6)


def test_samples_have_the_posterior_covariance():
    """Each variance within 4 standard errors, sqrt(2 / T) of itself; 14 of them."""
    _, bank, _, posterior = collected()
    names = list(bank.statistics)
    exact = points(posterior.rescaled(), names)
    drawn = points(posterior.sample(DRAWS, seed=1), names)
    ratio = drawn.var(0) / exact.var(0)
    assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=4 * (2 / DRAWS) ** 0.5)
    gap = (drawn.mean(0) - exact.mean(0)) / exact.std(0)
    assert float(gap.abs().max()) < 4 * DRAWS**-0.5


def test_the_first_draws_of_many_are_those_of_fewer():
    _, bank, _, posterior = collected()
    many, few = posterior.sample(5, seed=3), posterior.sample(2, seed=3)
    for name in bank.statistics:
        assert_close(many.statistics[name][:2], few.statistics[name], rtol=0, atol=0)
        assert (posterior.sample(2, seed=4).statistics[name] != few.statistics[name]).any()


def test_determined_directions_contract_as_one_over_n():
    _, _, _, posterior = collected()
    larger = replace(posterior, population=4 * posterior.population)
    determined = 4 * (posterior.batch_sizes - 1)
    assert_close(larger.batch_sizes, determined + 1, rtol=1e-12, atol=0)


def test_the_equivalent_batch_size_is_as_uncertain_on_the_training_examples():
    """To first order: the variance of linear draws, weighted by the curvature of the loss."""
    model, bank, x, posterior = collected()
    whole = mcbn.LinearizedBatchNorm(model, posterior.rescaled(), exact=0)(x[:40])
    size = posterior.batch_size
    # The same centre, and the deviations of the bank itself.
    shifted = bank.rescale(bank.population)
    center = {n: points_of(shifted, n).mean(0) for n in bank.statistics}
    scale = ((1 / size) / (1 / bank.size - 1 / bank.population)) ** 0.5
    moved = bank.with_coordinates({
        n: center[n] + scale * (rows - rows.mean(0)) for n, rows in bank.coordinates().items()
    })  # fmt: skip
    one = mcbn.LinearizedBatchNorm(model, moved, exact=0)(x[:40])
    weights = [softmax_hessian(each) for each in whole.mean(0)]

    def loss(outputs):
        each = outputs - outputs.mean(0)
        return sum(torch.einsum("to,op,tp->", each[:, i], w, each[:, i])
                   for i, w in enumerate(weights))  # fmt: skip

    assert_close(loss(one), loss(whole), rtol=1e-4, atol=0)


def points_of(bank, name):
    return points(bank, [name])


def test_rescaling_the_draws_widens_all_directions_alike():
    _, bank, _, posterior = collected()
    names = list(bank.statistics)
    rescaled = posterior.rescaled()
    wide = rescaled.rescale(rescaled.size / 4, warn=False)
    before, after = points(rescaled, names), points(wide, names)
    assert_close(after.mean(0), before.mean(0), rtol=0, atol=1e-6)
    assert_close(after - after.mean(0), 2 * (before - before.mean(0)), rtol=0, atol=1e-5)


def test_fewer_draws_than_statistics_give_as_many_directions():
    _, _, _, posterior = collected(draws=6)
    assert posterior.weights.shape == (6, 5)
    assert_close(posterior.weights.T @ posterior.weights, torch.eye(5, dtype=torch.float64))


def test_examples_that_all_count_the_same_may_come_in_any_batches():
    model, bank, x, whole = collected()
    parts = mcbn.CurvaturePosterior.fit(model, bank, x[:40], batch_size=7)
    assert_close(parts.curvatures, whole.curvatures, rtol=1e-6, atol=1e-9)


def fit(bank=None, **options):
    model, own, x, _ = collected(draws=8)
    return mcbn.CurvaturePosterior.fit(model, bank or own, x, **options)


@pytest.mark.unchecked
def test_what_is_wrong_is_said():
    model, bank, x, _ = collected(draws=8)
    with pytest.raises(ValueError, match="expected a bank of several draws"):
        fit(bank.first(1))
    with pytest.raises(ValueError, match="expected a bank of several draws that differ"):
        fit(bank.rescale(bank.population))
    with pytest.raises(ValueError, match="give population="):
        fit(replace(bank, population=None))
    with pytest.raises(ValueError, match="give population="):
        fit(population=0)
    with pytest.raises(ValueError, match="expected a positive, finite prior_batch_size"):
        fit(prior_batch_size=0.0)
    with pytest.raises(ValueError, match="expected at least one example"):
        mcbn.CurvaturePosterior.fit(model, bank, x[:0])
    with pytest.raises(TypeError, match="expected a bank"):
        mcbn.CurvaturePosterior.fit(model, "bank", x)
    with pytest.raises(ValueError, match="expected the likelihood"):
        fit(likelihood="poisson")
    with pytest.raises(ValueError, match="at least 1 draw"):
        mcbn.CurvaturePosterior.fit(model, bank, x).sample(0)


def test_a_network_that_does_not_use_its_statistics_has_the_prior():
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(0 * self.norm(x) + x)

    model = without_seed(Deaf).double().eval()
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=8, draws=16))
    posterior = mcbn.CurvaturePosterior.fit(model, bank, x)
    assert posterior.batch_sizes.tolist() == [1.0] * 6
    assert posterior.batch_size == 1.0
    assert posterior.effective_dimensions == 0.0
