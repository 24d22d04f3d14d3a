"""Recalibration: against mpmath, scikit-learn and autograd, on planted temperatures and by hand.

Statistical tests have a fixed seed and a tolerance of four standard errors: one in 16,000 false.
"""

import copy
import json
import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.evaluation import scores
from mcbn.evaluation.line_search import lowest
from mcbn.recalibration import held_out
from mcbn.recalibration.shares import averaged

TIGHT = {"rtol": 1e-12, "atol": 1e-13}
AVERAGED = (mcbn.TemperatureScaling, mcbn.VectorScaling, mcbn.Isotonic)
CLASSES = (*AVERAGED, mcbn.TemperedCategorical)
NAMES = [method.__name__ for method in CLASSES]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predicted(batch=200, classes=4, draws=5, *, positions=(), spread=1.0, scale=2.0, seed=0):
    """Draws of logits about those of each example, kept."""
    center = scale * normal(1, batch, classes, *positions, seed=seed)
    logits = center + spread * normal(draws, batch, classes, *positions, seed=seed + 1)
    return mcbn.Categorical().summarize(logits, keep_draws=True)


def labels(probabilities, seed=0):
    """A class of each example (and position), drawn from its probabilities."""
    rows = probabilities.movedim(1, -1)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(rows.reshape(-1, rows.shape[-1]), 1, generator=generator)
    return chosen.reshape(rows.shape[:-1])


def part(predictive, rows):
    """Predictions of some examples; for a slice they share memory with the whole."""
    draws = predictive.draws
    return mcbn.CategoricalPredictive(
        predictive.log_probabilities[rows], predictive.expected_entropy[rows],
        predictive.variance[rows], predictive.variation_ratio[rows], predictive.draw_count,
        None if draws is None else draws[:, rows],
    )  # fmt: skip


