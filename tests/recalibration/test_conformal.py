"""Conformal sets and intervals: the exact law of their coverage, enumeration, and brute force.

Statistical tests have a fixed seed; a Kolmogorov-Smirnov p-value is asked to be above 1e-4.
"""

import json
import math
import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from law import DEVIATIONS, holds
from scipy import special, stats
from torch.testing import assert_close

import mcbn

SETS = ({"score": "probability"}, {"score": "adaptive"}, {"score": "adaptive", "seed": 3})
INTERVALS = ({"score": "residual"}, {"score": "quantile"})


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def classes_of(probabilities):
    """A predictive of one draw with these probabilities."""
    return mcbn.Categorical().summarize([torch.as_tensor(probabilities).double().log()])


def predicted(batch=200, classes=4, seed=0):
    """Probabilities and classes drawn from them."""
    logits = 2 * torch.randn(batch, classes, generator=stream(seed), dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=stream(seed + 1000))[:, 0]
    return classes_of(logits.softmax(1)), targets


def regressed(batch=200, draws=3, seed=0):
    """A mixture a target, and targets that are spread wider than it says."""
    means = torch.randn(draws, batch, 1, generator=stream(seed), dtype=torch.float64)
    targets = 2 * torch.randn(batch, 1, generator=stream(seed + 1000), dtype=torch.float64)
    return mcbn.GaussianPredictive(means, torch.tensor(0.3, dtype=torch.float64)), targets


# The promise

N, LEVEL, TRIALS = 30, 0.8, 400
RANK = 25  # ceil(31 * 0.8)


def has_the_beta_law(coverages):
    """Given the held-out examples, coverage is the RANK-th smallest of N uniform numbers."""
    test = stats.kstest(coverages, stats.beta(RANK, N + 1 - RANK).cdf)
    error = math.sqrt(stats.beta(RANK, N + 1 - RANK).var() / len(coverages))
    return holds(test.pvalue) and abs(np.mean(coverages) - RANK / (N + 1)) < DEVIATIONS * error


@pytest.mark.parametrize("options", [SETS[0], SETS[2]], ids=["probability", "randomised"])
def test_coverage_of_sets_has_its_exact_law(options):
    coverages = []
    for trial in range(TRIALS):
        # p is uniform and true. So the probability of what happens has the distribution function
        # t^2, and a randomised adaptive score is uniform.
        p = torch.rand(N, generator=stream(trial), dtype=torch.float64)
        targets = (torch.rand(N, generator=stream(trial + TRIALS)) < p).long()
        predictive = classes_of(torch.stack([1 - p, p], 1))
        seed = {"seed": trial} if "seed" in options else {}
        fitted = mcbn.ConformalSets.fit(predictive, targets, level=LEVEL, **{**options, **seed})
        adaptive = fitted.score == "adaptive"
        q = fitted.threshold
        coverages.append(q if adaptive else 1 - math.exp(-2 * q))
    assert has_the_beta_law(coverages)


@pytest.mark.parametrize("options", INTERVALS, ids=["residual", "quantile"])
def test_coverage_of_intervals_has_its_exact_law(options):
    coverages = []
    for trial in range(TRIALS):
        # The forecaster says N(0, 1) and the truth is N(0, 4).
        zeros = torch.zeros(1, N, 1, dtype=torch.float64)
        predictive = mcbn.GaussianPredictive(zeros, torch.tensor(1.0, dtype=torch.float64))
        targets = 2 * torch.randn(N, generator=stream(trial), dtype=torch.float64)
        fitted = mcbn.ConformalIntervals.fit(predictive, targets, level=LEVEL, **options)
        intervals = fitted(mcbn.GaussianPredictive(zeros[:, :1].clone(), predictive.variances))
        coverages.append(
            float(special.ndtr(float(intervals.high) / 2) - special.ndtr(float(intervals.low) / 2))
        )
    assert has_the_beta_law(coverages)


