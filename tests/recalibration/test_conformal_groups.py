"""Conformal sets and intervals for new groups, such as patients: the guarantee, by all orders too.

Lee, Barber and Willett 2023: with K exchangeable groups the coverage of an example of a new one is
at least the level, and without ties at most the level plus 2 / (K + 1).
"""

import json
import math
from fractions import Fraction

import pytest
import torch
from law import share_is
from scipy import stats

import mcbn

RUNS = 2000
INTERVALS = ({"score": "residual"}, {"score": "quantile"})
SETS = ({"score": "probability"}, {"score": "adaptive"}, {"score": "adaptive", "seed": 3})


def stream(seed):
    return torch.Generator().manual_seed(seed)


def standard(count):
    """Predictions N(0, 1) of some examples."""
    zeros = torch.zeros(1, count, dtype=torch.float64)
    return mcbn.GaussianPredictive(zeros, torch.tensor(1.0, dtype=torch.float64))


def alike(seed, groups):
    """Groups of 20 examples that share most of their error."""
    generator = stream(seed)
    group = torch.arange(groups).repeat_interleave(20)
    own = torch.randn(groups, generator=generator, dtype=torch.float64)[group]
    noise = torch.randn(len(group), generator=generator, dtype=torch.float64)
    return own + 0.05 * noise, group


def small_and_hard(seed, groups):
    """Half of the groups are of one hard example, half of 20 easy ones, by chance."""
    generator = stream(seed)
    hard = torch.rand(groups, generator=generator) < 0.5
    group = torch.arange(groups).repeat_interleave(torch.where(hard, 1, 20))
    noise = torch.randn(len(group), generator=generator, dtype=torch.float64)
    return noise * torch.where(hard, 2.0, 0.3)[group], group


def small_and_easy(seed, groups):
    """The opposite, where pooled examples make intervals that are too wide."""
    values, group = small_and_hard(seed, groups)
    hard = group.bincount()[group] > 1
    return values * torch.where(hard, 20 / 3, 0.15), group


def covered(make, groups, level, *, by_group):
    """In how many of the runs the interval holds the first example of a new group."""
    hits = 0
    for seed in range(RUNS):
        values, group = make(seed, groups)
        last = int(group.max())
        known = group < last
        new = values[group == last][:1]
        fitted = mcbn.ConformalIntervals.fit(
            standard(int(known.sum())), values[known], level=level,
            group=group[known] if by_group else None,
        )  # fmt: skip
        hits += int(fitted(standard(1)).coverage(new).value)
    return hits


@pytest.mark.parametrize(
    ("make", "groups", "level"),
    [(alike, 5, 0.7), (small_and_hard, 20, 0.8), (small_and_easy, 80, 0.8)],
)
def test_an_example_of_a_new_group_is_covered_as_often_as_promised(make, groups, level):
    """2,000 simulations: by groups, and by examples as if they were independent."""
    low, high = level, level + 2 / groups  # one of which is the new one
    hits, naive = (covered(make, groups, level, by_group=by_group) for by_group in (True, False))
    assert share_is(hits, RUNS, low, high), hits / RUNS
    assert not share_is(naive, RUNS, low, high), naive / RUNS


def some_groups(seed, ties=False):
    """Values of seven groups of 1 to 5 examples, in any order."""
    generator = stream(seed)
    group = torch.arange(7).repeat_interleave(torch.randint(1, 6, (7,), generator=generator))
    group = group[torch.randperm(len(group), generator=generator)]
    values = torch.randn(len(group), generator=generator, dtype=torch.float64)
    return (values * 2).round() if ties else values, group


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.75, 0.85])
def test_each_of_seven_groups_takes_its_turn_as_the_new_one(level, ties):
    """Whatever the values: the mean share of the group left out is never below the level."""
    for seed in range(15):
        values, group = some_groups(seed, ties)
        total = Fraction(0)
        for left_out in range(7):
            known = group != left_out
            fitted = mcbn.ConformalIntervals.fit(
                standard(int(known.sum())), values[known], level=level, group=group[known]
            )
            new = values[~known]
            inside = fitted(standard(len(new))).low <= new
            inside &= new <= fitted(standard(len(new))).high
            total += Fraction(int(inside.sum()), len(new))
        assert total / 7 >= Fraction(str(level))