def require_same(fitted, expected):
    """The two have the same numbers, up to where the search stops."""
    for name, value in expected.to_dict().items():
        if name != "method":
            assert fitted.to_dict()[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name


def loss(predictive, targets):
    return scores.negative_log_likelihood(predictive.log_probabilities, targets)


def of(rows, repeats):
    """Examples that all have these logits, one row a draw."""
    logits = torch.tensor(rows, dtype=torch.float64)[:, None].expand(-1, repeats, -1)
    return mcbn.Categorical().summarize(logits.contiguous(), keep_draws=True)


# One temperature


@pytest.mark.parametrize("method", [mcbn.TemperatureScaling, mcbn.TemperedCategorical])
def test_temperature_is_the_optimum_of_the_written_out_loss(method):
    predictive = predicted(8, 3, 2, seed=2)
    targets = predictive.prediction.index_add(0, torch.tensor([0, 5]), torch.ones(2).long()) % 3
    rows = predictive.draws
    if method is mcbn.TemperatureScaling:
        rows = predictive.log_probabilities[None]

    def written_out(log_temperature):
        total = mpmath.mpf(0)
        for example, target in enumerate(targets.tolist()):
            chances = []
            for draw in rows[:, example].tolist():
                powers = [mpmath.exp(value / mpmath.exp(log_temperature)) for value in draw]
                chances.append(powers[target] / sum(powers))
            total -= mpmath.log(sum(chances) / len(chances))
        return total

    with mpmath.workdps(30):
        grid = [mpmath.mpf(step) / 10 for step in range(-40, 41)]
        start = min(grid, key=written_out)
        best = mpmath.findroot(lambda point: mpmath.diff(written_out, point), start, tol=1e-18)
    fitted = method.fit(predictive, targets, prior=0.0)
    assert fitted.temperature == pytest.approx(float(mpmath.exp(best)), rel=1e-9)
    assert fitted.at_bound is None


def test_the_two_temperatures_of_a_case_with_known_answers():
    # The draws give the first class s(a) and 1/2. It happens 7 times in 10.
    predictive, a = of([[3.0, 0.0], [0.0, 0.0]], 10), 3.0
    targets = torch.tensor([0] * 7 + [1] * 3)
    mean = (special.expit(a) + 0.5) / 2
    average = mcbn.TemperatureScaling.fit(predictive, targets, prior=0.0)
    each = mcbn.TemperedCategorical.fit(predictive, targets, prior=0.0)
    # s(logit(mean) / T) = 0.7, and (s(a / T) + 1/2) / 2 = 0.7.
    expected = special.logit(mean) / special.logit(0.7)
    assert average.temperature == pytest.approx(expected, rel=1e-10)
    assert each.temperature == pytest.approx(a / special.logit(0.9), rel=1e-10)
    assert average.temperature < 1.2 < 1.3 < each.temperature


def test_draws_that_disagree_bound_what_a_temperature_of_each_can_say():
    predictive = of([[3.0, 0.0], [0.0, 0.0]], 10)
    targets = torch.tensor([0] * 8 + [1] * 2)  # more often than 3/4, the most two draws can give
    with pytest.warns(mcbn.TemperatureBoundWarning, match="got the lower bound of the search"):
        each = mcbn.TemperedCategorical.fit(predictive, targets, prior=0.0)
    assert (each.at_bound, each.temperature) == ("lower", 0.01)
    again = of([[3.0, 0.0], [0.0, 0.0]], 1)
    assert float(each(again).probabilities[0, 0]) == pytest.approx(0.75, rel=1e-12)
    average = mcbn.TemperatureScaling.fit(predictive, targets, prior=0.0)
    assert average.at_bound is None
    assert float(average(again).probabilities[0, 0]) == pytest.approx(0.8, rel=1e-10)


def test_both_temperatures_of_one_draw_are_one():
    predictive = predicted(draws=1)
    targets = labels(predictive.probabilities.square())
    average, each = (method.fit(predictive, targets)
                     for method in (mcbn.TemperatureScaling, mcbn.TemperedCategorical))  # fmt: skip
    assert average.temperature == pytest.approx(each.temperature, rel=1e-9)
    new = predicted(draws=1, seed=5)
    assert_close(average(new).probabilities, each(new).probabilities, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", [mcbn.TemperatureScaling, mcbn.TemperedCategorical])
@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(method, planted):
    predictive = predicted(3000, seed=3)
    truth = method(planted)(predictive)
    targets = labels(truth.probabilities, seed=4)
    # The standard error of log T from the outer product of slopes, by a central difference.
    step = 1e-5
    ends = [loss(method(planted * math.exp(sign * step))(predictive), targets) for sign in (-1, 1)]
    information = ((ends[1] - ends[0]) / (2 * step)).square().sum()
    fitted = method.fit(predictive, targets).temperature
    assert abs(math.log(fitted / planted)) < 4 / math.sqrt(float(information))
    assert 4 / math.sqrt(float(information)) < 0.3


@pytest.mark.parametrize("method", [mcbn.TemperatureScaling, mcbn.TemperedCategorical])
@pytest.mark.parametrize(
    ("right", "end"), [(True, "lower"), (False, "upper")], ids=["always right", "always wrong"]
)
def test_a_temperature_at_a_bound_says_so(method, right, end):
    predictive = of([[2.0, 0.0], [1.0, 0.0]], 6)
    confidence = "more" if right else "less"
    message = f"got the {end} bound of the search, .* from 6 labels, of which {confidence} conf"
    with pytest.warns(mcbn.TemperatureBoundWarning, match=message):
        fitted = method.fit(predictive, torch.full((6,), 0 if right else 1), prior=0.0)
    assert fitted.at_bound == end
    assert repr(fitted).endswith(f"labels=6, at_bound='{end}')")
    assert str(fitted).endswith(f"fitted on 6 labels, at the {end} bound")
    assert fitted.temperature == {"lower": 0.01, "upper": 100.0}[end]


def test_predictions_that_say_nothing_are_left_alone():
    predictive = of([[1.0, 1.0, 1.0]], 5)
    targets = torch.tensor([0, 1, 2, 0, 0])
    for method in (mcbn.TemperedCategorical, mcbn.TemperatureScaling):
        assert method.fit(predictive, targets, prior=0.0).temperature == 1
        assert method.fit(predictive, targets).temperature == pytest.approx(1, rel=1e-11)


def test_the_lowest_of_several_minima_is_taken():
    def curve(point):  # minima near log 1/20 and log 20, the second lower
        return math.cos(point * math.pi / 3 + math.pi) * -1 - 0.01 * point, 0.0

    def with_slope(point):
        step = 1e-6
        return curve(point)[0], (curve(point + step)[0] - curve(point - step)[0]) / (2 * step)

    assert math.log(lowest(with_slope, (1e-2, 1e2))) == pytest.approx(3.0, abs=0.02)
    assert lowest(lambda point: (point, 1.0), (1e-2, 1e2)) == 1e-2
    assert lowest(lambda point: (-point, -1.0), (1e-2, 1e2)) == 1e2


# In a stream, and with positions


def test_a_tempered_likelihood_streams_through_predict():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).eval()
    x = normal(40, 3).float()
    sampler = mcbn.MCDropout(nn.Sequential(model, nn.Dropout()).eval(), draws=6, seed=0)
    options = {"batch_size": 16, "progress": False}
    tempered = mcbn.TemperedCategorical(2.5)
    streamed = mcbn.predict(sampler, x, tempered, **options)
    kept = mcbn.predict(sampler, x, keep_draws=True, **options)
    raw = kept.draws.double()
    expected = (raw / 2.5).softmax(2).mean(0)
    assert_close(streamed.probabilities, expected, **TIGHT)
    assert_close(tempered(kept).probabilities, expected, **TIGHT)
    aleatoric = torch.special.entr((raw / 2.5).softmax(2)).sum(2).mean(0)
    assert_close(streamed.expected_entropy, aleatoric, **TIGHT)
    again = mcbn.predict(sampler, x, tempered, keep_draws=True, **options)
    assert_close(again.draws, raw / 2.5, **TIGHT)
    parts = [part(streamed, slice(0, 16)), part(streamed, slice(16, 40))]
    assert_close(tempered.join(parts).probabilities, streamed.probabilities, rtol=0, atol=0)


@pytest.mark.parametrize("method", CLASSES, ids=NAMES)
def test_positions_count_as_examples(method):
    # With its prior a temperature counts images: see test_temperature_prior.
    is_temperature = method in (mcbn.TemperatureScaling, mcbn.TemperedCategorical)
    options = {"prior": 0.0} if is_temperature else {}
    dense = predicted(30, 3, positions=(2, 3))
    targets = labels(dense.probabilities.sqrt())
    flat = mcbn.Categorical().summarize(
        dense.draws.permute(0, 1, 3, 4, 2).reshape(5, 180, 3), keep_draws=True
    )
    fitted, expected = (
        method.fit(*given, **options) for given in ((dense, targets), (flat, targets.reshape(-1)))
    )
    require_same(replace(fitted, labels=180) if is_temperature else fitted, expected)
    new = predicted(4, 3, positions=(2, 3), seed=9)
    rows = mcbn.Categorical().summarize(
        new.draws.permute(0, 1, 3, 4, 2).reshape(5, 24, 3), keep_draws=True
    )
    answer, row_answer = fitted(new), fitted(rows)
    assert answer.probabilities.shape == (4, 3, 2, 3)
    for name in ("probabilities", "variance"):
        flattened = getattr(answer, name).movedim(1, -1).reshape(24, 3)
        assert_close(flattened, getattr(row_answer, name), **TIGHT)
    assert_close(answer.mutual_information.reshape(24), row_answer.mutual_information, **TIGHT)


# A scale and a bias a class


def test_vector_scaling_of_two_classes_is_logistic_regression():
    predictive = predicted(400, 2)
    targets = labels(mcbn.VectorScaling((0.5, 1.5), (0.4, -0.4))(predictive).probabilities, seed=1)
    fitted = mcbn.VectorScaling.fit(predictive, targets, prior=0.0)
    # The logit of the second class is w_1 log p_1 - w_0 log p_0 + b_1 - b_0.
    logs = predictive.log_probabilities.numpy() * [-1, 1]
    other = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logs, targets.numpy())
    np.testing.assert_allclose(fitted.scales, other.coef_[0], rtol=1e-5)
    assert fitted.biases[1] - fitted.biases[0] == pytest.approx(other.intercept_[0], rel=1e-5)


