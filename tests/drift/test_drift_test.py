"""The test of mini-batches for drift: against statistics worked out by hand, and its refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import mcbn
from mcbn.io.plain import to_json

M = 16


def examples(count, *, seed=0):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=None), nn.ReLU(), nn.Linear(6, 5),
            nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 2),
        )  # fmt: skip
        network.train()(examples(5000, seed=9))
    return network.eval()


@pytest.fixture(scope="module")
def bank(model):
    batches = mcbn.minibatches(examples(4000), batch_size=M, draws=100, seed=0)
    return mcbn.collect(model, batches)


def by_hand(model, batch):
    """Coordinates of each layer for one mini-batch, from the formula of batch norm."""
    with torch.no_grad():
        hidden = model[0](batch)
        first = torch.cat([hidden.mean(0), (hidden.var(0, correction=0) + 1e-5).log()])
        hidden = nn.functional.batch_norm(
            hidden, None, None, model[1].weight, model[1].bias, training=True
        )
        hidden = model[3](hidden.relu())
        second = torch.cat([hidden.mean(0), (hidden.var(0, correction=0) + 1e-5).log()])
    return {"1": first.double(), "4": second.double()}


def expected(model, bank, batches):
    """Mean squared z, by layer and in all, of mini-batches and of the second half of the draws."""
    draws = mcbn.minibatches(examples(4000), batch_size=M, draws=100, seed=0)
    rows = [by_hand(model, each) for each in draws]
    new = [by_hand(model, each) for each in batches]
    found = {}
    for name in ("1", "4"):
        fit, rest, ours = (
            torch.stack([row[name] for row in part]) for part in (rows[:50], rows[50:], new)
        )
        found[name] = [
            ((part - fit.mean(0)) / fit.std(0)).square().clamp(max=100) for part in (rest, ours)
        ]
    found["all"] = [torch.cat(parts, 1) for parts in zip(*found.values(), strict=True)]
    return {name: [part.mean(1) for part in parts] for name, parts in found.items()}


@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize("count", [1, 3])
def test_distances_and_p_values_are_those_worked_out_by_hand(model, bank, shift, count):
    batches = [examples(M, seed=20 + k) + shift for k in range(count)]
    found, by = mcbn.drift_test(model, bank, batches), expected(model, bank, batches)
    np.testing.assert_allclose(found.calibration, by["all"][0], rtol=1e-3)
    np.testing.assert_allclose(found.distances, by["all"][1], rtol=1e-3)
    assert [layer.name for layer in found.layers] == ["1", "4"]
    for layer in found.layers:
        rest, ours = by[layer.name]
        assert layer.ratio == pytest.approx(float(ours.mean() / rest.mean()), rel=1e-3)
        if count == 1:
            assert layer.p_value == pytest.approx((1 + int((rest >= ours).sum())) / 51)
    if count == 1:
        larger = sum(each >= found.distances[0] for each in found.calibration)
        assert found.p_value == pytest.approx((1 + larger) / 51)
    small, large = sorted(layer.p_value for layer in found.layers)
    adjusted = sorted(layer.adjusted_p_value for layer in found.layers)
    assert adjusted == pytest.approx([min(1, 2 * small), max(min(1, 2 * small), large)])
    assert (found.batch_size, found.collected_at, found.alpha) == (M, M, 0.05)


def test_more_mini_batches_are_surer_and_the_first_layer_is_named(model, bank):
    data = examples(20 * M, seed=5) + 0.4
    found = mcbn.drift_test(model, bank, data)
    assert (len(found.distances), len(found.calibration)) == (20, 50)
    assert found.drifted
    assert found.p_value < 1e-4
    # The second layer sees what the first has normalised.
    assert found.first_layer == "1"
    same = mcbn.drift_test(model, bank, examples(20 * M, seed=5))
    assert (same.drifted, same.first_layer) == (False, None)
    loose = replace(found, alpha=found.layers[1].adjusted_p_value, layers=found.layers[1:])
    assert (loose.drifted, loose.first_layer) == (True, "4")
    one = replace(same.layers[0], p_value=0.03, adjusted_p_value=0.06)
    assert replace(same, layers=(one,)).first_layer is None


def test_a_single_mini_batch_is_rejected_above_the_threshold(model, bank):
    found = mcbn.drift_test(model, bank, [examples(M)])
    above = [value for value in found.calibration if value > found.threshold]
    assert len(above) == 1  # 2 of 51 ranks are at most 0.05, and its own is one of them
    at = replace(found, distances=(found.threshold,))
    assert (1 + sum(each >= at.threshold for each in found.calibration)) / 51 > 0.05
    assert replace(found, alpha=0.01).threshold == math.inf


def test_plain_values_are_those_of_json(model, bank):
    found = mcbn.drift_test(model, bank, [examples(M)])
    parsed = json.loads(to_json(found.to_dict()))
    assert parsed["p_value"] == found.p_value
    assert parsed["distances"] == list(found.distances)
    assert parsed["layers"][1]["name"] == "4"
    assert parsed["drifted"] is found.drifted
    assert f"p = {found.p_value:.3g}" in repr(found)


def test_data_are_cut_into_mini_batches_that_share_no_example(model, bank):
    data = examples(5 * M + 3, seed=3)
    ways = [data, data.numpy(), TensorDataset(data), TensorDataset(data, torch.zeros(len(data)))]
    results = [mcbn.drift_test(model, bank, each, seed=4).distances for each in ways]
    assert results.count(results[0]) == 4
    assert len(results[0]) == 5
    assert mcbn.drift_test(model, bank, data, seed=5).distances != results[0]


def test_an_order_by_class_is_no_drift_of_data_that_are_cut(model, bank):
    data = examples(40 * M, seed=3)
    ordered = data[data[:, 0].argsort()]
    assert not mcbn.drift_test(model, bank, ordered).drifted
    loader = DataLoader(ordered, batch_size=M)
    assert mcbn.drift_test(model, bank, loader).drifted  # whose own order counts


def test_draws_are_rescaled_to_mini_batches_of_another_size(model, bank):
    batches = [examples(2 * M, seed=7)]
    found = mcbn.drift_test(model, bank, batches)
    with pytest.warns(UserWarning, match="rescaled"):
        moved = bank.rescale(4.5 * M)
    assert len(moved) == 100
    rows = bank.rescale(2 * M).points()
    ours = torch.cat(list(by_hand(model, batches[0]).values()))
    names = list(bank.statistics)
    order = [n for layer in ("1", "4") for n in (f"{layer}.running_mean", f"{layer}.running_var")]
    assert names == order
    z = ((ours - rows[:50].mean(0)) / rows[:50].std(0)).square()
    assert found.distances[0] == pytest.approx(float(z.mean()), rel=1e-3)
    assert (found.batch_size, found.collected_at) == (2 * M, M)
    by_cut = mcbn.drift_test(model, bank, examples(4 * M), batch_size=2 * M)
    assert (by_cut.batch_size, len(by_cut.distances)) == (2 * M, 2)


def test_a_channel_that_wakes_counts_for_no_more_than_ten_deviations():
    network = nn.Sequential(nn.BatchNorm1d(4)).eval()
    still = examples(400)
    still[:, 3] = 2.0
    bank = mcbn.collect(network, mcbn.minibatches(still, batch_size=8, draws=40), limit=None)
    same = mcbn.drift_test(network, bank, [still[:8]]).distances[0]
    awake = still[:8].clone()
    awake[:, 3] = torch.arange(8.0)
    found = mcbn.drift_test(network, bank, [awake]).distances[0]
    assert found == pytest.approx(same + 2 * 100 / 8)


def changed(model):
    with torch.random.fork_rng():
        other = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    return other.eval()


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        (lambda m, b: mcbn.drift_test(changed(m), b, [examples(M)]), ValueError, "buffer '4"),
        (lambda m, b: mcbn.drift_test(m, b.first(36), [examples(M)]), ValueError,
         "at least 37 draws for alpha = 0.05 with 1 mini-batch, got 36"),
        (lambda m, b: mcbn.drift_test(m, b.first(8), [examples(M)] * 2), ValueError,
         "at least 9 draws for alpha = 0.05 with 2 mini-batches, got 8"),
        (lambda m, b: mcbn.drift_test(m, b.first(3), [examples(M)]), ValueError, "4 draws, got 3"),
        (lambda m, b: mcbn.drift_test(m, b, [examples(1)]), ValueError, "2 values per channel"),
        (lambda m, b: mcbn.drift_test(m, b, [examples(8 * M)]), ValueError,
         "about the 16 examples of the bank, got 128, .*: that is not between 0.5 and 4 times"),
        (lambda m, b: mcbn.drift_test(m, b, examples(M - 1)), ValueError,
         "16 examples of one mini-batch, got 15"),
        (lambda m, b: mcbn.drift_test(m, b.rescale(20.5), examples(M)), ValueError, "whole number"),
        (lambda m, b: mcbn.drift_test(m, b, examples(M), batch_size=0), ValueError, "at least 1"),
        (lambda m, b: mcbn.drift_test(m, b, [examples(M)], batch_size=M), ValueError, "to cut"),
        (lambda m, b: mcbn.drift_test(m, b, examples(M), alpha=5), ValueError, "between 0 and 1"),
        (lambda m, b: mcbn.drift_test(m, b, [examples(M) / 0]), ValueError, "finite"),
        (lambda m, b: mcbn.drift_test(m, b, ["today"]), TypeError, "inputs, got str"),
        (lambda m, b: mcbn.drift_test(m, "bank.st", examples(M)), TypeError, "Bank.load"),
    ],
)  # fmt: skip
@pytest.mark.unchecked
def test_what_is_refused_and_why(model, bank, call, error, reason):
    with pytest.raises(error, match=reason):
        call(model, bank)


def test_enough_draws_are_enough(model, bank):
    assert mcbn.drift_test(model, bank.first(37), [examples(M) + 9]).drifted
    assert mcbn.drift_test(model, bank.first(9), [examples(M) + 9, examples(M) - 9]).drifted


class Path(nn.Module):
    """A network whose second layer is used by some inputs alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden) if float(x.mean()) > 5 else hidden


