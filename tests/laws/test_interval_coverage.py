"""Coverage of every interval that is printed, in simulated test sets and studies.

A 95% interval must cover the truth in 93.5 to 96.5%, one of 90% in 88.5 to 91.5%. Intervals of
calibration errors, which span several, and exact binomial ones may cover more; where less was
measured, the lower limit here says how much less. 2,000 simulations must lie in the band itself:
under their fixed seeds, for on fresh ones a right interval leaves it once in 500. Fewer widen it by
the chance of their number (`law.share_is`).
"""

import functools

import numpy as np
import pytest
import torch
from law import share_is
from one_unit import by_log_score, drawn_targets
from scipy import stats

import mcbn
from mcbn.evaluation import bootstrap, calibration, evaluate
from mcbn.evaluation.comparison import Comparison, Entry
from mcbn.evaluation.confidence_gap import confidence_gap
from mcbn.evaluation.reliability import Reliability
from mcbn.evaluation.significance import welch
from mcbn.evaluation.subgroups import subgroups
from mcbn.recalibration.prediction_sets import PredictionSets
from mcbn.study import results
from mcbn.study.layer_choice import LayerChoice

pytestmark = pytest.mark.unchecked

# The intervals of reports, commands and objects, and the test in this file of each.
INTERVALS = {
    "scores of classes and their differences": "scores_of_classes",
    "scores of real targets and their differences": "scores_of_real_targets",
    "detection of out-of-distribution examples": "separation",
    "scores of groups": "scores_of_groups",
    "confidence minus accuracy": "confidence_minus_accuracy",
    "accuracy of each bin (Wilson)": "each_bin",
    "band of a calibrated forecaster": "bands_of_a_calibrated_forecaster",
    "band of the PIT curve": "bands_of_a_calibrated_forecaster",
    "coverage of sets and intervals (Clopper and Pearson)": "exact_binomial",
    "mean over seeds, contrasts and slopes (Student)": "means_over_seeds",
    "group against the other examples (Welch)": "p_values_of_groups",
    "best batch size and the curve": "batch_size",
    "bound of abstention": "abstention",
    "candidates of layers minus all of them, at once": "candidates_of_layers",
}
BAND = {0.95: (0.935, 0.965), 0.9: (0.885, 0.915)}
CALIBRATION = ("ece", "ece_equal_mass", "ece_debiased", "ece_classwise", "ece_smooth", "mce")
MEANS = ("accuracy", "nll", "brier")
# Where the true error is about as large as chance, as measured at 1,000 examples.
LESS = {("ece_equal_mass", "one place"): 0.925, ("ece_smooth", 1.15): 0.925}
# Differences of calibration errors whose gaps are of unlike shapes, as measured: 0.82 to 0.98.
UNLIKE = {("one place", 1.4): 0.81}


def test_every_interval_has_its_test():
    names = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert all(any(name.startswith(part) for name in names) for part in INTERVALS.values())


def require(hits, runs, level=0.95, *, low=None, high=None, name=""):
    """Check a share of covered truths against the band of its level, or `low` and `high`."""
    low, high = (end if end is not None else usual
                 for end, usual in zip((low, high), BAND[level], strict=True))  # fmt: skip
    message = f"{name} {hits} of {runs}, expected {low:g} to {high:g}"
    fits = low <= hits / runs <= high if runs >= 2000 else share_is(hits, runs, low, high)
    assert fits, message


