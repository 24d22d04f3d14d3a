"""Infinite scores, as probability 0 for a true class gives: nothing is NaN or claimed of them."""

import json
import math
import re
from functools import cache

import numpy as np
import pytest
import torch
from forecasters import drawn, evaluate, grouped

import mcbn
from mcbn.checks.draws import draws_claim
from mcbn.evaluation.bootstrap import percentile_interval
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.significance import paired_test, welch
from mcbn.evaluation.subgroups import subgroups
from mcbn.predictive.predictions import Predictions
from mcbn.report.report import Report

INF, NAN = math.inf, math.nan


def certain(rows, *, seed=0, examples=200, draws=0):
    """Predictions that give the true class of these rows probability 0, and the targets."""
    truth = 2 * torch.randn(examples, 3, generator=torch.Generator().manual_seed(9)).double()
    targets = drawn(truth.softmax(1), 10)
    noise = torch.randn(examples, 3, generator=torch.Generator().manual_seed(seed)).double()
    logits = truth + 0.3 * noise
    for row in rows:
        logits[row, targets[row]] = -INF
    log = logits.log_softmax(1)
    entropy = -(log.exp() * log).nan_to_num(0).sum(1)
    unknown = torch.full_like(log, NAN)
    return mcbn.CategoricalPredictive(log, entropy, unknown, unknown[:, 0], draws), targets


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([1.0, 2.0, INF], (1.0, INF)),
        ([-INF, 1.0, 2.0], (-INF, 2.0)),
        ([INF] * 9, (INF, INF)),
        ([-INF] * 9, (-INF, -INF)),
        ([-INF, INF], (-INF, INF)),
        ([NAN, INF, INF], (INF, INF)),
        ([NAN] * 3, (NAN, NAN)),
        # Of 99 replicates the ends are those of the ranks 2.5 and 97.5.
        (range(1, 100), (2.5, 97.5)),
        ([*range(1, 99), INF], (2.5, 97.5)),
        ([*range(1, 98), INF, INF], (2.5, INF)),
        ([-INF, *range(2, 100)], (2.5, 97.5)),
        ([-INF, -INF, *range(3, 100)], (-INF, 97.5)),
        # Of 39 the lower end is the first itself.
        ([*range(1, 39), INF], (1.0, INF)),
    ],
)
def test_interval_ends_of_infinite_replicates(values, interval):
    ends = percentile_interval(torch.tensor(list(values)).double(), 0.95)
    assert ends == pytest.approx(interval, nan_ok=True)
    shuffled = torch.tensor(list(values)[::-1]).double()
    assert percentile_interval(shuffled, 0.95) == pytest.approx(ends, nan_ok=True)


@pytest.mark.parametrize("order", [1, -1])
def test_a_row_without_an_interval_leaves_none(order):
    rows = torch.tensor([[NAN, NAN], [1.0, 2.0]][::order]).double()
    assert all(map(math.isnan, percentile_interval(rows, 0.95)))


def test_an_infinite_nll_has_ends_that_hold_it():
    score = evaluate(*certain([3]), resamples=200)["nll"]
    assert score.value == INF
    assert score.high == INF
    assert 0 < score.low < INF
    everywhere = evaluate(*certain(range(200)), resamples=50)["nll"]
    assert (everywhere.value, everywhere.low, everywhere.high) == (INF, INF, INF)
    assert str(everywhere) == "inf [inf, inf]"


@pytest.mark.parametrize("others", [[3], [7], range(100)])
def test_the_difference_of_two_infinite_scores_is_not_known(others):
    one, other = (evaluate(*certain(rows), resamples=100) for rows in ([3], others))
    difference = one.minus(other)["nll"]
    assert all(map(math.isnan, (difference.value, difference.low, difference.high)))
    against_finite = one.minus(evaluate(*certain([]), resamples=100))["nll"]
    assert (against_finite.value, against_finite.high) == (INF, INF)
    assert not math.isnan(against_finite.low)