@pytest.mark.parametrize("prior", [0.0, 1.0, 30.0])
def test_vector_scaling_is_where_the_slope_of_autograd_vanishes(prior):
    predictive = predicted(300, 4)
    targets = labels(predictive.probabilities.sqrt(), seed=1)
    fitted = mcbn.VectorScaling.fit(predictive, targets, prior=prior)
    scales, biases = (torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
                      for numbers in (fitted.scales, fitted.biases))  # fmt: skip
    logits = scales * predictive.log_probabilities + biases
    total = nn.functional.cross_entropy(logits, targets, reduction="sum")
    total = total + prior / 2 * ((scales - 1).square().sum() + biases.square().sum())
    slopes = torch.cat(torch.autograd.grad(total, (scales, biases)))
    assert_close(slopes, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-4)
    assert sum(fitted.biases) == pytest.approx(0, abs=1e-12)


def test_a_class_that_never_happened_needs_a_prior():
    predictive = predicted(60, 4)
    targets = labels(predictive.probabilities).clamp_max(2)
    with pytest.raises(ValueError, match="got 1 of 4 that are not"):
        mcbn.VectorScaling.fit(predictive, targets, prior=0.0)
    fitted = mcbn.VectorScaling.fit(predictive, targets)
    assert fitted.biases[3] < min(fitted.biases[:3])


