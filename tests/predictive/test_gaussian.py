"""Draws of means as a mixture of Gaussians: against numpy, torch, scipy and scoringrules."""

import inspect
import math

import numpy as np
import pytest
import torch
from crps_reference import scoringrules
from law import DEVIATIONS, holds
from scipy import integrate, stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

import mcbn
from mcbn.predictive.gaussian import Moments

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def heteroscedastic(draws=5, batch=7, outputs=(3,), seed=0):
    """Means and log-variances of a network with its own noise, and targets."""
    means = 2 * normal(draws, batch, *outputs, seed=seed)
    logs = normal(draws, batch, *outputs, seed=seed + 1)
    predictive = mcbn.Gaussian().summarize(torch.cat([means, logs], 2))
    return predictive, means, logs, 3 * normal(batch, *outputs, seed=seed + 2)


def constant(precision=4.0, draws=5, shape=(7,), spread=1.0, seed=0):
    means = spread * normal(draws, *shape, seed=seed)
    return mcbn.Gaussian(precision=precision).summarize(means), means


def test_moments_agree_with_numpy():
    predictive, means, logs, _ = heteroscedastic()
    m, v = means.numpy(), np.exp(logs.numpy())
    np.testing.assert_allclose(predictive.mean, m.mean(0), rtol=1e-13)
    np.testing.assert_allclose(predictive.epistemic_variance, m.var(0, ddof=0), rtol=1e-12)
    np.testing.assert_allclose(predictive.aleatoric_variance, v.mean(0), rtol=1e-13)
    np.testing.assert_allclose(predictive.variance, m.var(0) + v.mean(0), rtol=1e-12)
    assert predictive.draw_count == 5
    assert len(predictive) == 7


def test_noise_of_a_constant_precision_is_its_inverse():
    predictive, means = constant(precision=4.0)
    assert_close(predictive.aleatoric_variance, torch.full((7,), 0.25, dtype=torch.float64))
    assert_close(predictive.variance, means.var(0, correction=0) + 0.25, **TIGHT)


def test_epistemic_variance_is_the_biased_one_of_teye():
    predictive = mcbn.Gaussian(precision=1.0).summarize(torch.tensor([[0.0], [2.0]]))
    assert predictive.epistemic_variance.tolist() == [1.0]


def test_means_and_log_variances_are_the_halves_of_axis_1():
    outputs = torch.tensor([[[1.0, 2.0, 0.0, math.log(9)]]], dtype=torch.float64)
    predictive = mcbn.Gaussian().summarize(outputs)
    assert predictive.mean.tolist() == [[1.0, 2.0]]
    assert_close(predictive.variance, torch.tensor([[1.0, 9.0]], dtype=torch.float64), **TIGHT)


def test_log_prob_agrees_with_torch_distributions_one_output():
    predictive, means = constant()
    targets = 2 * normal(7, seed=5)
    family = MixtureSameFamily(
        Categorical(torch.ones(7, 5).double()), Normal(means.T, torch.full((7, 5), 0.5).double())
    )
    assert_close(predictive.log_prob(targets), family.log_prob(targets), **TIGHT)


def test_log_prob_agrees_with_torch_distributions_joint_over_outputs():
    predictive, means, logs, targets = heteroscedastic()
    components = Normal(means.movedim(0, 1), logs.exp().sqrt().movedim(0, 1))
    family = MixtureSameFamily(Categorical(torch.ones(7, 5).double()), Independent(components, 1))
    result = predictive.log_prob(targets)
    assert_close(result, family.log_prob(targets), **TIGHT)
    # Joint: a draw is shared by the outputs, so it is not the sum over outputs.
    alone = MixtureSameFamily(
        Categorical(torch.ones(7, 3, 5).double()),
        Normal(means.permute(1, 2, 0), logs.exp().sqrt().permute(1, 2, 0)),
    )
    assert float((result - alone.log_prob(targets).sum(1)).abs().max()) > 0.1


