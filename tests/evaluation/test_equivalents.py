"""Deep-ensemble equivalents: of ensembles themselves, and against their curve by hand."""

import itertools
import math

import pytest
import torch

import mcbn
from mcbn.evaluation.calibrated import calibrated_nll
from mcbn.evaluation.equivalents import ensemble_equivalents

CATEGORICAL = mcbn.Categorical(outputs="logits")


def networks(count=4, rows=300, seed=0):
    """Noisy logits of the same function, and classes drawn from it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 3, generator=generator).double()
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits + 1.5 * torch.randn(count, rows, 3, generator=generator).double(), targets


def averaged(draws):
    return CATEGORICAL.summarize(draws, keep_draws=True)


def loss(draws, targets):
    return float(calibrated_nll(averaged(draws).log_probabilities, targets).mean())


def values(methods, ensemble, targets, **options):
    found = ensemble_equivalents(methods, ensemble, targets, resamples=0, **options)
    return {name: score.value for name, score in found.items()}


def test_the_ensemble_is_worth_its_networks():
    draws, targets = networks()
    assert values({"all": averaged(draws)}, averaged(draws), targets)["all"] == pytest.approx(4)


def test_between_two_sizes_it_is_linear():
    draws, targets = networks()
    curve = [
        sum(loss(draws[list(s)], targets) for s in subsets) / len(subsets)
        for subsets in (list(itertools.combinations(range(4), size)) for size in range(1, 5))
    ]
    method = min(
        (draws[list(s)] for s in itertools.combinations(range(4), 2)),
        key=lambda each: abs(loss(each, targets) - (curve[1] + curve[2]) / 2),
    )
    found = values({"two": averaged(method)}, averaged(draws), targets)["two"]
    at = loss(method, targets)
    size = next(k for k in range(4) if curve[k] <= at)
    expected = 1.0 if size == 0 else size + (curve[size - 1] - at) / (curve[size - 1] - curve[size])
    assert 1 < expected < 4
    assert found == pytest.approx(expected)


def test_worse_than_one_network_is_one_and_better_than_all_is_infinite():
    draws, targets = networks(8)
    found = values(
        {"noise": averaged(draws[:1].roll(1, dims=1)), "all eight": averaged(draws)},
        averaged(draws[:2]), targets,
    )  # fmt: skip
    assert found == {"noise": 1.0, "all eight": math.inf}


def test_a_temperature_changes_nothing():
    draws, targets = networks(rows=3000)
    method = averaged(draws[:1]).log_probabilities
    found = values(
        {"one": CATEGORICAL.summarize([method]), "sharp": CATEGORICAL.summarize([3 * method])},
        averaged(draws), targets,
    )  # fmt: skip
    assert found["sharp"] == pytest.approx(found["one"], abs=0.02)


def test_many_networks_are_sampled_and_the_seed_chooses_them():
    draws, targets = networks(9, rows=60)
    methods = {"three": averaged(draws[:3])}
    found = [values(methods, averaged(draws), targets, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_intervals_hold_the_value_and_widen_with_groups():
    draws, targets = networks(rows=240)
    methods, ensemble = {"two": averaged(draws[:2])}, averaged(draws)
    found = ensemble_equivalents(methods, ensemble, targets, resamples=200)["two"]
    assert found.low <= found.value <= found.high
    assert found.low < found.high
    assert found.better == "higher"
    repeated = torch.arange(240) // 12 * 12  # every example twelve times
    groups = ensemble_equivalents(
        {"two": averaged(draws[:2, repeated])}, averaged(draws[:, repeated]), targets[repeated],
        group=repeated, resamples=200,
    )["two"]  # fmt: skip
    assert groups.high - groups.low > found.high - found.low


def test_refusals():
    draws, targets = networks(2, rows=20)
    for ensemble in (CATEGORICAL.summarize(draws), averaged(draws[:1])):
        with pytest.raises(ValueError, match="predict the DeepEnsemble with keep_draws=True"):
            ensemble_equivalents({}, ensemble, targets)
    with pytest.raises(ValueError, match="expected"):
        ensemble_equivalents({"short": averaged(draws[:, :10])}, averaged(draws), targets)
    with pytest.raises(TypeError, match="CategoricalPredictive"):
        ensemble_equivalents({"real": draws}, averaged(draws), targets)
