"""Draws of logits as a distribution over classes: against naive float64 numpy and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from torch.testing import assert_close

import mcbn

TIGHT = {"rtol": 1e-12, "atol": 1e-13}
PARTS = ("log_probabilities", "probabilities", "expected_entropy", "variance", "variation_ratio",
         "prediction", "confidence", "entropy", "mutual_information")  # fmt: skip


def logits(draws=6, batch=9, classes=4, positions=(), scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (draws, batch, classes, *positions)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def summarize(draws, **options):
    return mcbn.Categorical().summarize(draws, **options)


def of(rows):
    """One example, its logits in each draw."""
    return torch.tensor(rows, dtype=torch.float64).unsqueeze(1)


def test_probabilities_are_averaged_and_logits_are_not():
    predictive = summarize(of([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    each = np.array([special.expit(9), special.expit(-1), special.expit(-1)])
    assert float(predictive.probabilities[0, 0]) == pytest.approx(each.mean(), rel=1e-13)
    # The mean of the logits would say 7/3 : 0, far surer of the first class.
    assert float(predictive.probabilities[0, 0]) < special.expit(7 / 3) - 0.3


def test_mean_logits_and_mean_probabilities_may_choose_different_classes():
    predictive = summarize(of([[9.0, 0.0], [0.0, 1.5], [0.0, 1.5]]))
    assert predictive.prediction.tolist() == [1]
    assert of([[9.0, 0.0], [0.0, 1.5], [0.0, 1.5]]).mean(0).argmax(1).tolist() == [0]


def test_every_part_agrees_with_numpy():
    draws = logits()
    p = special.softmax(draws.numpy(), axis=2)
    mean = p.mean(0)
    predictive = summarize(draws)
    expected = {
        "log_probabilities": np.log(mean),
        "probabilities": mean,
        "prediction": mean.argmax(1),
        "confidence": mean.max(1),
        "entropy": stats.entropy(mean, axis=1),
        "expected_entropy": stats.entropy(p, axis=2).mean(0),
        "variance": p.var(0, ddof=0),
        "mutual_information": stats.entropy(p, mean[None], axis=2).mean(0),  # KL(p_t || mean)
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(predictive, name), values, rtol=1e-11, err_msg=name)
    assert predictive.draw_count == len(draws)
    assert len(predictive) == draws.shape[1]


def test_variance_is_the_biased_one_of_teye():
    predictive = summarize(of([[0.0, 0.0], [math.log(3), 0.0]]))
    # Probabilities 1/2 and 3/4: the mean square distance from 5/8 is 1/64, unbiased 1/32.
    assert_close(predictive.variance, torch.full((1, 2), 1 / 64, dtype=torch.float64), **TIGHT)


def test_variance_keeps_its_digits_where_the_mean_is_large():
    # A difference of large sums would lose all digits of a variance of 1e-18.
    draws = of([[0.0, 20.0 + step * 1e-3] for step in range(8)])
    with_mean_near_one = summarize(draws).variance[0, 1]
    exact = special.expit(-draws[:, 0, 1].numpy()).var()
    assert float(with_mean_near_one) == pytest.approx(exact, rel=1e-3)


def test_variation_ratio_by_hand():
    votes = [[5, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 9]]
    assert summarize(of(votes)).variation_ratio.tolist() == [0.5]
    assert summarize(of(votes[:2])).variation_ratio.tolist() == [0.0]
    assert summarize(of(votes[1:])).variation_ratio.tolist() == pytest.approx([2 / 3])


def test_variation_ratio_counts_votes_and_not_the_mean():
    # Two of three vote for the second class; the mean chooses it or not, the votes do not care.
    ratio = summarize(of([[50.0, 0.0], [0.0, 0.01], [0.0, 0.01]])).variation_ratio
    assert ratio.tolist() == pytest.approx([1 / 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [150.0, 2000.0])
def test_log_probabilities_stay_finite_where_probabilities_underflow(gap, dtype):
    draws = torch.tensor([[[0.0, gap]], [[0.0, gap + 1]]], dtype=dtype)
    assert torch.softmax(draws.float(), 2).mean(0)[0, 0] == 0
    result = summarize(draws).log_probabilities
    assert result.dtype == torch.float64
    exact = -gap + math.log((1 + math.exp(-1)) / 2)
    assert float(result[0, 0]) == pytest.approx(exact, rel=1e-12)
    assert summarize(draws).entropy.isfinite().all()


def test_half_precision_is_averaged_in_float64():
    draws = logits().to(torch.bfloat16)
    expected = draws.double().softmax(2).mean(0)
    assert_close(summarize(draws).probabilities, expected, **TIGHT)


@st.composite
def any_logits(draw):
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(2, 5)))
    elements = st.floats(-800, 800, width=32)
    return torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=elements)))


@given(any_logits())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_bounds_of_the_uncertainties(draws):
    predictive = summarize(draws)
    information, entropy = predictive.mutual_information, predictive.entropy
    classes, count, slack = draws.shape[2], len(draws), 1e-12
    assert bool((information >= 0).all())
    assert bool((entropy >= 0).all())
    assert bool((information <= entropy).all())
    assert bool((entropy <= math.log(classes) + slack).all())
    assert bool((information <= math.log(count) + slack).all())
    assert bool((predictive.expected_entropy >= 0).all())
    assert bool((predictive.variance >= 0).all())
    assert bool((predictive.variance <= 0.25 + slack).all())
    assert bool((predictive.variation_ratio >= 0).all())
    assert bool((predictive.variation_ratio <= 1 - 1 / min(classes, count) + slack).all())
    total = predictive.probabilities.sum(1)
    assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


@given(any_logits(), st.integers(2, 9))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_equal_draws_are_one_draw(draws, count):
    one = summarize(draws[:1])
    many = summarize(draws[:1].expand(count, -1, -1, *draws.shape[3:]))
    assert_close(many.log_probabilities, one.log_probabilities, rtol=1e-12, atol=1e-13)
    assert_close(many.mutual_information, torch.zeros_like(one.entropy), rtol=0, atol=1e-13)
    assert int(many.variance.count_nonzero()) == 0
    assert int(many.variation_ratio.count_nonzero()) == 0


@given(st.permutations(range(6)))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_order_of_draws_does_not_matter(order):
    draws = logits()
    for name in PARTS:
        shuffled, plain = (getattr(summarize(d), name) for d in (draws[list(order)], draws))
        assert_close(shuffled, plain, **TIGHT)


def test_dense_outputs_are_scored_like_a_flat_batch():
    draws = logits(batch=3, positions=(4, 5))
    flat = summarize(draws.movedim(2, -1).reshape(len(draws), -1, 4))
    dense = summarize(draws)
    for name in PARTS:
        values = getattr(dense, name)
        if name in ("log_probabilities", "probabilities", "variance"):
            assert values.shape == (3, 4, 4, 5)
            values = values.movedim(1, -1).reshape(-1, 4)
        else:
            assert values.shape == (3, 4, 5)
            values = values.flatten()
        assert_close(values, getattr(flat, name), **TIGHT)


def test_a_stream_of_draws_gives_the_same_as_a_stack():
    draws = logits()
    stream = (draw.clone() for draw in draws)
    streamed, stacked = summarize(stream), summarize(draws)
    for name in PARTS:
        assert_close(getattr(streamed, name), getattr(stacked, name), rtol=0, atol=0)


def test_draws_are_not_changed():
    draws = logits()
    before = draws.clone()
    summarize(draws, keep_draws=True)
    assert_close(draws, before, rtol=0, atol=0)


def test_draws_are_kept_when_asked_for():
    draws = logits().float()
    assert summarize(draws).draws is None
    assert_close(summarize(iter(draws), keep_draws=True).draws, draws, rtol=0, atol=0)


def test_joined_parts_are_the_whole():
    draws = logits()
    whole = summarize(draws, keep_draws=True)
    parts = [summarize(part, keep_draws=True) for part in draws.split(4, dim=1)]
    joined = mcbn.Categorical().join(parts)
    for name in (*PARTS, "draws"):
        assert_close(getattr(joined, name), getattr(whole, name), rtol=0, atol=0)
    assert joined.draw_count == whole.draw_count


def test_no_graph_is_kept():
    predictive = summarize(logits().requires_grad_(), keep_draws=True)
    assert not any(getattr(predictive, name).requires_grad for name in (*PARTS, "draws"))


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 3)])
def test_a_single_logit_is_refused_with_the_remedy(shape):
    with pytest.raises(ValueError, match=r"at least 2 classes.*torch\.cat\(\[torch\.zeros_like"):
        summarize([torch.zeros(shape)])


def test_the_remedy_for_a_single_logit_is_the_sigmoid():
    z = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    predictive = summarize([torch.cat([torch.zeros_like(z), z], 1)])
    assert_close(predictive.probabilities[:, 1], z[:, 0].sigmoid(), **TIGHT)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused_naming_the_draw(bad):
    draws = logits()
    draws[3, 2, 1] = bad
    with pytest.raises(ValueError, match=r"the logits of draw 3, .*\(2, 1\)"):
        summarize(draws)
