"""The prior of a temperature: against scipy and by hand, its limits, and the harm it averts.

Means of simulations are compared by their standard errors; seeds are fixed.
"""

import json
import math

import numpy as np
import pytest
import torch
from scipy import optimize, special
from torch.testing import assert_close

import mcbn
from mcbn.recalibration.temperature import has_several_draws

BOTH = (mcbn.TemperatureScaling, mcbn.TemperedCategorical)
NAMES = [method.__name__ for method in BOTH]


def stream(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=stream(seed), dtype=torch.float64)


def predicted(batch=40, classes=4, draws=5, *, positions=(), seed=0):
    """Draws of logits about those of each example, kept."""
    center = 2 * normal(1, batch, classes, *positions, seed=seed)
    logits = center + normal(draws, batch, classes, *positions, seed=seed + 1)
    return mcbn.Categorical("logits").summarize(logits, keep_draws=True)


def of(rows, repeats):
    """Examples that all have these logits, one row a draw."""
    logits = torch.tensor(rows, dtype=torch.float64)[:, None].expand(-1, repeats, -1)
    return mcbn.Categorical("logits").summarize(logits.contiguous(), keep_draws=True)


def labels(probabilities, seed=0):
    return torch.multinomial(probabilities, 1, generator=stream(seed))[:, 0]


def logits_of(method, predictive):
    """What a method divides by the temperature, with an axis of draws first."""
    if method is mcbn.TemperedCategorical:
        return predictive.draws.numpy()
    return predictive.log_probabilities.numpy()[None]


def penalised(logits, targets, prior, count):
    """The mean loss of the average over draws plus the prior, written out, by log T."""

    def loss(log_temperature):
        logs = special.log_softmax(logits / math.exp(log_temperature), axis=2)
        chosen = logs[:, np.arange(len(targets)), targets]
        likelihood = special.logsumexp(chosen, axis=0) - math.log(len(logits))
        return -likelihood.mean() + prior * log_temperature**2 / (2 * count)

    return loss


def lowest_of(loss):
    """Log T of the lowest loss on a fine grid, refined by scipy, and what it is there."""
    grid = np.linspace(math.log(1e-2), math.log(1e2), 2001)
    place = int(np.argmin([loss(point) for point in grid]))
    ends = grid[max(place - 1, 0)], grid[min(place + 1, 2000)]
    best = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-10})
    return best.x, best.fun


# Against scipy


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
@pytest.mark.parametrize("batch", [3, 40])
def test_it_is_the_optimum_that_scipy_finds(method, prior, batch):
    for seed in range(4):
        predictive = predicted(batch, seed=seed)
        targets = torch.cat([labels(predictive.probabilities, seed)[:-1], torch.tensor([seed])])
        if len(set(targets.tolist())) == 1 or (targets == predictive.prediction).all():
            continue
        loss = penalised(logits_of(method, predictive), targets.numpy(), prior, batch)
        fitted = method.fit(predictive, targets, prior=prior)
        expected, value = lowest_of(loss)
        assert loss(math.log(fitted.temperature)) <= value + 1e-14
        # Where a curve is flat its lowest point is known to the root of its rounding alone.
        assert math.log(fitted.temperature) == pytest.approx(expected, abs=1e-5)
        assert fitted.labels == batch


