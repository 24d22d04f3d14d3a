"""The categorical scores against hand, scipy, scikit-learn, torch, and their own propriety."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss
from torch.testing import assert_close

from mcbn.evaluation import scores
from mcbn.predictive import categorical

TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def forecasts(batch=200, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (batch,), generator=generator)
    return logits.softmax(1), targets


@st.composite
def distributions(draw, count=1):
    classes = draw(st.integers(2, 6))
    weights = draw(hnp.arrays(np.float64, (count, classes), elements=st.floats(0, 1)))
    weights[:, 0] += 1e-3
    return torch.from_numpy(weights / weights.sum(1, keepdims=True))


def test_values_by_hand():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64)
    targets = torch.tensor([1, 0])
    exact = {
        scores.brier: [0.25 + 0.5625 + 0.0625, 0.0],
        scores.correct: [False, True],
    }
    for score, values in exact.items():
        result = score(probabilities, targets)
        assert_close(result, torch.tensor(values, dtype=result.dtype), **TIGHT)
    assert_close(
        scores.negative_log_likelihood(probabilities.log(), targets),
        torch.tensor([math.log(4), 0.0], dtype=torch.float64),
        **TIGHT,
    )
    assert_close(
        categorical.entropy(probabilities),
        torch.tensor([1.5 * math.log(2), 0.0], dtype=torch.float64),
        **TIGHT,
    )


def test_means_agree_with_scikit_learn():
    probabilities, targets = forecasts()
    nll = scores.negative_log_likelihood(probabilities.log(), targets).mean()
    assert float(nll) == pytest.approx(log_loss(targets, probabilities), rel=1e-10)
    reference = brier_score_loss(targets, probabilities, scale_by_half=False)
    assert float(scores.brier(probabilities, targets).mean()) == pytest.approx(reference, rel=1e-10)


def test_each_example_agrees_with_a_loop_and_scipy():
    probabilities, targets = forecasts(batch=30)
    p = probabilities.numpy()
    for i, y in enumerate(targets.tolist()):
        single = probabilities[i : i + 1], targets[i : i + 1]
        loop = sum((p[i, c] - (c == y)) ** 2 for c in range(p.shape[1]))
        assert float(scores.brier(*single)) == pytest.approx(loop, rel=1e-10)
        assert bool(scores.correct(*single)) is (int(p[i].argmax()) == y)
        nll = scores.negative_log_likelihood(single[0].log(), single[1])
        assert float(nll) == pytest.approx(-math.log(p[i, y]), rel=1e-10)
        assert float(categorical.entropy(single[0])) == pytest.approx(
            stats.entropy(p[i]), rel=1e-10
        )


def test_positions_are_scored_like_a_flat_batch():
    probabilities, targets = forecasts(batch=24)
    image = probabilities.reshape(2, 3, 4, 4).permute(0, 3, 1, 2)
    labels = targets.reshape(2, 3, 4)
    for flat, shaped in (
        (scores.brier(probabilities, targets), scores.brier(image, labels)),
        (categorical.entropy(probabilities), categorical.entropy(image)),
        (scores.correct(probabilities, targets), scores.correct(image, labels)),
        (
            scores.negative_log_likelihood(probabilities.log(), targets),
            scores.negative_log_likelihood(image.log(), labels),
        ),
    ):
        assert shaped.shape == labels.shape
        assert_close(shaped.flatten(), flat, **TIGHT)


def test_log_probabilities_never_underflow():
    # Nats that float32 could not hold as a probability.
    log_probabilities = torch.tensor([[-1e4, 0.0], [-20000.0, 0.0]])
    result = scores.negative_log_likelihood(log_probabilities, torch.tensor([0, 0]))
    assert_close(result, torch.tensor([1e4, 2e4], dtype=torch.float64), **TIGHT)


def test_a_class_of_probability_zero_costs_only_when_it_happens():
    log_probabilities = torch.tensor([[0.0, -math.inf], [0.0, -math.inf]])
    result = scores.negative_log_likelihood(log_probabilities, torch.tensor([0, 1]))
    assert result.tolist() == [0.0, math.inf]


def test_the_first_of_tied_classes_is_taken():
    tied = torch.tensor([[0.2, 0.4, 0.4]]).repeat(3, 1)
    assert scores.correct(tied, torch.arange(3)).tolist() == [False, True, False]


def test_squared_error():
    mean, targets = torch.tensor([[1.0, 2.0], [3.0, 1e8]]), torch.tensor([[1.0, 4.0], [0.0, 1e8]])
    exact = torch.tensor([[0.0, 4.0], [9.0, 0.0]], dtype=torch.float64)
    assert_close(scores.squared_error(mean, targets), exact, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_everything_is_float64(dtype):
    probabilities = torch.tensor([[0.75, 0.25]], dtype=dtype)
    targets = torch.tensor([1])
    assert_close(
        scores.brier(probabilities, targets), torch.tensor([1.125], dtype=torch.float64), **TIGHT
    )
    assert categorical.entropy(probabilities).dtype == torch.float64
    log_probabilities = probabilities.log()
    result = scores.negative_log_likelihood(log_probabilities, targets)
    assert_close(result, -log_probabilities[:, 1].double(), **TIGHT)


@given(distributions())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_entropy_lies_between_zero_and_log_classes(probabilities):
    result = float(categorical.entropy(probabilities))
    assert 0 <= result <= math.log(probabilities.shape[1]) + 1e-12


def test_entropy_is_never_negative_by_rounding():
    assert float(categorical.entropy(torch.tensor([[1.0000001, 0.0]]))) == 0.0


@given(distributions(count=2))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_brier_and_log_score_are_proper(pair):
    truth, forecast = pair[:1], pair[1:]
    classes = truth.shape[1]
    outcomes = torch.arange(classes)

    def expected(score, p):
        return float((truth[0] * score(p.expand(classes, -1), outcomes)).sum())

    # The excess of the Brier score is the squared distance; of the log score, the divergence.
    excess = expected(scores.brier, forecast) - expected(scores.brier, truth)
    assert excess == pytest.approx(float((truth - forecast).square().sum()), abs=1e-12)
    mixed = (0.5 * truth + 0.5 * forecast, truth)  # so that no forecast is infinitely wrong
    possible = truth[0] > 0
    nll = [
        float(
            (truth[0] * scores.negative_log_likelihood(p.log().expand(classes, -1), outcomes))[
                possible
            ].sum()
        )
        for p in mixed
    ]
    divergence = stats.entropy(truth[0].numpy(), mixed[0][0].numpy())
    assert nll[0] - nll[1] == pytest.approx(divergence, abs=1e-9)


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_scores_follow_their_examples(order):
    probabilities, targets = forecasts(batch=12)
    index = torch.tensor(order)
    for score in (scores.brier, scores.correct):
        assert torch.equal(
            score(probabilities, targets)[index], score(probabilities[index], targets[index])
        )


def test_scores_rank_a_calibrated_forecaster_over_two_that_are_not():
    """Four standard errors of the paired difference; false alarm below 1e-4, fixed seed."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    for factor in (3.0, 0.3):
        good, bad = logits.log_softmax(1), (factor * logits).log_softmax(1)
        pairs = (
            scores.negative_log_likelihood(bad, targets)
            - scores.negative_log_likelihood(good, targets),
            scores.brier(bad.exp(), targets) - scores.brier(good.exp(), targets),
        )
        for difference in pairs:
            error = difference.std() / math.sqrt(len(difference))
            assert float(difference.mean() / error) > 4