# One rising function


def isotonic_by_hand(train, targets, new):
    """Scikit-learn's function on all classes pooled, with one part in n + 1 of the identity."""
    p = train.probabilities.numpy()
    happened = np.eye(p.shape[1])[targets.numpy()]
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    model.fit(p.ravel(), happened.ravel())
    q, n = new.probabilities.numpy(), len(targets)
    lifted = (n * model.predict(q.ravel()).reshape(q.shape) + q) / (n + 1)
    return lifted / lifted.sum(1, keepdims=True)


def test_isotonic_is_that_of_scikit_learn_pooled_and_normalised():
    train, new = predicted(300), predicted(100, seed=7)
    targets = labels(train.probabilities.sqrt())
    fitted = mcbn.Isotonic.fit(train, targets)
    expected = isotonic_by_hand(train, targets, new)
    np.testing.assert_allclose(fitted(new).probabilities, expected, rtol=1e-10, atol=1e-14)


def test_points_that_are_pooled_weigh_as_often_as_they_came():
    six, new = predicted(6, 3, scale=0.5), predicted(50, 3, seed=7)
    train = part(six, torch.repeat_interleave(torch.tensor([1, 30, 2, 9, 40, 5])))
    targets = torch.randint(3, (87,), generator=torch.Generator().manual_seed(0))
    fitted = mcbn.Isotonic.fit(train, targets)
    expected = isotonic_by_hand(train, targets, new)
    np.testing.assert_allclose(fitted(new).probabilities, expected, rtol=1e-10, atol=1e-14)


def test_isotonic_takes_equal_probabilities_for_one_point():
    train = of([[math.log(3), 0.0]], 40)  # 3/4 and 1/4, forty times each
    fitted = mcbn.Isotonic.fit(train, torch.tensor([0] * 24 + [1] * 16))
    assert fitted.knots == pytest.approx((0.25, 0.75))
    assert fitted.values == pytest.approx((0.4, 0.6))
    middle = fitted(of([[0.0, 0.0]], 1)).probabilities
    assert_close(middle, torch.full((1, 2), 0.5, dtype=torch.float64), **TIGHT)


