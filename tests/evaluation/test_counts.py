"""Scores from counts of drawn rows: an explicit loop over repeated rows, and memory by counting."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import mcbn
from mcbn.evaluation import bootstrap, detection, intervals
from mcbn.evaluation.class_scores import class_columns, class_replicates, plain_class_scores
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.reliability import width_edges
from mcbn.evaluation.separation import out_of_distribution
from mcbn.evaluation.sums import class_sums
from mcbn.evaluation.weighted import MeanScores, WeightedClassScores


def classes(rows, *, count=4, seed=0, rounded=False):
    """Predictions of classes and their targets; rounded ones have ties."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, count, generator=generator, dtype=torch.float64)
    logits = logits.round() if rounded else logits
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return mcbn.Categorical(outputs="logits").summarize([logits]), targets


def drawn_rows(rows, seed, resamples):
    """The rows of each resample, from the same stream, as if each were chosen and copied."""
    every = torch.arange(rows)
    drawn = bootstrap.replicates(
        [{"row": every}],
        lambda columns: {"rows": columns["row"].double()},
        resamples=resamples, seed=seed, progress=False,
    )  # fmt: skip
    return drawn["rows"].long()


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("chunk", [1, 700, 2**22])
def test_replicates_are_those_of_a_loop_over_repeated_rows(monkeypatch, rounded, chunk):
    """Rows are copied one resample after another, whatever the chunks in which they are counted."""
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    columns = class_columns(*classes(200, rounded=rounded))
    found = class_replicates(columns, None, resamples=12, seed=3)
    for number, rows in enumerate(drawn_rows(200, 3, 12)):
        repeated = {name: values[rows] for name, values in columns.items()}
        for name, value in plain_class_scores(repeated).items():
            assert float(found[name][number]) == pytest.approx(value, rel=1e-11, abs=1e-14), name


@pytest.mark.parametrize("chunk", [1, 500, 2**22])
def test_counts_are_those_of_the_rows_that_are_drawn(monkeypatch, chunk):
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    groups = [{"first": torch.arange(30)}, {"second": torch.arange(7)}]
    drawn = bootstrap.replicates(
        groups, lambda columns: {name: rows.double() for name, rows in columns.items()},
        resamples=20, seed=5, progress=False,
    )  # fmt: skip
    chunks = list(bootstrap.drawn_counts([30, 7], resamples=20, seed=5))
    for place, name in enumerate(("first", "second")):
        counts = np.concatenate([each[place] for each in chunks], axis=1)
        expected = [np.bincount(rows.long(), minlength=len(counts)) for rows in drawn[name]]
        assert counts.T.tolist() == np.stack(expected).tolist()