@pytest.mark.parametrize("outputs", [1, 2])
def test_density_integrates_to_one(outputs):
    predictive = heteroscedastic(draws=3, batch=1, outputs=(outputs,))[0]
    # Smooth and 0 at the ends: trapezoids are exact to rounding.
    line = torch.linspace(-18, 18, 601, dtype=torch.float64)
    points = torch.cartesian_prod(*[line] * outputs).reshape(-1, outputs)
    grid = mcbn.GaussianPredictive(
        predictive.means.expand(-1, len(points), -1),
        predictive.variances.expand(-1, len(points), -1),
    )
    density = grid.log_prob(points).exp().reshape([len(line)] * outputs).numpy()
    for _ in range(outputs):
        density = integrate.trapezoid(density, line.numpy(), axis=-1)
    assert float(density) == pytest.approx(1, abs=1e-9)


def test_log_prob_by_scipy_quadrature_is_the_cdf():
    predictive, means = constant(draws=3, shape=(1,))

    def density(y):
        return float(predictive.log_prob(torch.tensor([y], dtype=torch.float64)).exp())

    end = float(means.mean()) + 0.3
    area = integrate.quad(density, -12, end, limit=200, epsabs=1e-12)[0]
    result = predictive.cdf(torch.tensor([end], dtype=torch.float64))
    assert float(result) == pytest.approx(area, abs=1e-9)


@pytest.mark.parametrize("outputs", [(1,), (3,), (2, 2)])
def test_exact_crps_agrees_with_scoringrules(outputs):
    predictive, means, logs, targets = heteroscedastic(outputs=outputs)
    expected = scoringrules.crps_mixnorm(
        targets.numpy(), means.numpy(), logs.exp().sqrt().numpy(), m_axis=0, backend="numpy"
    )
    assert_close(predictive.crps(targets), torch.from_numpy(expected), **TIGHT)


def test_moment_matched_crps_agrees_with_scoringrules():
    predictive, means, logs, targets = heteroscedastic()
    deviation = np.sqrt(means.numpy().var(0) + logs.exp().numpy().mean(0))
    expected = scoringrules.crps_normal(
        targets.numpy(), means.numpy().mean(0), deviation, backend="numpy"
    )
    assert_close(predictive.crps_moment_matched(targets), torch.from_numpy(expected), **TIGHT)
    assert float((predictive.crps(targets) - predictive.crps_moment_matched(targets)).abs().max()) \
        > 1e-3  # fmt: skip


def test_both_crps_are_one_for_a_single_draw():
    predictive, _ = constant(draws=1)
    targets = normal(7, seed=3)
    assert_close(predictive.crps(targets), predictive.crps_moment_matched(targets), **TIGHT)


def sampled(predictive, count, seed):
    """Rows of samples from the distribution itself: a draw, then its noise."""
    generator = np.random.default_rng(seed)
    means = predictive.means.numpy()
    deviations = np.broadcast_to(predictive.variances.sqrt().numpy(), means.shape)
    draw = generator.integers(len(means), size=(count, means.shape[1]))
    column = np.arange(means.shape[1])
    noise = generator.standard_normal((count, means.shape[1]))
    return torch.from_numpy(means[draw, column] + deviations[draw, column] * noise)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_cover_their_level_within_four_standard_errors(level):
    predictive, _ = constant(spread=2.0)
    samples = sampled(predictive, 20_000, seed=1)
    low, high = predictive.interval(level)
    error = math.sqrt(level * (1 - level) / len(samples))
    for part, exact in (
        ((samples >= low) & (samples <= high), level),
        (samples < low, (1 - level) / 2),
        (samples > high, (1 - level) / 2),
    ):
        assert float((part.double().mean(0) - exact).abs().max()) < DEVIATIONS * error


def test_quantile_is_the_inverse_of_the_distribution_function():
    predictive = heteroscedastic()[0]
    for level in (0.01, 0.5, 0.8):
        back = predictive.cdf(predictive.quantile(level))
        assert_close(back, torch.full_like(back, level), rtol=1e-10, atol=0)
    low, high = predictive.interval()
    assert_close(low, predictive.quantile(0.025), rtol=1e-12, atol=0)
    assert_close(high, predictive.quantile(0.975), rtol=1e-12, atol=0)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_outside_zero_to_one_are_refused(level):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        constant()[0].interval(level)


