"""Choosing the batch size from held-out examples that hang together: whole groups are resampled."""

import math
from itertools import islice

import pytest
import torch
from law import share_is
from one_unit import by_log_score, one_unit
from torch.testing import assert_close

import mcbn
from mcbn.evaluation import bootstrap
from mcbn.evaluation.clusters import Clusters
from mcbn.study.confirmation import confirm
from mcbn.study.criterion import Objective

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
    pytest.mark.filterwarnings("ignore:draws collected at"),
]


def patients(count, *, seed):
    """Targets of patients of 1 to 19 scans, who share most of an error, and whose they are."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 20, (count,), generator=generator)
    patient = torch.arange(count).repeat_interleave(sizes)
    own = torch.randn(count, generator=generator, dtype=torch.float64)[patient]
    noise = torch.randn(len(patient), generator=generator, dtype=torch.float64)
    return 0.3 + (0.3 * own + 0.1 * noise)[:, None], patient


CHEAP = {"points": 3, "draws": 4}
RUNS = 100


@pytest.fixture(scope="module")
def simulated():
    """100 data sets of 60 patients: the choice by patient and by scan, and the true values."""
    everyone, _ = patients(20_000, seed=999)
    true = by_log_score(everyone, resamples=1, **CHEAP).values
    choices = []
    for seed in range(RUNS):
        targets, patient = patients(60, seed=seed)
        choices.append([
            by_log_score(targets, group=group, resamples=100, seed=seed, **CHEAP)
            for group in (patient, None)
        ])  # fmt: skip
    return choices, true


def holding(choices, true):
    """How many of the intervals hold the true value, at each size of the curve."""
    return sum(((each.low <= true) & (true <= each.high)).long() for each in choices).tolist()


@pytest.mark.unchecked
def test_intervals_of_the_curve_hold_the_truth_as_often_as_they_say(simulated):
    choices, true = simulated
    whole, alone = (holding(each, true) for each in zip(*choices, strict=True))
    for hits, naive in zip(whole, alone, strict=True):
        # Percentiles of 60 clusters hold a little less than 95%, as those of 60 examples do.
        assert share_is(hits, RUNS, 0.92, 0.97), whole
        assert not share_is(naive, RUNS, 0.92, 0.97), alone


@pytest.mark.unchecked
def test_groups_leave_the_curve_and_the_choice_as_they_are(simulated):
    for whole, alone in simulated[0][:10]:
        assert whole.best == alone.best
        assert_close(whole.values, alone.values, rtol=0, atol=0)


def test_groups_of_one_example_each_change_nothing():
    targets, _ = patients(10, seed=0)
    alone = by_log_score(targets, resamples=50, **CHEAP)
    grouped = by_log_score(targets, group=range(len(targets)), resamples=50, **CHEAP)
    assert grouped.to_dict() == alone.to_dict()


def test_every_example_twice_knows_no_more():
    targets, patient = patients(20, seed=0)
    once = by_log_score(targets, group=patient, resamples=50, **CHEAP)
    twice = by_log_score(
        targets.repeat(2, 1), group=patient.repeat(2).tolist(), resamples=50, **CHEAP
    )
    assert_close(twice.low, once.low)
    assert_close(twice.high, once.high)
    assert twice.interval == pytest.approx(once.interval)


@pytest.mark.parametrize("group", [range(3), [None, *range(9)], [1] * 10])
def test_groups_that_do_not_fit_are_refused_before_any_work(group):
    def fail(_):
        raise AssertionError("the network was called")

    model, bank = one_unit(gamma=1.0, sigma=1.0, draws=4, size=2000)
    model.register_forward_pre_hook(lambda *_: fail(_))
    x = torch.zeros(10, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected (a group for each of 10|groups of examples)"):
        mcbn.choose_batch_size(model, bank, x, x, likelihood=mcbn.Gaussian(1.0), group=group)


# The confirmation


def objective_of(targets):
    """A unit with mini-batches of its own data, and a bank of another mean."""
    model, _ = one_unit(gamma=1.0, sigma=1.0, draws=4, size=2000)
    generator = torch.Generator().manual_seed(5)
    data = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    batches = mcbn.minibatches(data, batch_size=20, draws=12, seed=0)
    bank = mcbn.collect(model, batches, limit=None, progress=False)
    x = torch.full_like(targets, 0.4)
    return Objective(model, bank, x, targets, mcbn.Gaussian(precision=50.0), None, None), batches


OPTIONS = {"draws": 12, "resamples": 40, "level": 0.9, "seed": 3}


def test_gaps_of_collected_draws_are_resampled_with_the_groups_of_the_curve():
    """A bank of mini-batches against itself rescaled to its own size, of which nothing differs.

    So a replicate is what the drawn patients make of the draws that were drawn, which the curve of
    each draw tells by itself.
    """
    targets, patient = patients(15, seed=0)
    clusters = Clusters.of_groups(patient, len(targets))
    objective, batches = objective_of(targets)
    _, whole = confirm(objective, batches, (20,), clusters=clusters, **OPTIONS)
    _, alone = confirm(objective, batches, (20,), **OPTIONS)
    assert whole.shape == alone.shape == (1, 40)
    again = [
        confirm(
            objective_of(targets[rows])[0], batches, (20,), **{**OPTIONS, "resamples": index + 1}
        )[1][0, index]
        for index, rows in enumerate(islice(bootstrap.drawn_rows(clusters, seed=3), 6))
    ]
    assert_close(whole[0, :6], torch.stack(again))
    drawn = bootstrap.replicates(
        [{"row": torch.arange(len(targets)).double()}], lambda chosen: {"sum": chosen["row"].sum()},
        resamples=6, seed=3, progress=False, clusters=[clusters],
    )  # fmt: skip
    rows = list(islice(bootstrap.drawn_rows(clusters, seed=3), 6))
    assert drawn["sum"].tolist() == [float(each.sum()) for each in rows]


def test_few_patients_make_gaps_less_certain():
    targets, patient = patients(4, seed=0)
    objective, batches = objective_of(targets)
    spans = []
    for clusters in (None, Clusters.of_groups(patient, len(targets))):
        found, _ = confirm(objective, batches, (5, 80), clusters=clusters, **OPTIONS)
        spans.append([high - low for low, high in zip(found.low, found.high, strict=True)])
    assert spans[1][0] > spans[0][0]


def test_a_choice_is_confirmed_with_its_groups():
    targets, patient = patients(15, seed=0)
    objective, batches = objective_of(targets)
    options = {"likelihood": mcbn.Gaussian(precision=50.0), "batches": batches, "confirm": 12,
               "points": 5, "resamples": 40}  # fmt: skip
    whole, alone = (
        mcbn.choose_batch_size(
            objective.model, objective.bank, objective.inputs, targets, group=group, **options
        )
        for group in (patient, None)
    )
    assert whole.confirmation.gaps == alone.confirmation.gaps
    assert whole.confirmation.low != alone.confirmation.low
    found, _ = confirm(
        objective, batches, whole.confirmation.batch_sizes, draws=12, resamples=40, level=0.95,
        seed=0, clusters=Clusters.of_groups(patient, len(targets)),
    )  # fmt: skip
    assert whole.confirmation.to_dict() == found.to_dict()
    assert math.isfinite(whole.value)