@pytest.mark.parametrize("kind", ["alone", "clusters"])
def test_several_resamples_at_once_have_the_scores_and_gaps_of_each(kind):
    columns = class_columns(*classes(90, rounded=True))
    whole = Clusters.alone(90) if kind == "alone" else Clusters(torch.arange(90) % 13)
    clusters = None if kind == "alone" else whole
    counts = np.random.default_rng(0).integers(0, 4, (len(whole), 5)).astype(np.uint8)
    measure = WeightedClassScores.of(columns, whole)
    gaps_of = intervals.class_gaps(columns, clusters)
    together, gaps = measure(counts), gaps_of(counts.astype(np.float64))
    for k in range(5):
        for name, value in measure(counts[:, k]).items():
            assert float(together[name][k]) == pytest.approx(float(value), rel=1e-13), name
        for name, values in gaps_of(counts[:, k].astype(np.float64)).items():
            assert_close(gaps[name][k], values, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("count", [2, 40])
def test_the_sums_of_classes_are_those_of_every_row_in_its_bin(count):
    """A loop over rows, classes and bins, for probabilities on the edges as well."""
    predictive, targets = classes(60, count=count)
    probabilities = predictive.probabilities
    probabilities[0, :2] = torch.tensor([1 / 15, 2 / 15])
    clusters = Clusters(torch.arange(60) // 3)
    times = np.arange(20.0) % 4
    found = class_sums(probabilities, targets, width_edges(), clusters)(times)
    edges = width_edges().tolist()
    expected = np.zeros((count, 15))
    for row in range(60):
        for c in range(count):
            p = float(probabilities[row, c])
            bins = next(b for b in range(15) if p <= edges[b + 1])
            expected[c, bins] += times[row // 3] * ((int(targets[row]) == c) - p)
    expected /= probabilities.numel() * (3 * times.sum() / 60)
    assert found.reshape(count, 15) == pytest.approx(expected, abs=1e-15)


def test_a_mean_is_infinite_only_where_an_infinite_loss_was_drawn():
    losses = torch.tensor([1.0, float("inf"), 3.0, 2.0, float("inf")], dtype=torch.float64)
    means = MeanScores.of({"nll": losses}, Clusters.alone(5))
    counts = np.array([[4, 1, 0], [0, 1, 0], [0, 1, 2], [0, 1, 2], [0, 0, 0]], dtype=np.uint8)
    assert means(counts)["nll"].tolist() == [1.0, float("inf"), 2.5]
    assert [float(means(column)["nll"]) for column in counts.T] == [1.0, float("inf"), 2.5]


def test_separation_is_that_of_repeated_values():
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(40, generator=generator).round(decimals=1)
    outside = torch.rand(25, generator=generator).round(decimals=1) + 0.2
    found = out_of_distribution(inside, outside, resamples=10, seed=2)
    drawn = bootstrap.replicates(
        [{"inside": inside}, {"outside": outside}], lambda columns: dict(columns),
        resamples=10, seed=2, progress=False,
    )  # fmt: skip
    for k in range(10):
        alone = detection.out_of_distribution(drawn["inside"][k], drawn["outside"][k])
        for name in ("auroc", "aupr", "fpr95"):
            replicate = found[f"{name}_out_of_distribution"].replicates[k]
            assert float(replicate) == pytest.approx(getattr(alone, name), rel=1e-13), name


# Memory, by what is allocated: never by the clock or by what the system says.


def peak_of(columns, resamples):
    """Bytes that numpy allocates for replicates, at most."""
    class_replicates(columns, None, resamples=1, seed=0)  # what is kept from a first call
    tracemalloc.start()
    try:
        class_replicates(columns, None, resamples=resamples, seed=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_resamples(monkeypatch):
    """Chunks of 2^15 counts, of 3,000 rows each, whether for 100 resamples or for 1,000."""
    monkeypatch.setattr(bootstrap, "CHUNK", 2**15)
    columns = class_columns(*classes(3_000))
    few, many = (peak_of(columns, resamples) for resamples in (100, 1_000))
    assert many < 1.2 * few


def test_no_more_counts_are_held_than_a_chunk_has(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 1_000)
    sizes = [counts[0].size for counts in bootstrap.drawn_counts([300], resamples=10, seed=0)]
    assert sizes == [900, 900, 900, 300]
    # Of more rows than that a chunk is one resample.
    sizes = [counts[0].shape for counts in bootstrap.drawn_counts([1_500], resamples=2, seed=0)]
    assert sizes == [(1_500, 1), (1_500, 1)]


def test_gaps_are_scaled_a_few_resamples_at_a_time(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    observed = torch.randn(50, generator=generator, dtype=torch.float64)
    resampled = observed + 0.1 * torch.randn(40, 50, generator=generator, dtype=torch.float64)
    whole = intervals.errors(observed, resampled, 1.0)
    sizes, scaled = [], intervals._scaled
    monkeypatch.setattr(intervals, "NOISES", 500)
    monkeypatch.setattr(
        intervals, "_scaled",
        lambda shape, noise, *rest: sizes.append(noise.numel()) or scaled(shape, noise, *rest),
    )  # fmt: skip
    assert_close(intervals.errors(observed, resampled, 1.0), whole, rtol=0, atol=0)
    assert max(sizes) == 500