@pytest.mark.parametrize("prior", [0.0, 1.0])
@pytest.mark.parametrize(("cold", "warm"), [(50, 40), (40, 50), (43, 47)])
def test_the_lower_of_two_minima_is_taken(prior, cold, warm):
    # Of two draws one is wrong by little, which some temperatures hide, and others of others. The
    # warm ones are further from 1, so that the prior decides where both are about as good.
    margins = torch.tensor([[1.0] * cold + [100.0] * warm, [-0.01] * cold + [-3.0] * warm])
    logits = torch.stack([margins, torch.zeros_like(margins)], dim=2).double()
    targets = torch.zeros(cold + warm, dtype=torch.long)
    loss = penalised(logits.numpy(), targets.numpy(), prior, cold + warm)
    values = np.array([loss(point) for point in np.linspace(math.log(1e-2), math.log(1e2), 401)])
    assert ((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])).sum() == 2
    predictive = mcbn.Categorical("logits").summarize(logits, keep_draws=True)
    fitted = mcbn.TemperedCategorical.fit(predictive, targets, prior=prior)
    assert (fitted.temperature < 1) == (cold > warm or (prior > 0 and cold == 43))
    assert math.log(fitted.temperature) == pytest.approx(lowest_of(loss)[0], abs=1e-5)
    # What is not known does not decide, whatever it looks like.
    other = logits[:, [-1 if cold > warm else 0]].expand(-1, 200, -1)
    more = mcbn.Categorical("logits").summarize(torch.cat([logits, other], 1), keep_draws=True)
    void = torch.cat([targets, torch.full((200,), 255)])
    again = mcbn.TemperedCategorical.fit(more, void, prior=prior, ignore_index=255)
    assert again.temperature == pytest.approx(fitted.temperature, rel=1e-9)


def test_labels_are_counted_one_by_one():
    logits = 2 * normal(1, 20, 3)
    predictive = mcbn.Bernoulli("logits").summarize(logits)
    targets = torch.bernoulli((logits[0] / 3).sigmoid(), generator=stream(1)).long()
    targets[:4, 1] = targets[:, 2] = -1
    fitted = mcbn.TemperatureScaling.fit(predictive, targets, ignore_index=-1)
    known = (targets != -1).numpy()
    odds, signs = logits[0].numpy()[known], 2 * targets.numpy()[known] - 1

    def loss(log_temperature):
        likelihood = special.log_expit(signs * odds / math.exp(log_temperature))
        return -likelihood.mean() + log_temperature**2 / (2 * 36)

    assert math.log(fitted.temperature) == pytest.approx(lowest_of(loss)[0], abs=1e-5)
    assert fitted.labels == 36


# Few labels


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_labels_that_are_never_missed_do_not_run_to_the_bound(method):
    predictive = of([[2.0, 0.0], [2.0, 0.0]], 5)
    fitted = method.fit(predictive, torch.zeros(5, dtype=torch.long))
    # The slope of -log s(2 / T) + (log T)^2 / (2 n) in log T vanishes.
    root = optimize.brentq(lambda t: 2 / math.exp(t) * special.expit(-2 / math.exp(t)) + t / 5,
                           -4, 0, xtol=1e-14)  # fmt: skip
    assert math.log(fitted.temperature) == pytest.approx(root, rel=1e-9)
    assert fitted.at_bound is None
    assert 0.4 < fitted.temperature < 1
    wrong = method.fit(predictive, torch.ones(5, dtype=torch.long))
    assert 1 < wrong.temperature < 20
    with pytest.warns(mcbn.TemperatureBoundWarning, match="lower bound"):
        assert method.fit(predictive, torch.zeros(5).long(), prior=0.0).temperature == 0.01


def harm(planted, method, prior, *, count=5, runs=200):
    """Loss on fresh data of fits on a few labels minus that of no fit: mean and standard error.

    Args:
        planted: the temperature at which the predictions are right, by the number of a run.
        method: what is fitted.
        prior: of the fit.
        count: labels fitted on.
        runs: how many fits.
    """
    differences, fresh = [], predicted(400, draws=4, seed=7777)
    for seed in range(runs):
        held = predicted(count, draws=4, seed=2 * seed)
        right = method(planted(seed))
        targets = labels(right(held).probabilities, seed)
        fitted = method.fit(held, targets, prior=prior)
        # The expected loss of fresh examples, without the chance of their labels.
        change = fresh.log_probabilities - fitted(fresh).log_probabilities
        differences.append(float((right(fresh).probabilities * change).sum(1).mean()))
    return np.mean(differences), np.std(differences) / math.sqrt(runs)


WORLDS = {
    "as the prior says": lambda seed: math.exp(float(normal(1, seed=seed + 5000))),
    "overconfident": lambda _: 2.4,  # as the plain network on CIFAR-10
    "underconfident": lambda _: 0.6,
}


