"""Scores of several labels an example: unknown ones, resampling by example, groups, comparisons."""

import math

import numpy as np
import pytest
import torch
from law import share_is
from sklearn import metrics

import mcbn
from mcbn.evaluation import bootstrap
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.forecasts import Forecasts
from mcbn.evaluation.intervals import gaps_by_label
from mcbn.evaluation.label_scores import WeightedLabelScores, answer_clusters, label_columns
from mcbn.evaluation.reliability import Reliability
from mcbn.evaluation.subgroups import subgroups
from mcbn.predictive.bernoulli import UNKNOWN
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES

MISSING = 7


def answers(count=60, labels=4, *positions, draws=3, seed=0, unknown=0.0):
    """Predictions and targets; the labels of one example share a difficulty."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, labels, *positions)
    truth = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    truth += torch.randn(count, *(1,) * (len(shape) - 1), generator=generator)
    noise = 0.5 * torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
    targets = torch.bernoulli((truth - 0.5).sigmoid(), generator=generator).long()
    targets[torch.rand(shape, generator=generator) < unknown] = MISSING
    return mcbn.Bernoulli("logits").summarize(truth + noise), targets


def scores_of(predictive, targets, **options):
    return {
        name: each.value
        for name, each in mcbn.evaluate(predictive, targets, resamples=0, **options).items()
    }


def test_unknown_labels_count_for_nothing():
    predictive, targets = answers(unknown=0.3)
    known = targets != MISSING
    found = scores_of(predictive, targets, ignore_index=MISSING)
    p, y = predictive.probabilities[known].numpy(), targets[known].numpy()
    assert found["nll"] == pytest.approx(metrics.log_loss(y, p))
    assert found["accuracy"] == pytest.approx(((p > 0.5) == y).mean())
    assert found["auroc_micro"] == pytest.approx(metrics.roc_auc_score(y, p))
    each = [
        metrics.average_precision_score(
            targets[known[:, k], k], predictive.probabilities[known[:, k], k]
        )
        for k in range(4)
    ]
    assert found["aupr_macro"] == pytest.approx(np.mean(each))
    right = ((predictive.prediction == targets) | ~known)[known.any(1)]
    assert found["exact_match"] == pytest.approx(float(right.all(1).double().mean()))
    changed = torch.where(known, predictive.log_odds, 5.0)
    other = mcbn.BernoulliPredictive(changed, *[predictive.expected_entropy] * 2,
                                     predictive.variation_ratio, 3)  # fmt: skip
    assert scores_of(other, targets, ignore_index=MISSING) == pytest.approx(found)


def test_an_example_without_a_known_label_counts_for_nothing():
    predictive, targets = answers()
    targets[[3, 10]] = MISSING
    keep = [k for k in range(60) if k not in (3, 10)]
    part = mcbn.BernoulliPredictive(
        predictive.log_odds[keep], predictive.expected_entropy[keep], predictive.variance[keep],
        predictive.variation_ratio[keep], 3,
    )  # fmt: skip
    whole = mcbn.evaluate(predictive, targets, ignore_index=MISSING, resamples=20)
    alone = mcbn.evaluate(part, targets[keep], resamples=20)
    assert whole.examples == alone.examples == 58
    for name, each in whole.items():
        assert (each.value, each.low, each.high) == pytest.approx(
            (alone[name].value, alone[name].low, alone[name].high)
        )


@pytest.mark.parametrize("positions", [(), (3, 2)])
def test_replicates_are_the_scores_of_the_examples_that_were_drawn(positions):
    predictive, targets = answers(20, 3, *positions, unknown=0.1)
    evaluation = mcbn.evaluate(predictive, targets, ignore_index=MISSING, resamples=5, seed=3)
    drawn = bootstrap.replicates(
        [{"example": torch.arange(20)}],
        lambda chosen: scores_of(
            mcbn.BernoulliPredictive(
                *(getattr(predictive, name)[chosen["example"]]
                  for name in ("log_odds", "expected_entropy", "variance", "variation_ratio")), 3,
            ),
            targets[chosen["example"]], ignore_index=MISSING,
        ),
        resamples=5, seed=3, progress=False,
    )  # fmt: skip
    for name, score in evaluation.items():
        if not name.startswith("ece") and name != "mce":  # replicates of the true error
            torch.testing.assert_close(score.replicates, drawn[name], msg=name)


def test_per_label_scores_have_the_macro_means():
    predictive, targets = answers(unknown=0.1)
    options = {"ignore_index": MISSING, "resamples": 30}
    found = mcbn.class_scores(predictive, targets, classes=("a", "b", "c", "d"), **options)
    whole = mcbn.evaluate(predictive, targets, **options)
    pairs = {"f1": "f1_macro", "auroc": "auroc_macro", "aupr": "aupr_macro",
             "ece": "ece_classwise"}  # fmt: skip
    for name, macro in pairs.items():
        each = [found.by_class[label][name].value for label in "abcd"]
        assert found.mean[name].value == pytest.approx(np.mean(each))
        assert found.mean[name].value == pytest.approx(whole[macro].value)
        torch.testing.assert_close(found.mean[name].replicates, whole[macro].replicates)
    for k, label in enumerate("abcd"):
        known = targets[:, k] != MISSING
        flags = predictive.probabilities[known, k], targets[known, k] == 1
        error = Reliability.from_predictions(*flags).expected_error
        assert found.by_class[label]["ece"].value == pytest.approx(error)
        assert found.support[label] == int((targets[:, k] == 1).sum())
        mean = float(predictive.mutual_information[known, k].mean())
        assert found.by_class[label]["mutual_information"].value == pytest.approx(mean)


def test_a_label_that_never_occurs_is_left_out_of_macro_means():
    predictive, targets = answers()
    targets[:, 2] = 0
    found = scores_of(predictive, targets)
    rest = [0, 1, 3]
    p, y = predictive.probabilities[:, rest].numpy(), targets[:, rest].numpy()
    assert found["auroc_macro"] == pytest.approx(metrics.roc_auc_score(y, p, average="macro"))
    per_label = mcbn.class_scores(predictive, targets, resamples=10).by_class["2"]
    assert math.isnan(per_label["auroc"].value)
    assert math.isnan(per_label["recall"].value)


def test_groups_are_resampled_whole():
    predictive, targets = answers()
    alone = mcbn.evaluate(predictive, targets, group=range(60), resamples=20)
    plain = mcbn.evaluate(predictive, targets, resamples=20)
    for name in plain:
        torch.testing.assert_close(alone[name].replicates, plain[name].replicates)
    assert (alone.clusters, plain.clusters) == (60, None)
    pairs = mcbn.evaluate(predictive, targets, group=[k // 2 for k in range(60)], resamples=20)
    assert pairs.clusters == 30
    assert not torch.equal(pairs["nll"].replicates, plain["nll"].replicates)


def test_counts_of_clusters_weigh_their_answers():
    predictive, targets = answers(10, 3)
    columns = label_columns(predictive, predictive.aligned(targets))
    clusters = answer_clusters(columns, None, 10)
    measure = WeightedLabelScores.of(columns, clusters, 3)
    counts = np.array([2, 0, 1, 3, 0, 1, 1, 0, 1, 1.0])
    rows = torch.arange(10).repeat_interleave(torch.from_numpy(counts).long())
    again = mcbn.BernoulliPredictive(
        *(getattr(predictive, name)[rows]
          for name in ("log_odds", "expected_entropy", "variance", "variation_ratio")), 3,
    )  # fmt: skip
    expected = scores_of(again, targets[rows])
    for name, value in measure(counts).items():
        assert value == pytest.approx(expected[name], rel=1e-9), name


def test_gaps_of_a_resample_are_per_known_answer_of_each_label():
    predictive, targets = answers(12, 3, unknown=0.4)
    aligned = predictive.aligned(targets, ignore_index=MISSING)
    columns = label_columns(predictive, aligned)
    clusters = answer_clusters(columns, None, 12)
    counts = np.zeros(len(clusters))
    counts[[0, 3, 4]] = 2, 1, 3
    found = gaps_by_label(columns, clusters)(counts).abs().sum(1)
    examples = columns["example"].unique()[[0, 3, 4]].repeat_interleave(torch.tensor([2, 1, 3]))
    for label in range(3):
        known = aligned[examples, label] != UNKNOWN
        p = predictive.probabilities[examples, label][known]
        happened = aligned[examples, label][known] == 1
        expected = Reliability.from_predictions(p, happened).expected_error if len(p) else 0.0
        assert float(found[label]) == pytest.approx(expected)


def test_subgroups_are_scored_like_their_examples_alone():
    predictive, targets = answers(unknown=0.1)
    names = ["left" if k % 3 else "right" for k in range(60)]
    groups = {each.name: each for each in subgroups(
        predictive, targets, names, ignore_index=MISSING, resamples=20)}  # fmt: skip
    for name, group in groups.items():
        rows = [k for k in range(60) if names[k] == name]
        part = mcbn.BernoulliPredictive(
            *(getattr(predictive, each)[rows]
              for each in ("log_odds", "expected_entropy", "variance", "variation_ratio")), 3,
        )  # fmt: skip
        alone = scores_of(part, targets[rows], ignore_index=MISSING)
        assert group.size == len(rows)
        for score in ("accuracy", "nll", "ece_debiased"):
            assert group.scores[score].value == pytest.approx(alone[score])


def test_out_of_distribution_examples_are_ranked_by_the_mean_over_labels():
    inside, _ = answers(40)
    outside, _ = answers(30, seed=5)
    found = mcbn.out_of_distribution(inside, outside, resamples=0)
    values = [each.mutual_information.mean(1) for each in (inside, outside)]
    truth = [0] * 40 + [1] * 30
    expected = metrics.roc_auc_score(truth, torch.cat(values))
    assert found["auroc_out_of_distribution"].value == pytest.approx(expected)
    of_score = PREDICTIVE_SCORES["entropy"](inside)
    torch.testing.assert_close(of_score, inside.entropy.mean(1), rtol=1e-13, atol=1e-15)


def test_methods_are_compared_on_the_same_resamples():
    (first, targets), (second, _) = answers(seed=0), answers(seed=0, draws=1)
    one, two = (mcbn.evaluate(each, targets, resamples=20) for each in (first, second))
    gap = two.minus(one)["f1_macro"]
    assert gap.value == two["f1_macro"].value - one["f1_macro"].value
    torch.testing.assert_close(
        gap.replicates, two["f1_macro"].replicates - one["f1_macro"].replicates
    )


def test_forecasts_are_of_labels_and_answers_of_their_more_probable_side():
    predictive, targets = answers(5, 2)
    targets[1, 0] = MISSING
    aligned = predictive.aligned(targets, ignore_index=MISSING)
    found = Forecasts.of(predictive, aligned)
    known = aligned != UNKNOWN
    p = predictive.probabilities[known]
    torch.testing.assert_close(found.probability, p)
    assert torch.equal(found.happened, aligned[known] == 1)
    torch.testing.assert_close(found.confidence, torch.maximum(p, 1 - p))
    assert torch.equal(found.correct, (p > 0.5) == (aligned[known] == 1))
    assert found.example.tolist() == [0, 0, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.unchecked
def test_intervals_hold_the_truth_as_often_as_they_say():
    """By whole example; of resampled answers they would be too narrow, as these hang together."""
    names = ("nll", "accuracy", "f1_macro", "auroc_micro", "ece")
    predictive, targets = answers(20_000, seed=99)
    truth = scores_of(predictive, targets)
    hits, runs = dict.fromkeys(names, 0), 60
    for seed in range(runs):
        found = mcbn.evaluate(*answers(150, seed=1000 + seed), resamples=150, seed=seed)
        for name in names:
            hits[name] += found[name].low <= truth[name] <= found[name].high
    for name, count in hits.items():
        assert share_is(count, runs, 0.85, 1.0), (name, count)


def test_clusters_of_answers_hold_whole_examples():
    predictive, targets = answers(6, 2)
    columns = label_columns(predictive, predictive.aligned(targets))
    assert answer_clusters(columns, None, 6).of_row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    pairs = Clusters.of_groups([0, 0, 1, 1, 2, 2], 6)
    assert answer_clusters(columns, pairs, 6).of_row.tolist() == [0] * 4 + [1] * 4 + [2] * 4
