"""The log score after a temperature of other examples: against scipy, and what it may not see."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.testing import assert_close

from mcbn.evaluation.calibrated import calibrated_nll, first_half
from mcbn.evaluation.clusters import Clusters


def forecasts(rows=400, classes=4, scale=1.0, seed=0):
    """Log-probabilities that are `scale` times too sharp, and classes drawn from the right ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator).double()
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return (scale * logits).log_softmax(1), targets


def losses_at(temperature, logs, targets):
    return -(logs / temperature).log_softmax(1).gather(1, targets[:, None])[:, 0]


def test_each_half_is_scored_at_the_temperature_of_the_other():
    logs, targets = forecasts(scale=3.0)
    found = calibrated_nll(logs, targets, seed=5)
    assert float(found.mean()) < float(losses_at(1.0, logs, targets).mean()) - 0.1
    first = _first_half(len(targets), 5)
    for half in (first, ~first):
        others = logs[~half], targets[~half]

        def penalized(log_temperature, others=others):
            loss = losses_at(math.exp(log_temperature), *others).sum()
            return float(loss) + log_temperature**2 / 2

        best = minimize_scalar(penalized, bounds=(-3, 3), method="bounded",
                               options={"xatol": 1e-10}).x  # fmt: skip
        assert_close(found[half], losses_at(math.exp(best), logs[half], targets[half]),
                     rtol=1e-6, atol=1e-8)  # fmt: skip


def _first_half(rows, seed, clusters=None):
    """Found from outside: rows that move when the rows of the other half are made certain."""
    logs, targets = forecasts(rows)
    before = calibrated_nll(logs, targets, clusters=clusters, seed=seed)
    changed = logs.clone()
    changed[0] = (50 * logs[0]).log_softmax(0)
    moved = calibrated_nll(changed, targets, clusters=clusters, seed=seed) != before
    moved[0] = False
    return moved


def test_halves_are_of_equal_size_and_differ_with_the_seed():
    assert abs(int(_first_half(400, 0).sum()) - 200) <= 1
    assert not torch.equal(_first_half(400, 0), _first_half(400, 1))


def test_clusters_stay_whole():
    of_row = torch.arange(400) // 8
    moved = _first_half(400, 0, Clusters(of_row))
    moved[0] = moved[1]
    for cluster in range(1, 50):
        assert len(moved[of_row == cluster].unique()) == 1
    assert not moved[:8].any()


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_wrong_temperature_is_forgiven(scale):
    """To within the prior, whose pull falls as one over the number of examples."""
    (right, targets), (wrong, _) = forecasts(4000), forecasts(4000, scale=scale)
    plain = losses_at(1.0, wrong, targets).mean() - losses_at(1.0, right, targets).mean()
    gap = calibrated_nll(wrong, targets).mean() - calibrated_nll(right, targets).mean()
    assert plain > 0.05
    assert abs(gap) < 1e-3


def test_a_wrong_order_of_the_classes_is_not_forgiven():
    logs, targets = forecasts(4000)
    shuffled = logs[:, torch.tensor([1, 0, 2, 3])]
    assert calibrated_nll(shuffled, targets).mean() > calibrated_nll(logs, targets).mean() + 0.1


def test_positions_are_scored_with_their_example():
    logs, targets = forecasts(240)
    dense, classes = logs.reshape(40, 6, 4).transpose(1, 2), targets.reshape(40, 6)
    found = calibrated_nll(dense, classes)
    assert found.shape == (40, 6)
    rows = calibrated_nll(logs, targets, clusters=Clusters(torch.arange(240) // 6))
    assert_close(found.flatten(), rows, rtol=1e-9, atol=0)


def test_a_single_example_keeps_its_loss():
    logs, targets = forecasts(1)
    assert_close(calibrated_nll(logs, targets), losses_at(1.0, logs, targets), rtol=0, atol=1e-12)


def test_an_impossible_target_is_infinite_and_moves_no_temperature():
    logs, targets = forecasts(60)
    masked = logs.clone()
    masked[7, targets[7]] = -math.inf
    found = calibrated_nll(masked, targets)
    assert found[7] == math.inf
    half = first_half(torch.arange(60), 0)
    fitted = (half == half[7]) & (torch.arange(60) != 7)

    def penalized(log_temperature):
        loss = losses_at(math.exp(log_temperature), logs[fitted], targets[fitted]).sum()
        return float(loss) + log_temperature**2 / 2

    best = minimize_scalar(penalized, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x
    expected = losses_at(math.exp(best), logs[half != half[7]], targets[half != half[7]])
    assert_close(found[half != half[7]], expected, rtol=1e-6, atol=1e-8)


def test_a_masked_class_that_does_not_happen_costs_nothing():
    logs, targets = forecasts(60)
    widened = torch.cat([logs, torch.full((60, 1), -math.inf).double()], 1)
    assert_close(calibrated_nll(widened, targets), calibrated_nll(logs, targets))
