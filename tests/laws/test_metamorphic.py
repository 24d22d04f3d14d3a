"""Changes of the data that leave every score of `evaluate` alone or change it in a known way.

The tables list all scores. Where a law does not hold for a score, they say why; a score left out
without a reason fails the suite.
"""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mcbn
from mcbn.evaluation import detection, glossary
from mcbn.evaluation.reliability import Reliability

pytestmark = pytest.mark.unchecked

CASES = settings(max_examples=25, deadline=None, derandomize=True, database=None)
WITHOUT_TARGETS = {"mutual_information", "epistemic_sd"}  # means over examples
CLASSES = {"accuracy", "nll", "brier", "ece", "ece_equal_mass", "ece_debiased", "ece_classwise",
           "ece_smooth", "mce", "auroc_of_errors", "aurc", "e_aurc", "augrc"}  # fmt: skip
LABELS = CLASSES | {"exact_match", "f1_micro", "f1_macro", "auroc_micro", "auroc_macro",
                    "aupr_micro", "aupr_macro"}  # fmt: skip
REAL = {"rmse", "pll", "crps", "crps_moment_matched", "coverage_90", "width_90", "pit_error"}
MEANS = {"accuracy", "exact_match", "nll", "brier", "pll", "crps", "crps_moment_matched",
         "coverage_90", "width_90"}  # fmt: skip
# Scores of classes that these laws are not about, and where they are tested.
ELSEWHERE = {
    "nll_calibrated": "halves of the examples are drawn by chance: test_calibrated",
    "nll_extrapolated": "needs draws that are kept: test_finite_draws",
    "ensemble_equivalent": "compares methods: test_equivalents",
}
# Why a law does not hold.
NOT_DOUBLED = {
    "nll_calibrated": "halves of the examples are drawn by chance",
    "ece_debiased": "the correction depends on the number of examples",
    "aurc": "a mean over k of n examples, which depends on n",
    "e_aurc": "as aurc",
}
NOT_SPLIT = {
    "rmse": "a root: its square is a mean, tested separately",
    "ece_debiased": "the correction depends on the number of examples",
    "ece_equal_mass": "bins depend on the data",
    "ece_classwise": "absolute values of sums: those of `Reliability` are tested separately",
    "ece": "as ece_classwise", "mce": "as ece_classwise", "ece_smooth": "as ece_classwise",
    "aurc": "ranks", "e_aurc": "ranks", "augrc": "ranks",
    "auroc_of_errors": "pairs: tested separately", "pit_error": "ranks",
    "f1_micro": "a ratio of sums", "f1_macro": "ratios of sums",
    "auroc_micro": "as auroc_of_errors", "auroc_macro": "as auroc_of_errors",
    "aupr_micro": "ranks", "aupr_macro": "ranks",
}  # fmt: skip


@st.composite
def classes(draw):
    """Draws of logits without ties, and labels."""
    draws, batch, count = draw(st.integers(1, 3)), draw(st.integers(4, 30)), draw(st.integers(2, 4))
    seed = draw(st.integers(0, 2**32 - 1))
    scale = draw(st.floats(0.1, 5))
    generator = np.random.default_rng(seed)
    logits = scale * generator.standard_normal((draws, batch, count))
    labels = hnp.arrays(np.int64, batch, elements=st.integers(0, count - 1))
    return torch.from_numpy(logits), torch.from_numpy(draw(labels))


@st.composite
def labels(draw):
    """Draws of the logits of labels without ties, and whether they are there."""
    logits, _ = draw(classes())
    there = hnp.arrays(np.int64, logits.shape[1:], elements=st.integers(0, 1))
    return logits, torch.from_numpy(draw(there))


@st.composite
def real(draw):
    """Draws of means and targets."""
    draws, batch = draw(st.integers(1, 4)), draw(st.integers(2, 30))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    means = torch.from_numpy(generator.standard_normal((draws, batch)))
    return means, torch.from_numpy(draw(st.floats(0.1, 4)) * generator.standard_normal(batch))