def test_transforms_are_uniform_if_right_and_not_if_wrong():
    """Kolmogorov-Smirnov with a false-alarm rate of 1 in 1000 at a fixed seed."""
    predictive, _ = constant(shape=(4000,))
    targets = sampled(predictive, 1, seed=2)[0]
    p_value = {
        precision: stats.kstest(predictive.with_precision(precision).cdf(targets), "uniform").pvalue
        for precision in (0.4, 4.0, 40.0)
    }
    assert holds(p_value[4.0])
    assert p_value[0.4] < 1e-6
    assert p_value[40.0] < 1e-6


def test_other_units_shift_the_log_density_and_scale_the_rest():
    predictive, _, _, targets = heteroscedastic(outputs=(2,))
    mean, scale = -7.0, 3.5
    other, there = predictive.in_units(mean, scale), mean + scale * targets
    assert_close(other.log_prob(there), predictive.log_prob(targets) - 2 * math.log(scale), **TIGHT)
    assert_close(other.crps(there), scale * predictive.crps(targets), **TIGHT)
    assert_close(
        other.crps_moment_matched(there), scale * predictive.crps_moment_matched(targets), **TIGHT
    )
    assert_close(other.cdf(there), predictive.cdf(targets), **TIGHT)
    assert_close(other.mean, mean + scale * predictive.mean, **TIGHT)
    for part in ("epistemic_variance", "aleatoric_variance", "variance"):
        assert_close(getattr(other, part), scale**2 * getattr(predictive, part), **TIGHT)
    for end, moved in zip(predictive.interval(), other.interval(), strict=True):
        assert_close(moved, mean + scale * end, rtol=1e-9, atol=1e-9)
    moments = Moments.from_predictive(predictive).in_units(mean, scale)
    for part in ("mean", "variance", "epistemic_variance"):
        assert_close(getattr(moments, part), getattr(other, part), **TIGHT)


def test_other_units_of_one_output_shift_the_log_density_by_one_log_scale():
    predictive, _ = constant()
    targets = normal(7, seed=3)
    shifted = predictive.in_units(10.0, 100.0).log_prob(10 + 100 * targets)
    assert_close(shifted, predictive.log_prob(targets) - math.log(100), **TIGHT)


SCORED = ("log_prob", "crps", "crps_moment_matched", "cdf")


@pytest.mark.parametrize("score", SCORED)
@pytest.mark.parametrize(("shape", "given"), [((7, 1), (7,)), ((7,), (7, 1))])
def test_an_output_axis_of_length_one_may_be_absent(score, shape, given):
    predictive, _ = constant(shape=shape)
    targets = normal(7, seed=3)
    result = getattr(predictive, score)(targets.reshape(given))
    exact = getattr(predictive, score)(targets.reshape(shape))
    assert_close(result, exact, rtol=0, atol=0)
    for column in range(7):  # nothing was broadcast: each target has met its own prediction
        lone = mcbn.GaussianPredictive(
            predictive.means[:, column : column + 1], predictive.variances
        )
        alone = getattr(lone, score)(targets[column : column + 1])
        assert_close(result[column : column + 1].reshape(-1), alone.reshape(-1), **TIGHT)


@pytest.mark.parametrize("score", SCORED)
@pytest.mark.parametrize(
    ("shape", "given"),
    [((6,), (1, 6)), ((6,), (2, 3)), ((6, 1), (1, 6)), ((6,), (5,)), ((6,), (1,)), ((6, 2), (6,)),
     ((6, 2), (6, 1)), ((6, 2), (2, 6)), ((6, 2), (12,)), ((2, 3), (6,))],
)  # fmt: skip
def test_targets_of_another_shape_are_refused(score, shape, given):
    predictive, _ = constant(shape=shape)
    with pytest.raises(ValueError, match="expected targets and predictions of the same shape"):
        getattr(predictive, score)(torch.zeros(given))


def test_targets_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite numbers in targets"):
        constant()[0].log_prob(torch.tensor([0.0, float("nan"), 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 1)])
def test_outputs_that_do_not_split_are_refused_with_the_remedy(shape):
    with pytest.raises(ValueError, match=r"means then log-variances.*precision="):
        mcbn.Gaussian().summarize([torch.zeros(shape)])


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="the network's outputs"):
        mcbn.Gaussian(precision=1.0).summarize([torch.tensor([0.0, float("inf")])])


