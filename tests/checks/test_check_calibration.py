"""Calibration of every method: states by hand, false alarms and power, and what the claim says."""

import math
from dataclasses import replace

import pytest
import torch
from equal_methods import at_most, compared, equal_methods
from scipy import stats

from mcbn.checks.calibration import calibration_claim
from mcbn.checks.calibration_states import calibration_states
from mcbn.evaluation.class_balance import class_balance
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.comparison import Comparison, Entry
from mcbn.evaluation.confidence_gap import confidence_gap, confidence_gaps
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.images import ScoredImages
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical

pytestmark = pytest.mark.unchecked


def runs(quick, slow=1000):
    return pytest.mark.parametrize("runs", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def judged(logits, targets, **options):
    return calibration_states(compared(logits, targets, ranking=False, **options))


@runs(25)
@pytest.mark.parametrize("methods", [1, 4])
def test_calibrated_methods_are_rarely_called_anything_else(methods, runs):
    """Nominal 5% of test sets in which any method is; without correction 11% of those of four."""
    alarms = 0
    for seed in range(runs):
        states = judged(*equal_methods(seed, methods=methods, examples=500), resamples=200)
        alarms += any(state.is_bad for state in states.values())
    assert at_most(alarms, runs)


@runs(150, 2000)
def test_gaps_of_ten_methods_hold_at_once(runs):
    """Without correction an interval of ten misses 0 in about 25%; nominal 5%."""
    alarms = alone = 0
    for seed in range(runs):
        comparison = compared(
            *equal_methods(seed, methods=10, examples=200), resamples=0
        )  # fmt: skip
        alarms += any(low > 0 or high < 0 for _, low, high in confidence_gaps(comparison).values())
        each = [confidence_gap(name, comparison) for name in comparison.entries]
        alone += any(low > 0 or high < 0 for _, low, high in each)
    assert at_most(alarms, runs)
    assert alarms / runs > 0.01  # nor are they wider than they need be
    assert alone / runs > 0.12


@runs(200, 3000)
def test_rare_errors_are_no_alarm(runs):
    """Sure forecasts of 150 examples, with 1.5 errors on average: often there is none at all."""
    alarms = 0
    for seed in range(runs):
        generator = torch.Generator().manual_seed(seed)
        right = torch.rand(150, generator=generator) < 0.99
        logits = torch.zeros(1, 150, 2).double()
        logits[..., 1] = math.log(99)
        comparison = compared(logits, right.long(), resamples=0)
        _, low, high = confidence_gap("m0", comparison)
        alarms += low > 0 or high < 0
    # A count has few values: 5 errors or more are beyond the interval, of chance 1.8%.
    assert at_most(alarms, runs, 0.025)


@runs(30)
def test_an_over_confident_method_is_found_among_calibrated_ones(runs):
    """Logits 1.6 times as large, 1,000 examples, a gap of 5 points: found in 90%, by name."""
    found = wrong = 0
    for seed in range(runs):
        logits, targets = equal_methods(seed, methods=3, examples=1000)
        logits[2] *= 1.6
        states = judged(logits, targets, resamples=40)
        found += states["m2"].state == "over-confident"
        wrong += states["m0"].is_bad or states["m1"].is_bad
    assert found / runs > 0.9
    assert at_most(wrong, runs)


@runs(30)
def test_classes_stated_too_high_and_too_low_are_found(runs):
    """A logit 0.8 too high of one class, 1,000 examples: confidence is right on average."""
    found = 0
    for seed in range(runs):
        logits, targets = equal_methods(seed, methods=2, examples=1000)
        logits[1, :, 0] += 0.8
        found += judged(logits, targets, resamples=40)["m1"].is_bad
    assert found / runs > 0.9


@pytest.mark.parametrize("group_size", [10])
@runs(80, 1000)
def test_clusters_count_not_their_rows(group_size, runs):
    """40 groups of ten equal examples: by rows more than half of the test sets had an alarm."""
    clusters = torch.arange(40).repeat_interleave(group_size)
    alarms = by_rows = 0
    for seed in range(runs):
        logits, targets = equal_methods(seed, methods=3, examples=400, clusters=clusters)
        for whole in (Clusters(clusters), None):
            comparison = compared(logits, targets, resamples=0, clusters=whole)
            gaps = confidence_gaps(comparison).values()
            alarm = any(low > 0 or high < 0 for _, low, high in gaps)
            alarms, by_rows = alarms + (alarm and whole is not None), by_rows + (
                alarm and whole is None
            )  # fmt: skip
    assert at_most(alarms, runs)
    assert by_rows / runs > 0.4


@pytest.mark.parametrize("size", [0.5, 6.0])
def test_equal_rows_of_clusters_count_once(size):
    """Also where errors are so few that the error is that of calibrated forecasts."""
    each = torch.arange(60).repeat_interleave(10)
    logits, targets = equal_methods(3, methods=3, examples=60, size=size)
    once = compared(logits, targets, resamples=0)
    repeated = compared(logits[:, each], targets[each], resamples=0, clusters=Clusters(each))
    gaps = confidence_gaps(once)
    assert [gap for gaps in confidence_gaps(repeated).values() for gap in gaps] == pytest.approx(
        [gap for of_one in gaps.values() for gap in of_one]
    )
    errors = (logits.argmax(-1) != targets).sum(1).tolist()
    assert max(errors) < 10 if size > 1 else min(errors) > 10


def test_few_errors_have_the_spread_of_calibrated_forecasts():
    """Without a single error the sample has next to no spread: 100 answers of 95% each."""
    logits = torch.tensor([math.log(19), 0.0]).double().expand(1, 100, 2)
    value, low, _ = confidence_gap("m0", compared(logits, torch.zeros(100).long(), resamples=0))
    assert value == pytest.approx(-0.05)
    expected = math.sqrt(0.95 * 0.05 / 100) * stats.t.isf(0.025, 99)
    assert value - low == pytest.approx(expected)


def test_one_interval_is_that_of_students_t():
    logits, targets = equal_methods(0, methods=1, examples=300)
    comparison = compared(logits, targets, resamples=0)
    confidence = logits[0].softmax(1).amax(1)
    gaps = (confidence - (logits[0].argmax(1) == targets).double()).numpy()
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    value, low, high = confidence_gap("m0", comparison)
    assert (value, low, high) == pytest.approx((gaps.mean(), *expected))
    assert confidence_gaps(comparison)["m0"] == (value, low, high)


def test_balance_of_classes_is_the_mean_residual_of_each():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 300, 4, generator=generator).double()
    targets = torch.multinomial(logits[0].softmax(1), 1, generator=generator)[:, 0]
    comparison = compared(logits, targets, resamples=0)
    found = class_balance("m0", comparison, level=0.95)
    assert [each.name for each in found] == ["0", "1", "2", "3"]
    for number, each in enumerate(found):
        happened = (targets == number).double()
        residuals = (logits[0].softmax(1)[:, number] - happened).numpy()
        interval = stats.ttest_1samp(residuals, 0).confidence_interval(1 - 0.05 / 4)
        assert each.frequency == pytest.approx(float(happened.mean()))
        assert (each.value, each.low, each.high) == pytest.approx((residuals.mean(), *interval))