def scored(values, targets):
    """All scores of draws of logits (three axes) or of means (two); those of labels by targets."""
    likelihood = mcbn.Categorical() if values.ndim == 3 else mcbn.Gaussian(precision=2.0)
    if targets.ndim == 2:
        likelihood = mcbn.Bernoulli("logits")
    predictive = likelihood.summarize(values)
    scores = {name: s.value for name, s in
              mcbn.evaluate(predictive, targets, resamples=0, progress=False).items()}  # fmt: skip
    if values.ndim == 3:
        scores["mutual_information"] = float(predictive.mutual_information.mean())
    else:
        scores["epistemic_sd"] = float(predictive.epistemic_variance.sqrt().mean())
    return scores


def agree(values, expected, *, without=()):
    for name in expected.keys() - set(without):
        if math.isnan(expected[name]):
            assert math.isnan(values[name]), name
        # The smooth error is a root, solved to 1e-12; a debiased one is the root of a difference.
        wide = {"ece_smooth": 1e-9, "ece_debiased": 1e-7}.get(name, 1e-11)
        np.testing.assert_allclose(values[name], expected[name], rtol=wide, atol=wide, err_msg=name)


def test_the_tables_hold_every_score():
    every = LABELS | REAL | WITHOUT_TARGETS | ELSEWHERE.keys()
    assert set(get_args(glossary.ScoreName)) == every
    assert MEANS | NOT_SPLIT.keys() == LABELS | REAL
    assert not MEANS & NOT_SPLIT.keys()


@pytest.mark.parametrize("kind", [classes, labels, real])
def test_the_order_of_examples_and_of_draws_changes_nothing(kind):
    @CASES
    @given(kind(), st.randoms(use_true_random=False))
    def check(case, random):
        values, targets = case
        rows, draws = list(range(len(targets))), list(range(len(values)))
        random.shuffle(rows)
        random.shuffle(draws)
        shuffled = scored(values[draws][:, rows], targets[rows])
        agree(shuffled, scored(values, targets), without=ELSEWHERE)

    check()


@pytest.mark.parametrize("kind", [classes, labels, real])
def test_every_example_twice_changes_nothing(kind):
    @CASES
    @given(kind(), st.integers(2, 4))
    def check(case, times):
        values, targets = case
        repeated = values.repeat(1, times, *(1,) * (values.ndim - 2))
        several = scored(repeated, targets.repeat(times, *(1,) * (targets.ndim - 1)))
        agree(several, scored(values, targets), without=NOT_DOUBLED)

    check()


@pytest.mark.parametrize("kind", [classes, labels, real])
def test_every_draw_twice_changes_nothing(kind):
    @CASES
    @given(kind(), st.integers(2, 4))
    def check(case, times):
        values, targets = case
        agree(scored(torch.cat([values] * times), targets), scored(values, targets))

    check()


@CASES
@given(classes(), st.randoms(use_true_random=False))
def test_the_names_of_classes_change_nothing(case, random):
    logits, targets = case
    order = list(range(logits.shape[2]))
    random.shuffle(order)
    place = torch.tensor(order).argsort()
    agree(scored(logits[:, :, order], place[targets]), scored(logits, targets))


@CASES
@given(labels(), st.randoms(use_true_random=False))
def test_the_names_of_labels_change_nothing(case, random):
    logits, targets = case
    order = list(range(logits.shape[2]))
    random.shuffle(order)
    agree(scored(logits[:, :, order], targets[:, order]), scored(logits, targets))


@CASES
@given(labels())
def test_to_ask_whether_labels_are_missing_changes_nothing_but_what_looks_for_them(case):
    logits, targets = case
    turned = ("f1_micro", "f1_macro", "aupr_micro", "aupr_macro",
              # Bins are open to the left, and a probability may lie on an edge.
              "ece", "ece_equal_mass", "ece_debiased", "ece_classwise", "mce")  # fmt: skip
    agree(scored(-logits, 1 - targets), scored(logits, targets), without=turned)


@CASES
@given(classes(), st.floats(-50, 50))
def test_a_constant_on_all_logits_changes_nothing(case, shift):
    logits, targets = case
    agree(scored(logits + shift, targets), scored(logits, targets))


