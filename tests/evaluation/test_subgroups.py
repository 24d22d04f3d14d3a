"""Scores of groups of examples, and the test of each against the others."""

import math

import numpy as np
import pytest
import torch
from forecasters import grouped
from scipy import stats

import mcbn
from mcbn.evaluation.significance import holm, welch
from mcbn.evaluation.subgroups import MAX_GROUPS, MIN_EXAMPLES, subgroups, worst


def test_the_scores_of_a_group_are_those_of_its_examples_alone():
    predictive, targets, labels = grouped()
    groups = subgroups(predictive, targets, labels, resamples=0)
    assert [group.name for group in groups] == list("abcd")
    for group in groups:
        inside = torch.tensor([label == group.name for label in labels])
        part = mcbn.CategoricalPredictive(
            predictive.log_probabilities[inside], predictive.expected_entropy[inside],
            predictive.variance[inside], predictive.variation_ratio[inside], 4,
        )  # fmt: skip
        expected = mcbn.evaluate(part, targets[inside], resamples=0)
        assert group.size == int(inside.sum()) == 100
        for name in ("accuracy", "nll", "ece_debiased"):
            assert group.scores[name].value == pytest.approx(expected[name].value, rel=1e-12)
        information = float(part.mutual_information.mean())
        assert group.scores["mutual_information"].value == pytest.approx(information, rel=1e-12)


def test_the_order_of_the_examples_does_not_matter():
    predictive, targets, labels = grouped()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    moved = type(predictive)(
        predictive.log_probabilities[order], predictive.expected_entropy[order],
        predictive.variance[order], predictive.variation_ratio[order], 4,
    )  # fmt: skip
    one = subgroups(predictive, targets, labels, resamples=0)
    two = subgroups(moved, targets[order], [labels[k] for k in order.tolist()], resamples=0)
    for a, b in zip(one, two, strict=True):
        assert a.p_value == pytest.approx(b.p_value, rel=1e-9)
        for name, score in a.scores.items():
            assert score.value == pytest.approx(b.scores[name].value, rel=1e-9), name


def test_the_test_is_welchs_and_corrected_by_holm():
    predictive, targets, labels = grouped()
    groups = subgroups(predictive, targets, labels, resamples=0)
    losses = -predictive.log_probabilities.gather(1, targets[:, None])[:, 0].numpy()
    inside = np.array(labels) == "c"
    expected = stats.ttest_ind(losses[inside], losses[~inside], equal_var=False).pvalue
    assert groups[2].p_value == pytest.approx(expected, rel=1e-9)
    assert [g.adjusted for g in groups] == holm([g.p_value for g in groups])


def test_a_group_whose_labels_are_random_is_detected_and_the_others_are_not():
    """Power is near 1 at this size; without a hard group the seed gives no false alarm."""
    predictive, targets, labels = grouped()
    groups = subgroups(predictive, targets, labels, resamples=50)
    assert worst(groups).name == "b"
    assert worst(groups).adjusted < 1e-6
    calm = subgroups(*grouped(hard=()), resamples=0)
    assert min(group.adjusted for group in calm) > 0.05


def test_small_groups_are_marked_and_not_called_the_worst():
    predictive, targets, labels = grouped(hard=("x",))
    labels = ["x" if place < MIN_EXAMPLES - 1 else label for place, label in enumerate(labels)]
    targets = targets.clone()
    targets[: MIN_EXAMPLES - 1] = predictive.log_probabilities[: MIN_EXAMPLES - 1].argmin(1)
    groups = {group.name: group for group in subgroups(predictive, targets, labels, resamples=0)}
    assert [name for name, group in groups.items() if group.is_small] == ["x"]
    assert max(groups.values(), key=lambda g: g.scores["nll"].value).name == "x"
    assert worst(list(groups.values())).name != "x"


def test_numbers_are_put_in_order_and_a_missing_value_is_a_group():
    predictive, targets, _ = grouped()
    labels = [("10", "9", "x", "")[place % 4] for place in range(400)]
    groups = subgroups(predictive, targets, labels, resamples=0)
    assert [group.name for group in groups] == ["9", "10", "(none)", "x"]


@pytest.mark.parametrize("labels", [["a"] * 399, [str(k % (MAX_GROUPS + 1)) for k in range(400)]])
def test_too_few_labels_and_too_many_groups_are_refused(labels):
    predictive, targets, _ = grouped()
    with pytest.raises(ValueError, match="at most 50 groups"):
        subgroups(predictive, targets, labels, resamples=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0, math.inf], [1.0, 2.0])],
)
def test_without_two_varying_samples_there_is_no_p_value(first, second):
    assert math.isnan(welch(torch.tensor(first).double(), torch.tensor(second).double()))


def test_groups_of_one_example_and_a_single_group_have_scores():
    predictive, targets, labels = grouped()
    one = subgroups(predictive, targets, ["x", *labels[1:]], resamples=3)
    assert {group.name: group.size for group in one}["x"] == 1
    (whole,) = subgroups(predictive, targets, ["all"] * 400, resamples=0)
    assert math.isnan(whole.adjusted)


def test_regression_has_groups_too():
    generator = torch.Generator().manual_seed(0)
    predictive = mcbn.Gaussian(precision=1.0).summarize(torch.zeros(2, 200).double())
    targets = torch.randn(200, generator=generator).double()
    targets[::2] *= 4
    groups = subgroups(predictive, targets, ["wide", "narrow"] * 100, resamples=20)
    assert set(groups[0].scores) == {"rmse", "pll", "coverage_90"}
    assert worst(groups).name == "wide"
    rmse = groups[1].scores["rmse"].value
    assert rmse == pytest.approx(float(targets[::2].square().mean().sqrt()), rel=1e-12)
