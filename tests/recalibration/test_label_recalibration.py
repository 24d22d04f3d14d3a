"""Recalibration of several labels: against scikit-learn and autograd, by hand, and as reported.

Simulations have a fixed seed and the thresholds of `law`.
"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_lines import failing, run
from scipy import special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import write_predictions
from mcbn.recalibration.apply import before_and_after, fitted
from mcbn.recalibration.coverages import set_coverages

TIGHT = {"rtol": 1e-12, "atol": 1e-13}
METHODS = {
    "temperature": mcbn.TemperatureScaling,
    "platt": mcbn.PlattScaling,
    "isotonic": mcbn.IsotonicByLabel,
}


def stream(seed):
    return torch.Generator().manual_seed(seed)


def predicted(batch=300, labels=3, draws=4, *, positions=(), scale=2.0, seed=0):
    """Draws of logits about those of each example, kept."""
    center = scale * torch.randn(1, batch, labels, *positions, generator=stream(seed)).double()
    noise = torch.randn(draws, batch, labels, *positions, generator=stream(seed + 1)).double()
    return mcbn.Bernoulli("logits").summarize(center + noise, keep_draws=True)


def truths(log_odds, seed=5, unknown=0.0):
    """A target of each label by its probability; -1 for a share that is not known."""
    happened = torch.bernoulli(log_odds.sigmoid(), generator=stream(seed)).long()
    missing = torch.rand(log_odds.shape, generator=stream(seed + 1)) < unknown
    return torch.where(missing, -1, happened)


def part(predictive, rows):
    """Predictions of some examples; for a slice they share memory with the whole."""
    names = ("log_odds", "expected_entropy", "variance", "variation_ratio")
    return mcbn.BernoulliPredictive(
        *(getattr(predictive, name)[rows] for name in names), predictive.draw_count
    )


def nll(predictive, targets):
    """The mean negative log-likelihood of what is known, by another library."""
    known = targets != -1
    return nn.functional.binary_cross_entropy_with_logits(
        predictive.log_odds[known], targets[known].double()
    )


# One temperature


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_one_temperature_is_the_logistic_regression_of_all_known_labels(unknown):
    predictive = predicted()
    targets = truths(predictive.log_odds / 2, unknown=unknown)
    known = targets != -1
    expected = LogisticRegression(C=np.inf, tol=1e-12, fit_intercept=False, max_iter=10_000).fit(
        predictive.log_odds[known].numpy()[:, None], targets[known].numpy()
    ).coef_[0, 0]  # fmt: skip
    fitted = mcbn.TemperatureScaling.fit(predictive, targets, prior=0.0, ignore_index=-1)
    assert 1 / fitted.temperature == pytest.approx(expected, rel=1e-5)
    new = predicted(seed=9)
    changed = fitted(new)
    assert_close(changed.log_odds, new.log_odds / fitted.temperature, **TIGHT)
    assert (changed.draws, changed.draw_count) == (None, 4)


def test_unknown_classes_of_positions_are_left_out_as_well():
    logits = torch.randn(2, 40, 3, 5, generator=stream(0)).double()
    predictive = mcbn.Categorical("logits").summarize(logits)
    targets = torch.randint(3, (40, 5), generator=stream(1))
    targets[:, ::2] = 255
    fitted = mcbn.TemperatureScaling.fit(predictive, targets, ignore_index=255)
    kept = mcbn.Categorical("logits").summarize(logits[:, :, :, 1::2])
    expected = mcbn.TemperatureScaling.fit(kept, targets[:, 1::2])
    assert fitted.temperature == pytest.approx(expected.temperature, rel=1e-9)


# A scale and a bias of each label


@pytest.mark.parametrize("biases", [True, False])
def test_without_a_prior_each_label_has_its_logistic_regression(biases):
    predictive = predicted()
    planted = predictive.log_odds * torch.tensor([0.4, 1.0, 2.0]) + torch.tensor([-1.0, 0.0, 0.5])
    targets = truths(planted, unknown=0.2)
    fitted = mcbn.PlattScaling.fit(predictive, targets, biases=biases, prior=0.0, ignore_index=-1)
    for label in range(3):
        known = targets[:, label] != -1
        other = LogisticRegression(C=np.inf, tol=1e-12, fit_intercept=biases, max_iter=10_000).fit(
            predictive.log_odds[known, label].numpy()[:, None], targets[known, label].numpy()
        )  # fmt: skip
        assert fitted.scales[label] == pytest.approx(other.coef_[0, 0], rel=1e-4)
        expected = other.intercept_[0] if biases else 0.0
        assert fitted.biases[label] == pytest.approx(expected, rel=1e-3, abs=1e-4 * biases)


@pytest.mark.parametrize("prior", [0.5, 1.0, 30.0])
def test_the_slope_of_autograd_vanishes_at_the_fit(prior):
    predictive = predicted(60)
    targets = truths(predictive.log_odds / 3, unknown=0.2)
    fitted = mcbn.PlattScaling.fit(predictive, targets, prior=prior, ignore_index=-1)
    scales, biases = (torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
                      for numbers in (fitted.scales, fitted.biases))  # fmt: skip
    known = targets != -1
    logits = (scales * predictive.log_odds + biases)[known]
    total = nn.functional.binary_cross_entropy_with_logits(
        logits, targets[known].double(), reduction="sum"
    )
    total = total + prior / 2 * ((scales - 1).square().sum() + biases.square().sum())
    slopes = torch.cat(torch.autograd.grad(total, (scales, biases)))
    assert_close(slopes, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-5)


def test_it_scales_every_label_by_its_own_numbers():
    new = predicted(20, positions=(2, 3))
    changed = mcbn.PlattScaling((0.5, 1.0, 2.0), (0.25, 0.0, -1.0))(new)
    for label, (scale, bias) in enumerate(((0.5, 0.25), (1.0, 0.0), (2.0, -1.0))):
        expected = new.log_odds[:, label] * scale + bias
        assert_close(changed.log_odds[:, label], expected, **TIGHT)


def test_a_label_that_is_never_there_needs_a_prior():
    predictive = predicted(80)
    targets = truths(predictive.log_odds)
    targets[:, 1] = 0
    for biases in (True, False):
        with pytest.raises(ValueError, match="got 1 of 3 that are not, such as label 1"):
            mcbn.PlattScaling.fit(predictive, targets, prior=0.0, biases=biases)
    assert mcbn.PlattScaling.fit(predictive, targets).biases[1] < -0.5
    targets[:, 1] = 1
    with pytest.raises(ValueError, match="such as label 1"):
        mcbn.PlattScaling.fit(predictive, targets, prior=0.0)


def test_a_label_of_which_nothing_is_known_stays_as_it_is():
    predictive, new = predicted(80), predicted(10, seed=7)
    targets = truths(predictive.log_odds / 3)
    targets[:, 1] = -1
    platt = mcbn.PlattScaling.fit(predictive, targets, ignore_index=-1)
    assert (platt.scales[1], platt.biases[1]) == (1.0, 0.0)
    isotonic = mcbn.IsotonicByLabel.fit(predictive, targets, ignore_index=-1)
    assert (isotonic.knots[1], isotonic.examples) == ((), (80, 0, 80))
    for method in (platt, isotonic):
        changed = method(new)
        assert_close(changed.log_odds[:, 1], new.log_odds[:, 1], **TIGHT)
        assert_close(changed.entropy[:, 1], new.entropy[:, 1], **TIGHT)
        assert (changed.log_odds[:, 0] - new.log_odds[:, 0]).abs().max() > 0.1
        assert type(method).from_dict(json.loads(json.dumps(method.to_dict()))) == method


# A rising function of each label


@pytest.mark.parametrize("decimals", [16, 1])
def test_each_label_has_the_function_of_scikit_learn(decimals):
    drawn = predicted()
    given = drawn.probabilities.mul(0.98).add(0.01).numpy().round(decimals)  # with ties of one
    made = mcbn.Bernoulli("probabilities").summarize(torch.from_numpy(given)[None])
    targets = truths(drawn.log_odds / 3, unknown=0.2)
    fitted = mcbn.IsotonicByLabel.fit(made, targets, ignore_index=-1)
    new = predicted(100, seed=8)
    p = new.probabilities.numpy()
    for label in range(3):
        known = (targets[:, label] != -1).numpy()
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        fitted_on = special.expit(made.log_odds.numpy())[known, label]
        model.fit(fitted_on, targets.numpy()[known, label])
        n = known.sum()
        expected = (n * model.predict(p[:, label]) + p[:, label]) / (n + 1)
        found = fitted(new).probabilities[:, label].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_it_keeps_the_order_of_the_examples_and_every_score_finite():
    predictive = predicted(100)
    fitted = mcbn.IsotonicByLabel.fit(predictive, predictive.prediction)  # never wrong: a step
    new = predicted(2000, scale=10.0, seed=11)
    changed = fitted(new)
    assert bool(changed.log_odds.isfinite().all())
    order = new.log_odds.argsort(0)
    assert bool((changed.log_odds.gather(0, order).diff(dim=0) > 0).all())
    before, after = (mcbn.class_scores(each, truths(new.log_odds), resamples=0)
                     for each in (new, changed))  # fmt: skip
    for name, scores in before.by_class.items():
        assert after.by_class[name]["auroc"].value == scores["auroc"].value


# All of them


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_over_confident_labels_are_cured_and_honest_ones_left_alone(method):
    # Where no held-out label was there, a function of 2,000 answers gives some that are too sure.
    cost = 0.05 if method is mcbn.IsotonicByLabel else 0.01
    for sharpened, harm in ((4.0, 0.2), (1.0, -1.0)):
        held, new = (predicted(2000, scale=2 * sharpened, seed=seed) for seed in (0, 20))
        known, target = (truths(each.log_odds / sharpened, seed) for each, seed in
                         ((held, 1), (new, 2)))  # fmt: skip
        honest = nll(replace(new, log_odds=new.log_odds / sharpened), target)
        assert nll(new, target) > honest + harm
        assert nll(method.fit(held, known)(new), target) < honest + cost


def test_a_bias_cures_what_a_temperature_cannot():
    held, new = predicted(2000), predicted(2000, seed=20)
    shift = torch.tensor([2.0, 0.0, -2.0])
    known, target = truths(held.log_odds + shift, 1), truths(new.log_odds + shift, 2)
    temperature = mcbn.TemperatureScaling.fit(held, known)(new)
    for method in (mcbn.PlattScaling, mcbn.IsotonicByLabel):
        assert nll(method.fit(held, known)(new), target) < nll(temperature, target) - 0.1


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_positions_count_as_examples(method):
    # With its prior a temperature counts images: see test_temperature_prior.
    options = {"prior": 0.0} if method is mcbn.TemperatureScaling else {}
    dense = predicted(20, positions=(2, 3))
    targets = truths(dense.log_odds / 2, unknown=0.1)
    flat = mcbn.Bernoulli("logits").summarize(
        dense.draws.movedim(2, -1).reshape(4, 120, 3), keep_draws=True
    )
    rows = targets.movedim(1, -1).reshape(120, 3)
    new = predicted(7, positions=(2, 3), seed=9)
    one, two = (
        method.fit(*each, ignore_index=-1, **options)(new)
        for each in ((dense, targets), (flat, rows))
    )
    assert_close(one.log_odds, two.log_odds, rtol=1e-6, atol=1e-7)
    assert one.log_odds.shape == (7, 3, 2, 3)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_uncertainties_keep_their_shares(method):
    predictive = predicted()
    changed = method.fit(predictive, truths(predictive.log_odds / 3))(new := predicted(seed=9))
    p, q = new.probabilities, changed.probabilities
    share = new.mutual_information / new.entropy
    expected = special.entr(q.numpy()) + special.entr(1 - q.numpy())
    assert_close(changed.entropy, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
    assert_close(changed.mutual_information / changed.entropy, share, rtol=1e-6, atol=1e-9)
    spread = new.variance / (p * (1 - p)) * q * (1 - q)
    assert_close(changed.variance, spread, rtol=1e-7, atol=1e-12)
    assert torch.equal(changed.variation_ratio, new.variation_ratio)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_it_was_fitted_on_is_refused(method):
    whole = predicted(80)
    targets = truths(whole.log_odds)
    first, second = part(whole, slice(0, 40)), part(whole, slice(40, 80))
    fitted = method.fit(first, targets[:40], group=[f"p{k // 4}" for k in range(40)])
    for again in (first, whole):
        with pytest.raises(ValueError, match="not fitted on, got the held-out ones again"):
            fitted(again)
    assert len(fitted(second)) == 40
    with pytest.raises(ValueError, match="one side only, got 'p9' in the held-out examples"):
        fitted(second, group=[f"p{k // 4 + 9}" for k in range(40)])
    again = method.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    assert torch.equal(again(second).log_odds, fitted(second).log_odds)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda p, _: mcbn.PlattScaling((1.0,), (0.0,))(p), ValueError, "of 1 labels, got 3; fit"),
        (lambda p, _: mcbn.IsotonicByLabel(((0.5,),), ((0.5,),), (3,))(p), ValueError,
         "of 1 labels, got 3; fit"),
        (lambda *_: mcbn.PlattScaling((1.0,), ()), ValueError, "per label, got 1 scales and 0"),
        (lambda *_: mcbn.PlattScaling((math.inf,), (0.0,)), ValueError, "one finite scale"),
        (lambda *_: mcbn.IsotonicByLabel(((0.5, 0.2),), ((0.1, 0.2),), (3,)), ValueError,
         "both rising from 0 to 1"),
        (lambda *_: mcbn.IsotonicByLabel(((),), ((),), (3,)), ValueError, "got 0 knots"),
        (lambda *_: mcbn.IsotonicByLabel(((0.5,),), (), (3,)), ValueError, r"got \[1, 0, 1\]"),
        (lambda p, y: mcbn.PlattScaling.fit(p, y, prior=-1.0), ValueError, "a prior of at least 0"),
        (lambda p, y: mcbn.PlattScaling.fit(p, y), ValueError, "got -1 at .*ignore_index=-1"),
        (lambda p, y: mcbn.IsotonicByLabel.fit(p, y[:, 0]), ValueError, r"shape \(30, 3\), got"),
        (lambda p, _: mcbn.TemperedCategorical(2.0)(p), TypeError, "take TemperatureScaling"),
        (lambda p, _: mcbn.VectorScaling((1.0,) * 3, (0.0,) * 3)(p), TypeError,
         "take PlattScaling"),
        (lambda p, _: mcbn.Isotonic((0.5,), (0.5,), 3)(p), TypeError, "take IsotonicByLabel"),
        (lambda p, _: mcbn.ConformalSets(0.9, 0.5, 9)(p), TypeError, "take ConformalLabels"),
        (lambda p, _: mcbn.PlattScaling((1.0,), (0.0,))(p.as_classes), TypeError,
         "for classes take VectorScaling"),
        (lambda p, y: mcbn.IsotonicByLabel.fit(p.as_classes, y), TypeError,
         "for classes take Isotonic"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, kind, message):
    predictive = predicted(30)
    targets = truths(predictive.log_odds, unknown=0.3)
    with pytest.raises(kind, match=message):
        call(predictive, targets)


# As the report shows them


def farm(seed, count=400, sharpened=4.0, **options):
    """Over-confident labels of scans of two each of a patient, some of which are not known."""
    made = predicted(count, scale=2 * sharpened, seed=seed)
    targets = truths(made.log_odds / sharpened, seed + 50, unknown=0.1)
    patient = np.array([f"{seed}-{k // 2}" for k in range(count)])
    return Predictions(
        "net", made, targets, "farm", classes=("cat", "dog", "cow"), columns={"patient": patient},
        ignore_index=-1, **options,
    )  # fmt: skip


BY = {
    "temperature": mcbn.TemperatureScaling.fit,
    "temperature-per-label": lambda *given, **known: mcbn.PlattScaling.fit(
        *given, biases=False, **known
    ),
    "platt": mcbn.PlattScaling.fit,
    "isotonic": mcbn.IsotonicByLabel.fit,
}


@pytest.mark.parametrize("by", BY)
def test_each_method_is_shown_as_it_is_and_cured(by):
    test, held = farm(0), farm(70)
    before, after = before_and_after([test], fitted([test], [held], by), by)
    assert before is test
    assert after.method == f"net + {by}"
    assert nll(after.predictive, test.targets) < nll(test.predictive, test.targets) - 0.1
    expected = BY[by](held.predictive, held.targets, ignore_index=-1)(test.predictive)
    assert_close(after.predictive.log_odds, expected.log_odds, **TIGHT)


def test_held_out_labels_are_aligned_by_name():
    test, held = farm(0), farm(70)
    order = [2, 0, 1]
    turned = mcbn.Bernoulli("logits").summarize(held.predictive.draws[:, :, order])
    other = replace(held, predictive=turned, targets=held.targets[:, order],
                    classes=tuple(held.classes[k] for k in order))  # fmt: skip
    one, two = (fitted([test], [each], "platt")["net"] for each in (held, other))
    assert one.scales == pytest.approx(two.scales, rel=1e-6)
    assert len(set(np.round(one.scales, 4))) == 3


def test_sets_are_those_of_the_most_probable_labels_and_conformal_ones():
    test, held = farm(0), farm(70)
    plain, conformal = set_coverages([test], [held], level=0.8)
    sizes, shares = [], []
    for p, target in zip(test.predictive.probabilities.numpy(), test.targets.numpy(), strict=True):
        members, total = set(), 0.0
        for label in np.argsort(-p):
            if total < 0.8 * p.sum():
                members.add(int(label))
            total += p[label]
        sizes.append(len(members))
        there = set(np.flatnonzero(target == 1).tolist())
        if there:
            shares.append(len(there & members) / len(there))
    assert plain.mean_size == pytest.approx(np.mean(sizes))
    assert plain.coverage.value == pytest.approx(np.mean(shares))
    fit = mcbn.ConformalLabels.fit(held.predictive, held.targets, level=0.8, ignore_index=-1)
    expected = fit(test.predictive).coverage(test.targets, ignore_index=-1)
    assert conformal.coverage == expected
    assert (plain.groups, conformal.groups) == (None, None)


def test_the_command_line_reports_labels_before_and_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("test", 0), ("held", 70)):
        write_predictions(f"{name}.st", farm(seed))
    line = "report test.st --held-out held.st --resamples 10"
    run(f"{line} --recalibrate platt --group patient")
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(numbers["comparison"]["methods"]) == ["net", "net + platt"]
    assert numbers["comparison"]["differences"]["net + platt"]["nll"]["value"] < -0.1
    held, test = farm(70), farm(0)
    fit = mcbn.ConformalLabels.fit(held.predictive, held.targets, ignore_index=-1,
                                   group=held.columns["patient"])  # fmt: skip
    expected = fit(test.predictive).coverage(
        test.targets, ignore_index=-1, group=test.columns["patient"]
    )
    found = numbers["sets"]["net"]["conformal"]
    assert found["coverage"]["value"] == pytest.approx(expected.value)
    any_label = (test.targets == 1).any(1)
    assert found["groups"] == len(set(test.columns["patient"][any_label.numpy()]))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Mean size (labels)" in page
    assert "Share of the labels of an example that are inside, mean over groups" in page
    said = failing(f"{line} --recalibrate vector --out other", capsys)
    assert (
        "['temperature', 'temperature-per-label', 'platt', 'isotonic'] for predictions of" in said
    )
