"""Resampling of whole images and groups: right intervals where rows hang together."""

import math

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from law import share_is
from torch import Tensor

import mcbn
from mcbn.evaluation import bootstrap, formulas
from mcbn.evaluation.class_scores import class_columns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.confidence_gap import confidence_gap
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.intervals import class_gaps
from mcbn.evaluation.subgroups import subgroups
from mcbn.evaluation.weighted import MeanScores

VOID = 11


def categorical(probability: Tensor) -> mcbn.CategoricalPredictive:
    return mcbn.Categorical(outputs="probabilities").summarize(probability[None])


def images(count=40, size=6, *, seed=0, void=0.3):
    """Predictions of images whose pixels share a difficulty, with some of them unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randn(count, 1, 1, 1, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    targets = (logits + shift * torch.randn(logits.shape, generator=generator)).argmax(1)
    share = torch.rand(count, 1, 1, generator=generator) * 2 * void
    targets[torch.rand(targets.shape, generator=generator) < share] = VOID
    return categorical(logits.softmax(1)), targets


def scores(evaluation):
    return {name: (each.value, each.low, each.high) for name, each in evaluation.items()}


def approx(evaluation):
    return {k: pytest.approx(v, rel=1e-9, abs=1e-12) for k, v in scores(evaluation).items()}


def test_rows_of_drawn_clusters_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    clusters = Clusters(torch.randint(7, (50,), generator=generator).sort().values.flip(0))
    drawn = torch.randint(len(clusters), (20,), generator=generator)
    expected = [row for each in drawn.tolist()
                for row, own in enumerate(clusters.of_row.tolist()) if own == each]  # fmt: skip
    assert clusters.rows_of(drawn).tolist() == expected


def test_groups_of_one_example_each_change_nothing():
    predictive, targets = images(void=0.0)
    alone = mcbn.evaluate(predictive, targets, group=range(40), resamples=30)
    assert scores(alone) == approx(mcbn.evaluate(predictive, targets, resamples=30))
    assert alone.clusters == 40


def test_an_index_that_does_not_occur_changes_nothing():
    predictive, targets = images(void=0.0)
    given = mcbn.evaluate(predictive, targets, ignore_index=VOID, resamples=30)
    assert scores(given) == scores(mcbn.evaluate(predictive, targets, resamples=30))


def test_images_that_are_labelled_alike_are_scored_as_without_the_rest():
    """The same pixels of every image are void, so they can as well be cut off."""
    predictive, targets = images(void=0.0)
    targets = targets.clone()
    targets[:, :, 4:] = VOID
    cut = categorical(predictive.probabilities[:, :, :, :4])
    expected = mcbn.evaluate(cut, targets[:, :, :4], resamples=30)
    actual = mcbn.evaluate(predictive, targets, ignore_index=VOID, resamples=30)
    assert scores(actual) == approx(expected)


def test_values_are_those_of_the_labelled_pixels_and_replicates_those_of_drawn_images():
    predictive, targets = images()
    known = targets != VOID
    rows = categorical(predictive.probabilities.movedim(1, -1)[known])
    actual = mcbn.evaluate(predictive, targets, ignore_index=VOID, resamples=25)
    pooled = mcbn.evaluate(rows, targets[known], resamples=0)
    for name, score in actual.items():
        assert score.value == pytest.approx(pooled[name].value, rel=1e-12), name
    assert (actual.examples, actual.clusters) == (int(known.sum()), 40)
    # The same images, drawn and put together by hand.
    drawn = bootstrap.replicates(
        [{"row": torch.arange(40)}], lambda chosen: {"row": chosen["row"].double()},
        resamples=25, seed=0, progress=False,
    )["row"].long()  # fmt: skip
    for number, chosen in enumerate(drawn):
        kept = known[chosen]
        again = class_columns(
            categorical(predictive.probabilities[chosen].movedim(1, -1)[kept]),
            targets[chosen][kept],
        )
        expected = {
            "accuracy": again["correct"].double().mean(),
            "nll": again["nll"].mean(),
            "brier": again["brier"].mean(),
        }
        for name, value in expected.items():
            replicate = float(actual[name].replicates[number])
            assert replicate == pytest.approx(float(value), rel=1e-12), name


def test_gaps_of_a_resample_are_means_over_its_own_rows():
    """Of clusters of other sizes: the error of drawing every image once is the observed one."""
    predictive, targets = images()
    doubled = categorical(predictive.probabilities.repeat(2, 1, 1, 1))
    one = mcbn.evaluate(predictive, targets, ignore_index=VOID, resamples=400)
    two = mcbn.evaluate(
        doubled, targets.repeat(2, 1, 1), ignore_index=VOID, group=[*range(40)] * 2, resamples=400
    )
    # Twice the same pixels in each cluster: nothing changes but the sizes.
    for name in ("ece", "ece_equal_mass", "ece_classwise", "mce", "nll"):
        assert scores(two)[name] == pytest.approx(scores(one)[name], rel=1e-9), name


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, pd.Series])
def test_groups_in_whatever_holds_them(kind):
    predictive, targets = images(void=0.0)
    patients = [k // 4 for k in range(40)]
    expected = mcbn.evaluate(predictive, targets, group=[f"p{k}" for k in patients], resamples=30)
    actual = mcbn.evaluate(predictive, targets, group=kind(patients), resamples=30)
    assert actual.clusters == expected.clusters == 10
    assert scores(actual) == scores(expected)


def test_real_targets_have_groups_too():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 60, generator=generator, dtype=torch.float64)
    predictive = mcbn.Gaussian(1.0).summarize(means)
    targets = torch.randn(60, generator=generator, dtype=torch.float64)
    alone = mcbn.evaluate(predictive, targets, group=range(60), resamples=30)
    grouped = mcbn.evaluate(predictive, targets, group=[k // 6 for k in range(60)], resamples=30)
    assert (alone.clusters, grouped.clusters) == (60, 10)
    for name in alone:
        assert grouped[name].value == alone[name].value


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"group": [0, 1]}, "a group for each of 40 examples, got 2 values, of which 0"),
        ({"group": [None, *range(39)]}, "got 40 values, of which 1 are missing"),
        ({"group": [math.nan, *range(39)]}, "got 40 values, of which 1 are missing"),
        ({"group": ["a"] * 40}, "expected groups of examples, got 'a' for all of them"),
    ],
)
def test_groups_that_do_not_fit_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        mcbn.evaluate(*images(void=0.0), resamples=5, **options)


def test_what_is_not_labelled_needs_labels_beside_it():
    predictive, targets = images()
    with pytest.raises(ValueError, match="expected labelled positions, got the index 11"):
        mcbn.evaluate(predictive, torch.full_like(targets, VOID), ignore_index=VOID)
    real = mcbn.Gaussian(1.0).summarize(torch.zeros(2, 4))
    with pytest.raises(
        ValueError, match="expected ignore_index with predictions of classes or labels only"
    ):
        mcbn.evaluate(real, torch.zeros(4), ignore_index=VOID)


def test_evaluations_of_other_clusters_are_not_paired():
    predictive, targets = images(void=0.0)
    one = mcbn.evaluate(predictive, targets, group=[k // 4 for k in range(40)], resamples=5)
    two = mcbn.evaluate(predictive, targets, resamples=5)
    with pytest.raises(ValueError, match="expected evaluations of the same examples"):
        one.minus(two)


MEANS = {"nll": "nll", "accuracy": "correct", "brier": "brier"}


def means(columns):
    return {name: float(columns[column].double().mean()) for name, column in MEANS.items()}


def holding(rows, clusters, true, seed):
    """Of which mean scores the intervals hold the truth."""
    columns = class_columns(rows.predictive, rows.targets)
    whole = clusters or Clusters.alone(len(columns["nll"]))
    measure = MeanScores.of({name: columns[column] for name, column in MEANS.items()}, whole)
    drawn = bootstrap.counted_replicates([len(whole)], measure, resamples=200, seed=seed)
    ends = {name: bootstrap.percentile_interval(values, 0.95) for name, values in drawn.items()}
    return {name: low <= true[name] <= high for name, (low, high) in ends.items()}


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", ["images", "patients"])
def test_intervals_hold_the_truth_as_often_as_they_say(kind):
    """200 simulations: clusters share a difficulty, so that rows alone would be far too sure."""
    every = scored(kind, 4000, seed=999)
    true = means(class_columns(every.predictive, every.targets))
    whole, alone = [], []
    for seed in range(200):
        rows = scored(kind, 60, seed=seed)
        whole.append(holding(rows, rows.clusters, true, seed))
        alone.append(holding(rows, None, true, seed))
    for name in MEANS:
        hits, naive = (sum(each[name] for each in both) for both in (whole, alone))
        # Percentiles of 60 clusters hold a little less than 95%, as those of 60 examples do.
        assert share_is(hits, 200, 0.92, 0.97), (kind, name, hits)
        assert not share_is(naive, 200, 0.92, 0.97), (kind, name, naive)


def scored(kind, count, *, seed):
    """Simulated predictions and targets, and the clusters that they are from."""
    if kind == "images":
        return ScoredRows.of(*images(count, 8, seed=seed), ignore_index=VOID, group=None)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 30, (count,), generator=generator)
    patient = torch.arange(count).repeat_interleave(sizes)
    hardness = torch.randn(count, 1, generator=generator, dtype=torch.float64)[patient]
    logits = 2 * torch.randn(len(patient), 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    targets = (logits + 2 * hardness * noise).argmax(1)
    return ScoredRows.of(
        categorical(logits.softmax(1)), targets, ignore_index=None, group=patient.tolist()
    )


def test_compare_scores_what_evaluate_does():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Conv2d(2, 3, 1).double().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 2, 5, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (12, 5, 5), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = VOID
    sampler, options = mcbn.Deterministic(network), {"ignore_index": VOID, "resamples": 10}
    group = [k // 3 for k in range(12)]
    comparison = mcbn.compare({"plain": sampler}, inputs, targets, group=group, **options)
    predictive = mcbn.predict(sampler, inputs)
    expected = mcbn.evaluate(predictive, targets, group=group, **options)
    assert scores(comparison.evaluations["plain"]) == scores(expected)
    assert comparison.evaluations["plain"].clusters == 4


def test_groups_of_void_images_are_scored_as_those_images_alone():
    predictive, targets = images(void=0.3)
    halves = ["left" if k % 2 else "right" for k in range(40)]
    found = subgroups(predictive, targets, halves, ignore_index=VOID, resamples=10)
    for each, first in zip(found, (1, 0), strict=True):
        alone = mcbn.evaluate(
            categorical(predictive.probabilities[first::2]), targets[first::2], ignore_index=VOID,
            resamples=10,
        )  # fmt: skip
        assert each.size == 20
        for name in ("accuracy", "nll", "ece_debiased"):
            ends = [(s.value, s.low, s.high) for s in (each.scores[name], alone[name])]
            assert ends[0] == pytest.approx(ends[1], rel=1e-9), name
    # A test of pixels as if they were independent would find differences where there are none.
    assert all(each.p_value > 1e-3 for each in found)


def test_gaps_of_drawn_clusters_are_means_over_the_drawn_rows():
    predictive, targets = images()
    rows = ScoredRows.of(predictive, targets, ignore_index=VOID)
    columns = class_columns(rows.predictive, rows.targets)
    counts = torch.arange(40).double() % 3
    actual = class_gaps(columns, rows.clusters)(counts.numpy())["ece"].sum()
    drawn = rows.clusters.rows_of(torch.arange(40).repeat_interleave(counts.long()))
    residuals = (columns["correct"].double() - columns["confidence"])[drawn]
    assert float(actual) == pytest.approx(float(residuals.mean()), rel=1e-9)


def test_confidence_minus_accuracy_counts_clusters_and_not_their_rows():
    predictive, targets = images(300, void=0.0, size=1)
    twice = categorical(predictive.probabilities.repeat(2, 1, 1, 1))
    made = []
    for given, labels, group in ((predictive, targets, None),
                                 (twice, targets.repeat(2, 1, 1), [*range(300)] * 2)):  # fmt: skip
        rows = ScoredRows.of(given, labels, group=group)
        one = entry(rows, outside={}, resamples=0, progress=False)
        comparison = Comparison({"one": one}, rows.targets, (), rows.clusters)
        made.append(confidence_gap("one", comparison))
    assert made[1] == pytest.approx(made[0], rel=1e-9)


# Out-of-distribution sets


def uncertain(count, *, seed, shift=0.0):
    """Entropy of scans of patients, who share most of it, and whose they are."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 20, (count,), generator=generator)
    patient = torch.arange(count).repeat_interleave(sizes)
    own = torch.randn(count, generator=generator, dtype=torch.float64)[patient]
    noise = torch.randn(len(patient), generator=generator, dtype=torch.float64)
    odds = shift + own + noise / 2
    rest = 0.5 * odds.sigmoid()
    return categorical(torch.stack([1 - rest, rest], 1)), patient