@pytest.mark.parametrize("kind", [classes, labels, real])
def test_scores_of_the_whole_are_means_of_those_of_the_parts(kind):
    @CASES
    @given(kind(), st.floats(0.1, 0.9))
    def check(case, share):
        values, targets = case
        cut = min(max(1, round(share * len(targets))), len(targets) - 1)
        whole = scored(values, targets)
        first, second = (scored(values[:, part], targets[part])
                         for part in (slice(cut), slice(cut, None)))  # fmt: skip
        weight = cut / len(targets)

        def mixed(name, power=1):
            return weight * first[name] ** power + (1 - weight) * second[name] ** power

        for name in (MEANS | WITHOUT_TARGETS) & whole.keys():
            assert whole[name] == pytest.approx(mixed(name), rel=1e-11, abs=1e-12), name
        if "rmse" in whole:
            assert whole["rmse"] ** 2 == pytest.approx(mixed("rmse", 2), rel=1e-11)

    check()


@CASES
@given(classes(), st.floats(0.1, 0.9))
def test_errors_of_the_whole_come_from_the_sum_of_the_bins_of_the_parts(case, share):
    logits, targets = case
    p = mcbn.Categorical().summarize(logits)
    flags = p.confidence, p.prediction == targets
    cut = min(max(1, round(share * len(targets))), len(targets) - 1)
    whole = scored(logits, targets)
    parts = [Reliability.from_predictions(*(flag[part] for flag in flags))
             for part in (slice(cut), slice(cut, None))]  # fmt: skip
    joined = parts[0] + parts[1]
    assert joined.expected_error == whole["ece"]
    assert joined.maximum_error == whole["mce"]


ranked = st.integers(2, 20).flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.float64, count, elements=st.integers(-5, 5).map(float)),
        hnp.arrays(np.bool_, count),
    )
)


@CASES
@given(ranked, ranked)
def test_the_auroc_of_the_whole_is_a_mean_over_pairs_of_parts(first, second):
    parts = [tuple(map(torch.from_numpy, part)) for part in (first, second)]
    scores, positive = (torch.cat(each) for each in zip(*parts, strict=True))
    if not bool(positive.any()) or bool(positive.all()):
        return
    total = 0.0
    for first_scores, first_positive in parts:
        for second_scores, second_positive in parts:
            high, low = first_scores[first_positive], second_scores[~second_positive]
            if len(high) and len(low):
                pair = torch.cat([low, high])
                flags = torch.arange(len(pair)) >= len(low)
                total += detection.auroc(pair, flags) * len(high) * len(low)
    pairs = int(positive.sum()) * int((~positive).sum())
    assert detection.auroc(scores, positive) == pytest.approx(total / pairs, rel=1e-12)


@CASES
@given(ranked)
def test_only_the_order_of_uncertainty_counts_and_its_sign_reverses_the_auroc(case):
    scores, positive = map(torch.from_numpy, case)
    if bool(positive.any()) and not bool(positive.all()):
        for measure in (detection.auroc, detection.aupr, detection.fpr95):
            assert measure((scores / 3).exp(), positive) == measure(scores, positive)
        reversed_ = 1 - detection.auroc(scores, positive)
        assert detection.auroc(-scores, positive) == pytest.approx(reversed_, rel=1e-12)
        assert detection.auroc(scores, ~positive) == pytest.approx(reversed_, rel=1e-12)
    plain, moved = (detection.risk_coverage(x, positive) for x in (scores, (scores / 3).exp()))
    assert (plain.area, plain.generalized_area) == (moved.area, moved.generalized_area)


@CASES
@given(real(), st.floats(-100, 100), st.floats(0.01, 100))
def test_other_units_of_the_target_scale_errors_and_shift_the_log_score(case, shift, scale):
    means, targets = case
    predictive = mcbn.Gaussian(precision=2.0).summarize(means)
    whole = scored(means, targets)
    moved = {name: s.value for name, s in mcbn.evaluate(
        predictive.in_units(shift, scale), shift + scale * targets, resamples=0, progress=False
    ).items()}  # fmt: skip
    for name in ("rmse", "crps", "crps_moment_matched", "width_90"):
        assert moved[name] == pytest.approx(scale * whole[name], rel=1e-8, abs=1e-9), name
    assert moved["pll"] == pytest.approx(whole["pll"] - math.log(scale), rel=1e-8, abs=1e-8)
    assert moved["pit_error"] == pytest.approx(whole["pit_error"], rel=1e-8)
