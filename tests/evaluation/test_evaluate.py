"""Scores with intervals, differences, comparisons and Monte Carlo error of a predictive."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from crps_reference import scoringrules
from forecasters import drawn, evaluate, forecaster, regressor
from law import DEVIATIONS, holds
from models import examples, make_network
from scipy import optimize, stats
from sklearn import metrics
from torch.testing import assert_close

import mcbn
from mcbn import validation
from mcbn.evaluation import bootstrap, calibration, compare
from mcbn.evaluation.calibrated import calibrated_nll
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.convergence import convergence
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.finite_draws import extrapolated_nll, target_logs
from mcbn.evaluation.glossary import BETTER
from mcbn.evaluation.real_scores import real_columns
from mcbn.evaluation.subgroups import subgroups

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
CALIBRATION = ("ece", "ece_equal_mass", "ece_debiased", "ece_classwise", "ece_smooth")
CLASSES = ("accuracy", "nll", "nll_calibrated", "brier", *CALIBRATION, "mce", "aurc", "e_aurc",
           "augrc", "auroc_of_errors")  # fmt: skip
REAL = ("rmse", "pll", "crps", "crps_moment_matched", "coverage_90", "width_90", "pit_error")


# The scores.


def binned_error(confidence, correct, edges):
    """The expected calibration error as a loop over right-closed bins, 0 in the first."""
    total, worst = 0.0, 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total, worst = total + inside.mean() * gap, max(worst, gap)
    return total, worst


def test_each_score_of_classes_agrees_with_scikit_learn_or_a_loop():
    predictive, targets = forecaster(draws=6, sharpness=1.5)
    evaluation = evaluate(predictive, targets)
    p, y = predictive.probabilities.numpy(), targets.numpy()
    confidence, right = p.max(1), p.argmax(1) == y
    edges = np.arange(16) / 15
    wrong_first = np.sort(~right)[np.newaxis].cumsum(1)[0]  # best order: errors last
    risk = (~right)[np.argsort(-confidence)].cumsum()
    count = np.arange(1, len(y) + 1)
    curve = np.concatenate([[0], risk]) / len(y)
    expected = {
        "accuracy": metrics.accuracy_score(y, p.argmax(1)),
        "nll": metrics.log_loss(y, p),
        "brier": metrics.brier_score_loss(y, p, scale_by_half=False),
        "ece": binned_error(confidence, right, edges)[0],
        "mce": binned_error(confidence, right, edges)[1],
        "ece_classwise": np.mean([binned_error(p[:, c], y == c, edges)[0] for c in range(4)]),
        "auroc_of_errors": metrics.roc_auc_score(~right, -confidence),
        "aurc": (risk / count).mean(),
        "e_aurc": (risk / count).mean() - (wrong_first / count).mean(),
        "augrc": np.trapezoid(curve, dx=1 / len(y)),
    }
    for name, value in expected.items():
        assert evaluation[name].value == pytest.approx(value, rel=1e-10), name
    ordered = np.sort(confidence)
    quantiles = [0, *(ordered[math.ceil(k * 300 / 15) - 1] for k in range(1, 15)), 1]
    equal_mass = binned_error(confidence, right, np.array(quantiles))[0]
    assert evaluation["ece_equal_mass"].value == pytest.approx(equal_mass, rel=1e-10)
    flags = torch.from_numpy(confidence), torch.from_numpy(right)
    assert evaluation["ece_debiased"].value == calibration.debiased_calibration_error(*flags)
    assert evaluation["ece_smooth"].value == calibration.smooth_calibration_error(*flags)
    losses = calibrated_nll(predictive.log_probabilities, targets)
    assert evaluation["nll_calibrated"].value == float(losses.mean())
    assert tuple(evaluation) == CLASSES
    assert (evaluation.examples, evaluation.draw_count, len(evaluation)) == (300, 6, len(CLASSES))


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_each_score_of_real_targets_agrees_with_numpy_and_scoringrules(outputs):
    predictive, targets = regressor(outputs=outputs, precision=6.0)
    evaluation = evaluate(predictive, targets)
    m, y, noise = predictive.means.numpy(), targets.numpy(), 6.0**-0.5
    sides = m.reshape(5, 300, -1), y.reshape(300, -1)
    joint = stats.norm.logpdf(sides[1], sides[0], noise).sum(2)
    deviation = np.sqrt(m.var(0) + 1 / 6)
    low, high = (end.numpy() for end in predictive.interval(0.9))
    pit = stats.norm.cdf(y, m, noise).mean(0)
    grid = (np.arange(200_000) + 0.5) / 200_000
    empirical = np.searchsorted(np.sort(pit.ravel()), grid, side="right") / pit.size
    expected = {
        "rmse": math.sqrt(metrics.mean_squared_error(sides[1], sides[0].mean(0))),
        "pll": np.log(np.exp(joint).mean(0)).mean(),
        "crps": scoringrules.crps_mixnorm(y, m, np.full(m.shape, noise), m_axis=0).mean(),
        "crps_moment_matched": scoringrules.crps_normal(y, m.mean(0), deviation).mean(),
        "coverage_90": ((y >= low) & (y <= high)).mean(),
        "width_90": (high - low).mean(),
    }
    for name, value in expected.items():
        assert evaluation[name].value == pytest.approx(float(value), rel=1e-10), name
    assert evaluation["pit_error"].value == pytest.approx(np.abs(empirical - grid).mean(), abs=1e-5)
    assert set(evaluation) == set(REAL)
    assert evaluation.examples == y.size


def test_positions_are_scored_like_a_flat_batch():
    dense, targets = forecaster(batch=20, positions=(3, 4), draws=3)
    flat = mcbn.CategoricalPredictive(
        dense.log_probabilities.movedim(1, -1).reshape(-1, 4),
        dense.expected_entropy.flatten(),
        dense.variance.movedim(1, -1).reshape(-1, 4),
        dense.variation_ratio.flatten(),
        dense.draw_count,
    )
    first, second = evaluate(dense, targets), evaluate(flat, targets.flatten())
    assert second.keys() - first.keys() == {"nll_calibrated"}
    for name in first:
        assert first[name].value == pytest.approx(second[name].value, rel=1e-12), name
    assert first.examples == second.examples == 240


def test_dense_predictions_are_resampled_by_whole_example():
    """Equal positions tell nothing new, so the interval must be that of one position."""
    predictive, targets = forecaster(batch=60)

    def repeated(values, times):
        return values.unsqueeze(-1).expand(*values.shape, times).contiguous()

    dense = mcbn.CategoricalPredictive(
        *(repeated(getattr(predictive, name), 5) for name in (
            "log_probabilities", "expected_entropy", "variance", "variation_ratio")), 1,
    )  # fmt: skip
    one = evaluate(predictive, targets, resamples=20)
    five = evaluate(dense, repeated(targets, 5), resamples=20)
    for name in ("accuracy", "nll", "brier"):
        assert_close(five[name].replicates, one[name].replicates, rtol=1e-12, atol=1e-12)


def test_perfect_predictions_have_no_auroc_of_errors():
    targets = torch.arange(40) % 4
    logits = 9.0 * torch.nn.functional.one_hot(targets, 4).double()
    evaluation = evaluate(mcbn.Categorical().summarize([logits]), targets, resamples=5)
    assert evaluation["accuracy"].value == 1
    assert math.isnan(evaluation["auroc_of_errors"].value)
    assert math.isnan(evaluation["auroc_of_errors"].low)
    assert evaluation["aurc"].value == 0
    always_wrong = evaluate(mcbn.Categorical().summarize([logits.roll(1, 1)]), targets)
    assert math.isnan(always_wrong["auroc_of_errors"].value)


def test_a_resample_without_errors_is_left_out_of_the_interval():
    predictive, _ = forecaster(batch=12)
    one_error = torch.arange(12) == 0
    targets = (predictive.prediction + one_error.long()) % 4
    score = evaluate(predictive, targets, resamples=20)["auroc_of_errors"]
    assert 0 < int(score.replicates.isnan().sum()) < 20
    assert score.low <= score.high


def test_kept_draws_tell_what_infinitely_many_would_give():
    logits = 2 * torch.randn(6, 40, 3, generator=torch.Generator().manual_seed(0)).double()
    targets = torch.arange(40) % 3
    kept, averaged = (
        mcbn.Categorical(outputs="logits").summarize(logits, keep_draws=k) for k in (True, False)
    )
    found, without = (evaluate(each, targets, resamples=20) for each in (kept, averaged))
    expected = extrapolated_nll(target_logs(logits, targets)).mean()
    assert found["nll_extrapolated"].value == pytest.approx(float(expected))
    assert found["nll_extrapolated"].low < found["nll_extrapolated"].high < found["nll"].high
    assert [*found.without({"nll_extrapolated"})] == [*without]
    # Examples that are left out take no part.
    ignored = evaluate(kept, torch.where(torch.arange(40) < 10, -1, targets), ignore_index=-1)
    rows = extrapolated_nll(target_logs(logits[:, 10:], targets[10:])).mean()
    assert ignored["nll_extrapolated"].value == pytest.approx(float(rows))


def test_whole_groups_are_on_one_side_of_a_calibrated_likelihood():
    predictive, targets = forecaster(batch=60, draws=3)
    group = torch.arange(60) // 6
    found = evaluate(predictive, targets, group=group, resamples=5)["nll_calibrated"].value
    losses = calibrated_nll(predictive.log_probabilities, targets, clusters=Clusters(group))
    assert (
        found
        == float(losses.mean())
        != float(calibrated_nll(predictive.log_probabilities, targets).mean())
    )


def test_positions_have_no_calibrated_likelihood():
    """As of very many positions, of which only sums of each image are kept."""
    logits = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    predictive = mcbn.Categorical(outputs="logits").summarize(logits, keep_draws=True)
    targets = torch.arange(80).reshape(5, 4, 4) % 3
    for ignored in (None, 0):
        found = evaluate(predictive, targets, ignore_index=ignored, resamples=5)
        assert {"nll_calibrated", "nll_extrapolated"}.isdisjoint(found)


def test_every_score_but_coverage_and_width_has_a_better_direction():
    scored = {**evaluate(*forecaster(batch=30)), **evaluate(*regressor(batch=30))}
    directions = {name: score.better for name, score in scored.items()}
    assert set(directions) == {*CLASSES, *REAL}
    assert directions.pop("coverage_90") is directions.pop("width_90") is None
    assert directions == {name: BETTER[name] for name in directions}
    assert {"coverage_90", "width_90"}.isdisjoint(BETTER)


@pytest.fixture
def checks(monkeypatch):
    """How often each check of arguments was called."""
    calls = {}
    for name in ("probabilities", "labels", "unit_interval", "mask", "vector"):
        check = getattr(validation, name)

        def counted(*arguments, name=name, check=check, **options):
            calls[name] = calls.get(name, 0) + 1
            return check(*arguments, **options)

        monkeypatch.setattr(validation, name, counted)
    return calls


# `unit_interval` calls `vector`.
ONCE = {"probabilities": 1, "labels": 1, "unit_interval": 1, "vector": 1}


@pytest.mark.parametrize("resamples", [0, 7])
def test_arguments_are_checked_once_whatever_the_resamples(checks, resamples):
    predictive, targets = forecaster(batch=40, draws=3)
    evaluate(predictive, targets, resamples=resamples)
    assert checks == ONCE
    checks.clear()
    groups = ["a", "b"] * 20
    subgroups(predictive, targets, groups, resamples=resamples)
    assert checks == ONCE
    checks.clear()
    evaluate(*regressor(batch=40), resamples=resamples)
    assert checks == {"unit_interval": 1, "vector": 1}


@pytest.mark.parametrize("resamples", [0, 7])
@pytest.mark.parametrize("outputs", [(), (3,)])
def test_real_numbers_are_checked_once_whatever_the_resamples(outputs, resamples, monkeypatch):
    names, check = [], validation.finite
    monkeypatch.setattr(
        validation, "finite", lambda values, name: names.append(name) or check(values, name)
    )
    predictive, targets = regressor(batch=40, outputs=outputs)
    names.clear()
    evaluate(predictive, targets, resamples=resamples)
    # Targets are values once they are in the shape of the predictions.
    assert sorted(names) == ["means", "pit", "targets", "values", "variances"]


@pytest.mark.parametrize("outputs", [(), (3,)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("own_noise", [False, True])
def test_columns_of_real_targets_are_those_of_each_score_alone(outputs, kind, own_noise):
    predictive, targets = regressor(batch=40, outputs=outputs)
    variances = predictive.means.square() + 0.1 if own_noise else predictive.variances
    predictive = mcbn.GaussianPredictive(predictive.means.to(kind), variances.to(kind))
    columns, (low, high) = real_columns(predictive, targets), predictive.interval(0.9)
    for name in ("log_prob", "crps", "crps_moment_matched"):
        assert torch.equal(columns[name], getattr(predictive, name)(targets)), name
    assert torch.equal(columns["pit"], predictive.cdf(targets))
    assert torch.equal(columns["width"], high - low)
    assert torch.equal(columns["inside"], ((targets >= low) & (targets <= high)).double())


@pytest.mark.parametrize("resamples", [0, 7])
def test_a_comparison_checks_each_method_once(checks, resamples):
    predictive, targets = forecaster(batch=40)
    compare.entry(ScoredRows(predictive, targets), outside={}, resamples=resamples, progress=False)
    assert checks == ONCE
    checks.clear()
    other = forecaster(batch=30, seed=5)[0]
    mcbn.out_of_distribution(predictive, other, uncertainty="entropy", resamples=resamples)
    assert checks == {"vector": 2}


def test_targets_that_do_not_fit_are_refused():
    predictive, targets = forecaster(batch=30)
    # In the test run the checker of shapes and types may come before the check of the package.
    for bad in (targets.double(), targets[:-1], targets.unsqueeze(1)):
        with pytest.raises((TypeError, ValueError), match="targets"):
            evaluate(predictive, bad)
    with pytest.raises(ValueError, match="labels from 0 to 3"):
        evaluate(predictive, targets + 1)
    with pytest.raises(ValueError, match="same shape"):
        evaluate(regressor(batch=30)[0], torch.zeros(29))


def test_a_confidence_above_one_is_refused_by_scores_and_groups():
    # Rows may be off by a hundredth, as of half precision; a single probability may not.
    log_probabilities = torch.tensor([[1.005, 0.001]] * 4, dtype=torch.float64).log()
    zeros = torch.zeros(4, dtype=torch.float64)
    predictive = mcbn.CategoricalPredictive(
        log_probabilities, zeros, torch.zeros_like(log_probabilities), zeros, 1
    )
    targets = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="expected confidence from 0 to 1"):
        evaluate(predictive, targets)
    with pytest.raises(ValueError, match="expected confidence from 0 to 1"):
        subgroups(predictive, targets, ["a", "b"] * 2)


# Forecasters that are right and wrong on purpose.


def test_known_forecasters_of_classes_are_ranked_right():
    """20,000 labels: the gaps between the forecasters are tens of standard errors."""
    good, over, under = (evaluate(*forecaster(batch=20_000, sharpness=s)) for s in (1.0, 2.5, 0.4))
    for name in ("nll", "brier", *CALIBRATION):
        assert good[name].value < over[name].value, name
        assert good[name].value < under[name].value, name
    for name in CALIBRATION:
        assert good[name].value < 0.015
    # Sharpening changes no order within an example, so none of its decisions.
    assert good["accuracy"].value == over["accuracy"].value == under["accuracy"].value


def test_known_forecasters_of_real_targets_are_ranked_right():
    """20,000 targets; coverage of the right one is 0.9 but for chance."""
    good, over, under = (
        evaluate(*regressor(batch=20_000, precision=tau)) for tau in (4.0, 16.0, 1.0)
    )
    for wrong in (over, under):
        assert good["pll"].value > wrong["pll"].value
        for name in ("crps", "crps_moment_matched", "pit_error"):
            assert good[name].value < wrong[name].value, name
        assert good["rmse"].value == wrong["rmse"].value
    assert abs(good["coverage_90"].value - 0.9) < DEVIATIONS * math.sqrt(0.09 / 20_000)
    assert over["coverage_90"].value < 0.7
    assert under["coverage_90"].value > 0.99
    assert over["width_90"].value < good["width_90"].value < under["width_90"].value


# Intervals.


def test_without_resamples_there_are_scores_and_no_intervals():
    for evaluation in (evaluate(*forecaster(batch=30)), evaluate(*regressor(batch=30))):
        for score in evaluation.values():
            assert math.isfinite(score.value)
            assert math.isnan(score.low)
            assert math.isnan(score.high)
            assert score.replicates.shape == (0,)


def test_replicates_are_the_scores_of_the_resampled_examples():
    predictive, targets = regressor(batch=25)
    evaluation = evaluate(predictive, targets, resamples=30, seed=3)
    chosen = bootstrap.replicates(
        [{"row": torch.arange(25)}],
        lambda columns: {str(i): float(row) for i, row in enumerate(columns["row"])},
        resamples=30, seed=3, progress=False,
    )  # fmt: skip
    rows = torch.stack([chosen[str(i)] for i in range(25)], 1).long()
    for resample, index in enumerate(rows):
        again = evaluate(
            mcbn.GaussianPredictive(predictive.means[:, index], predictive.variances),
            targets[index],
        )
        for name, score in evaluation.items():
            if name == "pit_error":  # its gaps are resampled
                continue
            value = float(score.replicates[resample])
            assert value == pytest.approx(again[name].value, rel=1e-12), name


def test_one_seed_one_set_of_replicates():
    predictive, targets = forecaster(batch=30)
    first, again, other = (evaluate(predictive, targets, resamples=6, seed=s) for s in (1, 1, 2))
    for name in ("nll", "ece"):
        assert_close(first[name].replicates, again[name].replicates, rtol=0, atol=0)
        assert not torch.equal(first[name].replicates, other[name].replicates)
    assert (first["nll"].low, first["nll"].high) == (again["nll"].low, again["nll"].high)


def test_rows_are_drawn_uniformly_with_replacement():
    """Chi-squared over 20 rows and 400 resamples."""
    counts = bootstrap.replicates(
        [{"row": torch.arange(20)}],
        lambda columns: {str(i): float((columns["row"] == i).sum()) for i in range(20)},
        resamples=400, seed=0, progress=False,
    )  # fmt: skip
    table = torch.stack(list(counts.values()))
    assert bool((table.sum(0) == 20).all())
    assert holds(stats.chisquare(table.sum(1)).pvalue)
    assert int(table.max()) > 3


def test_intervals_are_percentiles_of_the_replicates():
    evaluation = evaluate(*forecaster(batch=80), resamples=40, level=0.8)
    for name, score in evaluation.items():
        rows = np.atleast_2d(score.replicates.numpy())
        lows, highs = np.nanquantile(rows, [0.1, 0.9], axis=1, method="weibull")
        assert (score.low, score.high) == pytest.approx((min(lows), max(highs)), rel=1e-12), name
    assert evaluation.level == 0.8


def test_replicates_of_calibration_errors_solve_for_the_scale_of_the_gaps():
    """The factor k by a root finder on the definition: |k shape + noise| = |gaps|."""
    predictive, targets = forecaster(batch=300, sharpness=1.6)
    evaluation = evaluate(predictive, targets, resamples=12, seed=3)
    confidence, right = predictive.confidence, predictive.prediction == targets
    rows = bootstrap.replicates(
        [{"row": torch.arange(300)}], lambda columns: {"row": columns["row"].double()},
        resamples=12, seed=3, progress=False,
    )["row"].long()  # fmt: skip
    places = np.minimum(np.ceil(confidence.numpy() * 15).astype(int) - 1, 14)
    residual = (right.double() - confidence).numpy()

    def gaps(index):
        return np.bincount(places[index], residual[index], 15) / 300

    whole, shares = gaps(np.arange(300)), np.bincount(places, minlength=15) / 300
    noises, held = [gaps(row) - whole for row in rows.numpy()], shares > 0
    chance = np.var(noises, axis=0)
    large = whole**2 > chance
    assert 0 < large.sum() < (whole != 0).sum()
    sparse, even = np.zeros(15), np.sign(whole) * np.hypot(whole, np.sqrt(chance))
    sparse[large] = (whole**2 - chance)[large] / whole[large]
    norms = {"ece": lambda x: np.abs(x).sum(), "mce": lambda x: max(np.abs(x[held]) / shares[held])}
    for name, norm in norms.items():
        for shape, values in zip((sparse, even), evaluation[name].replicates.tolist(), strict=True):
            for noise, value in zip(noises, values, strict=True):
                excess = lambda k, s=shape, n=noise, norm=norm: norm(k * s + n) - norm(whole)  # noqa: E731
                exact = optimize.brentq(excess, 0, 99, xtol=1e-13) if excess(0) < 0 else 0.0
                assert value == pytest.approx(exact * norm(shape), rel=1e-9, abs=1e-12), name


def coverage(resamples=150, batch=200, runs=200, level=0.9):
    """Shares of simulated test sets whose intervals cover the true accuracy and NLL."""
    generator = torch.Generator().manual_seed(5)

    def world(count):
        logits = 1.5 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
        return logits.log_softmax(1)

    everything = world(400_000)
    truth = {
        "accuracy": float(everything.exp().amax(1).mean()),
        "nll": -float((everything.exp() * everything).sum(1).mean()),
    }
    hits = dict.fromkeys(truth, 0)
    for run in range(runs):
        logs = world(batch)
        targets = torch.multinomial(logs.exp(), 1, generator=generator)
        columns = {"nll": -logs.gather(1, targets)[:, 0],
                   "accuracy": (logs.argmax(1) == targets[:, 0]).double()}  # fmt: skip
        drawn = bootstrap.replicates(
            [columns], lambda c: {name: float(values.mean()) for name, values in c.items()},
            resamples=resamples, seed=run, progress=False,
        )  # fmt: skip
        for name in truth:
            low, high = bootstrap.percentile_interval(drawn[name], level)
            hits[name] += low <= truth[name] <= high
    return {name: count / runs for name, count in hits.items()}


def test_intervals_of_accuracy_and_nll_cover_their_level():
    """200 simulated test sets: within four standard errors of 0.9 (6 in 100,000 per score)."""
    for share in coverage().values():
        assert abs(share - 0.9) < 4 * math.sqrt(0.09 / 200)


def test_the_interval_of_a_calibrated_forecaster_reaches_zero():
    score = evaluate(*forecaster(batch=400, seed=100), resamples=40)["ece"]
    assert score.low == 0 < score.value
    over = evaluate(*forecaster(batch=400, seed=100, sharpness=3.0), resamples=40)["ece"]
    assert over.low > 0.05


def test_impossible_settings_are_refused():
    predictive, targets = forecaster(batch=30)
    with pytest.raises(ValueError, match="at least 0 resamples"):
        evaluate(predictive, targets, resamples=-1)
    with pytest.raises(ValueError, match="level strictly between"):
        evaluate(predictive, targets, level=95.0)


# Differences.


def test_differences_are_paired_and_far_narrower_for_methods_that_agree():
    first, targets = forecaster(batch=200, sharpness=1.0)
    second, _ = forecaster(batch=200, sharpness=1.1)
    a, b = (evaluate(p, targets, resamples=40) for p in (first, second))
    for name in ("nll", "brier"):
        difference = a.minus(b)[name]
        assert difference.value == a[name].value - b[name].value
        unpaired = math.hypot(a[name].high - a[name].low, b[name].high - b[name].low)
        assert difference.high - difference.low < unpaired / 5
        assert difference.low < difference.value < difference.high
    assert a.minus(b)["accuracy"].low == a.minus(b)["accuracy"].high == 0


def test_a_difference_is_the_negative_of_its_opposite_and_zero_of_itself():
    targets = forecaster(batch=300)[1]
    a, b = (
        evaluate(forecaster(batch=300, sharpness=s)[0], targets, resamples=40) for s in (1.0, 3.0)
    )
    there, back = a.minus(b), b.minus(a)
    assert set(there) == set(CLASSES)
    for name, score in there.items():
        assert score.better == BETTER[name]
        assert (score.low, score.high) == pytest.approx((-back[name].high, -back[name].low)), name
        zero = a.minus(a)[name]
        assert (zero.value, zero.low, zero.high) == pytest.approx((0, 0, 0), abs=1e-15), name
    # A difference below 0 is not cut off.
    assert there["ece"].value < 0
    assert there["ece"].low < there["ece"].high < 0
    # The first may have no error; then the difference is all of the other's.
    assert a["ece"].low == 0 < b["ece"].low
    assert there["ece"].low == pytest.approx(-b["ece"].high, rel=1e-12)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"level": 0.9}, {"resamples": 9}, {"resamples": 1}, {"batch": 31}],
    ids=str,
)  # fmt: skip
def test_evaluations_that_are_not_paired_are_refused(change):
    plain = evaluate(*forecaster(batch=30), resamples=8)
    options = {"batch": 30, "resamples": 8, **change}
    other = evaluate(*forecaster(batch=options.pop("batch")), **options)
    with pytest.raises(ValueError, match="same examples, seed"):
        plain.minus(other)


# As numbers.


def test_an_evaluation_is_plain_json():
    evaluation = evaluate(*forecaster(batch=40, draws=3), resamples=5)
    back = json.loads(json.dumps(evaluation.to_dict()))
    assert (back["examples"], back["draws"], back["level"]) == (40, 3, 0.95)
    assert set(back["scores"]) == set(CLASSES)
    nll = evaluation["nll"]
    assert back["scores"]["nll"] == {
        "value": nll.value, "low": nll.low, "high": nll.high, "better": "lower",
    }  # fmt: skip
    assert str(nll) == f"{nll.value:.4g} [{nll.low:.4g}, {nll.high:.4g}]"
    real = json.loads(json.dumps(evaluate(*regressor(batch=20)).to_dict()))["scores"]
    assert [real[name]["better"] for name in ("pll", "coverage_90", "width_90")] == [
        "higher", None, None]  # fmt: skip


# Another distribution.


def inside_and_outside():
    """Few disagreements inside, many outside, and not the same number of examples."""
    generator = torch.Generator().manual_seed(0)

    def made_of(batch, spread):
        noise = torch.randn(6, batch, 3, generator=generator, dtype=torch.float64)
        center = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
        return mcbn.Categorical().summarize(center + spread * noise)

    return made_of(60, 0.5), made_of(45, 0.9)


@pytest.mark.parametrize("uncertainty", ["mutual_information", "entropy"])
def test_separation_agrees_with_scikit_learn(uncertainty):
    inside, outside = inside_and_outside()
    separation = mcbn.out_of_distribution(inside, outside, uncertainty=uncertainty, resamples=30)
    values = np.concatenate([getattr(p, uncertainty).numpy() for p in (inside, outside)])
    positive = np.arange(105) >= 60
    false_rate, true_rate, _ = metrics.roc_curve(positive, values, drop_intermediate=False)
    expected = {
        "auroc_out_of_distribution": metrics.roc_auc_score(positive, values),
        "aupr_out_of_distribution": metrics.average_precision_score(positive, values),
        "fpr95_out_of_distribution": false_rate[np.argmax(true_rate >= 0.95)],
    }
    assert set(separation) == set(expected)
    for name, value in expected.items():
        assert separation[name].value == pytest.approx(value, rel=1e-12)
        assert 0 <= separation[name].low <= separation[name].high <= 1
        assert separation[name].replicates.isfinite().all()
        assert separation[name].better == BETTER[name]
    assert (
        separation["auroc_out_of_distribution"].low < separation["auroc_out_of_distribution"].high
    )


def test_separation_of_a_set_from_itself_is_chance():
    inside, _ = inside_and_outside()
    separation = mcbn.out_of_distribution(inside, inside, resamples=0)
    assert separation["auroc_out_of_distribution"].value == pytest.approx(0.5)
    assert math.isnan(separation["auroc_out_of_distribution"].low)


def test_separation_of_dense_predictions_is_by_position():
    dense = forecaster(batch=6, positions=(2, 3), draws=4)[0]
    other = forecaster(batch=5, positions=(4,), draws=4, sharpness=0.2)[0]
    separation = mcbn.out_of_distribution(dense, other, resamples=4)
    values = [p.mutual_information.flatten() for p in (dense, other)]
    exact = metrics.roc_auc_score(np.arange(56) >= 36, torch.cat(values).numpy())
    assert separation["auroc_out_of_distribution"].value == pytest.approx(exact)


# Several methods.


@pytest.fixture(scope="module")
def compared():
    model = make_network("1d of 2-D")
    bank = mcbn.collect(model, mcbn.minibatches(examples("1d of 2-D", 60), batch_size=8, draws=5))
    samplers = {"plain": mcbn.Deterministic(model), "MCBN": mcbn.MCBatchNorm(model, bank)}
    inputs, far = examples("1d of 2-D", 40, seed=5), 5 * examples("1d of 2-D", 30, seed=6)
    targets = drawn(model(inputs).softmax(1).detach(), seed=0)
    options = {"outside": {"far": far}, "classes": ("a", "b", "c"), "resamples": 8}
    comparison = mcbn.compare(samplers, inputs, targets, progress=False, **options)
    return comparison, samplers, inputs, targets, far


def test_a_comparison_equals_separate_calls(compared):
    comparison, samplers, inputs, targets, far = compared
    assert comparison.baseline == "plain"
    assert list(comparison.entries) == ["plain", "MCBN"]
    for name, entry in comparison.entries.items():
        predictive = mcbn.predict(samplers[name], inputs)
        assert_close(
            entry.predictive.log_probabilities, predictive.log_probabilities, rtol=0, atol=0
        )
        alone = evaluate(predictive, targets, resamples=8)
        assert entry.evaluation["nll"].value == alone["nll"].value
        assert_close(entry.evaluation["ece"].replicates, alone["ece"].replicates, rtol=0, atol=0)
        # All methods by the entropy; a single draw has no mutual information.
        kinds = ["entropy"] if name == "plain" else ["entropy", "mutual_information"]
        assert list(entry.separation["far"]) == list(entry.errors) == kinds
        for kind in kinds:
            apart = mcbn.out_of_distribution(
                predictive, mcbn.predict(samplers[name], far), uncertainty=kind, resamples=8
            )
            for key, score in apart.items():
                assert entry.separation["far"][kind][key].value == score.value
                assert entry.separation["far"][kind][key].low == score.low
        assert entry.seconds > 0


def test_differences_are_from_the_baseline(compared):
    entries, differences = compared[0].entries, compared[0].differences()
    assert list(differences) == ["MCBN"]
    expected = entries["MCBN"].evaluation.minus(entries["plain"].evaluation)
    assert differences["MCBN"]["nll"].value == expected["nll"].value
    assert differences["MCBN"]["nll"].low == expected["nll"].low


def test_a_comparison_is_plain_json(compared):
    back = json.loads(json.dumps(compared[0].to_dict()))
    assert back["baseline"] == "plain"
    assert back["classes"] == ["a", "b", "c"]
    assert list(back["methods"]) == ["plain", "MCBN"]
    assert list(back["differences"]) == ["MCBN"]
    assert back["methods"]["plain"]["mean_mutual_information"] == pytest.approx(0, abs=1e-12)
    assert back["methods"]["MCBN"]["mean_mutual_information"] > 1e-4
    far = back["methods"]["MCBN"]["outside"]["far"]["by"]
    assert list(far) == list(back["methods"]["MCBN"]["errors"]) == ["entropy", "mutual_information"]
    assert "auroc_out_of_distribution" in far["entropy"]
    assert list(back["methods"]["plain"]["outside"]["far"]["by"]) == ["entropy"]


def test_predictions_made_elsewhere_have_no_time():
    predictive, targets = forecaster(batch=20)
    assert math.isnan(
        compare.entry(ScoredRows(predictive, targets), outside={}, resamples=0).seconds
    )


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one method"):
        mcbn.compare({}, torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))


# Monte Carlo error.


def kept_draws(draws, batch=40, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
    jitter = torch.randn(draws, batch, 3, generator=generator, dtype=torch.float64)
    return logits + noise * jitter, drawn(logits.softmax(1), seed)


def test_monte_carlo_error_falls_with_the_root_of_the_draws():
    """Slope of log spread on log T from 1 to 16 draws: -1/2 within four standard errors.

    A standard deviation over g groups has a relative error of 1 / sqrt(2 (g - 1)); with 512 to 32
    groups the slope's is 0.04.
    """
    curve = convergence(*kept_draws(512, noise=0.5))
    sizes = np.log2(curve.draws)
    wanted = sizes <= 4
    slope = np.polyfit(sizes[wanted], np.log2(curve.spread)[wanted], 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.16)


def test_mean_nll_falls_with_the_draws_by_jensen():
    # The mean over disjoint groups of 2T cannot be above that of the groups of T within them.
    curve = convergence(*kept_draws(64))
    assert list(curve.nll) == sorted(curve.nll, reverse=True)


def test_convergence_agrees_with_scikit_learn():
    draws, targets = kept_draws(11)
    curve = convergence(draws, targets)
    assert curve.draws == (1, 2, 4, 8)
    p = draws.softmax(2).numpy()
    for place, size in enumerate(curve.draws):
        values = [
            metrics.log_loss(targets, p[start : start + size].mean(0))
            for start in range(0, 11 - size + 1, size)
        ]
        assert curve.nll[place] == pytest.approx(np.mean(values), rel=1e-12)
        if len(values) > 1:
            assert curve.spread[place] == pytest.approx(np.std(values, ddof=1), rel=1e-10)
        else:
            assert math.isnan(curve.spread[place])


def test_convergence_is_plain_json():
    numbers = convergence(*kept_draws(4)).to_dict()
    assert json.loads(json.dumps(numbers))["draws"] == [1, 2, 4]


def test_convergence_without_draws_is_refused():
    with pytest.raises(ValueError, match="keep_draws=True"):
        convergence(torch.zeros(0, 5, 3), torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize(
    ("count", "level", "ends"),
    [(39, 0.95, (1, 39)), (199, 0.95, (5, 195)), (99, 0.9, (5, 95)), (9, 0.95, (1, 9))],
)
def test_ends_of_intervals_have_the_rank_of_their_chance(count, level, ends):
    """With 39 replicates the extremes: one more of the same law is beyond each in 1 of 40."""
    values = torch.randperm(count, generator=torch.Generator().manual_seed(0)).double() + 1
    assert bootstrap.percentile_interval(values, level) == pytest.approx(ends)