def test_rare_classes_are_left_out():
    logits, targets = torch.zeros(1, 200, 3).double(), torch.arange(200) % 2
    targets[:9] = 2
    found = class_balance("m0", compared(logits, targets, resamples=0), level=0.95)
    assert [each.name for each in found] == ["0", "1"]


def test_balance_of_images_is_that_of_their_pixels():
    """Sums of each image, and all pixels with the image as their cluster."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, 8, 8, generator=generator).double()
    targets = torch.randint(3, (12, 8, 8), generator=generator)
    predictive = Categorical(outputs="logits").summarize(logits[None])
    evaluation = Evaluation({}, 768, 1, 0.95, 0)
    by_pixel = Comparison({"a": Entry(predictive, {}, evaluation, {}, 0.0)}, targets, ())
    images = ScoredImages()
    images.add(predictive, targets)
    by_image = Comparison({"a": Entry(None, {}, evaluation, {}, 0.0, images)}, None, ())
    for one, other in zip(class_balance("a", by_pixel, level=0.9),
                          class_balance("a", by_image, level=0.9), strict=True):  # fmt: skip
        assert (one.value, one.low, one.high, one.frequency) == pytest.approx(
            (other.value, other.low, other.high, other.frequency), rel=1e-9
        )
    assert confidence_gap("a", by_pixel) == pytest.approx(confidence_gap("a", by_image), rel=1e-9)


def test_balance_of_labels_is_of_the_known_answers_alone():
    generator = torch.Generator().manual_seed(0)
    odds = torch.randn(1, 200, 2, generator=generator).double()
    targets = (torch.rand(200, 2, generator=generator) < odds[0].sigmoid()).long()
    targets[:50, 1] = -1
    predictive = Bernoulli(outputs="logits").summarize(odds)
    evaluation = Evaluation({}, 200, 1, 0.95, 0)
    aligned = predictive.aligned(targets, ignore_index=-1)
    comparison = Comparison({"a": Entry(predictive, {}, evaluation, {}, 0.0)}, aligned, ("x", "y"))
    found = {each.name: each for each in class_balance("a", comparison, level=0.95)}
    residuals = (odds[0, 50:, 1].sigmoid() - targets[50:, 1]).numpy()
    interval = stats.ttest_1samp(residuals, 0).confidence_interval(1 - 0.05 / 2)
    assert found["y"].frequency == pytest.approx(float(targets[50:, 1].double().mean()))
    assert (found["y"].low, found["y"].high) == pytest.approx(tuple(interval))


def claimed(scales, *, examples=4000, shift=0.0):
    logits, targets = equal_methods(1, methods=len(scales), examples=examples)
    logits *= torch.tensor(scales, dtype=torch.float64)[:, None, None]
    logits[-1, :, 0] += shift
    comparison = compared(logits, targets, ranking=False, resamples=60)
    return calibration_claim(comparison, calibration_states(comparison))


@pytest.mark.parametrize(
    ("scales", "mark", "words"),
    [
        ((1.0, 1.0), "good", ("m0 is neither significantly over-", "is calibrated.")),
        ((1.0, 1.7), "uncertain", ("m0 is neither significantly over-", "is over-confident.")),
        ((1.0, 0.5), "uncertain", ("m0 is neither significantly over-", "is under-confident.")),
        ((1.7, 1.0), "bad", ("m0 is over-confident, by ", "is calibrated.")),
        ((0.5,), "bad", ("m0 is under-confident, by ",)),
    ],
)
def test_claim_names_the_baseline_first_and_its_mark_is_at_most_uncertain_for_others(
    scales, mark, words
):
    claim = claimed(scales)
    assert claim.mark == mark
    assert claim.sentence.startswith(words[0])
    assert all(word in claim.sentence for word in words)


def test_claim_names_a_class_that_is_off():
    claim = claimed((1.0,), shift=0.6)
    assert claim.mark == "bad"
    assert "not in every class" in claim.sentence or "not at every confidence" in claim.sentence


def test_few_examples_and_none_with_intervals_are_uncertain():
    assert claimed((1.0, 1.0), examples=60).mark == "uncertain"
    logits, targets = equal_methods(0, examples=2)
    state = calibration_states(
        compared(logits[:1, :1], targets[:1], ranking=False, resamples=0)
    )["m0"]  # fmt: skip
    assert (state.state, str(state)) == ("uncertain", "uncertain")


def test_states_as_words_for_a_table():
    state = judged(*equal_methods(0, examples=50), resamples=0)["m0"]
    over = replace(state, state="over-confident", gap=0.0512)
    under = replace(state, state="under-confident", gap=-0.02)
    assert str(over) == "over-confident +5.1"
    assert str(under) == "under-confident \N{MINUS SIGN}2.0"
    assert over.to_dict()["state"] == "over-confident"
