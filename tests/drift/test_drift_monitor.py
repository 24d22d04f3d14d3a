"""The monitor of a stream: its ranks, its alarm, and what an error leaves as it was."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import mcbn
from mcbn.drift.martingale import Jumper
from mcbn.io.plain import to_json

M = 16


def batch(seed, shift=0.0):
    return shift + torch.randn(M, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return nn.Sequential(nn.BatchNorm1d(3)).eval()


@pytest.fixture(scope="module")
def bank(model):
    batches = [batch(1000 + k) for k in range(60)]
    return mcbn.collect(model, batches)


def test_each_mini_batch_is_ranked_among_the_draws_and_those_before(model, bank):
    monitor = mcbn.DriftMonitor(model, bank, seed=3)
    stream = [batch(k, 0.1 * k) for k in range(12)]
    returned = [monitor.update(each) for each in stream]
    test = mcbn.drift_test(model, bank, stream)
    assert monitor.distances == pytest.approx(test.distances)
    seen, jumper = list(test.calibration), Jumper()
    for number, distance in enumerate(monitor.distances):
        above = sum(each > distance for each in seen)
        p_value = monitor.p_values[number]
        assert above / (len(seen) + 1) <= p_value <= (above + 1) / (len(seen) + 1)
        seen.append(distance)
        jumper = jumper.bet(p_value)
        assert monitor.e_values[number] == pytest.approx(jumper.total)
    assert returned == list(monitor.e_values)
    assert monitor.e_value == returned[-1]


def test_its_ties_are_broken_by_the_seed_alone(model, bank):
    runs = []
    for seed in (3, 3, 4):
        monitor = mcbn.DriftMonitor(model, bank, seed=seed)
        for k in range(5):
            monitor.update(batch(k))
        runs.append(monitor.p_values)
    assert runs[0] == runs[1] != runs[2]


def test_an_alarm_stays(model, bank):
    monitor = mcbn.DriftMonitor(model, bank)
    for k in range(10):
        monitor.update(batch(k))
    assert (monitor.alarm, monitor.alarm_at) == (False, None)
    for k in range(10, 25):
        monitor.update(batch(k, 2.0))
    first = next(k for k, e in enumerate(monitor.e_values, 1) if e >= 100)
    assert 10 < first < 20
    for k in range(300):
        if monitor.update(batch(k + 50)) < 100:
            break
    assert monitor.e_value < 100
    assert (monitor.alarm, monitor.alarm_at) == (True, first)
    parsed = json.loads(to_json(monitor.to_dict()))
    assert parsed["alarm_at"] == first
    assert parsed["e_values"] == list(monitor.e_values)
    assert f"alarm at mini-batch {first}" in repr(monitor)


def test_an_error_leaves_it_as_it_was(model, bank):
    monitor, other = (mcbn.DriftMonitor(model, bank) for _ in range(2))
    for k in range(4):
        with pytest.raises(ValueError, match="finite"):
            monitor.update(batch(k) / 0)
        with pytest.raises(ValueError, match="of 16 examples, got 15"):
            monitor.update(batch(k)[:15])
        with pytest.raises(TypeError, match="inputs, got str"):
            monitor.update("no data")
        assert monitor.update(batch(k)) == other.update(batch(k))
    assert monitor.to_dict() == other.to_dict()


def test_it_takes_batches_as_a_loader_yields_them_and_of_another_size(model, bank):
    plain, paired, array, larger = (
        mcbn.DriftMonitor(model, bank, batch_size=size) for size in (None, M, M, 2 * M)
    )
    for k in range(3):
        plain.update(batch(k))
        paired.update((batch(k), torch.zeros(M)))
        array.update(batch(k).numpy())
        larger.update(torch.cat([batch(k), batch(k + 50)]))
    assert plain.e_values == paired.e_values == array.e_values
    assert (larger.batch_size, larger.collected_at) == (2 * M, M)
    chosen = mcbn.DriftMonitor(model, bank, select=lambda b: b["x"], size=lambda b: len(b["x"]))
    assert chosen.update({"x": batch(0), "more": 1}) == plain.e_values[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alpha": 0.0}, "alpha between 0 and 1"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"batch_size": 100}, "about the 16 examples of the bank, got 100"),
        ({"alpha": 1e-30}, "draws for alpha = 1e-30, got 60"),
    ],
)
def test_what_is_refused_and_why(model, bank, options, reason):
    with pytest.raises(ValueError, match=reason):
        mcbn.DriftMonitor(model, bank, **options)


def test_the_draws_that_it_asks_for_are_enough(model, bank):
    with pytest.raises(ValueError, match=r"at least \d+ draws for alpha = 0.01, got 10") as error:
        mcbn.DriftMonitor(model, bank.first(10))
    needed = int(str(error.value).split("at least ")[1].split()[0])
    monitor = mcbn.DriftMonitor(model, bank.first(needed))
    for k in range(2 * needed):
        monitor.update(batch(k, 3.0))
    assert monitor.alarm


@pytest.mark.slow
def test_few_monitors_alarm_without_drift(model):
    """Each with a bank of its own: of one bank the share may be larger."""
    streams, alarms = 200, []
    for number in range(streams):
        chance = torch.Generator().manual_seed(number)
        stream = list(torch.randn(70, M, 3, generator=chance))
        monitor = mcbn.DriftMonitor(model, mcbn.collect(model, stream[:40]), alpha=0.1, seed=number)
        for each in stream[40:]:
            monitor.update(each)
        alarms.append(monitor.alarm)
    assert np.mean(alarms) <= 0.1 + 2 * (0.09 / streams) ** 0.5
