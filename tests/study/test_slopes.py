"""Slopes against M: exact laws, an independent regression, and intervals that cover."""

import math

import numpy as np
import pytest
from law import DEVIATIONS
from scipy import stats
from synthetic_studies import made_study, noise

from mcbn.study.decay import decay
from mcbn.study.plan import DataAxes, InferenceAxes, Plan, TrainingAxes
from mcbn.study.results import Result, Study
from mcbn.study.slopes import mean_of_networks, slopes, spreads

SIZES = (4, 16, 64, 256)


def plan(*, train_size=None, training=(32, 64), sizes=SIZES, methods=("MCBN",), seeds=(0, 1, 2, 3)):
    return Plan(
        data=DataAxes(train_sizes=(train_size,)),
        training=TrainingAxes(batch_sizes=training),
        inference=InferenceAxes(batch_sizes=sizes),
        methods=methods,
        seeds=seeds,
    )


def noisy(cell):
    value = 0.3 * cell.batch_size**-0.5 * np.exp(0.2 * noise(cell))
    return {"epistemic_sd": value, "mutual_information": 2 * value**2}


def without_replacement(count):
    """Spreads that follow the law of a mean of M out of N exactly."""

    def scores(cell):
        variance = 0.1 / cell.batch_size * (count - cell.batch_size) / (count - 1)
        return {"epistemic_sd": variance**0.5, "mutual_information": 3 * variance}

    return scores


@pytest.mark.parametrize("score", ["epistemic_sd", "mutual_information"])
def test_slope_is_that_of_an_independent_regression(score):
    study = made_study(plan(), noisy)
    *apart, together = slopes(study, score)
    logs = np.log(SIZES)
    table = {}
    for slope, size in zip(apart, (32, 64), strict=True):
        rows = np.array([
            [study.values(score, "MCBN", training_batch_size=size, batch_size=m)[0, seed]
             for m in SIZES] for seed in range(4)
        ])  # fmt: skip
        table[size] = [stats.linregress(logs, np.log(row)).slope for row in rows]
        interval = stats.ttest_1samp(table[size], 0).confidence_interval(0.95)
        assert slope.training_batch_size == size
        assert slope.estimate.mean == pytest.approx(np.mean(table[size]))
        assert (slope.estimate.low, slope.estimate.high) == pytest.approx(tuple(interval))
        assert slope.corrected is None
    means = np.mean(list(table.values()), axis=0)
    interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert together.training_batch_size is None
    assert together.replicates == 4
    assert together.estimate.mean == pytest.approx(np.mean(means))
    assert (together.estimate.low, together.estimate.high) == pytest.approx(tuple(interval))


@pytest.mark.parametrize("method", ["MCBN", "MCBN rescaled"])
@pytest.mark.parametrize(("score", "power"), [("epistemic_sd", -0.5), ("mutual_information", -1)])
def test_drawing_without_replacement_is_taken_out_exactly(score, power, method):
    study = made_study(plan(train_size=600, methods=(method,)), without_replacement(600))
    for slope in slopes(study, score):
        assert slope.expected == power
        assert slope.estimate.mean < 1.05 * power
        assert slope.corrected.mean == pytest.approx(power, abs=1e-12)


@pytest.mark.parametrize(("train_size", "left"), [(256, 0.01), (None, 1e-8)])
def test_what_has_vanished_is_left_out(train_size, left):
    """At M = N the draws are equal; what rounding leaves of them would tip every slope."""

    def scores(cell):
        return {"epistemic_sd": left if cell.batch_size == 256 else cell.batch_size**-0.5}

    for slope in slopes(made_study(plan(train_size=train_size), scores), "epistemic_sd"):
        assert slope.batch_sizes == (4, 16, 64)
        assert slope.estimate.mean == pytest.approx(-0.5)


def test_replicates_with_a_gap_are_left_out_and_the_rest_is_used():
    def gap(cell):
        return cell.network.seed == 1 and cell.batch_size == 64

    study = made_study(plan(), noisy, missing=gap)
    for slope in slopes(study, "epistemic_sd"):
        assert slope.replicates == 3
        assert slope.batch_sizes == SIZES
    whole = made_study(plan(seeds=(0, 2, 3)), noisy)
    assert slopes(study, "epistemic_sd") == slopes(whole, "epistemic_sd")


def test_all_training_sizes_together_take_the_replicates_that_each_has():
    def gap(cell):
        return cell.network.seed == 1 and cell.network.batch_size == 64

    found = slopes(made_study(plan(), noisy, missing=gap), "epistemic_sd")
    assert [slope.replicates for slope in found] == [4, 3, 3]


def test_undefined_spreads_do_not_stop_the_others():
    def scores(cell):
        found = noisy(cell)
        return found if cell.network.seed else found | {"epistemic_sd": math.nan}

    assert {slope.replicates for slope in slopes(made_study(plan(), scores), "epistemic_sd")} == {3}
    nothing = made_study(plan(), lambda cell: {"nll": 1.0})
    assert slopes(nothing, "epistemic_sd") == ()


