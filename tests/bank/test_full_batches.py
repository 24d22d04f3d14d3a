"""M is the number of examples: batches of any rows are full, counted, or refused."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from graphs import Batch, Classifier, graphs
from graphs import DataLoader as GraphLoader
from models import randomized, without_seed
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence
from torch.testing import assert_close
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import mcbn
from mcbn.bank.full_batches import full_batches
from mcbn.network.isolation import random_streams

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

M, N = 10, 54  # five full batches, and one of 4


class Pool(nn.Module):
    """One output per bag of a table of all their rows."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x, bag):
        hidden = self.norm(self.first(x)).relu()
        return self.head(torch.zeros(int(bag.max()) + 1, 6).index_add(0, bag, hidden))


class Frames(Pool):
    """One output per sequence of (length, batch, features)."""

    def forward(self, x):
        hidden = self.norm(self.first(x).flatten(0, 1)).relu()
        return self.head(hidden.view(*x.shape[:2], -1).mean(0))


class Padded(Frames):
    """The same, with the lengths."""

    def forward(self, x, lengths):
        return super().forward(x) + lengths[:, None]


class Packed(Pool):
    """One output per packed sequence."""

    def forward(self, packed):
        hidden = self.norm(self.first(packed.data)).relu()
        sequences = PackedSequence(hidden, *packed[1:])
        return self.head(nn.utils.rnn.pad_packed_sequence(sequences)[0].mean(0))


class Points(Pool):
    """One output per row."""

    def forward(self, x, bag):
        return self.head(self.norm(self.first(x)).relu())


def bags():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 12, (N,), generator=generator).tolist()
    return [torch.randn(length, 4, generator=generator) for length in lengths]


BAGS = bags()


def table(items):
    lengths = torch.tensor([len(item) for item in items])
    return torch.cat(items), torch.repeat_interleave(torch.arange(len(items)), lengths)


def padded(items):
    return pad_sequence(items), torch.tensor([len(item) for item in items])


def packed(items):
    return pack_sequence(items, enforce_sorted=False)


def whole(batch):
    return batch


RAGGED = {
    "table": (Pool, table),
    "table, an output per row": (Points, table),
    "length first": (Frames, pad_sequence),
    "length first, with lengths": (Padded, padded),
    "packed": (Packed, packed),
}


def network(kind):
    return randomized(without_seed(RAGGED[kind][0])).eval()


def stacked(items):
    return torch.stack([item[0] for item in items])


class Stream(IterableDataset):
    """Each of its processes gives all examples."""

    def __iter__(self):
        return iter(BAGS)


class Unequal(torch.utils.data.Sampler):
    """Batches of different numbers of examples, as samplers by length make them."""

    def __iter__(self):
        return iter([[0, 1, 2], [3, 4], [5, 6, 7]])


def sizes(batches, size=None, draws=None):
    """Numbers of examples of the full batches."""
    with random_streams(0):
        stream = full_batches(batches, tuple, size, repeat=draws is not None)
        return [batch.examples for batch in islice(stream, draws)]


@pytest.mark.parametrize("kind", RAGGED)
def test_mini_batches_of_any_rows_are_draws(kind):
    model, collate = network(kind), RAGGED[kind][1]
    batches = mcbn.minibatches(BAGS, batch_size=M, draws=9, collate=collate, select=whole)
    bank = mcbn.collect(model, batches)
    assert (len(bank), bank.batch_size, bank.population) == (9, M, N)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", RAGGED)
