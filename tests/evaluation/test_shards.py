"""Scores of shards: sums that add, against one pass over all rows."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import mcbn
from mcbn.evaluation.shards import ShardScores

EXACT = ("accuracy", "nll", "brier", "ece", "ece_classwise", "mce", "ece_smooth")
RANKED = ("aurc", "e_aurc", "augrc", "auroc_of_errors")


def rows(count, *, seed=0, classes=3, only=None):
    """Predictions of classes, with their targets; `only` these happen."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    chances = logits.softmax(1)
    if only is not None:
        chances = chances * torch.tensor([float(k in only) for k in range(classes)])
    return logits, torch.multinomial(chances, 1, generator=generator)[:, 0]


def batch(logits, targets):
    return mcbn.Categorical(outputs="logits").summarize([logits]), targets


def cut(logits, targets, size):
    return [batch(*part) for part in zip(logits.split(size), targets.split(size), strict=True)]


def assert_equal(first, second):
    assert first.shards == second.shards
    assert first.sums.keys() == second.sums.keys()
    assert_close(first.rows, second.rows, rtol=0, atol=0)
    for name, values in first.sums.items():
        assert_close(values.toarray(), second.sums[name].toarray(), rtol=1e-12, atol=1e-12)


def test_scores_of_two_shards_are_those_of_one_pass():
    logits, targets = rows(4_000)
    shards = [ShardScores.of(cut(logits[part], targets[part], 300), shard=name)
              for name, part in (("a", slice(0, 1_700)), ("b", slice(1_700, None)))]  # fmt: skip
    found = (shards[0] + shards[1]).evaluation(resamples=0)
    expected = mcbn.evaluate(*batch(logits, targets), resamples=0)
    for name in EXACT:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-9), name
    assert found.examples == expected.examples == 4_000


def test_ranked_scores_differ_by_no_more_than_the_pairs_within_a_cell():
    """Half the share of pairs of a wrong and a right row whose confidences share a cell."""
    logits, targets = rows(3_000)
    every = ShardScores.of([batch(logits, targets)], shard=0)
    found, expected = every.evaluation(resamples=0), mcbn.evaluate(
        *batch(logits, targets), resamples=0
    )  # fmt: skip
    counts, errors = (every.sums[name].sum(0) for name in ("rows", "errors"))
    right = counts - errors
    bound = (errors * right).sum() / (errors.sum() * right.sum()) / 2
    gap = abs(found["auroc_of_errors"].value - expected["auroc_of_errors"].value)
    assert 0 < gap <= bound < 1e-3
    for name in RANKED:
        assert found[name].value == pytest.approx(expected[name].value, abs=1e-3), name
    assert not set(found) - set(expected)
    assert set(expected) - set(found) == {"nll_calibrated"}


def test_addition_is_associative_and_has_no_order():
    a, b, c = (ShardScores.of([batch(*rows(200, seed=k))], shard=k) for k in range(3))
    assert_equal((a + b) + c, a + (b + c))
    assert_equal(a + b, b + a)


def test_batches_of_a_shard_may_be_of_any_size():
    logits, targets = rows(500)
    one, many = (ShardScores.of(cut(logits, targets, size), shard="x") for size in (500, 70))
    first, second = one.evaluation(resamples=0), many.evaluation(resamples=0)
    for name in first:
        assert first[name].value == pytest.approx(second[name].value, rel=1e-10), name


def test_blocks_are_chosen_by_chance_where_rows_are_sorted():
    """Each of 16 blocks has about 1/16 of each class, to 5 standard errors."""
    logits, targets = rows(3_000)
    order = targets.argsort()
    shard = ShardScores.of([batch(logits[order], targets[order])], shard=0, blocks=16)
    counts, total = shard.sums["found"].toarray()[:, 3:6], np.bincount(targets, minlength=3)
    assert (np.abs(counts - total / 16) < 5 * np.sqrt(total / 16)).all()


def test_an_empty_shard_adds_nothing():
    full, empty = ShardScores.of([batch(*rows(300))], shard="full"), ShardScores.of([], shard="no")
    for both in (full + empty, empty + full):
        assert both.shards == ("full", "no")
        assert both.evaluation(resamples=20).to_dict() == full.evaluation(resamples=20).to_dict()
    with pytest.raises(ValueError, match="expected rows in at least 2 blocks, got 0 rows in 0"):
        empty.evaluation()