def test_isotonic_keeps_the_order_and_every_score_finite():
    train = predicted(100)
    fitted = mcbn.Isotonic.fit(train, train.prediction)  # never wrong: g jumps from 0 to 1
    new = predicted(2000, scale=6.0, seed=11)
    answer = fitted(new)
    assert_close(answer.prediction, new.prediction)
    assert_close(answer.log_probabilities.argsort(1), new.log_probabilities.argsort(1))
    assert answer.log_probabilities.isfinite().all()


# All methods


@pytest.mark.parametrize("method", CLASSES, ids=NAMES)
def test_an_over_confident_forecaster_is_cured_and_a_calibrated_one_left_alone(method):
    for sharpened, cured in ((3.0, True), (1.0, False)):
        honest = [predicted(1500, draws=3, scale=1.0, seed=seed) for seed in (0, 50)]
        train, new = (mcbn.Categorical().summarize(sharpened * each.draws, keep_draws=True)
                      for each in honest)  # fmt: skip
        truth = [labels(each.probabilities, seed=seed) for each, seed in zip(honest, (1, 2))]  # noqa: B905
        fitted = method.fit(train, truth[0])
        gain = loss(new, truth[1]) - loss(fitted(new), truth[1])
        error = float(gain.std()) / math.sqrt(len(gain))
        if cured:
            assert float(gain.mean()) > max(4 * error, 0.2)
        else:
            assert abs(float(gain.mean())) < 0.02


@pytest.mark.parametrize("method", CLASSES, ids=NAMES)
def test_the_order_of_the_held_out_examples_does_not_matter(method):
    predictive = predicted(150)
    targets = labels(predictive.probabilities.sqrt())
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    again = method.fit(part(predictive, order), targets[order])
    require_same(again, method.fit(predictive, targets))


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.01, 100), st.floats(0, 30), st.floats(0, 30), st.integers(2, 5), st.integers(0, 99)
)
def test_the_parts_of_the_uncertainty_are_parts(temperature, spread, scale, classes, seed):
    predictive = predicted(20, classes, 3, spread=spread, scale=scale, seed=seed)
    ends = torch.linspace(-1, 3, classes).tolist()
    for method in (
        mcbn.TemperatureScaling(temperature),
        mcbn.TemperedCategorical(temperature),
        mcbn.VectorScaling(tuple(ends), tuple(ends)),
        mcbn.Isotonic((0.1, 0.3, 0.9), (0.0, 0.4, 1.0), 10),
    ):
        answer = method(predictive)
        p, rounding = answer.probabilities, 1e-12
        assert_close(p.sum(1), torch.ones(20, dtype=torch.float64), **TIGHT)
        information = answer.entropy - answer.expected_entropy
        assert information.min() >= -rounding
        assert answer.expected_entropy.min() >= 0
        assert answer.entropy.max() <= math.log(classes) + rounding
        assert answer.variance.min() >= 0
        assert (answer.variance <= p * (1 - p) + rounding).all()


def test_parts_keep_their_share_of_the_whole():
    predictive = predicted(50)
    answer = mcbn.TemperatureScaling(2.0)(predictive)
    assert_close(answer.probabilities, special_softmax(predictive.log_probabilities / 2), **TIGHT)
    share = predictive.mutual_information / predictive.entropy
    assert_close(answer.mutual_information / answer.entropy, share, rtol=1e-10, atol=1e-12)
    p, q = predictive.probabilities, answer.probabilities
    expected = predictive.variance / (p * (1 - p)) * q * (1 - q)
    assert_close(answer.variance, expected, rtol=1e-9, atol=1e-14)
    assert_close(answer.variation_ratio, predictive.variation_ratio, rtol=0, atol=0)
    assert (answer.draw_count, answer.draws) == (5, None)


def special_softmax(logits):
    return torch.from_numpy(special.softmax(logits.numpy(), axis=1))