def test_a_loader_says_which_batches_are_full_whatever_their_rows(kind, workers):
    model, collate = network(kind), RAGGED[kind][1]
    loader = DataLoader(BAGS, batch_size=M, collate_fn=collate, num_workers=workers)
    bank = mcbn.collect(model, loader, select=whole)
    by_hand = [collate(BAGS[start : start + M]) for start in range(0, N - M, M)]
    expected = mcbn.collect(model, by_hand, select=whole, size=lambda _: M)
    assert (len(bank), bank.batch_size, bank.population) == (N // M, M, N)
    assert_close(dict(bank.statistics), dict(expected.statistics), rtol=0, atol=0)


class OwnLoader(DataLoader):
    """Reads the sampler of its batch sampler."""

    def __iter__(self):
        assert isinstance(self.batch_sampler.sampler, SequentialSampler)
        return super().__iter__()


def used(loader):
    """A loader that was iterated before."""
    with random_streams(0):
        assert len(list(loader)) == len(loader)
    return loader


LOADERS = {
    "shuffled": lambda: DataLoader(BAGS, batch_size=M, collate_fn=table, shuffle=True),
    "drop_last": lambda: DataLoader(BAGS, batch_size=M, collate_fn=table, drop_last=True),
    "batch sampler": lambda: DataLoader(
        BAGS, collate_fn=table, batch_sampler=BatchSampler(RandomSampler(BAGS), M, False)),
    "lists of indices": lambda: DataLoader(
        BAGS, collate_fn=table, batch_sampler=list(map(list, torch.arange(N).split(M)))),
    "sampler of lists": lambda: DataLoader(
        TensorDataset(stacked(BAGS)), batch_size=None, sampler=BatchSampler(range(N), M, False)),
    "weighted": lambda: DataLoader(
        BAGS, batch_size=M, collate_fn=table, sampler=WeightedRandomSampler(torch.ones(N), N)),
    "stream": lambda: DataLoader(Stream(), batch_size=M, collate_fn=table),
    "out of order": lambda: DataLoader(
        BAGS, batch_size=M, collate_fn=table, num_workers=2, in_order=False),
    "persistent": lambda: DataLoader(
        BAGS, batch_size=M, collate_fn=table, num_workers=1, persistent_workers=True),
    "persistent, used before": lambda: used(DataLoader(
        BAGS, batch_size=M, collate_fn=table, num_workers=1, persistent_workers=True)),
    "of a class of its own": lambda: OwnLoader(BAGS, batch_size=M, collate_fn=table),
    "one by one": lambda: DataLoader(
        mcbn.minibatches(BAGS, batch_size=M, draws=5, collate=table, select=whole),
        batch_size=None),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOADERS)
def test_every_loader_counts_its_examples_in_every_epoch(kind):
    loader = LOADERS[kind]()
    before = dict(vars(loader))
    assert sizes(loader) == [M] * 5
    assert sizes(loader, draws=12) == [M] * 12
    assert vars(loader) == before


def test_each_process_of_a_stream_has_a_last_batch():
    loader = DataLoader(Stream(), batch_size=M, collate_fn=table, num_workers=2)
    assert sizes(loader) == [M] * 10


def test_a_stream_that_repeats_itself_is_told_how_not_to():
    loader = DataLoader(Stream(), batch_size=M, collate_fn=table)
    with pytest.raises(ValueError, match=r"repeats its batches .*; shuffle in its data set"):
        mcbn.collect(network("table"), loader, select=whole, draws=9)


def test_the_population_is_what_a_sampler_draws_from():
    data = TensorDataset(stacked(BAGS))
    model = randomized(without_seed(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))))
    subset = DataLoader(data, batch_size=M, sampler=SubsetRandomSampler(range(20)))
    assert mcbn.collect(model, subset).population == 20
    made_by_the_data = DataLoader(stacked(BAGS).split(M), batch_size=None)
    assert mcbn.collect(model, made_by_the_data).population is None


RAGGED_ROWS = [table(BAGS[start : start + M]) for start in range(0, N - M, M)]
TWO_FALLING = sorted(RAGGED_ROWS[:2], key=lambda batch: -len(batch[0]))
CHUNKS = [table(BAGS[:M]), table(BAGS[M : 2 * M])]


def dropping(items):
    """Loses an example, as functions do that leave out what could not be read."""
    return stacked(items[1:])