def test_a_class_that_is_missing_in_a_shard_is_no_matter():
    first, second = rows(400, seed=1, only={0}), rows(400, seed=2, only={1, 2})
    every = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    both = ShardScores.of([batch(*first)], shard=1) + ShardScores.of([batch(*second)], shard=2)
    expected, found = mcbn.evaluate(*batch(*every), resamples=0), both.evaluation(resamples=0)
    for name in EXACT:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-9), name


def test_a_group_is_of_one_block_in_whichever_shard_it_is():
    logits, targets = rows(600)
    group = np.arange(600) % 40
    parts = [slice(0, 250), slice(250, 600)]
    shards = [ShardScores.of([(*batch(logits[part], targets[part]), group[part])], shard=k)
              for k, part in enumerate(parts)]  # fmt: skip
    whole = ShardScores.of([(*batch(logits, targets), group)], shard="all")
    both = shards[0] + shards[1]
    assert_close(both.rows, whole.rows, rtol=0, atol=0)
    assert int((both.rows > 0).sum()) <= 40
    assert set(both.rows.tolist()) <= {15.0 * k for k in range(40)}
    ends = [(s["nll"].low, s["nll"].high) for s in (both.evaluation(resamples=50),
                                                    whole.evaluation(resamples=50))]  # fmt: skip
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)


@pytest.mark.parametrize(("change", "words"), [
    ({"shard": "a"}, "expected different shards, got a on both sides"),
    ({"seed": 1}, "expected shards of equal classes, blocks and seed"),
    ({"blocks": 7}, "expected shards of equal classes, blocks and seed"),
])  # fmt: skip
def test_what_does_not_fit_is_not_added(change, words):
    one = ShardScores.of([batch(*rows(50))], shard="a")
    two = ShardScores.of([batch(*rows(50, seed=1))], **{"shard": "b", **change})
    with pytest.raises(ValueError, match=words):
        one + two
    with pytest.raises(ValueError, match="expected shards of equal classes"):
        one + ShardScores.of([batch(*rows(50, classes=4))], shard="c")


def test_what_is_no_shard_is_refused():
    with pytest.raises(ValueError, match="expected at least 2 blocks, got 1"):
        ShardScores.of([], shard="a", blocks=1)
    with pytest.raises(ValueError, match="give every batch with all classes"):
        ShardScores.of([batch(*rows(5)), batch(*rows(5, classes=4))], shard="a")


@pytest.mark.unchecked
def test_intervals_are_as_wide_as_those_of_one_pass():
    """Over 40 data sets: the mean width to 5 standard errors, 1/sqrt(2 * 128 * 40) = 1% each."""
    ratios = {name: [] for name in ("nll", "accuracy", "brier", "aurc", "auroc_of_errors")}
    for seed in range(40):
        logits, targets = rows(1_500, seed=seed)
        whole = mcbn.evaluate(*batch(logits, targets), resamples=300, progress=False)
        both = (
            ShardScores.of([batch(logits[:700], targets[:700])], shard=0, blocks=128, seed=seed)
            + ShardScores.of([batch(logits[700:], targets[700:])], shard=1, blocks=128, seed=seed)
        ).evaluation(resamples=300)
        for name, found in ratios.items():
            widths = [each[name].high - each[name].low for each in (both, whole)]
            found.append(widths[0] / widths[1])
    for name, found in ratios.items():
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - 1) < 4 * error + 0.01, (name, np.mean(found), error)


@pytest.mark.parametrize("share", [0.0, 2.0], ids=["dense", "sparse"])
def test_matrices_of_sums_may_be_dense_or_sparse(share, monkeypatch):
    every = ShardScores.of([batch(*rows(3_000))], shard=0, blocks=16)
    usual = every.evaluation(resamples=60)
    monkeypatch.setattr("mcbn.evaluation.sums.DENSE", share)
    found = every.evaluation(resamples=60)
    for name in usual:
        numbers = [(s[name].value, s[name].low, s[name].high) for s in (found, usual)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9), name


def test_a_shard_of_few_rows_is_small_where_it_is_sent():
    shard = ShardScores.of([batch(*rows(1_000))], shard=0)
    sent = sum(values.data.nbytes + values.indices.nbytes for values in shard.sums.values())
    assert sent < 1_000 * 200
