"""Sets of several labels: the guarantee on the false negative rate, by simulation and by turns.

Angelopoulos and others 2024, theorem 1: with n exchangeable examples the expected loss of a new one
is at most alpha, and without ties at least alpha - 2 / (n + 1). Means of simulations are compared
by their standard errors, as many as `law` asks for.
"""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from law import ALPHA, DEVIATIONS
from scipy import stats

import mcbn

RUNS = 1000


def stream(seed):
    return torch.Generator().manual_seed(seed)


def of(logits):
    return mcbn.Bernoulli("logits").summarize(logits[None])


def xrays(seed, count=20, labels=6):
    """Logits and findings of scans, most of which have none, and the scan as the patient."""
    generator = stream(seed)
    ill = torch.rand(count, generator=generator) < 0.4
    present = torch.rand(count, labels, generator=generator) < 0.4 * ill[:, None]
    hard = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(count, labels, generator=generator, dtype=torch.float64)
    return -1 + present * (1 + hard) + noise, present.long(), torch.arange(count)


def patients(seed, count=15):
    """Scans of patients: half of one whose findings are hard to see, half of 20 easy ones."""
    generator = stream(seed)
    hard = torch.rand(count, generator=generator) < 0.5
    patient = torch.arange(count).repeat_interleave(torch.where(hard, 1, 20))
    present = torch.rand(count, 4, generator=generator) < 0.5
    present[:, 0] |= ~present.any(1)
    noise = torch.randn(len(patient), 4, generator=generator, dtype=torch.float64)
    logits = torch.where(hard, -2.0, 2.0)[:, None] * present
    return logits[patient] + noise, present[patient].long(), patient


def shares(make, fit):
    """The share found of the labels of the first example of a new patient who has any: mean, error.

    Args:
        make: logits, targets and patients by seed.
        fit: the lowest logit of a label in a set, from those of the other patients.
    """
    found, seed = [], 0
    while len(found) < RUNS:
        seed += 1
        logits, targets, patient = make(seed)
        new, known = patient == patient.max(), patient < patient.max()
        there = targets[new][0] == 1
        if bool(there.any()) and bool(targets[known].any()):
            lowest = fit(logits[known], targets[known], patient[known])
            found.append(float((logits[new][0][there] >= lowest).double().mean()))
    return np.mean(found), DEVIATIONS * np.std(found) / math.sqrt(RUNS)


def conformal(level, *, by_group=False):
    """The threshold of `ConformalLabels`, as a logit."""

    def fit(logits, targets, patient):
        fitted = mcbn.ConformalLabels.fit(
            of(logits), targets, level=level,
            group=patient if by_group else None,
        )  # fmt: skip
        # -log sigmoid(x) <= t, with room for rounding.
        return -math.log(math.expm1(fitted.threshold)) - 1e-9 if fitted.threshold else math.inf

    return fit


def of_all_examples(level):
    """Conformal risk control that counts examples without labels as those with nothing missed."""

    def fit(logits, targets, patient):
        order = logits.flatten().argsort(descending=True)
        share = (targets / targets.sum(1, keepdim=True).clamp_min(1)).flatten()[order]
        missed = targets.any(1).sum() - share.cumsum(0)
        enough = missed + 1 <= (len(logits) + 1) * (1 - level)
        return float(logits.flatten()[order][enough.nonzero()[0]]) if enough.any() else -math.inf

    return fit


def test_a_new_example_is_missed_as_seldom_as_promised():
    """1,000 simulations of 60 scans; those without findings, if counted, break the promise."""

    def make(seed):
        return xrays(seed, count=61)

    mean, error = shares(make, conformal(0.8))
    # About 21 of the 60 have a finding, hardly ever fewer than 9.
    assert 0.8 - error < mean < 0.8 + 2 / 10 + error
    naive, error = shares(make, of_all_examples(0.8))
    assert naive < 0.8 - error


def test_a_scan_of_a_new_patient_is_missed_as_seldom_as_promised():
    """1,000 simulations of 14 patients: by patients, and by scans as if they were independent."""
    mean, error = shares(patients, conformal(0.75, by_group=True))
    assert 0.75 - error < mean < 0.75 + 2 / 15 + error
    naive, error = shares(patients, conformal(0.75))
    assert naive < 0.75 - error