def separation(seed, *, groups):
    inside, whose = uncertain(40, seed=seed)
    outside, others = uncertain(35, seed=seed + 7000, shift=1.0)
    given = {"inside_group": whose, "outside_group": others} if groups else {}
    return mcbn.out_of_distribution(
        inside, outside, uncertainty="entropy", resamples=60, seed=seed, **given
    )


@pytest.mark.unchecked
def test_separation_of_patients_is_as_certain_as_it_says(monkeypatch):
    """200 simulations: the interval of the AUROC by whole patients, and by scans."""
    # Half of the time would go into a score that is not asked for and into checks of arguments.
    monkeypatch.setattr(formulas, "fpr95", lambda *_: 0.0)
    inside, outside = uncertain(4000, seed=998)[0], uncertain(4000, seed=999, shift=1.0)[0]
    true = mcbn.out_of_distribution(inside, outside, uncertainty="entropy", resamples=0)
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        runs = [
            [separation(seed, groups=groups) for groups in (True, False)] for seed in range(200)
        ]
    for name in ("auroc_out_of_distribution", "aupr_out_of_distribution"):
        assert all(whole[name].value == alone[name].value for whole, alone in runs)
        hits, naive = (
            sum(each[name].low <= true[name].value <= each[name].high for each in kind)
            for kind in zip(*runs, strict=True)
        )
        assert share_is(hits, 200, 0.92, 0.97), (name, hits)
        assert not share_is(naive, 200, 0.92, 0.97), (name, naive)