BAD = torch.tensor([[0.5, 0.5], [math.nan, 1.0]])
nll, squares = scores.negative_log_likelihood, scores.squared_error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: scores.brier(BAD, y), r"probabilities, got 1 NaN.*first at index \(1, 0\)"),
        (lambda p, y: categorical.entropy(BAD), "in probabilities, got 1 NaN"),
        (lambda p, y: scores.correct(BAD, y), "in probabilities, got 1 NaN"),
        (lambda p, y: scores.brier(4 * p, y), "probabilities that sum to 1"),
        (lambda p, y: categorical.entropy(p - 1), "probabilities of at least 0"),
        (lambda p, y: scores.correct(p, y + 2), "labels from 0 to 1, got 2 at index"),
        (lambda p, y: scores.brier(p, y - 1), "labels from 0 to 1, got -1"),
        (lambda p, y: scores.brier(p[:0], y[:0]), "at least one value in probabilities"),
        (lambda p, y: nll(BAD.log(), y), "in log_probabilities, got 1 NaN"),
        (lambda p, y: nll(p.log() + math.inf, y), "in log_probabilities, got 4 NaN or infinite"),
        (lambda p, y: nll(p.log() + 1, y), r"expected exp\(log_probabilities\) that sum to 1"),
        (lambda p, y: nll(p[:0], y[:0]), "at least one value in log_probabilities"),
        (lambda p, y: squares(p[:, 0] * math.nan, p[:, 0]), "in mean, got 2 NaN"),
        (lambda p, y: squares(p[:, 0], p[:, 0] * math.nan), "in targets, got 2 NaN"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    probabilities = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    with pytest.raises(ValueError, match=message):
        call(probabilities, torch.tensor([0, 1]))


def test_targets_of_another_shape_are_refused():
    probabilities = torch.full((2, 2), 0.5)
    # Unwrapped, because the shape checks of the test run would refuse them first.
    brier, squared_error = inspect.unwrap(scores.brier), inspect.unwrap(scores.squared_error)
    with pytest.raises(ValueError, match=r"targets of shape \(2,\), got \(3,\)"):
        brier(probabilities, torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="expected mean and targets of the same shape"):
        squared_error(torch.ones(3), torch.ones(3, 1))


def test_targets_that_are_not_integers_are_refused():
    with pytest.raises(TypeError, match=r"Int|integer"):
        scores.brier(torch.full((2, 2), 0.5), torch.tensor([0.0, 1.0]))