def test_tests_of_infinite_values_have_no_p_value():
    finite, infinite = torch.arange(9.0), torch.tensor([1.0, 2.0, INF])
    for pair in ((finite, infinite), (infinite, finite), (infinite, infinite)):
        assert math.isnan(welch(*pair))
    for values in ([1.0, INF], [INF, INF], [-INF, INF], [1.0, NAN, 2.0]):
        assert math.isnan(paired_test(values))


def strict(numbers):
    """The numbers of a JSON text, which has no other tokens than those of JSON."""
    return json.loads(json.dumps(numbers, allow_nan=False))


def test_numbers_for_json_are_json():
    predictive, targets = certain([3])
    evaluation = evaluate(predictive, targets, resamples=20)
    scores = strict(evaluation.to_dict())["scores"]
    assert scores["nll"]["value"] is None
    assert scores["nll"]["high"] is None
    assert scores["brier"]["value"] == pytest.approx(evaluation["brier"].value)
    groups = subgroups(predictive, targets, ["a", "b"] * 100, resamples=5)
    assert strict([group.to_dict() for group in groups])[0]["p_value"] is None
    strict(evaluate(*grouped()[:2]).to_dict())


@cache
def page(*rows_of_methods, groups=True):
    made = []
    for number, rows in enumerate(rows_of_methods):
        predictive, targets = certain(rows, seed=number)
        made.append(Predictions(f"m{number}", predictive, targets, "data"))
    labels = {"site": ["a", "b"] * 100} if groups else None
    return Report.from_predictions(made, groups=labels, resamples=100)


WORDS = ("beyond chance", "significantly worse", "significantly different", "lower than",
         "improves", "has the lowest", "enough")  # fmt: skip


def best(report):
    return next(claim for claim in report.verdict if claim.topic == "Best method")


@pytest.mark.parametrize("rows", [((3,), (3,)), ((3,), (8,)), (tuple(range(200)),) * 3])
def test_no_method_is_called_best_among_infinite_ones(rows):
    claim = best(page(*rows))
    assert claim.mark == "uncertain"
    assert not [word for word in WORDS if word in claim.sentence], claim.sentence


def test_a_finite_method_beats_an_infinite_one_only_beyond_chance():
    one = best(page((3,), ()))
    assert one.mark == "uncertain"
    assert "not significantly different from m0" in one.sentence
    assert "beyond chance" in best(page(tuple(range(150)), ())).sentence
    assert best(page((), (3,))).mark in ("uncertain", "bad")


@pytest.mark.parametrize("rows", [((3,),), ((3, 4), ()), (tuple(range(200)),) * 2, ((2, 4), (3,))])
def test_a_page_of_infinite_scores_is_whole(rows, tmp_path):
    report = page(*rows)
    path = report.write(tmp_path)
    strict(json.loads((tmp_path / "report.json").read_text()))
    assert "\N{INFINITY}" in path.read_text("utf-8")
    assert not re.search(
        r"\bnan\b", re.sub(r"<svg.*?</svg>", "", path.read_text(), flags=re.DOTALL)
    )


def test_a_group_with_an_infinite_score_is_not_tested():
    claims = {claim.topic: claim for claim in page((3,)).verdict}
    assert claims["Groups"].mark == "uncertain"
    assert "cannot be tested" in claims["Groups"].sentence
    both = {claim.topic: claim for claim in page((3, 4)).verdict}
    assert "infinite as that of 1 other group" in both["Groups"].sentence


def test_an_infinite_interval_says_nothing_about_the_draws():
    predictive, targets = certain([3], draws=8)
    made = entry(ScoredRows(predictive, targets), outside={}, resamples=50, progress=False)
    curve = Convergence((1, 2, 4, 8), (1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.1, NAN))
    claim = draws_claim(Comparison({"m": made}, targets, ()), {"m": curve})
    assert claim.mark == "uncertain"
    assert np.isinf(made.evaluation["nll"].high)