def runs(quick, slow=2000):
    """The numbers of simulations, the long one by `make -C tools slow`."""
    return pytest.mark.parametrize("runs", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def forecast(generator, count, amiss):
    """Forecasts of three classes whose logits are the true ones times a sharpness; and labels.

    Or right except for a tenth of the examples, whose confidence is .93 instead of .6 to .67.
    """
    logits = 2 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    known = torch.zeros(count, dtype=torch.float64)
    if amiss == "one place":
        logs = logits.log_softmax(1)
        most, place = logs.exp().max(1)
        fewer = torch.where((most > 0.6) & (most < 0.67), 0.2, 1.0)  # factor of the other classes
        logs += fewer.log()[:, None]
        logs[torch.arange(count), place] = (1 - fewer * (1 - most)).log()
    else:
        logs = (amiss * logits).log_softmax(1)
    return mcbn.CategoricalPredictive(logs, known, torch.zeros_like(logs), known, 1), targets


@functools.cache
def true_scores(amiss):
    """Scores of 300,000 examples; the calibration errors of a calibrated forecaster are 0."""
    evaluation = mcbn.evaluate(
        *forecast(torch.Generator().manual_seed(0), 300_000, amiss), resamples=0
    )
    calibrated = CALIBRATION if amiss == 1 else ()
    return {name: 0.0 if name in calibrated else score.value for name, score in evaluation.items()}


def band(name, key, pair):
    """Limits of coverage: calibration errors and differences may cover more, and some less."""
    if key == "difference" and name == "accuracy":
        return 1, 1  # all forecasters predict the same classes
    if key == "difference":
        return UNLIKE.get(pair, 0.935) if name in CALIBRATION else 0.935, 1
    if name in MEANS:
        return 0.93, 0.965  # of 200 resamples; of 1,000 below
    if name in CALIBRATION:
        return LESS.get((name, pair[key]), 0.935), 0.985 if pair[key] == 1 else 0.998
    return 0.935, 0.965


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair", [(1.0, 1.4), (1.15, 2.0), (1.0, 1.05), ("one place", 1.4)], ids=str
)
def test_scores_of_classes_and_their_differences(pair):
    """1,000 examples, 2,000 test sets, 200 resamples."""
    generator = torch.Generator().manual_seed(1)
    truths = [true_scores(amiss) for amiss in pair]
    hits = {}
    for run in range(2000):
        state = generator.get_state()
        evaluations = []
        for amiss in pair:
            generator.set_state(state)
            predictive, targets = forecast(generator, 1000, amiss)
            evaluations.append(mcbn.evaluate(predictive, targets, resamples=200, seed=run))
        first, second = evaluations
        for name, gap in first.minus(second).items():
            wanted = [truth[name] for truth in truths]
            for key, score, value in (
                (0, first[name], wanted[0]), (1, second[name], wanted[1]),
                ("difference", gap, wanted[0] - wanted[1]),
            ):  # fmt: skip
                covered = score.low <= value <= score.high
                hits[name, key] = hits.get((name, key), 0) + covered
    for (name, key), count in hits.items():
        low, high = band(name, key, pair)
        require(count, 2000, low=low, high=high, name=f"{name} {key}")


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [1.0, 1.4])
def test_scores_of_classes_that_are_means(sharpness):
    """The same test sets, at the 1,000 resamples that are usual."""
    generator = torch.Generator().manual_seed(1)
    hits = dict.fromkeys(MEANS, 0)
    for run in range(2000):
        columns = evaluate.class_columns(*forecast(generator, 1000, sharpness))
        rows = torch.stack([columns["correct"].double(), columns["nll"], columns["brier"]], 1)
        drawn = bootstrap.replicates(
            [{"rows": rows}], lambda chosen: {"means": chosen["rows"].mean(0)},
            resamples=1000, seed=run, progress=False,
        )["means"]  # fmt: skip
        for name, values in zip(MEANS, drawn.T, strict=True):
            low, high = bootstrap.percentile_interval(values, 0.95)
            hits[name] += low <= true_scores(sharpness)[name] <= high
    for name, count in hits.items():
        require(count, 2000, name=name)


@pytest.mark.parametrize(
    ("sharpness", "runs"),
    [(1.15, 40), *(pytest.param(each, 2000, marks=pytest.mark.slow) for each in (1.0, 1.15))],
)
def test_scores_of_groups(sharpness, runs):
    """Groups of 1,000; 60 resamples in the quick run, whose percentiles cover 3% less."""
    resamples, loss = (60, 0.03) if runs < 2000 else (400, 0)
    generator = torch.Generator().manual_seed(2)
    hits = dict.fromkeys(("accuracy", "nll", "ece_debiased"), 0)
    for run in range(runs):
        predictive, targets = forecast(generator, 1000, sharpness)
        (group,) = subgroups(predictive, targets, ["a"] * 1000, resamples=resamples, seed=run)
        for name in hits:
            score = group.scores[name]
            hits[name] += score.low <= true_scores(sharpness)[name] <= score.high
    for name, count in hits.items():
        free = name == "ece_debiased"
        require(count, runs, low=0.93 - loss, high=0.985 if free else 0.965)