def test_one_replicate_has_a_slope_and_no_interval():
    (slope,) = slopes(made_study(plan(seeds=(0,), training=(32,)), noisy), "epistemic_sd")
    assert math.isfinite(slope.estimate.mean)
    assert math.isnan(slope.estimate.low)


def test_one_batch_size_has_no_slope():
    study = made_study(plan(sizes=(8,)), noisy)
    assert slopes(study, "epistemic_sd") == ()
    assert spreads(study, "epistemic_sd", "MCBN", 32) is None
    assert decay(study) is None


def test_decay_is_over_all_training_batch_sizes():
    def scores(cell):
        power = {32: -1.0, 64: -0.5}[cell.network.batch_size]
        return {"mutual_information": cell.batch_size**power}

    found = decay(made_study(plan(), scores))
    assert found.slope == pytest.approx(-0.75)
    assert found.factor == pytest.approx(64**0.75)
    assert (found.smallest, found.largest, found.networks) == (4, 256, 8)


def test_interval_covers_the_true_slope_at_its_rate():
    """500 studies of four seeds whose slopes vary with the seed, alike at all training sizes.

    The share of intervals with -1/2 in them is 95% but for chance. Networks taken
    for independent would cover in about 78%.
    """
    generator = np.random.default_rng(0)
    cells, covered, count = plan().cells(), 0, 500
    for _ in range(count):
        own = dict(enumerate(generator.normal(-0.5, 0.1, 4)))
        results = [
            Result(
                cell,
                {"epistemic_sd": cell.batch_size ** own[cell.network.seed]
                                 * np.exp(generator.normal(0, 0.05))},
                {},
            )
            for cell in cells
        ]  # fmt: skip
        found = slopes(Study(plan(), tuple(results), {}, 0), "epistemic_sd")[-1].estimate
        covered += found.low <= -0.5 <= found.high
    assert abs(covered / count - 0.95) < DEVIATIONS * math.sqrt(0.95 * 0.05 / count)


def by_networks(table):
    """A study whose networks have these slopes: rows of seeds, columns of training batch sizes."""
    sizes = (32, 64, 128)[: len(table[0])]
    made = plan(training=sizes, seeds=tuple(range(len(table))))

    def scores(cell):
        slope = table[cell.network.seed][sizes.index(cell.network.batch_size)]
        return {
            "epistemic_sd": cell.batch_size**slope,
            "mutual_information": cell.batch_size**slope,
        }

    return made_study(made, scores)


def test_interval_of_all_networks_is_not_narrower_than_their_own_spread_gives():
    """Means of three seeds agree by chance, while their nine networks differ by a tenth."""
    table = [[-1.35, -1.29, -1.23], [-1.25, -1.34, -1.28], [-1.27, -1.24, -1.36]]
    study = by_networks(table)
    slope = slopes(study, "epistemic_sd")[-1]
    interval = stats.ttest_1samp(np.ravel(table), 0).confidence_interval(0.95)
    assert slope.networks == 9
    assert slope.replicates == 3
    assert slope.estimate.mean == pytest.approx(np.mean(table))
    assert (slope.estimate.low, slope.estimate.high) == pytest.approx(tuple(interval))
    fit = decay(study)
    assert (fit.low, fit.high) == pytest.approx(tuple(interval))


def test_interval_of_networks_that_are_alike_for_a_seed_is_that_of_the_seeds():
    table = [[-0.6] * 3, [-0.5] * 3, [-0.42] * 3]
    slope = slopes(by_networks(table), "epistemic_sd")[-1]
    interval = stats.ttest_1samp([row[0] for row in table], 0).confidence_interval(0.95)
    assert (slope.estimate.low, slope.estimate.high) == pytest.approx(tuple(interval))


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_interval_of_networks_holds_whatever_a_seed_shares(shared):
    """4,000 studies of three seeds and three training batch sizes: false alarms at most 5%.

    A slope that differs from the mean by one standard deviation of a network is found in at least
    30% where nothing is shared; by networks alone false alarms are over 20% where all is.
    """
    generator, count = np.random.default_rng(0), 4000
    missed = alone = found = 0
    for _ in range(count):
        seeds, own = generator.normal(0, 1, (3, 1)), generator.normal(0, 1, (3, 3))
        table = shared**0.5 * seeds + (1 - shared) ** 0.5 * own
        interval = mean_of_networks(table.tolist())
        missed += not interval.low <= 0 <= interval.high
        found += not interval.low <= 1 <= interval.high
        networks = stats.t.ppf(0.975, 8) * table.std(ddof=1) / 3
        alone += abs(table.mean()) > networks
    assert missed / count < 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
    assert shared > 0 or found / count > 0.3
    assert shared < 1 or alone / count > 0.2


def test_one_seed_has_no_interval_however_many_networks():
    estimate = mean_of_networks([[-0.5, -0.6, -0.7]])
    assert estimate.mean == pytest.approx(-0.6)
    assert math.isnan(estimate.low)