@pytest.mark.parametrize(
    "method",
    [mcbn.TemperatureScaling(1.0), mcbn.TemperedCategorical(1.0),
     mcbn.VectorScaling((1.0,) * 4, (0.0,) * 4),
     mcbn.Isotonic((0.0, 1.0), (0.0, 1.0), 7)],
    ids=lambda method: type(method).__name__,
)  # fmt: skip
def test_the_identity_changes_nothing(method):
    predictive = predicted(50)
    answer = method(predictive)
    for name in ("log_probabilities", "expected_entropy", "variance", "mutual_information"):
        assert_close(getattr(answer, name), getattr(predictive, name), rtol=1e-9, atol=1e-13)


def test_sure_predictions_have_no_parts_to_share_out():
    sure = of([[5000.0, 0.0], [6000.0, 0.0]], 2)
    answer = mcbn.TemperatureScaling(1000.0)(sure)
    assert_close(answer.expected_entropy, answer.entropy, rtol=0, atol=0)
    assert_close(answer.variance, torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=0)
    assert float(answer.probabilities[0, 1]) > 0.001


def test_a_masked_class_stays_masked():
    logs = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]], dtype=torch.float64).log()
    zeros = torch.zeros(2, dtype=torch.float64)
    masked = mcbn.CategoricalPredictive(logs, zeros, torch.zeros_like(logs), zeros, 1)
    fitted = mcbn.TemperatureScaling.fit(masked, torch.tensor([0, 0]))
    assert fitted.temperature > 1
    answer = averaged(masked, logs / 2)
    assert answer.probabilities[:, 2].tolist() == [0, 0]
    assert answer.expected_entropy.isfinite().all()
    with pytest.raises(ValueError, match="negative log-likelihood of the targets"):
        mcbn.TemperatureScaling.fit(masked, torch.tensor([2, 0]))


@pytest.mark.parametrize("method", CLASSES, ids=NAMES)
def test_what_it_was_fitted_on_is_refused(method):
    whole = predicted(80)
    targets = labels(whole.probabilities.sqrt())
    first, second, across = (part(whole, slice(*ends)) for ends in ((0, 40), (40, 80), (39, 80)))
    fitted = method.fit(first, targets[:40])
    for again in (first, replace(first), whole, across):
        with pytest.raises(ValueError, match=r"not fitted on, got the held-out ones"):
            fitted(again)
    assert len(fitted(second)) == 40  # disjoint slices of one tensor
    evens, odds = part(whole, slice(0, 80, 2)), part(whole, slice(1, 80, 2))
    assert len(method.fit(evens, targets[::2])(odds)) == 40
    # Filed or sent to another process, the memory fitted on means nothing.
    for sent in (copy.deepcopy(fitted), method.from_dict(fitted.to_dict())):
        assert sent == fitted
        assert len(sent(first)) == 40


def test_memory_of_other_predictions_is_not_taken_for_the_fitted_ones():
    predictive = predicted(80)
    fitted = mcbn.TemperatureScaling.fit(predictive, predictive.prediction)
    place = predictive.log_probabilities.data_ptr()
    del predictive  # it is freed: what comes after may lie in its place
    assert fitted.held_out.storage() is None
    for _ in range(20):
        other = predicted(80)
        fitted(other)
        if other.log_probabilities.data_ptr() == place:
            break


@pytest.mark.parametrize("method", CLASSES, ids=NAMES)
def test_it_is_filed_as_plain_numbers(method):
    predictive = predicted(80)
    fitted = method.fit(predictive, labels(predictive.probabilities))
    values = json.loads(json.dumps(fitted.to_dict()))
    assert values["method"] == method.__name__
    assert method.from_dict(values) == fitted
    for wrong in (
        {**values, "extra": 1},
        {**values, "method": "other"},
        {"method": values["method"]},
    ):
        with pytest.raises(ValueError, match=f"of the method {method.__name__}, got"):
            method.from_dict(wrong)