@runs(30)
def test_scores_of_real_targets_and_their_differences(runs):
    """300 examples; a right forecaster and one of half the deviation."""
    resamples, loss = (60, 0.03) if runs < 2000 else (400, 0)
    generator = torch.Generator().manual_seed(3)

    def score(values, deviation, count):
        predictive = mcbn.Gaussian(precision=deviation**-2).summarize([torch.zeros_like(values)])
        return mcbn.evaluate(predictive, values, resamples=count, seed=0, progress=False)

    quantiles = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    truths = [score(quantiles, deviation, 0) for deviation in (1.0, 0.5)]
    hits = {}
    for _ in range(runs):
        values = torch.randn(300, generator=generator, dtype=torch.float64)
        right, wrong = (score(values, deviation, resamples) for deviation in (1.0, 0.5))
        for name, gap in right.minus(wrong).items():
            wanted = truths[1][name].value, truths[0][name].value - truths[1][name].value
            for key, interval, value in (
                ("wrong", wrong[name], wanted[0]), ("difference", gap, wanted[1]),
            ):  # fmt: skip
                # Some scores are equal in all test sets.
                covered = interval.low - 1e-9 <= value <= interval.high + 1e-9
                hits[name, key] = hits.get((name, key), 0) + covered
    for (name, key), count in hits.items():
        require(count, runs, low=0.935 - loss, high=1.0, name=f"{name} {key}")


def shifted(generator, count, shift):
    """Predictions of two classes whose entropy rises with a normal number around `shift`."""
    place = torch.randn(count, generator=generator, dtype=torch.float64) + shift
    logit = torch.nn.functional.softplus(2 - place)
    logs = torch.stack([logit, torch.zeros_like(logit)], 1).log_softmax(1)
    known = torch.zeros(count, dtype=torch.float64)
    return mcbn.CategoricalPredictive(logs, known, torch.zeros_like(logs), known, 1)


@runs(20)
def test_separation(runs):
    """300 examples of either kind, one standard deviation apart."""
    resamples, loss = (40, 0.05) if runs < 2000 else (200, 0)
    generator = torch.Generator().manual_seed(4)
    recall = 1 - (np.arange(100_000) + 0.5) / 100_000
    false_alarms = stats.norm.sf(stats.norm.isf(recall) + 1)
    truth = {
        "auroc_out_of_distribution": stats.norm.cdf(2**-0.5),
        "aupr_out_of_distribution": float((recall / (recall + false_alarms)).mean()),
        "fpr95_out_of_distribution": stats.norm.sf(stats.norm.isf(0.95) + 1),
    }
    hits = dict.fromkeys(truth, 0)
    for run in range(runs):
        pair = (shifted(generator, 300, shift) for shift in (0.0, 1.0))
        scores = mcbn.out_of_distribution(*pair, resamples=resamples, seed=run)
        for name, value in truth.items():
            hits[name] += scores[name].low <= value <= scores[name].high
    for count in hits.values():
        require(count, runs, low=0.935 - loss)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_confidence_minus_accuracy(level):
    """1,000 examples, 2,000 test sets."""
    generator = torch.Generator().manual_seed(5)
    truth = 0.0
    hits = 0
    for _ in range(2000):
        predictive, targets = forecast(generator, 1000, 1.0)
        evaluation = mcbn.Evaluation({}, 1000, 1, level, 0)
        entry = Entry(predictive, {}, evaluation, {}, 0.0)
        _, low, high = confidence_gap("one", Comparison({"one": entry}, targets, ()))
        hits += low <= truth <= high
    require(hits, 2000, level)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_each_bin(level):
    """Bins of 40 to 160 examples whose accuracy is 0.2 to 0.8: exact over all outcomes.

    A count has few values, so the chance goes up and down with the accuracy: the mean over 61.
    """
    shares = []
    for count in (40, 100, 160):
        hits = torch.arange(count + 1)
        ones = torch.ones(count + 1, dtype=torch.int64)
        parts = torch.zeros(2, count + 1, dtype=torch.int64)
        edges = torch.linspace(0, 1, count + 2, dtype=torch.float64)
        low, high = Reliability(ones * count, hits, parts, edges).interval(level=level)
        for accuracy in np.linspace(0.2, 0.8, 61):
            inside = (low.numpy() <= accuracy) & (accuracy <= high.numpy())
            shares.append(stats.binom.pmf(hits.numpy(), count, accuracy)[inside].sum())
    assert BAND[level][0] <= np.mean(shares) <= BAND[level][1]
    assert min(shares) > level - 0.035


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bands_of_a_calibrated_forecaster(level):
    """200 PITs, 2,000 test sets: the whole curve in its band. Bins: never below the level."""
    pits = np.sort(np.random.default_rng(6).random((2000, 200)), axis=1)
    steps = np.arange(201) / 200
    reach = np.maximum((steps[1:] - pits).max(1), (pits - steps[:-1]).max(1))
    require(int((reach <= calibration.pit_band(200, level=level)).sum()), 2000, level)
    chance = np.linspace(0.3, 0.9, 61)
    confidence, correct = torch.full((100,), 0.5).double(), torch.ones(100, dtype=torch.bool)
    for share in chance:
        bins = Reliability.from_edges(
            confidence * 0 + share, correct, torch.tensor([0.0, 1.0]).double()
        )
        low, high = (round(100 * float(end[0])) for end in bins.consistency_band(level=level))
        covered = stats.binom.cdf(high, 100, share) - stats.binom.cdf(low - 1, 100, share)
        assert level <= covered <= level + 0.04


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("count", [200, 2000])
def test_exact_binomial(level, count):
    """Exact over all outcomes: never below its level, and within 1.5% of it at 2,000 examples."""
    chance, shares = np.linspace(0.85, 0.95, 21), np.zeros(21)
    likely = [hits for hits in range(count + 1)
              if stats.binom.pmf(hits, count, chance).max() > 1e-12]  # fmt: skip
    for hits in likely:
        members = torch.arange(count)[:, None].lt(hits).expand(count, 2)
        targets = torch.zeros(count, dtype=torch.int64)
        coverage = PredictionSets(members).coverage(targets, level=level)
        inside = (coverage.low <= chance) & (chance <= coverage.high)
        shares += inside * stats.binom.pmf(hits, count, chance)
    assert shares.min() >= level - 1e-9
    assert shares.mean() <= level + (0.015 if count == 2000 else 0.03)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_means_over_seeds(level, seeds):
    """2,000 studies of a few seeds."""
    values = np.random.default_rng(7).normal(2.0, 0.3, (2000, seeds)).tolist()
    points = [results.point(row, level=level) for row in values]
    require(sum(point.low <= 2.0 <= point.high for point in points), 2000, level)


