"""Scores by how often clusters were drawn are those of the drawn rows, one after another."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mcbn
from mcbn.evaluation.class_scores import plain_class_scores
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.weighted import WeightedClassScores


@st.composite
def cases(draw):
    """Rows of up to 5 clusters with many ties, and how often each cluster is drawn."""
    rows = draw(st.integers(1, 12))
    of_row = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    confidence = draw(st.lists(st.sampled_from([0.3, 0.5, 0.8, 1.0]), min_size=rows, max_size=rows))
    correct = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    _, codes = np.unique(of_row, return_inverse=True)
    clusters = int(max(codes)) + 1
    counts = draw(st.lists(st.integers(0, 3), min_size=clusters, max_size=clusters))
    counts = counts if any(counts) else [1] * clusters
    return codes, confidence, correct, counts


@pytest.mark.unchecked
@settings(max_examples=300, deadline=None, database=None)
@given(cases())
def test_the_scores_are_those_of_the_drawn_rows(case):
    codes, confidence, correct, counts = case
    columns = {
        "confidence": torch.tensor(confidence, dtype=torch.float64),
        "correct": torch.tensor(correct),
        "nll": torch.arange(len(codes), dtype=torch.float64),
        "brier": torch.arange(len(codes), dtype=torch.float64).square(),
    }
    clusters = Clusters(torch.from_numpy(codes))
    actual = WeightedClassScores.of(columns, clusters)(np.array(counts, dtype=float))
    drawn = clusters.rows_of(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))
    expected = plain_class_scores({name: values[drawn] for name, values in columns.items()})
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if math.isnan(value):
            assert math.isnan(actual[name]), name
        else:
            assert actual[name] == pytest.approx(value, rel=1e-10, abs=1e-12), name


def test_positions_are_rows_of_their_example():
    """The same pixels as rows of an image, or as examples of a group."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, 4, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (20, 4, 5), generator=generator)
    likelihood = mcbn.Categorical(outputs="probabilities")
    dense = mcbn.evaluate(likelihood.summarize(logits.softmax(1)[None]), targets, resamples=30)
    flat = likelihood.summarize(logits.softmax(1).movedim(1, -1).reshape(1, -1, 3))
    image = torch.arange(20).repeat_interleave(20)
    grouped = mcbn.evaluate(flat, targets.flatten(), group=image, resamples=30)
    for name, score in dense.items():
        ends = [(each.value, each.low, each.high) for each in (score, grouped[name])]
        assert ends[0] == pytest.approx(ends[1], rel=1e-9, abs=1e-12), name
    assert (dense.clusters, grouped.clusters) == (None, 20)


def test_a_million_rows_lose_no_digits():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(1_000_000, generator=generator, dtype=torch.float64)
    columns = {
        "confidence": confidence,
        "correct": torch.rand(1_000_000, generator=generator) < confidence,
        "nll": confidence,
        "brier": confidence,
    }
    clusters = Clusters(torch.arange(1_000_000) % 50)
    actual = WeightedClassScores.of(columns, clusters)(np.ones(50))
    for name, value in plain_class_scores(columns).items():
        assert actual[name] == pytest.approx(value, rel=1e-10), name
