"""Deep-ensemble equivalents: of ensembles themselves, and against their curve by hand."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.evaluation.calibrated import calibrated_nll
from mcbn.evaluation.equivalents import ensemble_equivalents
from mcbn.evaluation.finite_draws import draw_error, target_logs

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
    rows, groups = (
        ensemble_equivalents(
            {"two": averaged(draws[:2, repeated])}, averaged(draws[:, repeated]),
            targets[repeated], group=group, resamples=200,
        )["two"].replicates
        for group in (None, repeated)
    )  # fmt: skip
    # Of rows, the interval is too narrow by a root of twelve, but for the two ends of the scale.
    spread = [float(each.clamp(max=5).std()) for each in (rows, groups)]
    assert spread[1] > 1.2 * spread[0] > 0


@pytest.mark.unchecked
def test_refusals():
    draws, targets = networks(2, rows=20)
    for ensemble in (CATEGORICAL.summarize(draws), averaged(draws[:1])):
        with pytest.raises(ValueError, match="predict the DeepEnsemble with keep_draws=True"):
            ensemble_equivalents({}, ensemble, targets)
    with pytest.raises(ValueError, match="expected"):
        ensemble_equivalents({"short": averaged(draws[:, :10])}, averaged(draws), targets)
    with pytest.raises(TypeError, match="CategoricalPredictive"):
        ensemble_equivalents({"real": draws}, averaged(draws), targets)


def members():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [torch.nn.Linear(4, 3).eval() for _ in range(3)]


def test_a_comparison_with_an_ensemble_has_them():
    models, generator = members(), torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(50, 4, generator=generator), torch.arange(50) % 3
    samplers = {"one": mcbn.Deterministic(models[0]), "all": mcbn.DeepEnsemble(models)}
    found = mcbn.compare(samplers, inputs, targets, resamples=20, progress=False)
    predicted = {
        name: mcbn.predict(each, inputs, keep_draws=True) for name, each in samplers.items()
    }
    expected = ensemble_equivalents(predicted, predicted["all"], targets, resamples=20)
    for name, score in expected.items():
        own = found.evaluations[name]["ensemble_equivalent"]
        assert (own.value, own.low, own.high) == (score.value, score.low, score.high)
    assert "ensemble_equivalent" in found.differences()["all"]
    alone = mcbn.compare({"one": samplers["one"]}, inputs, targets, resamples=0, progress=False)
    assert "ensemble_equivalent" not in alone.evaluations["one"]


def test_a_comparison_knows_what_its_draws_do_without_keeping_them():
    models, generator = members(), torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(50, 4, generator=generator), torch.arange(50) % 3
    samplers = {
        "plain": mcbn.Deterministic(models[0]),
        "dropout": mcbn.MCDropout(models[0], draws=6, insert=0.3),
    }
    for data in (inputs, DataLoader(TensorDataset(inputs), batch_size=7)):
        found = mcbn.compare(samplers, data, targets, resamples=0, progress=False)
        logs = {
            name: target_logs(mcbn.predict(each, inputs, keep_draws=True).draws, targets)
            for name, each in samplers.items()
        }
        assert found.entries["dropout"].predictive.draws is None
        assert_close(found.entries["dropout"].target_logs, logs["dropout"], rtol=1e-5, atol=1e-6)
        error, expected = found.draw_error("dropout"), draw_error(logs["dropout"], logs["plain"])
        assert error.bias == pytest.approx(expected.bias, rel=1e-6)
        assert error.error == pytest.approx(expected.error, rel=1e-6)
        assert error.draws == 6
        assert found.draw_error("plain").size == 0
    left_out = torch.where(torch.arange(50) < 20, -100, targets)
    some = mcbn.compare(samplers, inputs, left_out, ignore_index=-100, resamples=0, progress=False)
    rows = draw_error(logs["dropout"][:, 20:], logs["plain"][:, 20:])
    assert some.draw_error("dropout").bias == pytest.approx(rows.bias, rel=1e-6)