def test_p_values_of_groups():
    """Groups of 100 against 900, whose log scores are skewed and spread unlike: 2,000 test sets."""
    generator = torch.Generator().manual_seed(8)
    alarms = 0
    for _ in range(2000):
        first = torch.randn(100, generator=generator, dtype=torch.float64).square() / 2
        second = 0.5 + 2 * (torch.rand(900, generator=generator, dtype=torch.float64) - 0.5)
        alarms += welch(first, second) < 0.05
    # Of skewed losses in a small group the test rejects a little too often.
    require(alarms, 2000, low=0.035, high=0.075)


@pytest.mark.slow
def test_batch_size():
    """A unit whose best M is known; 200 held-out targets. `test_batch_size.py` has 25 of them."""
    hits = 0
    for seed in range(600):
        targets = drawn_targets(gamma=1.0, size=25, precision=50.0, count=200, seed=seed)
        choice = by_log_score(targets, resamples=200)
        hits += choice.interval[0] <= 25 <= choice.interval[1]
    require(hits, 600)


def test_abstention():
    """1,000 held-out examples: the true risk of the answers is below the bound in 95%."""
    generator = torch.Generator().manual_seed(9)
    hits = 0
    for _ in range(1000):
        doubt = torch.rand(1000, generator=generator, dtype=torch.float64)
        wrong = torch.rand(1000, generator=generator, dtype=torch.float64) < doubt**2
        rule = mcbn.choose_abstention(doubt, wrong, risk=0.2)
        threshold = min(rule.threshold, 1.0)
        hits += threshold**2 / 3 <= rule.bound  # the mean of doubt squared below the threshold
    require(hits, 1000, low=0.95, high=1.0)


@runs(60)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_candidates_of_layers(level, runs):
    """Losses with long tails that have much in common; six intervals hold the truth at once."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([0.0, 0.0, 0.1, -0.1, 0.3, 0.0, -0.02], dtype=torch.float64)
    names = [(str(number), [str(number)]) for number in range(len(truth))]
    covered = 0
    for seed in range(runs):
        shared, own = (
            torch.randn(rows, 300, generator=generator, dtype=torch.float64).exp() - np.exp(0.5)
            for rows in (1, len(truth))
        )
        own[0] = 0  # of all layers
        choice = LayerChoice.from_losses(
            2 + shared + 0.4 * own + truth[:, None], names,
            draws=1, bank_size=1.0, resamples=299, level=level, seed=seed,
        )  # fmt: skip
        covered += all(
            each.difference_interval[0] <= float(gap) <= each.difference_interval[1]
            for each, gap in zip(choice.candidates, truth, strict=True)
        )
    require(covered, runs, level, low={0.95: 0.915, 0.9: 0.86}[level])