def test_no_graph_is_kept_and_half_precision_becomes_float64():
    outputs = normal(3, 4, 2).to(torch.bfloat16).requires_grad_()
    predictive = mcbn.Gaussian().summarize(outputs)
    assert not predictive.means.requires_grad
    assert not predictive.variances.requires_grad
    assert predictive.means.dtype == predictive.variances.dtype == torch.float64


@pytest.mark.parametrize("likelihood", [mcbn.Gaussian(), mcbn.Gaussian(precision=2.0)])
def test_joined_parts_are_the_whole(likelihood):
    outputs = normal(4, 10, 2)
    whole = likelihood.summarize(outputs)
    joined = likelihood.join([likelihood.summarize(part) for part in outputs.split(3, dim=1)])
    assert_close(joined.means, whole.means, rtol=0, atol=0)
    assert_close(joined.variance, whole.variance, rtol=0, atol=0)


def test_another_precision_keeps_the_means_and_their_device():
    predictive, means = constant(precision=4.0)
    other = predictive.with_precision(100.0)
    assert_close(other.means, means, rtol=0, atol=0)
    assert_close(other.aleatoric_variance, torch.full((7,), 0.01, dtype=torch.float64))
    elsewhere = mcbn.GaussianPredictive(means.to("meta"), torch.ones(7, device="meta"))
    assert elsewhere.with_precision(100.0).variances.device.type == "meta"


