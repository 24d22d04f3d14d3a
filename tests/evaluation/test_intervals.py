"""Gaps between forecast and outcome, and replicates of calibration errors made from them."""

import numpy as np
import pytest
import torch
from forecasters import evaluate, forecaster, regressor
from torch.testing import assert_close

from mcbn.evaluation import calibration, formulas, intervals
from mcbn.evaluation.class_scores import class_columns
from mcbn.evaluation.real_scores import real_columns

DATA = {
    "classes": (intervals.class_gaps, class_columns, forecaster(batch=60)),
    "pixels": (intervals.class_gaps, class_columns, forecaster(batch=7, positions=(3, 2))),
    "real": (intervals.pit_gaps, real_columns, regressor(batch=60)),
    "two real": (intervals.pit_gaps, real_columns, regressor(batch=60, outputs=(2,))),
}
every = pytest.mark.parametrize("name", DATA)
# Errors whose bins or bandwidth do not depend on the data.
FIXED = ("ece", "ece_classwise", "pit_error")


def made(name):
    kind, columns_of, data = DATA[name]
    columns = columns_of(*data)
    return kind, columns, len(next(iter(columns.values())))


@every
def test_the_norm_of_the_gaps_is_the_score(name):
    kind, columns, count = made(name)
    gaps, scores = kind(columns)(np.ones(count)), evaluate(*DATA[name][2])
    scores = {error: score.value for error, score in scores.items()}
    if "correct" in columns:  # the bias is subtracted after the norm
        flags = columns["confidence"].flatten(), columns["correct"].flatten()
        biased = calibration.expected_calibration_error(*flags, binning="mass", norm="l2")
        scores["ece_debiased"] = biased
    for error, values in gaps.items():
        order = intervals.NORMS.get(error, 1.0)
        size = float(torch.linalg.vector_norm(values, order))
        smooth = error in ("ece_smooth", "pit_error")  # sums over cells
        near = {"abs": 2 / intervals.CELLS} if smooth else {"rel": 1e-12}
        assert size == pytest.approx(scores[error], **near), error


def test_the_curve_of_pits_is_their_distribution_function():
    kind, columns, count = made("two real")
    middles = (torch.arange(intervals.CELLS) + 0.5).double() / intervals.CELLS
    reached = (columns["pit"].flatten()[:, None] <= middles).double().mean(0)
    gaps = kind(columns)(np.ones(count))["pit_error"]
    assert_close(gaps, (reached - middles) / intervals.CELLS, rtol=0, atol=1e-15)


@every
def test_counting_examples_is_choosing_them(name):
    kind, columns, count = made(name)
    rows = torch.randint(count, (count,), generator=torch.Generator().manual_seed(1))
    counted = kind(columns)(rows.bincount(minlength=count).double().numpy())
    chosen = kind({key: values[rows] for key, values in columns.items()})(np.ones(count))
    assert set(FIXED) & set(counted)
    for error in set(FIXED) & set(counted):
        assert_close(counted[error], chosen[error], rtol=0, atol=1e-14)


@every
def test_gaps_are_sums_over_examples(name):
    kind, columns, count = made(name)
    gaps_of = kind(columns)
    nothing, one = np.zeros(count), np.eye(count)
    counts = np.random.default_rng(2).integers(0, 4, count).astype(float)
    for error, whole in gaps_of(counts).items():
        base = gaps_of(nothing)[error]
        parts = [times * (gaps_of(row)[error] - base)
                 for times, row in zip(counts, one, strict=True)]  # fmt: skip
        assert_close(whole - base, torch.stack(parts).sum(0), rtol=0, atol=1e-13)


def test_beyond_the_outermost_centres_a_residual_is_all_in_the_outermost_cell():
    last = formulas.CELLS - 1
    ends = torch.tensor([0.0, 0.25 / formulas.CELLS, 1.0], dtype=torch.float64)
    cells, shares = formulas.residual_shares(ends, torch.tensor([True, True, False]))
    assert cells.tolist() == [[0, 0, last], [0, 0, last]]
    assert shares.sum(0).tolist() == pytest.approx([1.0, 1 - float(ends[1]), -1.0])
    within = torch.tensor([1.0 / formulas.CELLS, 1 - 1.0 / formulas.CELLS])
    cells, _ = formulas.residual_shares(within.double(), torch.tensor([True, True]))
    assert cells.tolist() == [[0, last - 1], [1, last]]


def test_where_chance_explains_every_gap_the_sparse_shape_is_the_observed_one():
    observed = torch.tensor([0.1, -0.2, 0.0], dtype=torch.float64)
    noise = torch.tensor([[0.3, 0.3, 0.0], [-0.3, -0.3, 0.0]], dtype=torch.float64)
    sparse, even = intervals._shapes(observed, noise)
    assert sparse.tolist() == observed.tolist()
    assert even.tolist() == pytest.approx([0.1**0.5, -(0.13**0.5), 0.0])


def test_a_difference_has_further_replicates_where_an_error_may_be_0():
    """Three rows of replicates by hand: of both, of the second alone, of the first alone."""
    none = torch.tensor([[0.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    some = torch.tensor([[5.0, 6.0, 8.0, 9.0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    assert intervals.difference(some, some + 1, 0.5).tolist() == [[-1.0] * 4]
    assert intervals.difference(none, some, 0.5).tolist() == [[-5, -6, -7, -7], [-5, -6, -8, -9]]
    assert intervals.difference(some, none, 0.5).tolist() == [[5, 6, 7, 7], [5, 6, 8, 9]]
    assert intervals.difference(none, other, 0.5).tolist() == [
        [0, -1, 1, 2], [0, -1, 0, 0], [0, 0, 1, 2]]  # fmt: skip
    assert intervals.difference(none, none.clone(), 0.5).tolist() == [[0.0] * 4]
    assert intervals.difference(none[0], other[0], 0.5).tolist() == [0, -1, 1, 2]


def test_a_root_mean_square_has_one_shape_and_solves_a_quadratic():
    generator = torch.Generator().manual_seed(3)
    observed = torch.randn(6, generator=generator, dtype=torch.float64)
    noise = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    along, square = noise @ observed, observed.square().sum()
    left = square - noise.square().sum(1)
    root = (along.square() + square * left.clamp(min=0)).sqrt()
    expected = torch.where(left > 0, (root - along) / square.sqrt(), 0.0)
    assert 5 < int((left > 0).sum()) < 45
    (errors,) = intervals.errors(observed, observed + noise, 2.0)
    assert_close(errors, expected, rtol=1e-10, atol=0)