@pytest.mark.parametrize("level", [0.1, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("ties", [False, True])
def test_each_of_eight_groups_takes_its_turn_as_the_new_one(level, ties):
    """Whatever the values: the mean share found of the group left out is never below the level."""
    for seed in range(12):
        generator = stream(seed)
        group = torch.arange(8).repeat_interleave(torch.randint(1, 5, (8,), generator=generator))
        group = group[torch.randperm(len(group), generator=generator)]
        logits = torch.randn(len(group), 4, generator=generator, dtype=torch.float64)
        logits = (2 * logits).round() if ties else logits
        targets = torch.randint(-1, 2, (len(group), 4), generator=generator)
        targets[:, 0] = torch.where((targets == 1).any(1), targets[:, 0], 1)
        total = Fraction(0)
        for left_out in range(8):
            known = group != left_out
            fitted = mcbn.ConformalLabels.fit(
                of(logits[known]), targets[known], level=level, group=group[known], ignore_index=-1
            )
            members = fitted(of(logits[~known])).members
            each = [
                Fraction(int((row & there).sum()), int(there.sum()))
                for row, there in zip(members, targets[~known] == 1, strict=True)
            ]
            total += sum(each) / len(each)
        assert total / 8 >= Fraction(str(level))


@pytest.mark.parametrize("level", [0.05, 0.25, 0.5, 0.625, 0.85])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_threshold_by_the_bound_of_the_paper(level, grouped):
    """The smallest threshold with n / (n + 1) risk + 1 / (n + 1) <= alpha."""
    for seed in range(6):
        logits, targets, scan = xrays(seed, 45)
        targets[::7, 2] = -1
        group = (scan // 6 if grouped else scan).tolist()
        fitted = mcbn.ConformalLabels.fit(
            of(logits), targets, level=level, ignore_index=-1, group=group if grouped else None
        )
        there = targets == 1
        scores = np.logaddexp(0, -logits.numpy())
        names = sorted({name for name, any_ in zip(group, there.any(1), strict=True) if any_})
        expected = math.inf
        for threshold in sorted(scores[there.numpy()].tolist()):
            losses = {name: [] for name in names}
            for name, row, has in zip(group, scores, there.numpy(), strict=True):
                if has.any():
                    losses[name].append(Fraction(int((row[has] > threshold).sum()), int(has.sum())))
            risk = sum(sum(each) / len(each) for each in losses.values())
            if risk + 1 <= (len(names) + 1) * (1 - Fraction(str(level))):
                expected = threshold
                break
        assert fitted.threshold == pytest.approx(expected, rel=1e-12)
        assert fitted.examples == int(there.any(1).sum())
        assert fitted.groups == (len(names) if grouped else None)


def test_too_few_examples_hold_every_label():
    logits = torch.randn(40, 3, generator=stream(0)).double()
    targets = torch.zeros(40, 3, dtype=torch.long)
    targets[:8, 1] = 1  # 8 are too few for 0.9, however many have no label
    few = mcbn.ConformalLabels.fit(of(logits), targets)
    assert few.threshold == math.inf
    assert bool(few(of(logits[:5] - 99)).members.all())
    assert mcbn.ConformalLabels.from_dict(json.loads(json.dumps(few.to_dict()))) == few
    targets[8, 0] = 1
    assert mcbn.ConformalLabels.fit(of(logits), targets).threshold < math.inf


def test_coverage_is_the_mean_over_examples_of_the_share_of_their_labels():
    members = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()
    targets = torch.tensor([[1, 0, 1], [0, 1, -1], [0, 0, 0], [1, 1, -1]])
    sets = mcbn.LabelSets(members)
    assert sets.mean_size == 1.5
    found = sets.coverage(targets, ignore_index=-1)
    assert found.value == pytest.approx((0.5 + 1 + 0) / 3)  # the third has no label
    grouped = sets.coverage(targets, ignore_index=-1, group=["a", "b", "c", "b"])
    assert grouped.value == pytest.approx((0.5 + 0.5) / 2)


def test_the_interval_of_one_label_an_example_is_that_of_patients():
    """With one label each the examples are hits and misses, as those of `PredictionSets`."""
    inside = torch.rand(50, generator=stream(0)) < 0.8
    targets = torch.zeros(50, 2, dtype=torch.long)
    targets[:, 0] = 1
    members = torch.stack([inside, ~inside], 1)
    for group in (None, [k // 3 for k in range(50)]):
        one = mcbn.LabelSets(members).coverage(targets, group=group)
        two = mcbn.PredictionSets(members).coverage(
            torch.zeros(50, dtype=torch.long), group=range(50) if group is None else group
        )
        assert one == two


def test_the_interval_holds_the_true_share():
    """800 simulations of 60 examples of 1 to 6 labels; 95% intervals hold in 93% or more."""
    held = 0
    for seed in range(800):
        generator = stream(seed)
        hard = torch.rand(60, 1, generator=generator)  # the chance to miss a label: 1/2 on average
        there = torch.rand(60, 6, generator=generator) < 0.4
        there[:, 0] = True
        members = torch.rand(60, 6, generator=generator) > hard
        found = mcbn.LabelSets(members).coverage(there.long())
        held += found.low <= 0.5 <= found.high
    assert stats.binom.cdf(held, 800, 0.95) > ALPHA, held


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda p, y: mcbn.ConformalLabels.fit(p, y, level=90), ValueError, "level"),
        (lambda p, y: mcbn.ConformalLabels.fit(p, y * 0), ValueError, "have a label, got none"),
        (lambda p, y: mcbn.ConformalLabels.fit(p, y[:, :2]), ValueError, "a target of each label"),
        (lambda p, y: mcbn.ConformalLabels.fit(p.as_classes, y), TypeError, "take ConformalSets"),
        (lambda p, y: mcbn.ConformalLabels(0.9, 1.0, 9)(p.as_classes), TypeError,
         "take ConformalSets"),
        (lambda p, y: mcbn.ConformalLabels.fit(
            of(torch.zeros(4, 3, 2, dtype=torch.float64)), torch.ones(4, 3, 2)), ValueError,
         r"got positions \(2,\)"),
        (lambda p, y: mcbn.ConformalLabels.fit(p, y)(p), ValueError, "got the held-out ones again"),
        (lambda p, y: mcbn.ConformalLabels.fit(p, y, group=range(3)), ValueError,
         "a group for each of 20 examples"),
        (lambda p, y: mcbn.LabelSets(y == 1).coverage(y * 0), ValueError, "have a label, got none"),
        (lambda p, y: mcbn.LabelSets(y == 1).coverage(y - 1), ValueError, "ignore_index=-1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, kind, message):
    logits, targets, _ = xrays(1, 20)
    with pytest.raises(kind, match=message):
        call(of(logits), targets)
