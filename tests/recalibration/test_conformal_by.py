"""Conformal sets by class and by subgroup: the exact law of the coverage of each, and brute force.

Statistical tests have a fixed seed and the thresholds of `law`.
"""

import json
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from law import DEVIATIONS, holds
from scipy import stats
from torch.testing import assert_close

import mcbn

SETS = ({"score": "probability"}, {"score": "adaptive"}, {"score": "adaptive", "seed": 3})
INTERVALS = ({"score": "residual"}, {"score": "quantile"})
LEVEL, TRIALS = 0.8, 300


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def classes_of(probabilities):
    """A predictive of one draw with these probabilities."""
    return mcbn.Categorical().summarize([torch.as_tensor(probabilities).double().log()])


def predicted(batch=120, classes=4, seed=0):
    """Probabilities, classes drawn from them, and a subgroup of each example."""
    logits = 2 * torch.randn(batch, classes, generator=stream(seed), dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=stream(seed + 1000))[:, 0]
    return classes_of(logits.softmax(1)), targets, [f"site {k % 3}" for k in range(batch)]


def regressed(batch=120, draws=3, seed=0):
    """A mixture a target, targets that are spread wider than it says, and subgroups."""
    means = torch.randn(draws, batch, 1, generator=stream(seed), dtype=torch.float64)
    targets = 2 * torch.randn(batch, 1, generator=stream(seed + 1000), dtype=torch.float64)
    predictive = mcbn.GaussianPredictive(means, torch.tensor(0.3, dtype=torch.float64))
    return predictive, targets, [f"site {k % 3}" for k in range(batch)]


def part(predictive, rows):
    """Predictions of some examples, in memory of their own."""
    if isinstance(predictive, mcbn.GaussianPredictive):
        return mcbn.GaussianPredictive(predictive.means[:, rows], predictive.variances)
    return classes_of(predictive.probabilities[rows])


def has_the_beta_law(coverages, count):
    """Given the held-out examples, coverage is the k-th smallest of n uniform numbers."""
    rank = math.ceil((count + 1) * LEVEL)
    law = stats.beta(rank, count + 1 - rank)
    error = math.sqrt(law.var() / len(coverages))
    exact = abs(np.mean(coverages) - rank / (count + 1)) < DEVIATIONS * error
    return holds(stats.kstest(coverages, law.cdf).pvalue) and exact


# The promise

SIZES = (60, 30, 9)  # of the held-out examples, by class or subgroup: the last are rare
HARDNESS = torch.tensor([0.2, 0.5, 4.0], dtype=torch.float64)


def by_difficulty(seed):
    """Three classes: the true one has the probability u^a, u uniform, with a of the class.

    So -log p of class c has the distribution function 1 - exp(-t / a).
    """
    targets = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
    u = torch.rand(len(targets), generator=stream(seed), dtype=torch.float64)
    own = u ** HARDNESS[targets]
    probabilities = ((1 - own) / 2)[:, None].repeat(1, 3)
    return classes_of(probabilities.scatter_(1, targets[:, None], own[:, None])), targets


def covered(thresholds):
    """The coverage of each class at a threshold, one for all or one for each."""
    return (1 - torch.exp(-torch.as_tensor(thresholds, dtype=torch.float64) / HARDNESS)).tolist()


def test_each_class_has_the_exact_law_of_its_coverage():
    each, marginal = [], []
    for trial in range(TRIALS):
        predictive, targets = by_difficulty(trial)
        fitted = mcbn.ConformalSetsByClass.fit(predictive, targets, level=LEVEL)
        assert fitted.examples == SIZES
        each.append(covered(fitted.thresholds))
        marginal.append(covered(mcbn.ConformalSets.fit(predictive, targets, level=LEVEL).threshold))
    for number, count in enumerate(SIZES):
        assert has_the_beta_law([row[number] for row in each], count), number
    # One threshold for all keeps its promise on average, and the rare class pays for it.
    means = np.mean(marginal, axis=0)
    error = np.std(np.array(marginal)[:, 2]) / math.sqrt(TRIALS)
    assert np.average(means, weights=SIZES) > LEVEL - 0.02
    assert means[2] + DEVIATIONS * error < 0.5
    assert means[0] > 0.9


def test_each_subgroup_has_the_exact_law_of_its_coverage():
    each, marginal = [], []
    sites = [f"site {k}" for k, count in enumerate(SIZES) for _ in range(count)]
    for trial in range(TRIALS):
        # The classes are the difficulty of the subgroup here: all examples are of class 0.
        predictive, difficulty = by_difficulty(trial)
        own = predictive.probabilities.gather(1, difficulty[:, None])
        pair = classes_of(torch.cat([own, 1 - own], 1))
        targets = torch.zeros(len(own), dtype=torch.long)
        fitted = mcbn.ConformalSetsBySubgroup.fit(pair, targets, by=sites, level=LEVEL)
        assert fitted.names == ("site 0", "site 1", "site 2")
        each.append(covered(fitted.thresholds))
        marginal.append(covered(mcbn.ConformalSets.fit(pair, targets, level=LEVEL).threshold))
    for number, count in enumerate(SIZES):
        assert has_the_beta_law([row[number] for row in each], count), number
    assert np.mean(marginal, axis=0)[2] < 0.5