@pytest.mark.filterwarnings("ignore::mcbn.TemperatureBoundWarning")
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_five_labels_do_no_harm_on_average(method, world):
    mean, error = harm(WORLDS[world], method, 1.0)
    assert mean < error
    mean, error = harm(WORLDS[world], method, 0.0)
    assert mean > max(1, error)  # in nats: most of these fits run to the bound


@pytest.mark.filterwarnings("ignore::mcbn.TemperatureBoundWarning")
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_five_labels_hardly_harm_predictions_that_are_right_already(method):
    # Here every change is for the worse.
    mean, error = harm(lambda _: 1.0, method, 1.0)
    assert mean + 4 * error < 0.1
    without, error = harm(lambda _: 1.0, method, 0.0)
    assert without - 4 * error > 1


# Many labels


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_with_many_labels_it_is_that_of_maximum_likelihood(method):
    """The same labels n / 30 times over: log T differs by its pull over the curvature, as 1 / n."""
    predictive = predicted(30)
    targets = labels(predictive.probabilities.sqrt(), seed=2)
    best = math.log(method.fit(predictive, targets, prior=0.0).temperature)
    loss = penalised(logits_of(method, predictive), targets.numpy(), 0.0, 30)
    step = 1e-3
    curvature = (loss(best + step) - 2 * loss(best) + loss(best - step)) / step**2
    assert best > 0.1
    for copies in (100, 1000):
        repeated = mcbn.Categorical("logits").summarize(
            predictive.draws.repeat(1, copies, 1), keep_draws=True
        )
        fitted = method.fit(repeated, targets.repeat(copies))
        gap = (best - math.log(fitted.temperature)) * 30 * copies
        assert gap == pytest.approx(best / curvature, rel=200 / (30 * copies))


# What counts as a label


def dense(images):
    """Images of six equal positions, as each has one."""
    logits = images.draws[..., None].expand(-1, -1, -1, 6)
    return mcbn.Categorical("logits").summarize(logits, keep_draws=True)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_positions_that_are_alike_say_no_more_than_one(method):
    predictive = predicted(12)
    targets = labels(predictive.probabilities.sqrt())
    expected = method.fit(predictive, targets)
    fitted = method.fit(dense(predictive), targets[:, None].expand(-1, 6))
    assert fitted.labels == expected.labels == 12
    assert fitted.temperature == pytest.approx(expected.temperature, rel=1e-9)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_positions_that_are_not_known_do_not_count(method):
    predictive = predicted(12)
    targets = labels(predictive.probabilities.sqrt())
    void = targets[:, None].repeat(1, 6)
    void[:9, 1::2] = void[9:] = 255  # half of most images, and all of the last three
    fitted = method.fit(dense(predictive), void, ignore_index=255)
    kept = mcbn.Categorical("logits").summarize(predictive.draws[:, :9], keep_draws=True)
    expected = method.fit(kept, targets[:9])
    assert fitted.labels == expected.labels == 9
    assert fitted.temperature == pytest.approx(expected.temperature, rel=1e-9)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_scans_of_a_patient_that_are_alike_say_no_more_than_one(method):
    predictive = predicted(12)
    targets = labels(predictive.probabilities.sqrt())
    scans = mcbn.Categorical("logits").summarize(
        predictive.draws.repeat_interleave(4, dim=1), keep_draws=True
    )
    patients = [f"p{k // 4}" for k in range(48)]
    fitted = method.fit(scans, targets.repeat_interleave(4), group=patients)
    expected = method.fit(predictive, targets)
    assert fitted.labels == expected.labels == 12
    assert fitted.temperature == pytest.approx(expected.temperature, rel=1e-9)
    assert method.fit(scans, targets.repeat_interleave(4)).labels == 48