@pytest.mark.filterwarnings("ignore:1 batch-norm layer was not called")
@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_inputs_that_take_another_path_are_refused():
    network = Path().eval()
    low, high = (
        mcbn.collect(network, mcbn.minibatches(x, batch_size=8, draws=40), limit=None)
        for x in (examples(400), examples(400) + 10)
    )
    with pytest.raises(ValueError, match="leave out 'second'"):
        mcbn.drift_test(network, low, [examples(8) + 10])
    with pytest.raises(ValueError, match="reach 'second'"):
        mcbn.drift_test(network, high, [examples(8)])


class Noisy(Dataset):
    """Examples with a random transform."""

    def __len__(self):
        return 4000

    def __getitem__(self, index):
        return torch.full((4,), index / 4000) + torch.randn(4)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_a_bank_of_examples_transformed_at_random_is_warned_of(model, loaded):
    if loaded:
        generator = torch.Generator().manual_seed(0)
        batches = DataLoader(Noisy(), batch_size=M, shuffle=True, generator=generator)
    else:
        batches = mcbn.minibatches(Noisy(), batch_size=M, draws=40)
    bank = mcbn.collect(model, batches, draws=40)
    assert bank.source.endswith("examples transformed at random")
    with pytest.warns(UserWarning, match="transformed at random, as in training"):
        mcbn.drift_test(model, bank, [examples(M)])
    with pytest.warns(UserWarning, match="transformed at random, as in training"):
        mcbn.DriftMonitor(model, bank)