@pytest.mark.parametrize("options", INTERVALS, ids=["residual", "quantile"])
def test_intervals_of_each_subgroup_have_the_exact_law_of_their_coverage(options):
    spread = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    sites = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
    each, marginal = [], []
    for trial in range(TRIALS):
        # The forecaster says N(0, 1) and the truth is N(0, s^2), s of the subgroup.
        zeros = torch.zeros(1, len(sites), 1, dtype=torch.float64)
        noise = torch.tensor(1.0, dtype=torch.float64)
        predictive = mcbn.GaussianPredictive(zeros, noise)
        values = spread[sites] * torch.randn(len(sites), generator=stream(trial)).double()
        fitted = mcbn.ConformalIntervalsBySubgroup.fit(
            predictive, values, by=sites, level=LEVEL, **options
        )
        one = mcbn.ConformalIntervals.fit(predictive, values, level=LEVEL, **options)
        new = mcbn.GaussianPredictive(zeros[:, :3].clone(), noise)
        for found, made in ((each, fitted(new, by=range(3))), (marginal, one(new))):
            ends = [stats.norm.cdf((end / spread).numpy()) for end in (made.low, made.high)]
            found.append(ends[1] - ends[0])
    for number, count in enumerate(SIZES):
        assert has_the_beta_law([row[number] for row in each], count), number
    assert np.mean(marginal, axis=0)[2] < 0.4


@pytest.mark.parametrize("options", SETS, ids=str)
def test_each_class_is_covered_whatever_the_network(options):
    """Predictions that have nothing to do with the targets, of which one class is rare."""
    hits, count = np.zeros(3), np.zeros(3)
    for trial in range(60):
        predictive, _, _ = predicted(80, 3, seed=trial)
        targets = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 80, replacement=True,
                                    generator=stream(trial))  # fmt: skip
        fitted = mcbn.ConformalSetsByClass.fit(
            part(predictive, slice(0, 40)), targets[:40], level=0.7, **options
        )
        inside = fitted(part(predictive, slice(40, 80))).members.gather(1, targets[40:, None])
        for number in range(3):
            rows = targets[40:] == number
            hits[number] += int(inside[rows].sum())
            count[number] += int(rows.sum())
    # Within a trial outcomes share the held-out examples: at most as if all of them were one.
    assert (hits / count > 0.7 - DEVIATIONS * math.sqrt(0.21 / 60)).all()


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_of_all_orders_of_the_examples_of_a_class_the_promised_share_is_covered(rank):
    # Each of five examples of class 1 takes its turn as the new one; those of class 0 stay.
    p = torch.tensor([0.9, 0.3, 0.55, 0.7, 0.15], dtype=torch.float64)
    others = torch.tensor([0.05, 0.6, 0.4], dtype=torch.float64)
    targets = torch.tensor([1] * 4 + [0] * 3)
    inside = 0
    for order in permutations(range(5)):
        known = torch.cat([p[list(order[:4])], others])
        fitted = mcbn.ConformalSetsByClass.fit(
            classes_of(torch.stack([1 - known, known], 1)), targets, level=rank / 5
        )
        new = p[[order[4]]]
        inside += int(fitted(classes_of(torch.stack([1 - new, new], 1))).members[0, 1])
    assert inside == 120 * rank // 5


# By another way


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("options", SETS[:2], ids=str)
def test_a_class_has_the_threshold_of_its_own_examples(options, grouped):
    predictive, targets, _ = predicted(300)
    patients = [f"p{k // 4}" for k in range(300)]
    group = {"group": patients} if grouped else {}
    fitted = mcbn.ConformalSetsByClass.fit(predictive, targets, level=0.7, **options, **group)
    new, _, _ = predicted(50, seed=7)
    members = fitted(new).members
    for number in range(4):
        rows = (targets == number).nonzero()[:, 0]
        within = {"group": [patients[k] for k in rows]} if grouped else {}
        alone = mcbn.ConformalSets.fit(
            part(predictive, rows), targets[rows], level=0.7, **options, **within
        )
        assert fitted.thresholds[number] == pytest.approx(alone.threshold, rel=1e-12)
        assert fitted.examples[number] == len(rows)
        assert (fitted.groups[number] if grouped else fitted.groups) == alone.groups
        assert torch.equal(members[:, number], alone(new).members[:, number])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("options", [*SETS[:2], *INTERVALS], ids=str)