def test_labels_of_positions_and_of_patients_are_counted_by_label():
    logits = 2 * normal(2, 6, 3, 5)
    predictive = mcbn.Bernoulli("logits").summarize(logits)
    targets = torch.bernoulli(logits.mean(0).sigmoid(), generator=stream(1)).long()
    targets[0, 1], targets[1] = -1, -1
    fit = mcbn.TemperatureScaling.fit
    assert fit(predictive, targets, ignore_index=-1).labels == 5 + 4 + 5
    # Of the first patient, whose scans are the first two, the second label is not known.
    group = ["a", "a", "b", "b", "c", "c"]
    assert fit(predictive, targets, ignore_index=-1, group=group).labels == 3 + 2 + 3
    with pytest.raises(ValueError, match="expected labels that are known"):
        fit(predictive, torch.full_like(targets, -1), ignore_index=-1)


# What is shown and filed


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_it_shows_and_files_how_many_labels_it_was_fitted_on(method):
    predictive = predicted(30)
    fitted = method.fit(predictive, predictive.prediction.roll(1))
    values = json.loads(json.dumps(fitted.to_dict()))
    assert values == {
        "method": method.__name__, "temperature": fitted.temperature, "labels": 30
    }  # fmt: skip
    assert method.from_dict(values) == fitted
    assert repr(fitted) == f"{method.__name__}(temperature={fitted.temperature}, labels=30)"
    of = "of the average" if method is mcbn.TemperatureScaling else "of each draw"
    assert str(fitted) == f"T = {fitted.temperature:.3g} {of}, fitted on 30 labels"
    assert str(method(2.0)) == f"T = 2 {of}"
    assert str(method(2.0, 1)) == f"T = 2 {of}, fitted on 1 label"
    assert repr(method(0.01)) == f"{method.__name__}(temperature=0.01, at_bound='lower')"
    assert method.from_dict(method(2.0).to_dict()).labels is None
    with pytest.raises(ValueError, match="expected labels of the type"):
        method.from_dict({**values, "labels": 2.5})


@pytest.mark.parametrize("prior", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_a_prior_that_is_none_is_refused(method, prior):
    predictive = predicted(10)
    with pytest.raises(ValueError, match="expected a prior of at least 0"):
        method.fit(predictive, predictive.prediction, prior=prior)


# Which temperature


def test_each_draw_has_it_where_several_were_kept():
    kept = predicted(30)
    targets = labels(kept.probabilities.sqrt())
    options = {"prior": 2.0, "group": [k // 2 for k in range(30)]}
    each = mcbn.fit_temperature(kept, targets, **options)
    assert each == mcbn.TemperedCategorical.fit(kept, targets, **options)
    average = mcbn.TemperatureScaling.fit(kept, targets, **options)
    forgotten = mcbn.Categorical("logits").summarize(kept.draws)
    assert mcbn.fit_temperature(forgotten, targets, **options) == average
    one = mcbn.Categorical("logits").summarize(kept.draws[:1], keep_draws=True)
    assert mcbn.fit_temperature(one, targets) == mcbn.TemperatureScaling.fit(one, targets)
    assert (has_several_draws(kept), has_several_draws(forgotten), has_several_draws(one)) == (
        True, False, False
    )  # fmt: skip
    with pytest.raises(ValueError, match="not fitted on"):
        each(kept)


def test_of_several_labels_the_average_has_it():
    predictive = mcbn.Bernoulli("logits").summarize(normal(3, 20, 2), keep_draws=True)
    targets = (normal(20, 2, seed=1) > 0).long()
    targets[0] = -1
    fitted = mcbn.fit_temperature(predictive, targets, ignore_index=-1)
    assert fitted == mcbn.TemperatureScaling.fit(predictive, targets, ignore_index=-1)


def test_a_tempered_average_of_each_draw_gives_one_probability():
    kept = predicted(30)
    fitted = mcbn.fit_temperature(kept, labels(kept.probabilities.sqrt()))
    new = predicted(10, seed=9)
    expected = special.softmax(new.draws.numpy() / fitted.temperature, axis=2).mean(0)
    assert_close(fitted(new).probabilities, torch.from_numpy(expected), rtol=1e-12, atol=1e-13)