def test_an_adaptive_set_that_is_not_randomised_covers_more():
    # Of two classes with p uniform, the larger probability m has density 2 and happens with m.
    coverages = []
    for trial in range(100):
        p = torch.rand(N, generator=stream(trial), dtype=torch.float64)
        targets = (torch.rand(N, generator=stream(trial + TRIALS)) < p).long()
        predictive = classes_of(torch.stack([1 - p, p], 1))
        q = mcbn.ConformalSets.fit(predictive, targets, level=0.6, score="adaptive").threshold
        coverages.append(1.0 if q > 1 - 1e-12 else q**2 - 0.25)
    assert np.mean(coverages) > 0.6


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["sets", "intervals"])
def test_of_all_orders_of_five_examples_the_promised_share_is_covered(kind, rank):
    # Each of five takes its turn as the new one: exactly k of them are covered.
    level, covered = rank / 5, 0
    p = torch.tensor([0.9, 0.3, 0.55, 0.7, 0.15], dtype=torch.float64)
    for order in permutations(range(5)):
        known, new = list(order[:4]), list(order[4:])
        if kind == "sets":
            pair = torch.stack([1 - p, p], 1)
            fitted = mcbn.ConformalSets.fit(
                classes_of(pair[known]), torch.ones(4, dtype=torch.long), level=level
            )
            covered += int(fitted(classes_of(pair[new])).members[0, 1])
        else:
            noise = torch.tensor(1.0, dtype=torch.float64)
            zeros = torch.zeros(1, 4, dtype=torch.float64)
            fitted = mcbn.ConformalIntervals.fit(
                mcbn.GaussianPredictive(zeros, noise), p[known], level=level
            )
            intervals = fitted(mcbn.GaussianPredictive(zeros[:, :1].clone(), noise))
            covered += int(intervals.coverage(p[new]).value)
    assert covered == 120 * rank // 5


@pytest.mark.parametrize("options", SETS, ids=str)
def test_sets_cover_on_average_whatever_the_network(options):
    # Predictions that have nothing to do with the targets keep the promise, by large sets.
    held, total = 0, 0
    for trial in range(40):
        predictive, _ = predicted(60, seed=trial)
        targets = torch.randint(4, (60,), generator=stream(trial))
        logs = predictive.log_probabilities.exp()
        fitted = mcbn.ConformalSets.fit(classes_of(logs[:30]), targets[:30], level=0.7, **options)
        share = fitted(classes_of(logs[30:])).coverage(targets[30:])
        held, total = held + round(30 * share.value), total + 30
    # Within a trial the outcomes share the held-out examples: the variance is that of Beta.
    spread = math.sqrt(stats.betabinom(30, 22, 9).var() / 30**2 / 40)
    assert held / total > 22 / 31 - DEVIATIONS * spread


# Against brute force


def test_probable_sets_are_those_of_one_minus_p():
    held_out, targets = predicted(60)
    new, _ = predicted(50, seed=7)
    conformal = mcbn.ConformalSets.fit(held_out, targets, level=0.85)
    p = held_out.probabilities.numpy()
    rank = math.ceil(61 * 0.85)
    q = np.sort(1 - p[np.arange(60), targets.numpy()])[rank - 1]
    assert 1 - math.exp(-conformal.threshold) == pytest.approx(q, rel=1e-12)
    np.testing.assert_array_equal(
        conformal(new).members, 1 - new.probabilities.numpy() <= q + 1e-14
    )


def test_adaptive_scores_by_a_loop():
    held_out, targets = predicted(40)
    new, _ = predicted(30, seed=7)

    def score(row, label):
        before = sorted(range(len(row)), key=lambda c: (-row[c], c))
        return sum(row[c] for c in before[: before.index(label) + 1])

    rows = held_out.probabilities.tolist()
    each = sorted(score(row, label) for row, label in zip(rows, targets.tolist(), strict=True))
    conformal = mcbn.ConformalSets.fit(held_out, targets, level=0.7, score="adaptive")
    assert conformal.threshold == pytest.approx(each[math.ceil(41 * 0.7) - 1], rel=1e-12)
    expected = [[score(row, label) <= conformal.threshold + 1e-14 for label in range(4)]
                for row in new.probabilities.tolist()]  # fmt: skip
    assert conformal(new).members.tolist() == expected


def test_equal_probabilities_are_ranked_in_the_order_of_the_classes():
    tied = classes_of(torch.tensor([[0.4, 0.2, 0.4]]))
    sets = mcbn.ConformalSets(0.9, 0.5, 10, "adaptive")(tied)
    assert sets.members.tolist() == [[True, False, False]]


def test_tied_scores_are_held_together():
    held_out = classes_of(torch.tensor([[0.25, 0.75]]).expand(9, 2))
    fitted = mcbn.ConformalSets.fit(held_out, torch.ones(9, dtype=torch.long), level=0.5)
    sets = fitted(classes_of(torch.tensor([[0.25, 0.75], [0.26, 0.74]])))
    assert sets.members.tolist() == [[False, True], [False, False]]


