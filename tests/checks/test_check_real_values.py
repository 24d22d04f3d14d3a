"""Calibration and best method of real values: false alarms and power, where truth is known."""

import math

import numpy as np
import pytest
import torch
from equal_methods import at_most
from scipy import special, stats

from mcbn.checks.real_values import best_real_claim, real_calibration_claim, real_calibration_states
from mcbn.evaluation.bootstrap import replicates
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.evaluation import Evaluation, Score
from mcbn.evaluation.real_gaps import NAMES, RealGaps, real_gap_intervals
from mcbn.predictive import positions
from mcbn.predictive.gaussian import GaussianPredictive

pytestmark = pytest.mark.unchecked


def runs(quick, slow=2000):
    return pytest.mark.parametrize("runs", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def forecasts(seed, *, methods=3, examples=400, own=0.5, cluster=1):
    """Equal, calibrated methods: each knows `a + b_k` of a target `a + sum of b_k + e`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        drawn = torch.randn(*shape, examples // cluster, generator=generator).double()
        return drawn.repeat_interleave(cluster, -1)

    common, noise, parts = normal(), normal(), own**0.5 * normal(methods)
    variance = torch.tensor(1 + (methods - 1) * own).double()
    return common + parts, variance, common + parts.sum(0) + noise


def gaps_of(means, variance, targets, *, widths=None, shifts=None, clusters=None):
    widths, shifts = widths or [1.0] * len(means), shifts or [0.0] * len(means)
    return {
        f"m{k}": RealGaps.of(
            GaussianPredictive((mean + shifts[k])[None], widths[k] ** 2 * variance), targets,
            clusters,
        )
        for k, mean in enumerate(means)
    }  # fmt: skip


@runs(100)
@pytest.mark.parametrize("methods", [1, 5])
def test_calibrated_methods_are_rarely_called_anything_else(methods, runs):
    """Nominal 5% of test sets in which any method is, of five statistics of each."""
    alarms = 0
    for seed in range(runs):
        states = real_calibration_states(gaps_of(*forecasts(seed, methods=methods)))
        alarms += any(state.is_bad for state in states.values())
    assert at_most(alarms, runs)


@runs(50)
def test_clusters_count_not_their_rows(runs):
    """40 groups of ten equal values; by rows nearly every test set had an alarm."""
    groups = Clusters(torch.arange(40).repeat_interleave(10))
    alarms = by_rows = 0
    for seed in range(runs):
        given = forecasts(seed, cluster=10)
        whole, apart = (
            real_calibration_states(gaps_of(*given, clusters=each)).values()
            for each in (groups, None)
        )
        alarms += any(state.is_bad for state in whole)
        by_rows += any(state.is_bad for state in apart)
    assert at_most(alarms, runs)
    assert by_rows / runs > 0.5


@pytest.mark.parametrize("covered", [30, 40])
def test_equal_rows_of_clusters_count_once(covered):
    """Also where all values are covered, so that there is no spread to see."""
    targets = torch.linspace(-1.6, 1.6, 40).double()
    targets[covered:] = 3.0
    each = torch.arange(40).repeat_interleave(10)
    once, repeated = (
        RealGaps.of(
            GaussianPredictive(torch.zeros(1, len(rows)).double(), torch.tensor(1.0).double()),
            targets[rows], Clusters(rows),
        )
        for rows in (torch.arange(40), each)
    )  # fmt: skip
    expected = real_gap_intervals({"m": once}, level=0.95)["m"]
    found = real_gap_intervals({"m": repeated}, level=0.95)["m"]
    assert [*map(tuple, found.values())] == [pytest.approx(gap) for gap in expected.values()]
    assert (found["coverage"][2] - found["coverage"][0]) > 2 * (0.09 / 40) ** 0.5


@runs(40)
@pytest.mark.parametrize(
    ("change", "state"),
    [({"widths": [1.0, 1.0, 0.8]}, "over-confident"), ({"widths": [1.0, 1.0, 1.3]},
     "under-confident"), ({"shifts": [0.0, 0.0, 0.5]}, "biased")],
)  # fmt: skip
def test_one_wrong_method_of_three_is_found_and_the_others_are_not_blamed(change, state, runs):
    """600 examples; a fifth too narrow, 30% too wide, or 0.35 deviations too high: in 90%."""
    found = blamed = 0
    for seed in range(runs):
        states = real_calibration_states(gaps_of(*forecasts(seed, examples=600), **change))
        found += states["m2"].state == state
        blamed += states["m0"].is_bad or states["m1"].is_bad
    assert found / runs > 0.9
    assert at_most(blamed, runs)


@runs(60)
def test_a_wrong_shape_is_found_where_place_and_spread_are_right(runs):
    """PITs of the density 1 + 0.3 times the third polynomial: 1,000 of them, in 90%."""
    found = 0
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        pit, level = generator.random(20_000), generator.random(20_000)
        density = 1 + 0.3 * 7**0.5 * special.eval_legendre(3, 2 * pit - 1)
        targets = torch.from_numpy(stats.norm.ppf(pit[2 * level < density][:1000]))
        assert len(targets) == 1000
        right = GaussianPredictive(torch.zeros(1, 1000).double(), torch.tensor(1.0))
        states = real_calibration_states({"m0": RealGaps.of(right, targets)})
        found += states["m0"].is_bad
    assert found / runs > 0.9


def test_gaps_are_legendre_polynomials_of_the_transforms():
    means, variance, targets = forecasts(0, methods=1, examples=300)
    (gaps,) = gaps_of(means, variance, targets).values()
    residuals = ((targets - means[0]) / variance.sqrt()).numpy()
    pit = stats.norm.cdf(residuals)
    expected = [
        residuals,
        *(math.sqrt(2 * k + 1) * special.eval_legendre(k, 2 * pit - 1) for k in (2, 3, 4)),
        0.9 - (np.abs(pit - 0.5) <= 0.45),
    ]
    np.testing.assert_allclose(gaps.sums.numpy(), expected, atol=1e-10)
    found = real_gap_intervals({"a": gaps}, level=0.95)["a"]
    for name, row in zip(NAMES, expected, strict=True):
        assert found[name][0] == pytest.approx(row.mean(), abs=1e-12)


def test_outputs_and_positions_are_in_the_cluster_of_their_example(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    mean, targets = torch.randn(2, 20, 3, 4, generator=generator).double()
    predictive = GaussianPredictive(mean[None], torch.tensor(2.0))
    whole = RealGaps.of(predictive, targets)
    assert whole.sizes.tolist() == [12.0] * 20
    flat = RealGaps.of(
        GaussianPredictive(mean.flatten()[None], torch.tensor(2.0)), targets.flatten(),
        Clusters(torch.arange(20).repeat_interleave(12)),
    )  # fmt: skip
    torch.testing.assert_close(whole.sums, flat.sums)
    monkeypatch.setattr(positions, "LARGE", 100)
    torch.testing.assert_close(RealGaps.of(predictive, targets).sums, whole.sums)


def test_without_variance_the_transforms_tell_all():
    certain = GaussianPredictive(torch.zeros(1, 50).double(), torch.tensor(0.0))
    gaps = RealGaps.of(
        certain, torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    )
    assert bool(gaps.sums.isfinite().all())
    assert real_calibration_states({"a": gaps})["a"].state == "over-confident"


def evaluations(values, drawn):
    """PLLs with their replicates."""
    return {
        f"m{k}": Evaluation({"pll": Score(float(v), -9.0, 9.0, "higher", d)}, 200, 1, 0.95, 0)
        for k, (v, d) in enumerate(zip(values, drawn, strict=True))
    }


def best_of(seed, *, methods=10, gain=0.0, resamples=100):
    generator = torch.Generator().manual_seed(seed)
    logs = -1 + torch.randn(200, methods, generator=generator).double()
    logs[:, -1] += gain
    drawn = replicates(
        [{"logs": logs}], lambda c: {"mean": c["logs"].mean(0)}, resamples=resamples, seed=0,
        progress=False,
    )["mean"]  # fmt: skip
    return best_real_claim(evaluations(logs.mean(0), drawn.T))


@pytest.mark.parametrize(
    ("runs", "resamples"), [(150, 100), pytest.param(2000, 1000, marks=pytest.mark.slow)]
)
def test_the_best_of_nine_equal_rivals_is_rarely_called_better(runs, resamples):
    """Nominal 2.5%; by the interval of one alone 18%, and 3.8% with 100 resamples."""
    called = sum(best_of(seed, resamples=resamples).mark == "good" for seed in range(runs))
    assert at_most(called, runs, 0.025)


@runs(60)
def test_a_better_rival_is_found(runs):
    """Half a nat on 200 examples, among nine rivals: in 90%."""
    assert sum(best_of(seed, gain=0.5).mark == "good" for seed in range(runs)) / runs > 0.9


def test_the_claim_names_every_method():
    score = Score(0.9, 0.87, 0.93, None, torch.full((9,), 0.9).double())
    scores = {"coverage_90": score, "pit_error": score}
    names = ("m0", "m1", "m2")
    every = {name: Evaluation(scores, 600, 1, 0.95, 0) for name in names}
    gaps = gaps_of(*forecasts(0, examples=3000), widths=[1.0, 0.6, 1.0], shifts=[0.0, 0.0, 1.0])
    claim = real_calibration_claim(every, gaps, real_calibration_states(gaps))
    assert claim.mark == "uncertain"
    assert "intervals of m0 contain 90.0% [87.0, 93.0] of the true values, as int" in claim.sentence
    assert "m1 (" in claim.sentence
    assert "is over-confident" in claim.sentence
    assert "is biased" in claim.sentence
    none = real_calibration_claim(every, {}, {})
    assert (none.mark, "as intended" in none.sentence) == ("uncertain", False)
