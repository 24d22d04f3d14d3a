"""Distances to nearest neighbours in features: exact, in blocks, of any network."""

import numpy as np
import pytest
import torch
from models import examples, make_network
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.samplers.features import Features
from mcbn.uncertainty import neighbors
from mcbn.uncertainty.neighbors import kth_distance, vectors

NAME = "1d of 2-D"


def rows(count, channels, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, generator=generator, dtype=dtype)


def dense(channels):
    with torch.random.fork_rng():
        return nn.Sequential(nn.Linear(channels, 2))


@pytest.fixture
def pictures():
    """A network of pictures, and its features as written out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        head = nn.Linear(6, 4)
        network = nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        trunk.train()(torch.randn(50, 3, 8, 8))
    return network.eval(), trunk


def images(count, seed=0):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("block", [2**22, 64, 7])
def test_search_in_blocks_is_that_of_scikit_learn(k, block, monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", block)
    queries, training = rows(23, 5), rows(40, 5, seed=1)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(training.numpy())
    expected = search.kneighbors(queries.numpy())[0][:, -1]
    np.testing.assert_allclose(kth_distance(queries, training, k).numpy(), expected, rtol=1e-12)


def test_memory_does_not_grow_with_the_number_of_rows(monkeypatch):
    """No block of squared distances is larger than the bound says."""
    monkeypatch.setattr(neighbors, "BLOCK", 1000)
    sizes, made = [], torch.addmm

    def noted(*args, **options):
        found = made(*args, **options)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(torch, "addmm", noted)
    kth_distance(rows(300, 4), rows(500, 4, seed=1), 5)
    assert max(sizes) <= 1000
    assert sum(sizes) == 300 * 500


def test_equal_rows_count_one_by_one():
    training = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
    query = torch.tensor([[0.0]])
    found = [float(kth_distance(query, training, k)) for k in (1, 2, 3, 4)]
    assert found == [0.0, 0.0, 1.0, 3.0]


def test_scores_are_distances_of_features_of_length_one(pictures):
    network, trunk = pictures
    training, new = images(30), images(9, seed=1)
    detector = mcbn.NearestNeighbors.fit(network, training, k=4)
    with torch.no_grad():
        known, given = (trunk(x).mean((2, 3)).double() for x in (training, new))
    known, given = (z / z.norm(dim=1, keepdim=True) for z in (known, given))
    expected = torch.cdist(given, known).sort(1).values[:, 3]
    assert_close(detector(new), expected, rtol=1e-5, atol=1e-6)
    raw = mcbn.NearestNeighbors.fit(network, training, k=4, normalized=False)
    with torch.no_grad():
        known, given = (trunk(x).mean((2, 3)).double() for x in (training, new))
    assert_close(raw(new), torch.cdist(given, known).sort(1).values[:, 3], rtol=1e-4, atol=1e-5)


def test_training_examples_are_at_distance_zero_of_themselves(pictures):
    network, _ = pictures
    training = images(30)
    detector = mcbn.NearestNeighbors.fit(network, training, k=1)
    assert float(detector(training).max()) < 1e-6
    assert float(detector(images(30, seed=1)).min()) > 1e-3


def test_far_examples_are_farther(pictures):
    network, _ = pictures
    detector = mcbn.NearestNeighbors.fit(network, images(200), k=5)
    inside, outside = detector(images(100, seed=1)), detector(3 + images(100, seed=2))
    found = mcbn.out_of_distribution(inside, outside, resamples=0)
    assert found["auroc_out_of_distribution"].value > 0.9


def test_a_layer_before_the_pooling_is_pooled(pictures):
    """The features of a map are the means over its positions."""
    network, trunk = pictures
    new = images(7, seed=1)
    by_map = mcbn.NearestNeighbors.fit(network, images(20), k=2, layer="1")
    by_head = mcbn.NearestNeighbors.fit(network, images(20), k=2)
    assert_close(by_map(new), by_head(new), rtol=1e-5, atol=1e-6)
    assert trunk[0].weight.grad is None


def test_channels_of_a_dense_layer_are_the_last_axis():
    features = Features(dense(3), layer="0")
    outputs = rows(4, 15).reshape(4, 5, 3)
    found = vectors(features, outputs, normalized=False)
    assert_close(found, outputs.mean(1))
    with torch.random.fork_rng():
        convolution = nn.Sequential(nn.Conv1d(5, 2, 1))
    of_map = vectors(Features(convolution, layer="0"), outputs, normalized=True)
    mean = outputs.mean(2)
    assert_close(of_map, mean / mean.norm(dim=1, keepdim=True))


def test_features_of_zero_stay_zero():
    features = Features(dense(3), layer="0")
    found = vectors(features, torch.zeros(2, 3), normalized=True)
    assert_close(found, torch.zeros(2, 3))


@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_scores_do_not_depend_on_how_data_are_cut_or_given(batch_size):
    network, inputs = make_network(NAME), examples(NAME, 40)
    new = examples(NAME, 20, seed=3)
    whole = mcbn.NearestNeighbors.fit(network, inputs, k=3)(new)
    cut = mcbn.NearestNeighbors.fit(network, inputs, k=3, batch_size=batch_size)
    assert_close(cut(new), whole, rtol=1e-5, atol=1e-6)
    loader = DataLoader(TensorDataset(new, torch.zeros(20)), batch_size=6)
    assert_close(cut(loader), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"k": 0}, ValueError, "expected k from 1 to the number of training examples, 12"),
        ({}, ValueError, "12, got 50; give more examples, or choose a smaller k"),
        ({"k": 2.5}, TypeError, "expected k to be an integer"),
        ({"k": 2, "layer": "nowhere"}, ValueError, "name of a layer among"),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, kind, match):
    with pytest.raises(kind, match=match):
        mcbn.NearestNeighbors.fit(make_network(NAME), examples(NAME, 12), **options)


def test_features_of_another_size_are_refused():
    network = dense(4)
    detector = mcbn.NearestNeighbors.fit(network, rows(9, 4, dtype=torch.float32), k=2)
    other = mcbn.NearestNeighbors(detector.features, detector.training[:, :3], 2)
    with pytest.raises(ValueError, match="expected 3 features as of the training examples, got 4"):
        other(rows(2, 4, dtype=torch.float32))