def test_a_random_part_of_the_class_itself_is_counted():
    predictive, targets = predicted(300)
    whole = mcbn.ConformalSets(0.9, 0.8, 10, "adaptive")(predictive).members
    some = mcbn.ConformalSets(0.9, 0.8, 10, "adaptive", 5)
    again = mcbn.ConformalSets(0.9, 0.8, 10, "adaptive", 6)
    assert (whole <= some(predictive).members).all()
    # The class that reaches the threshold is added with the chance that keeps coverage exact.
    share = some(predictive).coverage(targets, level=0.9999)
    assert share.low < 0.8 < share.high
    assert_close(some(predictive).members, some(predictive).members)
    assert (some(predictive).members != again(predictive).members).any()
    # The held-out part is another than the new one, or the two would not be independent.
    shift = mcbn.ConformalSets.fit(predictive, targets, level=0.5, score="adaptive", seed=5)
    members = mcbn.ConformalSets.from_dict(shift.to_dict())(predictive)
    assert round(300 * members.coverage(targets).value) != math.ceil(301 * 0.5)


def test_residual_and_quantile_intervals_by_numpy():
    held_out, targets = regressed(50)
    new, _ = regressed(20, seed=7)
    y, level = targets.numpy()[:, 0], 0.8
    rank = math.ceil(51 * level)
    residual = np.sort(np.abs(y - held_out.mean[:, 0].numpy())
                       / held_out.variance[:, 0].sqrt().numpy())[rank - 1]  # fmt: skip
    intervals = mcbn.ConformalIntervals.fit(held_out, targets, level=level)(new)
    mean, deviation = new.mean[:, 0].numpy(), new.variance[:, 0].sqrt().numpy()
    np.testing.assert_allclose(intervals.low, mean - residual * deviation, rtol=1e-12)
    np.testing.assert_allclose(intervals.high, mean + residual * deviation, rtol=1e-12)
    ends = [held_out.quantile(end)[:, 0].numpy() for end in (0.1, 0.9)]
    move = np.sort(np.maximum(ends[0] - y, y - ends[1]))[rank - 1]
    intervals = mcbn.ConformalIntervals.fit(held_out, targets, level=level, score="quantile")(new)
    np.testing.assert_allclose(intervals.low, new.quantile(0.1)[:, 0] - move, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        intervals.high, new.quantile(0.9)[:, 0] + move, rtol=1e-9, atol=1e-12
    )


def test_a_negative_threshold_may_leave_an_interval_empty():
    fitted = mcbn.ConformalIntervals(0.9, -2.0, 50, "quantile")
    narrow = mcbn.GaussianPredictive(torch.zeros(1, 1, dtype=torch.float64),
                                     torch.tensor(1.0, dtype=torch.float64))  # fmt: skip
    intervals = fitted(narrow)
    assert intervals.low[0] > intervals.high[0]
    assert (intervals.mean_size, intervals.coverage(torch.zeros(1)).value) == (0.0, 0.0)


@pytest.mark.parametrize("options", SETS[:2], ids=str)
def test_the_order_of_the_examples_does_not_matter(options):
    predictive, targets = predicted(90)
    order = torch.randperm(90, generator=stream())
    p = predictive.probabilities
    fitted = mcbn.ConformalSets.fit(predictive, targets, **options)
    again = mcbn.ConformalSets.fit(classes_of(p[order]), targets[order], **options)
    assert again.threshold == pytest.approx(fitted.threshold, rel=1e-12)
    new = predicted(90, seed=7)[0].probabilities
    assert_close(fitted(classes_of(new[order])).members, fitted(classes_of(new)).members[order])


# Small numbers and the rank


def test_too_few_examples_hold_everything():
    # n < level / (1 - level): 8 are too few for 0.9, 9 are enough.
    predictive, targets = predicted(9)
    p, new = predictive.probabilities, predicted(20, seed=7)[0]
    few = mcbn.ConformalSets.fit(classes_of(p[:8]), targets[:8], level=0.9)
    assert few.threshold == math.inf
    assert few(new).mean_size == 4
    assert few.to_dict()["threshold"] is None
    assert mcbn.ConformalSets.fit(predictive, targets, level=0.9).threshold < math.inf
    held_out, values = regressed(8)
    for options in INTERVALS:
        line = mcbn.ConformalIntervals.fit(held_out, values, level=0.9, **options)
        intervals = line(regressed(3, seed=7)[0])
        assert intervals.low.tolist() == [-math.inf] * 3
        assert intervals.high.tolist() == [math.inf] * 3
        assert intervals.mean_size == math.inf
        assert intervals.coverage(torch.tensor([1e30, 0.0, -5.0])).value == 1


