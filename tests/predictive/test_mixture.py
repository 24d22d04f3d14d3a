"""Gaussian mixtures against quadrature, scipy, torch, scoringrules and a double loop."""

import inspect
import math

import numpy as np
import pytest
import torch
from crps_reference import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from law import DEVIATIONS
from scipy import integrate, optimize, special, stats
from torch.testing import assert_close

from mcbn.predictive import mixture

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def forecasts(draws=5, batch=7, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return 2 * normal(draws, batch), normal(draws, batch).exp(), 3 * normal(batch)


def crps_by_quadrature(means, deviations, value):
    def distribution(x):
        return np.mean(stats.norm.cdf((x - means) / deviations))

    ends = (means - 12 * deviations).min(), (means + 12 * deviations).max()
    low, high = min(ends[0], value), max(ends[1], value)
    options = {"limit": 400, "epsabs": 1e-13, "epsrel": 1e-13}
    left = integrate.quad(lambda x: distribution(x) ** 2, low, value, **options)[0]
    return left + integrate.quad(lambda x: (1 - distribution(x)) ** 2, value, high, **options)[0]


def crps_by_loop(means, variances, value):
    def distance(d, v):
        if v == 0:
            return abs(d)
        s = math.sqrt(v)
        return 2 * s * stats.norm.pdf(d / s) + d * (2 * stats.norm.cdf(d / s) - 1)

    pairs = [(i, j) for i in range(len(means)) for j in range(len(means))]
    spread = sum(distance(means[i] - means[j], variances[i] + variances[j]) for i, j in pairs)
    near = np.mean([distance(value - m, v) for m, v in zip(means, variances, strict=True)])
    return near - spread / (2 * len(means) ** 2)


def test_log_density_agrees_with_scipy_and_torch():
    means, variances, values = forecasts()
    result = mixture.log_density(means, variances, values)
    components = stats.norm.logpdf(values, means, variances.sqrt())
    reference = special.logsumexp(components, axis=0) - math.log(len(means))
    assert_close(result, torch.from_numpy(reference), **TIGHT)
    weights = torch.distributions.Categorical(torch.ones(values.shape[0], len(means)).double())
    normal = torch.distributions.Normal(means.T, variances.sqrt().T)
    family = torch.distributions.MixtureSameFamily(weights, normal)
    assert_close(result, family.log_prob(values), **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [20.0, 200.0])
def test_log_density_is_finite_far_away(far, dtype):
    means = torch.tensor([[0.0], [1.0]], dtype=dtype)
    result = float(mixture.log_density(means, 1.0, torch.tensor([far], dtype=dtype)))
    near = -((far - 1) ** 2) / 2 - math.log(2 * math.pi) / 2 - math.log(2)
    assert result == pytest.approx(near + math.log1p(math.exp(0.5 - far)), rel=1e-10)


def test_density_integrates_to_one():
    means, variances, _ = forecasts(batch=1)

    def density(x):
        return float(
            mixture.log_density(means, variances, torch.tensor([x], dtype=torch.float64)).exp()
        )

    assert integrate.quad(density, -40, 40, limit=400, epsabs=1e-11)[0] == pytest.approx(
        1, abs=1e-9
    )


def test_cdf_agrees_with_scipy_and_is_the_integral_of_the_density():
    means, variances, values = forecasts()
    result = mixture.cdf(means, variances, values)
    reference = stats.norm.cdf(values, means, variances.sqrt()).mean(0)
    assert_close(result, torch.from_numpy(reference), **TIGHT)

    def density(x):
        return float(mixture.log_density(means, variances, torch.full_like(values, x))[0].exp())

    area = integrate.quad(density, -60, float(values[0]), limit=300, epsabs=1e-12)[0]
    assert area == pytest.approx(float(result[0]), abs=1e-9)


def test_cdf_of_atoms_is_a_step_that_includes_its_place():
    means = torch.tensor([[0.0], [1.0]])
    for value, exact in ((-0.1, 0.0), (0.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 1.0)):
        assert float(mixture.cdf(means, 0.0, torch.tensor([value]))) == exact


@pytest.mark.parametrize("level", [1e-6, 0.05, 0.5, 0.95, 1 - 1e-6])
def test_quantile_agrees_with_a_root_finder_and_inverts_the_cdf(level):
    means, variances, _ = forecasts()
    result = mixture.quantile(means, variances, level)
    assert_close(
        mixture.cdf(means, variances, result), torch.full_like(result, level), rtol=1e-9, atol=1e-14
    )
    for i, value in enumerate(result.tolist()):
        m, s = means[:, i].numpy(), variances[:, i].sqrt().numpy()
        reference = optimize.brentq(
            lambda x, m=m, s=s: stats.norm.cdf(x, m, s).mean() - level, -99, 99, xtol=1e-13
        )
        assert value == pytest.approx(reference, rel=1e-8, abs=1e-10)


def test_quantile_of_one_gaussian_is_its_own():
    result = mixture.quantile(torch.tensor([[3.0]]), 4.0, 0.975)
    assert float(result) == pytest.approx(3 + 2 * stats.norm.ppf(0.975), rel=1e-14)


@pytest.mark.parametrize(("level", "exact"), [(0.2, 0.0), (0.25, 0.0), (0.3, 1 / 3), (0.9, 1.0)])
def test_quantile_of_atoms_is_the_place_of_the_jump(level, exact):
    means = torch.tensor([[1.0], [0.0], [1 / 3], [1 / 3]], dtype=torch.float64)
    assert float(mixture.quantile(means, 0.0, level)) == exact


def test_quantile_of_an_atom_among_gaussians():
    # The jump at 0 takes the distribution function from 1/4 to 3/4.
    means, variances = torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
    for level in (0.3, 0.5, 0.7):
        assert float(mixture.quantile(means, variances, level)) == pytest.approx(0, abs=1e-15)
    outside = float(mixture.quantile(means, variances, 0.9))
    assert outside == pytest.approx(stats.norm.ppf(0.8), rel=1e-12)


@given(st.floats(0.001, 0.999), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_quantile_rises_with_level_and_returns_to_it(level, seed):
    means, variances, _ = forecasts(seed=seed)
    low, high = (mixture.quantile(means, variances, x) for x in (level / 2, level))
    assert bool((low < high).all())
    back = mixture.cdf(means, variances, high)
    assert_close(back, torch.full_like(back, level), rtol=1e-11, atol=1e-13)


def test_crps_agrees_with_quadrature_loop_and_scoringrules():
    means, variances, values = forecasts()
    result = mixture.crps(means, variances, values)
    m, v, y = means.T.numpy(), variances.T.numpy(), values.numpy()
    reference = scoringrules.crps_mixnorm(y, m, np.sqrt(v), backend="numpy")
    assert_close(result, torch.from_numpy(reference), **TIGHT)
    for i, value in enumerate(result.tolist()):
        assert value == pytest.approx(crps_by_loop(m[i], v[i], y[i]), rel=1e-10)
        assert value == pytest.approx(crps_by_quadrature(m[i], np.sqrt(v[i]), y[i]), rel=1e-9)


def test_crps_takes_any_shape_and_any_broadcast_variance():
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    values = torch.zeros(2, 3)
    for variances in (0.5, torch.full((2, 3), 0.5), torch.full((4, 1, 1), 0.5)):
        result = mixture.crps(means, variances, values)
        assert result.shape == (2, 3)
        loop = crps_by_loop(means[:, 1, 2].tolist(), [0.5] * 4, 0.0)
        assert float(result[1, 2]) == pytest.approx(loop, rel=1e-10)


def test_crps_is_the_same_in_chunks_and_holds_no_pairs(monkeypatch):
    means, variances, values = forecasts(draws=6, batch=50)
    whole = mixture.crps(means, variances, values)
    sizes = []
    distance = mixture._mean_distance

    def watched(difference, variance):
        sizes.append(difference.numel())
        return distance(difference, variance)

    monkeypatch.setattr(mixture, "_mean_distance", watched)
    monkeypatch.setattr(mixture, "PAIR_BUDGET", 40)
    assert_close(mixture.crps(means, variances, values), whole, rtol=1e-14, atol=0)
    assert max(sizes) <= 40


def test_crps_without_variance_is_that_of_the_draws():
    means, _, values = forecasts()
    assert_close(mixture.crps(means, 0.0, values), mixture.ensemble_crps(means, values), **TIGHT)


def test_crps_of_mixed_zero_and_positive_variances():
    means = torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64)
    variances = torch.tensor([[0.0], [0.0], [2.0]], dtype=torch.float64)
    loop = crps_by_loop([0.0, 1.0, 1.0], [0.0, 0.0, 2.0], 0.25)
    result = mixture.crps(means, variances, torch.tensor([0.25]))
    assert float(result) == pytest.approx(loop, rel=1e-10)


def test_crps_of_equal_draws_is_that_of_one_gaussian():
    _, variances, values = forecasts()
    means, same = torch.ones(5, 7), variances[0].expand(5, 7)
    single = mixture.gaussian_crps(means[0], variances[0], values)
    assert_close(mixture.crps(means, same, values), single, **TIGHT)


def test_gaussian_scores_agree_with_scipy_and_scoringrules_and_quadrature():
    means, variances, values = forecasts()
    mean, variance = means[0], variances[0]
    density = stats.norm.logpdf(values, mean, variance.sqrt())
    result = mixture.gaussian_log_density(mean, variance, values)
    assert_close(result, torch.from_numpy(density), **TIGHT)
    assert_close(result, mixture.log_density(means[:1], variances[:1], values), **TIGHT)
    reference = scoringrules.crps_normal(
        values.numpy(), mean.numpy(), variance.sqrt().numpy(), backend="numpy"
    )
    score = mixture.gaussian_crps(mean, variance, values)
    assert_close(score, torch.from_numpy(reference), **TIGHT)
    numbers = means[:1, 0].numpy(), variances[:1, 0].sqrt().numpy(), float(values[0])
    assert float(score[0]) == pytest.approx(crps_by_quadrature(*numbers), rel=1e-9)


def test_gaussian_crps_at_zero_variance_is_the_limit():
    mean, targets = torch.tensor([0.0, 0.0]), torch.tensor([-2.0, 0.0])
    exact = mixture.gaussian_crps(mean, 0.0, targets)
    assert exact.tolist() == [2.0, 0.0]
    for deviation in (1e-2, 1e-4):
        near = mixture.gaussian_crps(mean, deviation**2, targets)
        # Far from the mean the score falls short by sd / sqrt(pi); at it, by sd (sqrt 2 - 1).
        rates = torch.tensor([1.0, 1 - math.sqrt(2)], dtype=torch.float64) / math.sqrt(math.pi)
        assert_close((exact - near) / deviation, rates, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
def test_ensemble_crps_agrees_with_scoringrules_and_a_loop(fair, estimator):
    means, _, values = forecasts(draws=6)
    result = mixture.ensemble_crps(means, values, fair=fair)
    reference = scoringrules.crps_ensemble(
        values.numpy(), means.T.numpy(), estimator=estimator, backend="numpy"
    )
    assert_close(result, torch.from_numpy(reference), **TIGHT)
    x, y = means[:, 2].tolist(), float(values[2])
    spread = sum(abs(a - b) for a in x for b in x) / (2 * 6 * (5 if fair else 6))
    loop = sum(abs(a - y) for a in x) / 6 - spread
    assert float(result[2]) == pytest.approx(loop, rel=1e-10)


def test_fair_crps_does_not_depend_on_the_number_of_draws():
    """Mean over 20,000 ensembles of 2 against the exact score."""
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn(2, 20_000, generator=generator, dtype=torch.float64)
    targets = torch.full((20_000,), 0.7, dtype=torch.float64)
    exact = float(mixture.gaussian_crps(torch.zeros(()), 1.0, torch.tensor(0.7)))
    fair, plain = (mixture.ensemble_crps(draws, targets, fair=f) for f in (True, False))
    error = float(fair.std()) / math.sqrt(20_000)
    assert abs(float(fair.mean()) - exact) < DEVIATIONS * error
    assert float(plain.mean()) - exact > 4 * error


def test_ensemble_crps_survives_a_large_offset():
    # Integers, so that adding the offset is exact and only the sum could lose them.
    draws, targets = torch.arange(40.0).double().square()[:, None], torch.tensor([100.0]).double()
    plain = mixture.ensemble_crps(draws, targets)
    assert_close(mixture.ensemble_crps(draws + 2**50, targets + 2**50), plain, rtol=1e-12, atol=0)


@given(st.permutations(range(5)))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_order_of_draws_does_not_matter_nor_does_their_doubling(order):
    means, variances, values = forecasts()
    index = torch.tensor(order)
    for score in (mixture.log_density, mixture.crps, mixture.cdf):
        plain = score(means, variances, values)
        assert_close(score(means[index], variances[index], values), plain, **TIGHT)
        assert_close(score(means.repeat(2, 1), variances.repeat(2, 1), values), plain, **TIGHT)
    assert_close(
        mixture.ensemble_crps(means[index], values), mixture.ensemble_crps(means, values), **TIGHT
    )


@pytest.mark.parametrize("score", ["crps", "log"])
def test_scores_are_best_for_the_true_spread(score):
    """Propriety without noise: the expected score by quadrature over the truth N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    y, w = torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2 * math.pi))

    def expected(mean, variance):
        center = torch.full_like(y, mean)
        if score == "crps":
            return float((w * mixture.gaussian_crps(center, variance, y)).sum())
        return -float((w * mixture.gaussian_log_density(center, variance, y)).sum())

    best = expected(0.0, 1.0)
    for mean, variance in ((0.0, 0.25), (0.0, 0.8), (0.0, 1.25), (0.0, 4.0), (0.3, 1.0)):
        assert expected(mean, variance) > best + 1e-3
    if score == "crps":
        assert best == pytest.approx(1 / math.sqrt(math.pi), abs=1e-3)


def test_float32_in_float64_out():
    means, variances, values = (x.float() for x in forecasts())
    wide = tuple(x.double() for x in (means, variances, values))
    for score in (mixture.log_density, mixture.cdf, mixture.crps):
        assert_close(score(means, variances, values), score(*wide), rtol=0, atol=0)
    assert mixture.quantile(means, variances, 0.5).dtype == torch.float64
    assert mixture.ensemble_crps(means, values).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, v, y: mixture.log_density(m, 0.0, y), "variances above 0.*35 of 35"),
        (lambda m, v, y: mixture.gaussian_log_density(m[0], 0.0, y), "variances above 0"),
        (lambda m, v, y: mixture.crps(m, -v, y), "at least 0"),
        (lambda m, v, y: mixture.crps(m, math.nan, y), "NaN"),
        (lambda m, v, y: mixture.crps(m * math.nan, v, y), "35 NaN"),
        (lambda m, v, y: mixture.cdf(m, v, y * math.inf), "infinite"),
        (lambda m, v, y: mixture.crps(m, v[:, :3], y), "broadcast"),
        (lambda m, v, y: mixture.log_density(m[:0], v, y), "at least one value"),
        (lambda m, v, y: mixture.quantile(m, v, 0.0), "between 0 and 1"),
        (lambda m, v, y: mixture.quantile(m, v, 95.0), "write 95% as 0.95"),
        (lambda m, v, y: mixture.ensemble_crps(m[:1], y, fair=True), "at least 2 draws"),
    ],
)
def test_invalid_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*forecasts())


def test_means_without_a_draw_axis_are_refused():
    with pytest.raises(ValueError, match="draw axis"):
        inspect.unwrap(mixture.crps)(torch.tensor(0.0), 1.0, torch.tensor(0.0))


def test_values_of_another_shape_are_refused():
    means, variances, values = forecasts()
    for score in (mixture.log_density, mixture.crps, mixture.cdf):
        with pytest.raises(ValueError, match="of the same shape"):
            inspect.unwrap(score)(means, variances, values[:1])  # past the run's shape checks