@pytest.mark.parametrize("options", INTERVALS, ids=str)
@pytest.mark.parametrize("level", [0.05, 0.25, 0.5, 0.625, 0.85])
def test_the_threshold_by_a_loop_over_the_scores(options, level):
    for seed in range(10):
        values, group = some_groups(seed)
        fitted = mcbn.ConformalIntervals.fit(
            standard(len(values)), values, level=level, group=group, **options
        )
        edge = 0.0 if options["score"] == "residual" else stats.norm.ppf((1 + level) / 2)
        scores = (values.abs() - edge).tolist()
        sizes = group.bincount().tolist()
        for each in sorted(scores):
            mass = sum(
                Fraction(1, sizes[k]) for k, s in zip(group.tolist(), scores, strict=True)
                if s <= each
            )  # fmt: skip
            if mass >= 8 * Fraction(str(level)):
                break
        assert fitted.threshold == pytest.approx(each, rel=1e-9)
        assert (fitted.groups, fitted.examples) == (7, len(values))


def of_two(seed, count=60):
    logits = 2 * torch.randn(count, 3, generator=stream(seed), dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=stream(seed + 1000))[:, 0]
    return mcbn.Categorical(outputs="logits").summarize(logits[None]), targets


@pytest.mark.parametrize("options", SETS, ids=str)
def test_sets_of_groups_of_one_example_each_are_those_without(options):
    predictive, targets = of_two(0)
    alone = mcbn.ConformalSets.fit(predictive, targets, level=0.85, **options)
    grouped = mcbn.ConformalSets.fit(predictive, targets, level=0.85, group=range(60), **options)
    assert grouped.threshold == alone.threshold
    assert (grouped.groups, alone.groups) == (60, None)
    # Every example five times is still 60 groups.
    five = torch.arange(60).repeat(5)
    many = mcbn.Categorical(outputs="probabilities").summarize(predictive.probabilities[five][None])
    again = mcbn.ConformalSets.fit(many, targets[five], level=0.85, group=five, **options)
    if "seed" not in options:
        assert again.threshold == pytest.approx(alone.threshold)


def test_sets_of_a_new_patient_hold_their_classes():
    """600 simulations of 15 patients, each of whom the network is right or wrong about."""
    hits = naive = 0
    for seed in range(600):
        generator = stream(seed)
        patient = torch.arange(16).repeat_interleave(10)
        wrong = (torch.rand(16, generator=generator) < 0.4)[patient]
        p = 0.5 + torch.rand(160, generator=generator, dtype=torch.float64) / 2
        targets, pair = wrong.long(), torch.stack([p, 1 - p], 1)
        known = patient < 15
        made = mcbn.Categorical(outputs="probabilities")
        for group in (patient[known], None):
            fitted = mcbn.ConformalSets.fit(
                made.summarize(pair[known][None]), targets[known], level=0.8, group=group
            )
            found = fitted(made.summarize(pair[-1:][None])).coverage(targets[-1:]).value == 1
            hits, naive = (hits + found, naive) if group is not None else (hits, naive + found)
    assert share_is(hits, 600, 0.8, 0.8 + 2 / 16), hits
    assert naive < hits


def test_too_few_groups_hold_everything():
    # K < level / (1 - level): 8 patients are too few for 0.9, however many scans they have.
    values, group = alike(0, groups=9)
    few = group < 8
    for options in INTERVALS:
        line = mcbn.ConformalIntervals.fit(
            standard(160), values[few], level=0.9, group=group[few], **options
        )
        assert line.threshold == math.inf
        enough = mcbn.ConformalIntervals.fit(
            standard(180), values, level=0.9, group=group, **options
        )
        assert enough.threshold < math.inf
        # The sum of the shares is (9 + 1) * 0.9 = 9, no less: the largest of all scores.
        assert enough.threshold >= float(values.abs().max()) - 2


