"""Scores of predictive distributions: laws, sources of logits, refusals, right and wrong."""

import math
from dataclasses import replace

import pytest
import torch
from models import examples, make_network
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.evaluation import detection
from mcbn.evaluation.scores import correct
from mcbn.predictive.predictions import Predictions
from mcbn.uncertainty.predictive_scores import (
    PREDICTIVE_SCORES,
    as_score,
    as_scores,
    uncertainty_of,
)
from mcbn.uncertainty.score import UncertaintyScore

OF_LOGITS = ("energy", "max_logit")
OTHERS = tuple(name for name in PREDICTIVE_SCORES if name not in OF_LOGITS)
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def drawn(draws=5, batch=30, classes=4, *positions, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (draws, batch, classes, *positions)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def summarized(logits, **options):
    return mcbn.Categorical("logits").summarize(logits, **options)


@pytest.mark.parametrize("name", PREDICTIVE_SCORES)
def test_classes_and_draws_have_no_order_and_examples_keep_theirs(name):
    logits, score = drawn(), PREDICTIVE_SCORES[name]
    expected = score(summarized(logits))
    assert expected.shape == (30,)
    assert expected.dtype == torch.float64
    assert_close(score(summarized(logits[:, :, [2, 0, 3, 1]])), expected, **EXACT)
    assert_close(score(summarized(logits.flip(0))), expected, **EXACT)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert_close(score(summarized(logits[:, order])), expected[order], rtol=0, atol=0)


@pytest.mark.parametrize("name", PREDICTIVE_SCORES)
def test_what_all_logits_have_in_common_moves_the_scores_of_logits_alone(name):
    """By exactly as much: an added constant is taken off the energy."""
    logits, score = drawn(), PREDICTIVE_SCORES[name]
    shift = drawn(5, 30, 1, seed=2)
    moved = -shift.mean(0)[:, 0] if name in OF_LOGITS else 0
    expected = score(summarized(logits)) + moved
    assert_close(score(summarized(logits + shift)), expected, **EXACT)


def test_energy_is_between_its_bounds():
    logits = drawn()
    of = {name: PREDICTIVE_SCORES[name](summarized(logits)) for name in OF_LOGITS}
    assert bool((of["energy"] <= of["max_logit"]).all())
    assert bool((of["energy"] >= of["max_logit"] - math.log(4)).all())
    of_mean = PREDICTIVE_SCORES["energy"](summarized(logits.mean(0, keepdim=True)))
    assert bool((of["energy"] <= of_mean).all())


def test_a_single_draw_has_no_disagreement():
    predictive = summarized(drawn(1))
    for name in ("mutual_information", "variation_ratio"):
        assert_close(PREDICTIVE_SCORES[name](predictive), torch.zeros(30).double(), **EXACT)
    scores = (PREDICTIVE_SCORES[name](predictive) for name in ("entropy", "expected_entropy"))
    assert_close(*scores, **EXACT)


@pytest.mark.parametrize("name", PREDICTIVE_SCORES)
def test_positions_are_examples_of_their_own(name):
    logits, score = drawn(4, 6, 3, 2, 5), PREDICTIVE_SCORES[name]
    dense = score(summarized(logits))
    assert dense.shape == (6, 2, 5)
    rows = logits.movedim(2, -1).reshape(4, 60, 3)
    assert_close(dense.flatten(), score(summarized(rows)), rtol=0, atol=0)


@pytest.mark.parametrize("name", OTHERS)
def test_labels_are_two_classes_each_and_their_mean_counts(name):
    logits, score = drawn(5, 30, 3), PREDICTIVE_SCORES[name]
    labels = mcbn.Bernoulli("logits").summarize(logits)
    each = [
        score(summarized(torch.stack([torch.zeros_like(z), z], 2))) for z in logits.unbind(2)
    ]  # fmt: skip
    assert_close(score(labels), torch.stack(each, 1).mean(1), **EXACT)


@pytest.mark.parametrize("name", ["max_softmax", "margin"])
def test_a_confidence_near_one_keeps_its_digits(name):
    gaps = torch.tensor([50.0, 60.0], dtype=torch.float64)
    logits = torch.stack([torch.zeros(2).double(), -gaps, -gaps - 30], 1)[None]
    times = 1 if name == "max_softmax" else 2
    expected = times * (-gaps).exp()
    assert_close(PREDICTIVE_SCORES[name](summarized(logits)), expected, rtol=1e-12, atol=0)


def test_scores_are_higher_where_a_forecaster_is_wrong():
    """Of a network that is right where its logits are far apart and draws agree."""
    generator = torch.Generator().manual_seed(3)
    sharpness = 4 * torch.rand(2000, 1, generator=generator, dtype=torch.float64)
    signal = sharpness * torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(signal.softmax(1), 1, generator=generator)[:, 0]
    noise = torch.randn(16, 2000, 4, generator=generator, dtype=torch.float64)
    predictive = summarized(signal + 0.5 * noise)
    wrong = ~correct(predictive.probabilities, targets)
    for name, score in PREDICTIVE_SCORES.items():
        right_way = detection.auroc(score(predictive), wrong)
        assert right_way > 0.65, name
        assert detection.auroc(-score(predictive), wrong) == pytest.approx(1 - right_way)


# Where logits come from.


@pytest.mark.parametrize("name", OF_LOGITS)
def test_scores_of_logits_are_the_same_streamed_kept_joined_and_read_from_a_file(name, tmp_path):
    network = make_network("1d of 2-D")
    inputs, score = examples("1d of 2-D", 30), PREDICTIVE_SCORES[name]
    sampler = mcbn.MCDropout(network, draws=3)
    kept = mcbn.predict(sampler, inputs, keep_draws=True)
    known = score(kept)
    z = kept.draws.double()
    expected = -z.logsumexp(2).mean(0) if name == "energy" else -z.amax(2).mean(0)
    assert_close(known, expected, **EXACT)
    bare = mcbn.CategoricalPredictive(
        kept.log_probabilities, kept.expected_entropy, kept.variance, kept.variation_ratio,
        kept.draw_count, kept.draws,
    )  # fmt: skip
    assert_close(score(bare), expected, **EXACT)
    in_parts = mcbn.predict(sampler, inputs, batch_size=30)
    assert_close(score(in_parts), known, rtol=0, atol=0)
    assert_close(score(mcbn.predict(sampler, inputs, batch_size=7)), known, rtol=1e-5, atol=1e-6)
    Predictions("m", in_parts, None, "data").save(tmp_path / "p.st")
    read = Predictions.load(tmp_path / "p.st").predictive
    assert_close(score(read), known, rtol=0, atol=0)


def test_parts_with_and_without_logits_have_none_together():
    logits = drawn()
    known, other = (
        summarized(logits),
        mcbn.Categorical("probabilities").summarize(logits.softmax(2)),
    )
    for parts in ((known, other), (other, known), (other, known, known)):
        joined = mcbn.Categorical().join(parts)
        assert joined.energy is None
        assert len(joined) == 30 * len(parts)
    assert len(mcbn.Categorical().join((known, known)).energy) == 60


@pytest.mark.parametrize("name", OF_LOGITS)
def test_without_logits_their_scores_are_refused(name, tmp_path):
    logits = drawn()
    predictive, score = summarized(logits), PREDICTIVE_SCORES[name]
    targets = logits[0].argmax(1)
    mcbn.write_predictions(tmp_path / "p.csv", Predictions("m", predictive, targets, "data"))
    without = {
        "probabilities": mcbn.Categorical("probabilities").summarize(logits.softmax(2)),
        "a table": mcbn.read_predictions(tmp_path / "p.csv").predictive,
        "after recalibration": mcbn.TemperatureScaling(2.0)(predictive),
        "labels": mcbn.Bernoulli("logits").summarize(logits),
    }
    for words, given in without.items():
        with pytest.raises(ValueError, match=f"logits for the score '{name}'"):
            score(given)
        assert PREDICTIVE_SCORES["max_softmax"](given).shape == (30,), words


def test_log_probabilities_have_no_energy():
    logs = drawn().log_softmax(2)
    with pytest.raises(ValueError, match="got log-probabilities, whose energy is 0"):
        PREDICTIVE_SCORES["energy"](summarized(logs))


def test_a_file_of_an_earlier_version_has_no_energy(tmp_path):
    predictive = replace(summarized(drawn()), energy=None, max_logit=None)
    Predictions("m", predictive, None, "data").save(tmp_path / "p.st")
    read = Predictions.load(tmp_path / "p.st").predictive
    assert read.energy is None
    with pytest.raises(ValueError, match="predict classes with"):
        PREDICTIVE_SCORES["energy"](read)


def test_a_table_without_a_variation_ratio_has_no_such_score(tmp_path):
    (tmp_path / "p.csv").write_text("p_a,p_b\n0.2,0.8\n0.6,0.4\n")
    predictive = mcbn.read_predictions(tmp_path / "p.csv").predictive
    with pytest.raises(ValueError, match="predictions with their variation ratio"):
        PREDICTIVE_SCORES["variation_ratio"](predictive)


# Names and objects.


class OneMinusSecond:
    """A score of the user's own."""

    name = "mine"

    def __call__(self, predictive):
        return 1 - predictive.probabilities[:, 1]


def test_a_score_is_found_by_name_or_given():
    assert as_score("energy") is PREDICTIVE_SCORES["energy"]
    mine = OneMinusSecond()
    assert as_score(mine) is mine
    assert isinstance(mine, UncertaintyScore)
    assert [each.name for each in as_scores(["entropy", mine])] == ["entropy", "mine"]
    assert_close(uncertainty_of(summarized(drawn()), mine), mine(summarized(drawn())))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda: as_score("entropie"), ValueError, "among .*'entropy'.*got 'entropie'"),
        (lambda: as_score(3), TypeError, "name of a score"),
        (lambda: as_score(OneMinusSecond), TypeError, "name of a score"),
        (lambda: as_scores("entropy"), TypeError, r"give \('entropy',\)"),
        (lambda: as_scores(["entropy", "entropy"]), ValueError, "give at least one, and each once"),
        (lambda: as_scores([]), ValueError, "give at least one"),
        (lambda: PREDICTIVE_SCORES["entropy"](torch.zeros(3)), TypeError, "predictions of classes"),
        (lambda: uncertainty_of(nn.ReLU(), None), TypeError, "uncertainty"),
        (lambda: uncertainty_of(torch.tensor([math.nan]).numpy(), None), ValueError, "finite"),
    ],
)
def test_what_is_no_score_is_refused(call, kind, match):
    with pytest.raises(kind, match=match):
        call()