def test_each_set_has_groups_of_its_own():
    inside, whose = uncertain(20, seed=0)
    outside, others = uncertain(15, seed=1, shift=1.0)
    options = {"uncertainty": "entropy", "resamples": 30}
    plain = mcbn.out_of_distribution(inside, outside, **options)
    single = mcbn.out_of_distribution(
        inside, outside, inside_group=range(len(inside)), outside_group=range(len(outside)),
        **options,
    )  # fmt: skip
    assert scores(single) == scores(plain)
    ends = {
        (one, other): scores(mcbn.out_of_distribution(
            inside, outside, inside_group=whose if one else None,
            outside_group=others if other else None, **options,
        ))["auroc_out_of_distribution"]
        for one in (False, True) for other in (False, True)
    }  # fmt: skip
    assert len(set(ends.values())) == 4
    with pytest.raises(ValueError, match=f"a group for each of {len(outside)} examples"):
        mcbn.out_of_distribution(inside, outside, outside_group=whose)


def test_compare_resamples_the_groups_of_both_sets():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 3).double().eval()
    generator = torch.Generator().manual_seed(0)
    inputs, far = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (24, 18))
    targets = torch.randint(3, (24,), generator=generator)
    group, others = [k // 4 for k in range(24)], [k // 3 for k in range(18)]
    sampler = mcbn.Deterministic(network)
    options = {"outside": {"far": far}, "group": group, "resamples": 30}
    made = mcbn.compare(
        {"plain": sampler}, inputs, targets, outside_group={"far": others}, **options
    )
    expected = mcbn.out_of_distribution(
        mcbn.predict(sampler, inputs), mcbn.predict(sampler, far), uncertainty="entropy",
        inside_group=group, outside_group=others, resamples=30,
    )  # fmt: skip
    assert scores(made.entries["plain"].separation["far"]["entropy"]) == scores(expected)
    alone = mcbn.compare({"plain": sampler}, inputs, targets, **options)
    assert scores(alone.entries["plain"].separation["far"]["entropy"]) != scores(expected)
    with pytest.raises(ValueError, match=r"outside_group of the sets \['far'\], got \['fra'\]"):
        mcbn.compare({"plain": sampler}, inputs, targets, outside_group={"fra": others}, **options)


def test_labelled_pixels_of_an_image_stay_together_beside_another_set():
    """The pixels of one image again and again know no more of the separation."""
    predictive, targets = images(count=12, size=2)
    far = categorical(images(count=9, size=2, seed=3)[0].probabilities)
    repeated = categorical(predictive.probabilities.repeat_interleave(5, -1))
    ends = []
    for given, labels in ((predictive, targets), (repeated, targets.repeat_interleave(5, -1))):
        rows = ScoredRows.of(given, labels, ignore_index=VOID)
        made = entry(rows, outside={"far": far}, resamples=40, progress=False)
        ends.append(scores(made.separation["far"]["entropy"])["auroc_out_of_distribution"])
    assert ends[1] == pytest.approx(ends[0])
