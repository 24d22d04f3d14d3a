"""Detection by the best of several methods and scores: false alarms and power, and the sentence."""

import math

import numpy as np
import pytest
import torch
from equal_methods import at_most

from mcbn.checks.out_of_distribution import out_of_distribution_claim
from mcbn.evaluation.bootstrap import replicates
from mcbn.evaluation.comparison import Comparison, DetectorEntry, Entry
from mcbn.evaluation.evaluation import Evaluation, with_intervals
from mcbn.evaluation.formulas import auroc

pytestmark = pytest.mark.unchecked
SCORES = ("entropy", "energy")


def runs(quick, slow=1000):
    return pytest.mark.parametrize("runs", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def detections(seed, *, methods=4, shifts=None, resamples=60, count=120, sets=("far",)):
    """Methods by two scores each, which are all equal but for shifts of the far examples."""
    generator = torch.Generator().manual_seed(seed)
    columns = methods * len(SCORES)
    shifts = torch.ones(columns).double() if shifts is None else torch.tensor(shifts).double()
    separation = {f"m{k}": {} for k in range(methods)}
    for ood_set in sets:
        inside, outside = (
            torch.randn(count, 1, generator=generator).double()
            + 0.7 * torch.randn(count, columns, generator=generator).double()
            for _ in range(2)
        )
        outside = outside + shifts

        def measure(chosen):
            both = torch.cat([chosen["inside"], chosen["outside"]])
            positive = torch.arange(len(both)) >= len(chosen["inside"])
            return {str(k): auroc(both[:, k], positive) for k in range(columns)}

        every = {"inside": inside, "outside": outside}
        drawn = replicates(
            [{"inside": inside}, {"outside": outside}], measure, resamples=resamples, seed=0,
            progress=False,
        )  # fmt: skip
        scores = with_intervals(measure(every), drawn, 0.95)
        for k in range(columns):
            by = separation[f"m{k // 2}"].setdefault(ood_set, {})
            by[SCORES[k % 2]] = {"auroc_out_of_distribution": scores[str(k)]}
    evaluation = Evaluation({}, count, 1, 0.95, 0)
    entries = {name: Entry(None, {}, evaluation, each, math.nan) for name, each in
               separation.items()}  # fmt: skip
    return Comparison(entries, None, ())


def sentence(comparison):
    return out_of_distribution_claim(comparison).sentence


@runs(60)
@pytest.mark.parametrize("sets", [("far",), ("far", "near")])
def test_the_best_of_equal_methods_and_scores_is_rarely_called_better(runs, sets):
    """Sixteen pairs of a method and a score: nominal 2.5%, and 12% without correction."""
    called = 0
    for seed in range(runs):
        text = sentence(detections(seed, methods=8, count=80, sets=sets))
        called += "significantly more than" in text
    assert at_most(called, runs, 0.025)


@runs(40)
def test_a_better_method_is_found(runs):
    """By both scores of m2 the far examples are 1 further away: named as better in 90%."""
    found = 0
    for seed in range(runs):
        text = sentence(detections(seed, shifts=[1, 1, 1, 1, 2, 2, 1, 1]))
        found += (
            "by entropy the best method, m2, " in text and ", significantly more than m0" in text
        )
    assert found / runs > 0.9


@runs(40)
def test_a_better_score_is_found_beside_the_common_one(runs):
    """By energy alone m1 has them 1.5 further away: the best of all, with its score, in 90%."""
    found = 0
    for seed in range(runs):
        text = sentence(detections(seed, shifts=[1, 1, 1, 2.5, 1, 1, 1, 1]))
        found += "Best of all is m1 by energy, significantly more than m0 by entropy, by" in text
    assert found / runs > 0.9


@runs(60)
def test_the_best_of_useless_methods_is_rarely_called_useful(runs):
    """AUROC 0.5 of all eight: the best of them is beyond guessing in at most 5%."""
    marks = [out_of_distribution_claim(detections(seed, shifts=[0.0] * 8)).mark
             for seed in range(runs)]  # fmt: skip
    assert at_most(sum(mark != "bad" for mark in marks), runs)


def test_intervals_lie_between_0_and_1_and_hold_at_once():
    comparison = detections(0, shifts=[4.0] * 8)
    text = sentence(comparison)
    assert "1.000]" in text or "0.99" in text
    assert "1.0" not in text.replace("1.000", "")
    alone = comparison.entries["m0"].separation["far"]["entropy"]["auroc_out_of_distribution"]
    assert alone.high <= 1


def test_the_interval_of_a_difference_is_paired_and_of_all_at_once():
    """By numpy: the quantile of the largest deviation of all seven differences from m0."""
    comparison = detections(0, shifts=[1, 1, 1, 1, 2, 2, 1, 1])
    every = {
        (method, name): by[name]["auroc_out_of_distribution"]
        for method, each in comparison.entries.items()
        for by in each.separation.values()
        for name in SCORES
    }
    base = every.pop(("m0", "entropy"))
    drawn = np.stack([(each.replicates - base.replicates).numpy() for each in every.values()])
    values = np.array([each.value - base.value for each in every.values()])
    errors = drawn.std(1, ddof=1)
    largest = np.sort((np.abs(drawn - values[:, None]) / errors[:, None]).max(0))
    place = 0.95 * (len(largest) + 1) - 1
    reach = np.interp(place, np.arange(len(largest)), largest)
    k = list(every).index(("m2", "entropy"))
    ends = values[k] - reach * errors[k], values[k] + reach * errors[k]
    assert f"more than m0, by {values[k]:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]" in sentence(
        comparison
    )


def test_detectors_are_in_the_family_and_named():
    comparison = detections(0)
    score = comparison.entries["m0"].separation["far"]["entropy"]["auroc_out_of_distribution"]
    better = type(score)(0.99, math.nan, math.nan, "higher", score.replicates + 0.2)
    detector = DetectorEntry(
        torch.zeros(1).double(), {}, {"far": {"auroc_out_of_distribution": better}}, {}, 0.0
    )
    whole = Comparison(comparison.entries, None, (), None, {"knn": detector})
    text = sentence(whole)
    assert "The detector knn reaches 0.990" not in text  # in the middle of a sentence
    assert "the detector knn reaches 0.990" in text
    assert "Best of all is knn, significantly more than m0 by entropy, by" in text


def test_replicates_that_are_not_paired_make_no_difference_significant():
    comparison = detections(0, shifts=[1, 1, 9, 9, 1, 1, 1, 1])
    entries = dict(comparison.entries)
    for name in ("m0",):
        by = {s: {k: type(v)(v.value, v.low, v.high, v.better, v.replicates[:7])
                  for k, v in each.items()}
              for s, each in entries[name].separation["far"].items()}  # fmt: skip
        old = entries[name]
        entries[name] = Entry(None, {}, old.evaluation, {"far": by}, math.nan)
    text = sentence(Comparison(entries, None, ()))
    assert "not significantly different from m0: the paired difference is" in text
    assert "(no interval)" in text


def test_without_sets_nothing_is_said():
    evaluation = Evaluation({}, 9, 1, 0.95, 0)
    alone = Comparison({"m0": Entry(None, {}, evaluation, {}, 0.0)}, None, ())
    assert out_of_distribution_claim(alone) is None