@pytest.mark.parametrize(("level", "rank"), [(0.07, 7), (0.29, 29), (0.57, 57), (0.58, 58)])
def test_the_rank_is_that_of_the_decimal_number(level, rank):
    # In floating point 100 * 0.07 is 7.000000000000001, whose ceiling is 8.
    zeros = torch.zeros(1, 99, dtype=torch.float64)
    predictive = mcbn.GaussianPredictive(zeros, torch.tensor(1.0, dtype=torch.float64))
    fitted = mcbn.ConformalIntervals.fit(predictive, torch.arange(1.0, 100.0), level=level)
    assert fitted.threshold == rank


# What comes back


def test_sizes_and_coverage_by_hand():
    sets = mcbn.PredictionSets(torch.tensor([[True, False], [True, True], [False, False]]))
    assert (len(sets), sets.mean_size) == (3, 1.0)
    share = sets.coverage(torch.tensor([0, 1, 0]))
    assert share.value == pytest.approx(2 / 3)
    assert share.low == pytest.approx(stats.beta.ppf(0.025, 2, 2), rel=1e-6)
    assert share.high == pytest.approx(stats.beta.ppf(0.975, 3, 1), rel=1e-6)
    assert str(share) == "0.6667 [0.0943, 0.9916]"
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in ([0.0, 0.0], [1.0, 3.0]))
    intervals = mcbn.PredictionIntervals(low, high)
    assert (len(intervals), intervals.mean_size) == (2, 2.0)
    for end in (0.0, 1.0):  # ends are inside
        assert intervals.coverage(torch.tensor([[end], [3.5]])).value == 0.5


@pytest.mark.parametrize("options", [*SETS, *INTERVALS], ids=str)
def test_it_is_filed_and_remembers_what_it_was_fitted_on(options):
    sets = options in SETS
    method = mcbn.ConformalSets if sets else mcbn.ConformalIntervals
    for batch in (5, 50):
        predictive, targets = predicted(batch) if sets else regressed(batch)
        fitted = method.fit(predictive, targets, level=0.9, **options)
        again = method.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
        assert again == fitted
        with pytest.raises(ValueError, match="not fitted on"):
            fitted(predictive)
        assert len(again(predictive)) == batch


def test_bad_arguments_are_refused():
    predictive, targets = predicted(20)
    real, values = regressed(20)
    dense = mcbn.Categorical().summarize([torch.zeros(4, 3, 2, dtype=torch.float64)])
    two = mcbn.GaussianPredictive(real.means.expand(-1, -1, 2), real.variances)
    sure = mcbn.GaussianPredictive(real.means[:1], torch.tensor(0.0, dtype=torch.float64))
    cases = [
        (lambda: mcbn.ConformalSets.fit(predictive, targets, level=1.0), "level strictly between"),
        (lambda: mcbn.ConformalSets(0.9, 1.0, 5, "probability", 3), "a seed with the score"),
        (lambda: mcbn.ConformalSets.fit(predictive, targets[:-1]), "targets of shape"),
        (lambda: mcbn.ConformalSets.fit(predictive, targets + 4), "labels from 0 to 3"),
        (lambda: mcbn.ConformalSets.fit(dense, targets[:8].reshape(4, 2)), "not exchangeable"),
        (lambda: mcbn.ConformalIntervals.fit(real, values, level=90.0), "level strictly between"),
        (lambda: mcbn.ConformalIntervals.fit(two, values.expand(-1, 2)), "expected one output"),
        (lambda: mcbn.ConformalIntervals.fit(sure, values), "variances above 0, got one of 0"),
        (lambda: mcbn.ConformalIntervals.fit(real, values / 0), "finite numbers in targets"),
        (lambda: mcbn.ConformalIntervals.from_dict({"method": "x"}), "ConformalIntervals, got"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "recalibration.md").read_text()
    example = page.partition("## Example")[2]
    (block,) = re.findall(r"```python\n(.*?)```", example, flags=re.DOTALL)
    with torch.random.fork_rng():
        exec(block, {})
    assert re.match(r"T = \d.*\ncoverage 0\.9.* classes per set\n", capsys.readouterr().out)