def test_the_number_of_groups_is_filed():
    values, group = alike(0, groups=12)
    fitted = mcbn.ConformalIntervals.fit(standard(240), values, group=group)
    again = mcbn.ConformalIntervals.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    assert again.groups == 12
    predictive, targets = of_two(0)
    sets = mcbn.ConformalSets.fit(predictive, targets, group=[k // 2 for k in range(60)])
    assert mcbn.ConformalSets.from_dict(sets.to_dict()) == sets
    assert "30" not in json.dumps(mcbn.ConformalSets.fit(predictive, targets).to_dict()["groups"])


# Both sides


def test_a_group_that_was_fitted_on_is_refused():
    predictive, targets = of_two(0)
    fitted = mcbn.ConformalSets.fit(predictive, targets, group=[f"p{k // 6}" for k in range(60)])
    new, _ = of_two(1, count=4)
    assert len(fitted(new, group=["p10", "p11", "p11", "p12"])) == 4
    with pytest.raises(ValueError, match=r"one side only, got 'p3', 'p9' in the held-out examples"):
        fitted(new, group=["p3", "p11", "p9", "p12"])
    assert len(fitted(new)) == 4  # without groups nothing is known of them
    values, group = alike(0, groups=12)
    lines = mcbn.ConformalIntervals.fit(standard(240), values, group=group.tolist())
    with pytest.raises(ValueError, match="split by whole groups"):
        lines(standard(3), group=["0", "20", "21"])
    with pytest.raises(ValueError, match="expected a group for each of 3 examples, got 2 values"):
        lines(standard(3), group=["30", "20"])
    with pytest.raises(ValueError, match="expected a group for each of 240 examples"):
        mcbn.ConformalIntervals.fit(standard(240), values, group=[1, 2])


# Coverage of sets of groups


def exact(hits, count):
    test = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    return pytest.approx((hits / count, test.low, test.high), abs=1e-9)


def share_of(inside, group):
    sets = mcbn.PredictionSets(torch.stack([inside, ~inside], 1))
    found = sets.coverage(torch.zeros(len(inside), dtype=torch.long), group=group)
    return found.value, found.low, found.high


@pytest.mark.parametrize("hits", [0, 1, 17, 29, 30])
def test_the_coverage_of_groups_that_are_all_alike_is_that_of_single_examples(hits):
    inside = torch.arange(30) < hits
    assert share_of(inside, range(30)) == exact(hits, 30)
    ten = share_of(inside.repeat_interleave(10), [k // 10 for k in range(300)])
    assert ten == exact(hits, 30)


def test_each_group_counts_as_one():
    inside = torch.tensor([True] * 8 + [False, True])
    value, low, high = share_of(inside, [0] * 8 + [1, 2])
    assert (value, low, high) == exact(2, 3)
    ends = torch.ones(10, dtype=torch.float64)
    line = mcbn.PredictionIntervals(-ends, ends)
    given = torch.where(inside, 0.0, 2.0).double()
    assert line.coverage(given, group=[0] * 8 + [1, 2]).value == pytest.approx(2 / 3)
    assert line.coverage(given).value == pytest.approx(0.9)


def simulated_coverage(seed, spread):
    """The coverage of 40 patients of 1 to 19 scans, whose own shares vary around 0.9."""
    generator = stream(seed)
    sizes = torch.randint(1, 20, (40,), generator=generator)
    patient = torch.arange(40).repeat_interleave(sizes)
    always = torch.rand(40, generator=generator) < spread
    own = torch.where(torch.rand(40, generator=generator) < 0.9, 1.0, 0.0)
    chance = torch.where(always, own, 0.9)[patient]
    return torch.rand(len(patient), generator=generator) < chance, patient


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_the_interval_of_the_coverage_holds_it_for_patients(spread):
    """800 simulations: scans of a patient are independent, alike for half of them, or alike."""
    hits = naive = 0
    for seed in range(800):
        inside, patient = simulated_coverage(seed, spread)
        _, low, high = share_of(inside, patient)
        hits += low <= 0.9 <= high
        _, low, high = share_of(inside, None)
        naive += low <= 0.9 <= high
    assert share_is(hits, 800, 0.95, 1.0), hits
    if spread:
        assert not share_is(naive, 800, 0.95, 1.0), naive
