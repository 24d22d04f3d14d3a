"""The time that a comparison gives for each method."""

import time

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mcbn

SLOW = 0.4  # seconds


class SlowAtFirst:
    """A sampler that sets something up at its first call, and counts the examples it is given."""

    def __init__(self):
        self.examples = []

    def __len__(self):
        return 1

    def passes(self, inputs):
        if not self.examples:
            time.sleep(SLOW)
        self.examples.append(len(inputs))
        yield torch.cat([inputs, -inputs], dim=1)

    def __call__(self, inputs):
        return torch.stack(list(self.passes(inputs)))


class Stream(IterableDataset):
    """Examples that come once."""

    def __init__(self, pairs):
        self.pairs = iter(pairs)

    def __iter__(self):
        return self.pairs


INPUTS = torch.linspace(-1, 1, 40)[:, None]
TARGETS = (INPUTS[:, 0] < 0).long()
SOURCES = {
    "tensor": INPUTS,
    "data set": TensorDataset(INPUTS, TARGETS),
    "loader": DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=20),
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_first_call_sets_up_is_not_in_the_cost(source):
    sampler = SlowAtFirst()
    comparison = mcbn.compare({"slow": sampler}, SOURCES[source], TARGETS, resamples=0)
    assert 0 < comparison.entries["slow"].seconds < SLOW / 2
    # A few examples, or one batch of a loader, which may not be cut.
    assert sampler.examples[0] == (20 if source == "loader" else 16)
    assert sum(sampler.examples[1:]) == len(INPUTS)


def test_examples_of_a_stream_are_read_once():
    loader = DataLoader(Stream(zip(INPUTS, TARGETS, strict=True)), batch_size=10)
    comparison = mcbn.compare({"slow": SlowAtFirst()}, loader, resamples=0)
    assert len(comparison.entries["slow"]) == len(INPUTS)


def test_an_ensemble_costs_as_many_networks():
    def network(seed):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(256, 1024),
            torch.nn.ReLU(),
            torch.nn.BatchNorm1d(1024),
            torch.nn.Linear(1024, 3),
        ).eval()

    with torch.random.fork_rng():
        networks = [network(seed) for seed in range(3)]
    inputs = torch.linspace(-1, 1, 256 * 2048).view(2048, 256)
    samplers = {"one": mcbn.Deterministic(networks[0]), "three": mcbn.DeepEnsemble(networks)}
    found = []
    for _ in range(3):
        entries = mcbn.compare(samplers, inputs, torch.arange(2048) % 3, resamples=0).entries
        found.append(entries["three"].seconds / entries["one"].seconds)
    # On a machine that does other work as well, the middle of three is near 3.
    assert 1.5 < sorted(found)[1] < 6