REFUSED = {
    "rows that differ": (Points, lambda: RAGGED_ROWS, "size="),
    "outputs that count otherwise": (Pool, lambda: RAGGED_ROWS[:1], "size="),
    "a smaller batch that is no remainder": (Pool, lambda: TWO_FALLING, "size="),
    "length first": (Frames, lambda: [(pad_sequence(BAGS[:M]),)], "size="),
    "a data set of batches, one by one": (
        Points, lambda: DataLoader(CHUNKS, collate_fn=lambda items: items[0]), "size="),
    "examples lost": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
        lambda: DataLoader(BAGS, batch_size=M, collate_fn=dropping), "9 outputs for a batch of 10"),
    "batches of several sizes": (
        Pool, lambda: DataLoader(BAGS, collate_fn=table, batch_sampler=Unequal()), "minibatches"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_counted_is_refused_with_the_remedy(kind):
    build, batches, reason = REFUSED[kind]
    model = randomized(without_seed(build)).eval()
    select = None if kind in ("length first", "examples lost") else whole
    with pytest.raises(ValueError, match=reason):
        mcbn.collect(model, batches(), select=select)


def test_size_counts_where_nothing_else_does():
    model = network("table")
    bank = mcbn.collect(model, iter(RAGGED_ROWS), select=whole, size=lambda b: int(b[1].max()) + 1)
    assert (len(bank), bank.batch_size) == (len(RAGGED_ROWS), M)
    chunks = DataLoader(CHUNKS, collate_fn=lambda items: items[0])
    assert mcbn.collect(model, chunks, select=whole, size=lambda b: M).batch_size == M


@pytest.mark.parametrize(
    ("counts", "expected"), [([8, 8, 3], 2), ([8, 3, 8], None), ([8, 9], None), ([3, 8], None)]
)
def test_only_a_smaller_last_batch_is_left_out(counts, expected):
    batches = [(torch.zeros(number, 4),) for number in counts]
    if expected is not None:
        assert sizes(batches, size=rows) == counts[:expected]
    else:
        with pytest.raises(ValueError, match="but for a smaller last one"):
            sizes(batches, size=rows)


def rows(batch):
    return len(batch[0])


@pytest.mark.unchecked
@pytest.mark.parametrize("size", [8, lambda _: 2.5, lambda _: 0, lambda _: True, lambda _: None])
def test_size_is_a_function_to_whole_numbers(size):
    with pytest.raises((TypeError, ValueError), match="size="):
        sizes(RAGGED_ROWS, size=size)


def test_several_inputs_stay_several_whoever_loads_them():
    model = network("table")

    def batches(workers):
        return mcbn.minibatches(
            BAGS, batch_size=M, draws=3, collate=table, select=whole, num_workers=workers
        )

    assert type(next(iter(batches(1)))) is tuple
    expected = mcbn.collect(model, batches(0))
    for same in (batches(1), DataLoader(batches(0), batch_size=None)):
        found = mcbn.collect(model, same)
        assert_close(dict(found.statistics), dict(expected.statistics), rtol=0, atol=0)
    with pytest.raises(ValueError, match="batch_size=None"):
        mcbn.collect(model, DataLoader(batches(0), batch_size=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_that_do_not_stack_are_refused_with_the_remedy(workers):
    batches = mcbn.minibatches(BAGS, batch_size=M, draws=2, num_workers=workers)
    with pytest.raises(ValueError, match=r"^expected examples that stack .* collate="):
        next(iter(batches))


@pytest.mark.parametrize("data", [np.asarray, pd.DataFrame, list], ids=["array", "frame", "rows"])
def test_arrays_and_data_frames_are_data_sets(data):
    values = stacked(BAGS).double().numpy()
    expected = mcbn.minibatches(torch.from_numpy(values), batch_size=M, draws=2)[1]
    # A frame has no other precision than float64, so its real numbers take PyTorch's default.
    made = torch.float32 if data is pd.DataFrame else torch.float64
    assert_close(mcbn.minibatches(data(values), batch_size=M, draws=2)[1], expected.to(made))


GRAPHS = graphs(N)
GRAPH_BATCHES = {
    "minibatches": lambda: mcbn.minibatches(GRAPHS, batch_size=M, draws=5),
    "pairs": lambda: mcbn.minibatches([(graph, 0) for graph in GRAPHS], batch_size=M, draws=5),
    "loader": lambda: GraphLoader(GRAPHS, batch_size=M),
    "list": lambda: [Batch.from_data_list(GRAPHS[s : s + M]) for s in range(0, N, M)],
}


@pytest.mark.parametrize("kind", GRAPH_BATCHES)
def test_batches_of_graphs_are_inputs_as_they_are(kind):
    model = randomized(without_seed(Classifier)).eval()
    bank = mcbn.collect(model, GRAPH_BATCHES[kind]())
    assert (len(bank), bank.batch_size) == (5, M)


def test_predictions_have_one_row_per_graph():
    model = randomized(without_seed(Classifier)).eval()
    bank = mcbn.collect(model, mcbn.minibatches(GRAPHS, batch_size=M, draws=3))
    loader, sampler = GraphLoader(GRAPHS, batch_size=M), mcbn.MCBatchNorm(model, bank)
    with torch.no_grad(), random_streams(0):
        by_hand = torch.stack([
            torch.cat([torch.func.functional_call(model, bank.state(t), (b,)) for b in loader])
            for t in range(3)
        ])  # fmt: skip
    found = mcbn.predict(sampler, loader, keep_draws=True)
    assert_close(found.draws, by_hand, rtol=0, atol=1e-6)
    targets = torch.cat([graph.y for graph in GRAPHS])
    samplers = {"plain": mcbn.Deterministic(model), "MCBN": sampler}
    assert (
        len(mcbn.compare(samplers, loader, targets, resamples=10).entries["MCBN"].predictive) == N
    )