@pytest.mark.parametrize("precision", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_precisions_are_refused(precision):
    for attempt in (
        lambda: mcbn.Gaussian(precision=precision),
        lambda: constant()[0].with_precision(precision),
    ):
        with pytest.raises(ValueError, match="positive, finite precision"):
            attempt()


def held_out(precision, batch=20_000, spread=0.1, seed=0):
    """Predictions under another precision, and targets with noise of this one."""
    truth, _ = constant(precision=precision, draws=4, shape=(batch,), spread=spread, seed=seed)
    return truth.with_precision(1.0), sampled(truth, 1, seed=seed + 1)[0]


def criterion_value(criterion, predictive, targets):
    if criterion == "log_prob":
        return -float(predictive.log_prob(targets).mean())
    return float(predictive.crps_moment_matched(targets).mean())


@pytest.mark.parametrize("criterion", ["log_prob", "crps"])
@pytest.mark.parametrize("precision", [0.04, 9.0])
def test_a_known_precision_is_found_within_four_standard_errors(criterion, precision):
    predictive, targets = held_out(precision, spread=0.3 / math.sqrt(precision))
    fitted = mcbn.fit_precision(predictive, targets, criterion=criterion)
    # For Gaussian noise the standard error of log tau is sqrt(2 / n) at best; a tenth of epistemic
    # variance lifts it by as much, and the CRPS by 7 % more (its efficiency is 0.88).
    error = math.sqrt(2 / len(targets)) * 1.1 * (1.07 if criterion == "crps" else 1)
    assert abs(math.log(fitted.precision / precision)) < DEVIATIONS * error


@pytest.mark.parametrize("criterion", ["log_prob", "crps"])
def test_the_fitted_precision_beats_its_neighbours(criterion):
    predictive, targets = held_out(3.0, batch=300, spread=0.4)
    fitted = mcbn.fit_precision(predictive, targets, criterion=criterion).precision
    best = criterion_value(criterion, predictive.with_precision(fitted), targets)
    for factor in (1.001, 1.02, 2.0, 100.0):
        for other in (fitted * factor, fitted / factor):
            assert best < criterion_value(criterion, predictive.with_precision(other), targets)


def test_the_precision_fitted_by_log_prob_has_a_closed_form_for_one_draw():
    predictive, _ = constant(draws=1, shape=(50, 2))
    targets = normal(50, 2, seed=4)
    exact = 1 / float((targets - predictive.mean).square().mean())
    assert mcbn.fit_precision(predictive, targets).precision == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("criterion", ["log_prob", "crps"])
def test_the_fit_depends_on_the_units_but_not_on_the_precision_of_the_predictions(criterion):
    predictive, targets = held_out(3.0, batch=300)
    fitted = mcbn.fit_precision(predictive, targets, criterion=criterion).precision
    again = mcbn.fit_precision(predictive.with_precision(50.0), targets, criterion=criterion)
    assert again.precision == fitted
    scaled = mcbn.fit_precision(
        predictive.in_units(5.0, 1e4), 5 + 1e4 * targets, criterion=criterion
    )
    assert scaled.precision == pytest.approx(fitted / 1e8, rel=1e-5)


def test_a_perfect_fit_is_refused():
    predictive, _ = constant(draws=1)
    with pytest.raises(ValueError, match="perfect fit"):
        mcbn.fit_precision(predictive, predictive.mean)


def test_targets_to_fit_may_have_an_output_axis_of_length_one():
    predictive, targets = held_out(3.0, batch=50)
    columns = mcbn.fit_precision(predictive, targets.unsqueeze(1))
    assert columns == mcbn.fit_precision(predictive, targets)


def test_another_criterion_is_refused():
    predictive, targets = held_out(3.0, batch=50)
    with pytest.raises(ValueError, match="'log_prob' or 'crps', got 'mse'"):
        inspect.unwrap(mcbn.fit_precision)(predictive, targets, criterion="mse")


TAUS = (4.0, 0.01, 25.0)


@pytest.mark.parametrize("positions", [(), (2, 5)])
def test_a_precision_for_each_output_is_that_of_each_alone(positions):
    outputs = normal(4, 10, 3, *positions)
    predictive = mcbn.Gaussian(TAUS).summarize(outputs)
    targets = normal(10, 3, *positions, seed=3)
    for k, tau in enumerate(TAUS):
        alone, part = mcbn.Gaussian(tau).summarize(outputs[:, :, k]), predictive.output(k)
        assert_close(part.means, alone.means, rtol=0, atol=0)
        assert_close(predictive.variance[:, k], alone.variance, rtol=0, atol=0)
        for score in ("crps", "cdf", "log_prob"):
            expected = getattr(alone, score)(targets[:, k])
            assert_close(getattr(part, score)(targets[:, k]), expected, rtol=0, atol=0)
    joined = mcbn.Gaussian(TAUS).join([mcbn.Gaussian(TAUS).summarize(outputs)] * 2)
    assert_close(joined.variance[:10], predictive.variance, rtol=0, atol=0)
    other = mcbn.Gaussian(1.0).summarize(outputs).with_precision(TAUS)
    assert_close(other.variance, predictive.variance, rtol=0, atol=0)


@pytest.mark.parametrize("criterion", ["log_prob", "crps"])
def test_the_precision_fitted_for_each_output_follows_its_units(criterion):
    parts = [held_out(3.0, batch=200, seed=seed) for seed in range(2)]
    scales = (1.0, 1e3)
    means = torch.stack([s * p.means for s, (p, _) in zip(scales, parts, strict=True)], 2)
    targets = torch.stack([s * y for s, (_, y) in zip(scales, parts, strict=True)], 1)
    together = mcbn.Gaussian(1.0).summarize(means)
    taus = mcbn.fit_precision(together, targets, criterion=criterion, each_output=True).precision
    for tau, scale, (predictive, own) in zip(taus, scales, parts, strict=True):
        alone = mcbn.fit_precision(predictive, own, criterion=criterion).precision
        assert tau == pytest.approx(alone / scale**2, rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "outputs"), [((1.0, 2.0), (3,)), ((1.0, 2.0), ()), ((1.0,), (2,))]
)
def test_another_number_of_precisions_is_refused(precision, outputs):
    with pytest.raises(ValueError, match="expected a precision for each output of means of shape"):
        mcbn.Gaussian(precision).summarize(normal(3, 7, *outputs))


@pytest.mark.parametrize("precision", [(), (1.0, 0.0), (1.0, math.inf)])
def test_invalid_precisions_of_outputs_are_refused(precision):
    with pytest.raises(ValueError, match="expected a positive, finite precision tau"):
        mcbn.Gaussian(precision)


def test_a_precision_for_each_output_needs_outputs():
    predictive, targets = held_out(3.0, batch=50)
    with pytest.raises(ValueError, match="expected predictions with an axis of outputs"):
        mcbn.fit_precision(predictive, targets, each_output=True)