def test_a_subgroup_is_treated_as_if_it_were_alone(options, grouped):
    sets = options in SETS
    make, method = (predicted, mcbn.ConformalSetsBySubgroup) if sets else (
        regressed, mcbn.ConformalIntervalsBySubgroup)  # fmt: skip
    predictive, targets, sites = make(120)
    patients = [f"p{k // 6}" for k in range(120)]
    group = {"group": patients} if grouped else {}
    fitted = method.fit(predictive, targets, by=sites, level=0.7, **options, **group)
    new, _, others = make(30, seed=7)
    made = fitted(new, by=others)
    for place, name in enumerate(fitted.names):
        rows = torch.tensor([k for k, site in enumerate(sites) if site == name])
        chosen = torch.tensor([k for k, site in enumerate(others) if site == name])
        within = {"group": [patients[k] for k in rows]} if grouped else {}
        alone = (mcbn.ConformalSets if sets else mcbn.ConformalIntervals).fit(
            part(predictive, rows), targets[rows], level=0.7, **options, **within
        )
        assert fitted.thresholds[place] == pytest.approx(alone.threshold, rel=1e-12)
        assert fitted.examples[place] == len(rows)
        expected = alone(part(new, chosen))
        if sets:
            assert torch.equal(made.members[chosen], expected.members)
        else:
            assert_close(made.low[chosen], expected.low, rtol=1e-12, atol=1e-13)
            assert_close(made.high[chosen], expected.high, rtol=1e-12, atol=1e-13)