def test_bad_arguments_are_refused():
    predictive = predicted(20)
    targets = labels(predictive.probabilities)
    without = part(predictive, slice(0, 20))
    without = replace(without, draws=None)
    cases = [
        (lambda: mcbn.TemperatureScaling(0.0), "expected a positive, finite temperature, got 0.0"),
        (lambda: mcbn.TemperedCategorical(math.inf), "positive, finite temperature, got inf"),
        (lambda: mcbn.VectorScaling((1.0,), (0.0, 1.0)), "1 scales and 2 biases"),
        (lambda: mcbn.VectorScaling((math.nan,), (0.0,)), "finite scale"),
        (lambda: mcbn.Isotonic((0.5, 0.2), (0.1, 0.2), 3), "both rising from 0 to 1"),
        (lambda: mcbn.Isotonic((), (), 3), "got 0 knots"),
        (lambda: mcbn.VectorScaling.fit(predictive, targets, prior=-1.0), "a prior of at least 0"),
        (lambda: mcbn.VectorScaling((1.0, 1.0), (0.0, 0.0))(predictive), "of 2 classes, got 4"),
        (lambda: mcbn.TemperedCategorical.fit(without, targets), "keep_draws=True"),
        (lambda: mcbn.TemperedCategorical(2.0)(without), "keep_draws=True"),
        *((lambda method=method: method.fit(predictive, targets + 9), "labels from 0 to 3")
          for method in CLASSES),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


# Variances


def mixture_of(batch=300, draws=4, *, noise=0.3, seed=0):
    """Draws of means about 0, of another spread for each example."""
    spread = 0.2 + normal(batch, 1, seed=seed).abs()
    means = normal(draws, batch, 1, seed=seed + 1) * spread
    return mcbn.GaussianPredictive(means, torch.tensor(noise, dtype=torch.float64))


def by_hand(predictive, targets, part, criterion):
    """The best factor by scipy on written-out densities."""
    m, v = predictive.means.numpy()[..., 0], float(predictive.variances)
    y = targets.numpy()

    def value(log_factor):
        f = math.exp(log_factor)
        noise = v * f if part == "total" else v
        moved = m.mean(0) + math.sqrt(f) * (m - m.mean(0))
        if criterion == "mixture":
            each = stats.norm.logpdf(y, moved, math.sqrt(noise))
            return -(special.logsumexp(each, 0) - math.log(len(m))).mean()
        return -stats.norm.logpdf(y, m.mean(0), np.sqrt(f * m.var(0) + noise)).mean()

    start = min(np.linspace(-6, 6, 61), key=value)
    bounds = (start - 0.2, start + 0.2)
    return math.exp(optimize.minimize_scalar(value, bounds=bounds, method="bounded",
                                             options={"xatol": 1e-10}).x)  # fmt: skip


@pytest.mark.parametrize("part", ["total", "epistemic"])
@pytest.mark.parametrize("criterion", ["mixture", "moments"])
def test_variance_scaling_is_the_optimum_of_the_written_out_loss(part, criterion):
    predictive = mixture_of()
    targets = 2 * normal(300, seed=5)
    fitted = mcbn.VarianceScaling.fit(predictive, targets, part=part, criterion=criterion)
    expected = by_hand(predictive, targets, part, criterion)
    assert fitted.factor == pytest.approx(expected, rel=1e-6)
    assert (fitted.part, fitted.at_bound) == (part, None)


def test_total_moments_have_a_closed_form():
    predictive, targets = mixture_of(), normal(300, seed=5)
    fitted = mcbn.VarianceScaling.fit(predictive, targets, criterion="moments").factor
    squares = (targets[:, None] - predictive.mean).square() / predictive.variance
    assert fitted == pytest.approx(float(squares.mean()), rel=1e-10)


@pytest.mark.parametrize("part", ["total", "epistemic"])
@pytest.mark.parametrize("planted", [0.25, 1.0, 6.0])
def test_a_planted_factor_is_found(part, planted):
    predictive = mixture_of(4000, noise=0.1)
    truth = mcbn.VarianceScaling(planted, part)(predictive)
    # A target from the mixture: one component of each example, and noise.
    draw = torch.randint(4, (1, 4000, 1), generator=torch.Generator().manual_seed(8))
    noise = truth.variances.sqrt() * normal(4000, 1, seed=9)
    targets = truth.means.gather(0, draw)[0] + noise
    step = 1e-5
    ends = [mcbn.VarianceScaling(planted * math.exp(sign * step), part)(predictive)
            for sign in (-1, 1)]  # fmt: skip
    slopes = (ends[1].log_prob(targets) - ends[0].log_prob(targets)) / (2 * step)
    error = 1 / math.sqrt(float(slopes.square().sum()))
    fitted = mcbn.VarianceScaling.fit(predictive, targets, part=part).factor
    assert abs(math.log(fitted / planted)) < 4 * error < 0.4


def test_variances_are_scaled_and_means_stay():
    predictive = mixture_of()
    for part_, noise in (("total", 4.0), ("epistemic", 1.0)):
        answer = mcbn.VarianceScaling(4.0, part_)(predictive)
        assert_close(answer.mean, predictive.mean, rtol=1e-9, atol=1e-12)
        assert_close(answer.epistemic_variance, 4 * predictive.epistemic_variance, **TIGHT)
        assert_close(answer.aleatoric_variance, noise * predictive.aleatoric_variance, **TIGHT)
    same = mcbn.VarianceScaling(1.0)(predictive)
    assert_close(same.means, predictive.means, rtol=0, atol=0)


def test_an_over_confident_regression_is_cured_and_evaluated():
    train, new = mixture_of(noise=0.05), mixture_of(noise=0.05, seed=30)
    targets = [2 * normal(300, 1, seed=seed) for seed in (5, 6)]
    for options in ({}, {"part": "epistemic"}, {"criterion": "moments"}):
        fitted = mcbn.VarianceScaling.fit(train, targets[0], **options)
        gain = fitted(new).log_prob(targets[1]) - new.log_prob(targets[1])
        assert float(gain.mean()) > 4 * float(gain.std()) / math.sqrt(300)
    evaluation = mcbn.evaluate(fitted(new), targets[1], resamples=0)
    assert evaluation["pll"].value > mcbn.evaluate(new, targets[1], resamples=0)["pll"].value + 0.5


def test_variance_scaling_is_refused_where_it_has_no_answer():
    predictive, targets = mixture_of(), normal(300, 1)
    alone = mcbn.GaussianPredictive(predictive.means[:1], predictive.variances)
    cases = [
        (lambda: mcbn.VarianceScaling(-1.0), "positive, finite factor, got -1.0"),
        (lambda: mcbn.VarianceScaling.fit(alone, targets, part="epistemic"), "draws that differ"),
        (lambda: mcbn.VarianceScaling.fit(predictive, predictive.mean), "a perfect fit"),
        (lambda: mcbn.VarianceScaling.fit(predictive, targets[:-1]), "of the same shape"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_variance_scaling_remembers_what_it_was_fitted_on():
    whole, targets = mixture_of(100), normal(100, 1)
    first, second = (mcbn.GaussianPredictive(whole.means[:, rows], whole.variances)
                   for rows in (slice(0, 50), slice(50, 100)))  # fmt: skip
    fitted = mcbn.VarianceScaling.fit(first, targets[:50])
    for again in (first, whole):
        with pytest.raises(ValueError, match="not fitted on"):
            fitted(again)
    assert len(fitted(second)) == 50
    assert mcbn.VarianceScaling.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_a_fit_works_in_inference_mode():
    with torch.inference_mode():
        predictive = mixture_of()
        fitted = mcbn.VarianceScaling.fit(predictive, normal(300, 1, seed=5))
    assert fitted == mcbn.VarianceScaling.fit(mixture_of(), normal(300, 1, seed=5))


def test_nothing_is_known_of_examples_never_fitted_on():
    assert held_out.HeldOut().storage is None
    held_out.HeldOut().require_other(predicted(3))
