"""Choosing layers: scores of each candidate, simultaneous intervals, what choosing costs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from law import DEVIATIONS, share_is
from models import examples, make_network
from scipy import stats
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.evaluation.clusters import Clusters
from mcbn.study.layer_choice import LayerChoice, folds_of
from mcbn.study.layers import default_candidates

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
NAME = "1d of 2-D"
X, Y = examples(NAME, 40, seed=8), torch.arange(40) % 3


@pytest.fixture(scope="module")
def model():
    return make_network(NAME)


@pytest.fixture(scope="module")
def bank(model):
    return mcbn.collect(model, mcbn.minibatches(examples(NAME, 60), batch_size=8, draws=6))


def chosen(losses, **options):
    names = [("all", ["a", "b"]), *((f"c{k}", ["a"]) for k in range(1, len(losses)))]
    return LayerChoice.from_losses(losses, names, draws=4, bank_size=8.0, **options)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# The scores.


def test_values_and_their_intervals_are_those_of_evaluate(model, bank):
    choice = mcbn.choose_layers(model, bank, X, Y, resamples=200, seed=3)
    assert [each.name for each in choice.candidates] == ["all", "first 1", "last 1"]
    whole = None
    for candidate in choice.candidates:
        sampler = mcbn.MCBatchNorm(model, bank, layers=candidate.layers)
        found = mcbn.evaluate(mcbn.predict(sampler, X), Y, resamples=200, seed=3)
        whole = whole or found
        assert_close(candidate.value, found["nll"].value, rtol=1e-9, atol=1e-12)
        ends = found["nll"].low, found["nll"].high
        assert_close(candidate.interval, ends, rtol=1e-9, atol=1e-12)
        gap = found["nll"].value - whole["nll"].value
        assert_close(candidate.difference, gap, rtol=1e-9, atol=1e-12)


LIKELIHOODS = {
    "bernoulli": ("bernoulli", (X[:, :3] > 0).long()),
    "gaussian": (mcbn.Gaussian(0.5), X[:, :3]),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_it_takes_other_likelihoods(model, bank, name):
    likelihood, targets = LIKELIHOODS[name]
    choice = mcbn.choose_layers(model, bank, X, targets, likelihood=likelihood, resamples=10)
    for candidate in choice.candidates:
        sampler = mcbn.MCBatchNorm(model, bank, layers=candidate.layers)
        found = mcbn.predict(sampler, X, likelihood)
        by_example = found.log_prob(targets).reshape(len(targets), -1).mean(1)
        assert_close(candidate.value, -float(by_example.mean()), rtol=1e-9, atol=1e-12)


def test_data_may_be_a_loader_and_a_network_wrapped(model, bank):
    expected = mcbn.choose_layers(model, bank, X, Y, resamples=20).to_dict()
    data = TensorDataset(X, Y)
    for found in (
        mcbn.choose_layers(model, bank, data, resamples=20),
        mcbn.choose_layers(model, bank, DataLoader(data, batch_size=7), resamples=20),
        mcbn.choose_layers(nn.DataParallel(model), bank, X.numpy(), Y.tolist(), resamples=20),
    ):
        assert found.to_dict() == expected


def test_candidates_have_names(model, bank):
    given = {"early": "first 1", "named": ["1"], "late": 1, "whole": None}
    choice = mcbn.choose_layers(model, bank, X, Y, candidates=given, resamples=10)
    assert [(each.name, each.layers) for each in choice.candidates] == [
        ("all", ("1", "5")), ("early", ("1",)), ("late", ("5",))
    ]  # fmt: skip
    listed = mcbn.choose_layers(model, bank, X, Y, candidates=[1, ["1"]], resamples=10)
    assert [each.name for each in listed.candidates] == ["all", "last 1", "1"]


def test_the_candidates_by_default():
    names = ["bn1", *(f"layer{stage}.{k}.bn" for stage in (1, 2, 3) for k in range(6))]
    assert default_candidates(names) == [
        "first 5", "first 10", "first 15", "last 5", "last 10", "last 15",
        "layer1", "layer2", "layer3",
    ]  # fmt: skip
    many = [f"features.{k}.{j}" for k in range(9) for j in range(2)]
    assert default_candidates(many)[-1] == "last 14"


def test_each_candidate_may_have_a_temperature_of_its_own(model, bank):
    """The one that the other folds are fitted with, divided by which draws are averaged by hand."""
    choice = mcbn.choose_layers(model, bank, X, Y, temperature=True, folds=4, resamples=20, seed=2)
    fold = folds_of(40, None, 4, 2)
    for candidate in choice.candidates:
        sampler = mcbn.MCBatchNorm(model, bank, layers=candidate.layers)
        losses = torch.empty(40, dtype=torch.float64)
        for number in range(4):
            here = fold == number
            known = mcbn.predict(sampler, X[~here], keep_draws=True)
            temperature = mcbn.TemperedCategorical.fit(known, Y[~here]).temperature
            logs = (sampler(X[here]) / temperature).log_softmax(2).logsumexp(0) - math.log(6)
            losses[here] = -logs.gather(1, Y[here][:, None])[:, 0]
        assert_close(candidate.value, float(losses.mean()), rtol=1e-7, atol=0)
    assert choice.tempered
    assert "each candidate at its own temperature" in str(choice)


# Intervals of all at once.


def test_intervals_of_independent_differences_are_those_of_sidak():
    """20,000 examples of 6 independent differences; the Monte Carlo error of the rank is 2%."""
    count, candidates, resamples = 4000, 6, 3000
    losses = torch.cat([torch.ones(1, count).double(), 1 + noise(candidates, count)])
    choice = chosen(losses, resamples=resamples)
    expected = stats.norm.isf((1 - 0.95 ** (1 / candidates)) / 2)
    for row, candidate in zip(losses[1:], choice.candidates[1:], strict=True):
        error = float(row.std() / math.sqrt(count))
        low, high = candidate.difference_interval
        reach = (high - low) / 2 / error
        assert abs(reach - expected) < 0.15 * expected
        assert_close((low + high) / 2, candidate.difference, rtol=1e-9, atol=1e-12)
        usual = 2 * stats.norm.sf(abs(candidate.difference) / error)
        sidak = 1 - (1 - usual) ** candidates
        limit = DEVIATIONS * math.sqrt(sidak * (1 - sidak) / resamples) + 0.02
        assert abs(candidate.p_value - sidak) < limit


def test_all_layers_differ_from_themselves_by_nothing():
    choice = chosen(torch.cat([torch.ones(1, 50), 1 + noise(1, 50)]).double())
    every = choice.candidates[0]
    assert (every.difference, every.difference_interval, every.p_value) == (0.0, (0.0, 0.0), 1.0)
    same = chosen(noise(1, 50).repeat(3, 1))
    assert [each.p_value for each in same.candidates] == [1.0] * 3
    assert not same.significant
    assert same.best == "all"
    assert same.layers is None


def simulated(runs, differences, count=200, correlated=0.6):
    """Choices on fresh examples, whose losses have these true differences from all layers."""
    for seed in range(runs):
        shared, own = (
            noise(1, count, seed=2 * seed),
            noise(len(differences), count, seed=2 * seed + 1),
        )
        losses = 2 + shared + (1 - correlated) * own + torch.tensor(differences)[:, None]
        yield chosen(losses.double(), resamples=199, seed=seed)


@pytest.mark.unchecked
def test_without_a_difference_few_choices_are_significant():
    """At a level of 95%, a false alarm for the better side in 2.5% of choices or less, about."""
    choices = list(simulated(400, [0.0] * 6))
    assert share_is(sum(choice.significant for choice in choices), 400, 0.005, 0.04)
    covered = sum(
        all(each.difference_interval[0] <= 0 <= each.difference_interval[1]
            for each in choice.candidates)
        for choice in choices
    )  # fmt: skip
    assert share_is(covered, 400, 0.93, 0.97)


@pytest.mark.unchecked
def test_the_cross_fitted_value_is_unbiased_and_the_best_value_is_not():
    choices = list(simulated(400, [0.0] * 6))
    gains = np.array([choice.gain for choice in choices])
    bests = np.array([choice[choice.best].difference for choice in choices])
    assert abs(gains.mean()) < DEVIATIONS * gains.std() / 20
    assert bests.mean() < -DEVIATIONS * bests.std() / 20


def test_a_clear_difference_is_found():
    (choice,) = simulated(1, [0.0, 0.0, -0.5, 0.3])
    assert choice.best == "c2"
    assert choice.significant
    assert choice.layers == ("a",)
    assert choice.chosen_in_folds == ("c2",) * 5
    assert_close(choice.cross_fitted, choice["c2"].value, rtol=1e-12, atol=0)
    assert choice.gain_interval[1] < 0
    assert choice["c3"].difference_interval[0] > 0
    assert choice["c2"].p_value == 1 / 200


def test_a_best_one_that_is_not_significant_is_not_recommended():
    (choice,) = simulated(1, [0.0, -0.01, 0.0])
    assert choice.best != "all"
    assert choice.layers is None
    assert "not significantly better than all layers" in str(choice)


# Cross-fitting.


def test_leaving_out_each_example_is_choosing_by_all_others():
    losses = 1 + noise(4, 30, seed=3)
    choice = chosen(losses, folds=30)
    rows = losses.numpy()
    expected = [rows[np.delete(rows, k, axis=1).mean(1).argmin(), k] for k in range(30)]
    assert_close(choice.cross_fitted, float(np.mean(expected)), rtol=1e-12, atol=0)
    assert_close(choice.gain, float(np.mean(expected) - rows[0].mean()), rtol=1e-9, atol=1e-12)


def test_groups_are_left_out_and_resampled_whole():
    """Copies of an example say nothing new: all numbers are those of the originals."""
    losses = 1 + noise(3, 24, seed=5)
    copies = losses.repeat_interleave(4, dim=1)
    clusters = Clusters.of_groups(torch.arange(24).repeat_interleave(4), 96)
    found, expected = chosen(copies, clusters=clusters), chosen(losses)
    same = replace(found, examples=expected.examples)
    for one, other in zip(same.candidates, expected.candidates, strict=True):
        assert_close(one.interval, other.interval, rtol=1e-9, atol=1e-12)
        assert_close(one.difference_interval, other.difference_interval, rtol=1e-9, atol=1e-12)
        assert_close(one.p_value, other.p_value, rtol=1e-9, atol=0)
    assert_close(same.cross_fitted, expected.cross_fitted, rtol=1e-12, atol=0)
    assert_close(same.gain_interval, expected.gain_interval, rtol=1e-9, atol=1e-12)
    narrow = chosen(copies)["c1"].difference_interval
    wide = found["c1"].difference_interval
    assert narrow[1] - narrow[0] < 0.7 * (wide[1] - wide[0])


def test_groups_may_be_given(model, bank):
    group = [f"patient {k // 4}" for k in range(40)]
    choice = mcbn.choose_layers(model, bank, X, Y, group=group, resamples=20)
    plain = mcbn.choose_layers(model, bank, X, Y, resamples=20)
    assert_close(choice["last 1"].value, plain["last 1"].value, rtol=1e-12, atol=0)
    assert choice["last 1"].interval != plain["last 1"].interval


def test_the_seed_decides_on_folds_and_resamples():
    losses = 1 + noise(4, 40, seed=3)
    assert chosen(losses).to_dict() == chosen(losses).to_dict()
    other = chosen(losses, seed=1)
    assert other.candidates[1].value == chosen(losses).candidates[1].value
    assert other.candidates[1].interval != chosen(losses).candidates[1].interval


# What it says.


def test_it_shows_all_layers_first_and_then_the_best():
    (choice,) = simulated(1, [0.0, 0.1, -0.5, 0.3])
    rows = choice.display().rows
    assert [row[0] for row in rows] == ["all", "chosen, cross-fitted", "c2", "c1", "c3"]
    best = choice["c2"]
    low, high = best.difference_interval
    assert rows[2] == ("c2", "1", f"{best.value:.4g}", f"{best.difference:.3g}", f"{low:.3g}",
                       f"{high:.3g}", f"{best.p_value:.3g}")  # fmt: skip
    assert rows[1][2:4] == (f"{choice.cross_fitted:.4g}", f"{choice.gain:.3g}")
    assert repr(choice).startswith("LayerChoice: c2 is significantly better than all layers")
    text = str(choice)
    assert "intervals hold for all 4 candidates at once" in text
    assert "the folds choose c2 5" in text
    assert "200 examples, 4 draws collected at M = 8" in text
    (worse,) = simulated(1, [0.0, 0.4])
    assert "no candidate is better than all layers" in str(worse)


def test_its_numbers_are_plain():
    (choice,) = simulated(1, [0.0, 0.1, -0.5])
    values = json.loads(json.dumps(choice.to_dict()))
    assert values["layers"] == ["a"]
    assert values["candidates"][2]["difference"] == choice["c2"].difference
    assert values["gain_interval"] == list(choice.gain_interval)
    with pytest.raises(KeyError):
        choice["nothing"]


# What is refused.

REFUSED = {
    "no such layer": ({"candidates": ["layer9"]}, ValueError, "among"),
    "no others": ({"candidates": [None, ["1", "5"]]}, ValueError, "candidates besides all layers"),
    "a single choice": ({"candidates": "first 1"}, TypeError, r"give \['first 1'\]"),
    "another by that name": ({"candidates": {"all": 1}}, ValueError, "of different names"),
    "one fold": ({"folds": 1}, ValueError, "folds from 2 to 40"),
    "more folds than examples": ({"folds": 41}, ValueError, "folds from 2 to 40"),
    "more folds than groups": (
        {"group": list("ab") * 20, "folds": 3}, ValueError, "folds from 2 to 2, the number"),
    "one resample": ({"resamples": 1}, ValueError, "at least 2 resamples"),
    "a level of percent": ({"level": 95}, ValueError, "level strictly between 0 and 1"),
    "too few targets": ({"targets": Y[:5]}, ValueError, "got 40 inputs and 5 targets"),
    "a temperature of labels": (
        {"temperature": True, "likelihood": "bernoulli", "targets": (X[:, :3] > 0).long()},
        ValueError, "the likelihood of classes with temperature=True"),
    "no targets": ({"targets": None}, TypeError, "targets beside a Tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.unchecked
def test_what_does_not_fit_is_refused(model, bank, name):
    options, error, message = REFUSED[name]
    options = {"targets": Y, **options}
    with pytest.raises(error, match=message):
        mcbn.choose_layers(model, bank, X, options.pop("targets"), **options)


def test_a_network_of_one_layer_has_no_choice():
    model = make_network("1d of 3-D")
    data = examples("1d of 3-D", 40)
    bank = mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=3))
    with pytest.raises(ValueError, match="candidates besides all layers, got none"):
        mcbn.choose_layers(model, bank, data, Y)
