"""The experiment on scale and shape: its reference posterior, networks, data and measures."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = str(Path(__file__).parents[2])
sys.path.insert(0, ROOT)

from experiments.posteriors import gaps, reference, shape_measures, training  # noqa: E402
from experiments.posteriors.layout import Layout, module, outputs  # noqa: E402
from mcbn.tasks.datasets import LabeledData  # noqa: E402

NOISE = 0.4
SETTINGS = reference.Settings(chains=4, warmup=200, draws=400, depth=5)


@pytest.fixture(scope="module")
def pool():
    with reference.worker() as made:
        yield made


def line(seed):
    """Data of a linear model, points, and the posterior of the outputs there by its formula."""
    generator = torch.Generator().manual_seed(seed)
    data = LabeledData(*(torch.randn(15, *size, generator=generator) for size in ((2,), ())))
    points = 2 * torch.randn(6, 2, generator=generator)
    layout = Layout(2, (), batch_norm=False)
    # Prior sd of sqrt(2 / 2) for each of the two weights and 1 for the bias.
    design, at = (torch.cat([x, torch.ones(len(x), 1)], 1).double() for x in (data.inputs, points))
    covariance = torch.linalg.inv(torch.eye(3) + design.T @ design / NOISE**2)
    weights = covariance @ design.T @ data.targets.double() / NOISE**2
    return layout, data, points, at @ weights, (at @ covariance @ at.T).diagonal().sqrt()


def test_hamiltonian_monte_carlo_gives_the_posterior_of_a_linear_model(pool):
    """Within four standard errors at six points, false alarms under one in 1,000."""
    layout, data, points, mean, sd = line(seed=0)
    problem = reference.Problem(
        layout, data.inputs.numpy(), data.targets.numpy(), NOISE, points.numpy(), SETTINGS, seed=1
    )
    answer = pool.submit(reference.posterior, problem).result()
    assert answer.diagnostics()["converged"]
    size = np.minimum(answer.sample_size, SETTINGS.chains * SETTINGS.draws)
    assert size.min() > 300
    assert (np.abs(answer.mean - mean.numpy()) < 4 * sd.numpy() / np.sqrt(size)).all()
    # The standard error of the sd of Gaussian draws; squares mix no better than the draws.
    half = SETTINGS.draws * SETTINGS.chains / 4
    assert (np.abs(answer.sd / sd.numpy() - 1) < 4 / np.sqrt(2 * np.minimum(size, half))).all()


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_network_is_the_same_in_jax_in_torch_and_as_a_module(pool, features, batch_norm):
    generator = torch.Generator().manual_seed(features)
    layout = Layout(features, (5, 5), batch_norm)
    vectors = torch.randn(2, len(layout), generator=generator)
    data, points = (torch.randn(n, features, generator=generator) for n in (9, 4))
    found = outputs(layout, vectors, data, points)
    networks = [module(layout, vector, data) for vector in vectors]
    with torch.no_grad():
        torch.testing.assert_close(torch.stack([n(points)[:, 0] for n in networks]), found)
        if batch_norm:  # of the training data, the module in training mode gives the same
            torch.testing.assert_close(
                torch.stack([n.train()(data)[:, 0] for n in networks]),
                outputs(layout, vectors, data),
            )
    problem = reference.Problem(
        layout, data.numpy(), np.zeros(9, np.float32), NOISE, points.numpy(), SETTINGS, 0,
        vectors.numpy(),
    )  # fmt: skip
    by_jax = pool.submit(reference.outputs, problem).result()
    torch.testing.assert_close(torch.from_numpy(by_jax), found, rtol=1e-4, atol=1e-5)


def test_training_ends_at_the_mode_of_the_posterior_of_a_linear_model():
    layout, data, points, mean, _ = line(seed=2)
    vectors = training.trained(
        layout, data, NOISE, 3, training.Fit(15, 500, seed=0, learning_rate=0.1)
    )
    found = outputs(layout, vectors, data.inputs, points)
    torch.testing.assert_close(found.double(), mean.expand(3, -1), rtol=1e-3, atol=1e-3)


def test_a_gap_split_leaves_out_the_middle_third():
    values = torch.randperm(31, generator=torch.Generator().manual_seed(0)).float()
    outer, middle = gaps.gap_split(values)
    assert sorted(values[middle].tolist()) == list(range(10, 21))
    assert sorted(torch.cat([outer, middle]).tolist()) == list(range(31))
    ties = torch.tensor([1.0, 1, 1, 0, 2, 2])
    assert gaps.gap_split(ties)[0].tolist() == [3, 0, 4, 5]


@pytest.mark.parametrize("name", gaps.GENERATORS)
def test_points_lie_in_their_regions_and_training_inputs_inside(name):
    case = gaps.curve_case(name, 50, 30, seed=3)
    pieces = gaps.GENERATORS[name].pieces()
    for index, region in enumerate(gaps.REGIONS):
        points = case.x[case.region == index]
        assert len(points) == 30
        assert all(any(low < x < high for low, high in pieces[region]) for x in points.tolist())
    # Standardised on the training part: a linear map takes the points to the network's inputs.
    slope = (case.points.inputs[-1, 0] - case.points.inputs[0, 0]) / (case.x[-1] - case.x[0])
    x = (case.train.inputs[:, 0] - case.points.inputs[0, 0]) / slope + case.x[0]
    assert all(any(low < v < high for low, high in pieces["inside"]) for v in x.tolist())
    assert float(case.train.targets.mean()) == pytest.approx(0, abs=1e-6)


def tiny_case():
    data = LabeledData(torch.zeros(6, 1), torch.tensor([0.5, -1, 2, 0, 1, -2]))
    region = torch.tensor([0, 0, 1, 1, 2, 2])
    return gaps.Case("tiny", data, data, data, region, NOISE, torch.arange(6.0))


def test_a_factor_is_all_scale_and_no_shape():
    sd = torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64)
    measures = shape_measures.alike(3 * sd, sd, tiny_case())
    assert measures["log scale"] == pytest.approx(math.log(3))
    assert measures["shape"] == pytest.approx(0, abs=1e-12)
    assert measures["pearson"] == pytest.approx(1)
    assert measures["spearman, outside too"] == pytest.approx(1)
    reverse = shape_measures.alike(sd.flip(0), sd, tiny_case())
    assert reverse["pearson, outside too"] == pytest.approx(-1)
    # Over inside and gap alone: logs of 6, 5/2, 4/3, 3/4.
    logs = np.log([6, 5 / 2, 4 / 3, 3 / 4])
    assert reverse["log scale"] == pytest.approx(logs.mean())
    assert reverse["shape"] == pytest.approx(logs.std())


def test_the_factor_is_the_one_of_its_formula_for_equal_deviations():
    """With one sd s everywhere: f = (mean squared error - noise variance) / s^2."""
    case = tiny_case()
    mean, sd = torch.zeros(6, dtype=torch.float64), torch.full((6,), 0.3, dtype=torch.float64)
    found = shape_measures.factor(mean, sd, case.held_out.targets, NOISE**2)
    squares = float(case.held_out.targets.double().square().mean())
    assert found == pytest.approx((squares - NOISE**2) / 0.09, rel=1e-4)


def test_scores_use_the_noise_and_the_factor_of_their_own_points():
    case = tiny_case()
    mean, sd = torch.zeros(12, dtype=torch.float64), torch.full((12,), 0.3, dtype=torch.float64)
    found = shape_measures.scores(mean, sd, case)
    fitted = case.points.targets[[0, 2]].double().square().mean() - NOISE**2
    assert found["sd factor that knows the gap"] == pytest.approx(math.sqrt(fitted) / 0.3, rel=1e-4)
    variance = 0.09 + NOISE**2
    # The other point of the gap has the target 0.
    expected = -math.log(2 * math.pi * variance) / 2
    assert found["gap, no factor"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("r_hat", "size", "diverging", "verdict"),
    [(1.05, 200, 0.0, True), (1.2, 200, 0.0, False), (1.05, 50, 0.0, False),
     (1.05, 200, 0.1, False)],
)  # fmt: skip
def test_a_reference_is_left_out_by_the_rule(r_hat, size, diverging, verdict):
    flat = np.ones(10)
    answer = reference.Answer(
        flat, flat, np.ones((2, 10)), r_hat * flat, size * flat, diverging, steps=7.0
    )
    assert answer.diagnostics()["converged"] is verdict