def test_a_bank_of_fixed_examples_is_not(model, bank):
    assert "random" not in bank.source
    listed = mcbn.minibatches(list(examples(400)), batch_size=M, draws=2)
    assert "random" not in mcbn.collect(model, listed).source


def test_draws_and_mini_batches_that_share_their_examples_are_warned_of(model, bank):
    few = mcbn.collect(model, mcbn.minibatches(examples(300), batch_size=M, draws=40))
    with pytest.warns(UserWarning, match="40 draws of 16 share 300 examples"):
        mcbn.drift_test(model, few, [examples(M)])
    epoch = DataLoader(examples(640), batch_size=M, shuffle=True,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
    mcbn.drift_test(model, mcbn.collect(model, epoch), [examples(M)])  # without a warning
    sharing = mcbn.minibatches(examples(30), batch_size=M, draws=4)
    with pytest.warns(UserWarning, match="4 mini-batches of 16 share the 30 examples"):
        mcbn.drift_test(model, bank, sharing)
    mcbn.drift_test(model, bank, mcbn.minibatches(examples(64), batch_size=M, draws=4))


def test_a_test_survives_json(model, bank):
    test = mcbn.drift_test(model, bank, examples(200, seed=3))
    values = json.loads(to_json(test.to_dict()))
    assert mcbn.DriftTest.from_dict(values) == test
    values["layers"][0]["ratio"] = None
    assert mcbn.DriftTest.from_dict(values).layers[0].ratio == math.inf
    for name in ("p_value", "layers", "distances"):
        with pytest.raises(ValueError, match="make it again, by mcbn drift --json"):
            mcbn.DriftTest.from_dict({**values, name: None})