def test_a_random_part_of_the_class_itself_is_counted():
    predictive, targets, _ = predicted(200)
    new, _, _ = predicted(200, seed=7)
    found = [
        mcbn.ConformalSetsByClass.fit(predictive, targets, score="adaptive", seed=seed)(new).members
        for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    # The same numbers as without classes: of one subgroup the two are one method.
    options = {"level": 0.7, "score": "adaptive", "seed": 5}
    one = mcbn.ConformalSetsBySubgroup.fit(predictive, targets, by=["all"] * 200, **options)
    all_ = mcbn.ConformalSets.fit(predictive, targets, **options)
    assert one.thresholds == (all_.threshold,)
    assert torch.equal(one(new, by=["all"] * 200).members, all_(new).members)


@pytest.mark.parametrize("method", [mcbn.ConformalSetsByClass, mcbn.ConformalSetsBySubgroup])
def test_new_examples_have_other_random_numbers_than_held_out_ones(method):
    predictive, targets, sites = predicted(300)
    by = {} if method is mcbn.ConformalSetsByClass else {"by": sites}
    fitted = method.fit(predictive, targets, level=0.5, score="adaptive", seed=5, **by)
    inside = method.from_dict(fitted.to_dict())(predictive, **by).members.gather(
        1, targets[:, None]
    )
    parts = targets.numpy() if not by else np.array(sites)
    # With the same ones the k smallest scores of each would be covered, no more and no fewer.
    counts = [int(inside[torch.from_numpy(parts == each)].sum()) for each in np.unique(parts)]
    assert counts != [math.ceil((count + 1) * 0.5) for count in fitted.examples]


def test_tied_scores_are_held_together():
    held_out = classes_of(torch.tensor([[0.25, 0.75]]).expand(9, 2))
    ones, new = torch.ones(9).long(), classes_of(torch.tensor([[0.25, 0.75], [0.26, 0.74]]))
    by_class = mcbn.ConformalSetsByClass.fit(held_out, ones, level=0.5)(new)
    assert by_class.members[:, 1].tolist() == [True, False]
    fitted = mcbn.ConformalSetsBySubgroup.fit(held_out, ones, by=["a"] * 9, level=0.5)
    assert fitted(new, by=["a", "a"]).members.tolist() == [[False, True], [False, False]]


# Few examples


def test_a_class_of_too_few_examples_is_in_every_set():
    # n < level / (1 - level): 8 are too few for 0.9, 9 are enough.
    predictive, _, _ = predicted(17, 3)
    targets = torch.tensor([0] * 9 + [1] * 8)
    fitted = mcbn.ConformalSetsByClass.fit(predictive, targets)
    assert fitted.thresholds[0] < math.inf
    assert fitted.thresholds[1:] == (math.inf, math.inf)
    assert fitted.examples == (9, 8, 0)
    assert fitted(predicted(40, 3, seed=7)[0]).members[:, 1:].all()
    assert "of 3 classes at level 0.9; 2 of too few examples, in every set" in repr(fitted)
    assert fitted.to_dict()["thresholds"] == [fitted.thresholds[0], None, None]


@pytest.mark.parametrize("kind", ["sets", "intervals"])
def test_a_subgroup_of_too_few_examples_has_sets_that_hold_everything(kind):
    make, method = {
        "sets": (predicted, mcbn.ConformalSetsBySubgroup),
        "intervals": (regressed, mcbn.ConformalIntervalsBySubgroup),
    }[kind]
    predictive, targets, _ = make(17)
    fitted = method.fit(predictive, targets, by=["10"] * 9 + ["9"] * 8)
    assert fitted.names == ("9", "10")
    assert fitted.examples == (8, 9)
    assert fitted.thresholds[0] == math.inf > fitted.thresholds[1]
    assert "1 of too few examples, whose sets hold everything" in repr(fitted)
    assert fitted.display().rows[0] == ("9", "8", "infinite")
    new, _, _ = make(30, seed=7)
    made = fitted(new, by=["9", "10", "never seen"] * 10)
    everything = (
        made.members.all(1) if kind == "sets" else made.low.isinf() & made.high.isinf()
    ).reshape(10, 3)
    assert everything[:, 0].all()
    assert everything[:, 2].all()
    assert not everything[:, 1].all()


# Files, and both sides

BY_CLASS = [(mcbn.ConformalSetsByClass, options, {}) for options in SETS]
BY_SUBGROUP = [
    *((mcbn.ConformalSetsBySubgroup, options, {"by": True}) for options in SETS),
    *((mcbn.ConformalIntervalsBySubgroup, options, {"by": True}) for options in INTERVALS),
]


@pytest.mark.parametrize(("method", "options", "needs"), [*BY_CLASS, *BY_SUBGROUP], ids=str)
def test_it_is_filed_and_remembers_what_it_was_fitted_on(method, options, needs):
    make = regressed if method is mcbn.ConformalIntervalsBySubgroup else predicted
    predictive, targets, sites = make(120)
    by = {"by": sites} if needs else {}
    patients = [f"p{k // 3}" for k in range(120)]
    for group in ({}, {"group": patients}):
        fitted = method.fit(predictive, targets, level=0.95, **by, **options, **group)
        values = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
        again = method.from_dict(values)
        assert again == fitted
        with pytest.raises(ValueError, match="not fitted on"):
            fitted(predictive, **by)
        assert len(again(predictive, **by)) == 120
        new, _, _ = make(120, seed=5)
        assert len(fitted(new, **by, group=[f"q{k}" for k in range(120)])) == 120
    with pytest.raises(ValueError, match="one side only, got 'p3' in the held-out examples"):
        fitted(new, **by, group=["p3"] * 120)
    for wrong in (
        {**values, "thresholds": values["thresholds"][1:]},
        {**values, "thresholds": [None, "x", *values["thresholds"][2:]]},
        {**values, "thresholds": []},
        {**values, "examples": [-1] * len(values["examples"])},
        {**values, "score": "best"},
        {**values, "level": 1.5},
        *([{**values, "names": [values["names"][0]] * 3}] if needs else []),
    ):
        with pytest.raises(ValueError, match="expected"):
            method.from_dict(wrong)


@pytest.mark.unchecked
def test_bad_arguments_are_refused():
    predictive, targets, sites = predicted()
    real, values, _ = regressed()
    by_class, by_site = mcbn.ConformalSetsByClass, mcbn.ConformalSetsBySubgroup
    lines = mcbn.ConformalIntervalsBySubgroup
    new = predicted(5, 3, seed=9)[0]
    dense = mcbn.Categorical().summarize([torch.zeros(4, 3, 2, dtype=torch.float64)])
    cases = [
        (lambda: by_class.fit(predictive, targets, level=1.0), "level strictly between 0 and 1"),
        (lambda: by_site.fit(predictive, targets, by=sites, score="best"), "got 'best'"),
        (lambda: lines.fit(real, values, by=sites, score="best"), "got 'best'"),
        (lambda: by_class.fit(predictive, targets, seed=3), "with the score 'adaptive' only"),
        (lambda: by_class.fit(dense, torch.zeros(4, 2).long()), "not exchangeable"),
        (lambda: by_class.fit(predictive, targets[:-1]), "targets of shape"),
        (lambda: by_class.fit(predictive, targets)(new), "of 4 classes, got 3; fit on"),
        (lambda: by_site.fit(predictive, targets, by=sites[:-1]), "a group for each of 120"),
        (lambda: by_site.fit(predictive, targets, by=sites)(new, by=["a"]), "for each of 5 exam"),
        (lambda: lines.fit(real, values, by=[""] * 120), "of which 120 are missing"),
        (lambda: by_site(0.9, ("a", "a"), (1.0, 1.0), (9, 9)), "subgroups of different names"),
        (lambda: by_site(0.9, ("a",), (1.0, 1.0), (9, 9)), "a threshold for each class or sub"),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="for several labels take ConformalLabels"):
        by_class.fit(real, targets)
