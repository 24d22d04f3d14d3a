"""Several labels an example: the likelihood, its shapes, and what it refuses."""

import math

import pytest
import torch
from torch import nn

import mcbn
from mcbn.predictive.bernoulli import UNKNOWN


def drawn(draws=4, count=6, labels=3, *positions, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, count, labels, *positions, generator=generator, dtype=dtype)


LOGITS = drawn()
TARGETS = (drawn(seed=1)[0] > 0).long()


def network(*last, outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs)
        return nn.Sequential(*layers, *last).eval()


def test_logits_and_probabilities_of_one_network_agree():
    of_logits = mcbn.Bernoulli("logits").summarize(LOGITS)
    of_chances = mcbn.Bernoulli("probabilities").summarize(LOGITS.sigmoid())
    for name in ("log_odds", "expected_entropy", "variance", "variation_ratio"):
        torch.testing.assert_close(getattr(of_logits, name), getattr(of_chances, name))
    assert of_logits.draw_count == 4
    assert torch.equal(of_logits.prediction, (of_logits.probabilities > 0.5).long())


def test_a_mean_probability_near_0_and_near_1_keeps_its_digits():
    logits = torch.tensor([[[-800.0, -40.0, 40.0, 800.0]]], dtype=torch.float64)
    found = mcbn.Bernoulli("logits").summarize(logits)
    torch.testing.assert_close(found.log_odds, logits[0], rtol=1e-12, atol=0)
    wrong = found.log_prob(torch.tensor([[1, 1, 0, 0]]))
    torch.testing.assert_close(
        wrong, torch.tensor([[-800.0, -40, -40, -800]], dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_a_probability_of_0_or_1_is_finite():
    saturated = torch.tensor([[[0.0, 1.0, 0.5]]])
    found = mcbn.Bernoulli("probabilities").summarize(saturated)
    assert bool(found.log_odds.isfinite().all())
    # What float32 rounds to 1 is at most a quarter of its precision below it.
    assert float(found.log_odds[0, 1]) == pytest.approx(-math.log(2**-25))


def test_batches_together_are_those_apart():
    likelihood = mcbn.Bernoulli("logits")
    whole = likelihood.summarize(LOGITS, keep_draws=True)
    parts = [likelihood.summarize(LOGITS[:, rows], keep_draws=True)
             for rows in (slice(2), slice(2, None))]  # fmt: skip
    joined = likelihood.join(parts)
    for name in ("log_odds", "expected_entropy", "variance", "variation_ratio", "draws"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    assert torch.equal(whole.draws, LOGITS)


def test_predict_takes_it_by_name():
    model, inputs = network(), drawn(1, 7, 5, dtype=torch.float32)[0]
    found = mcbn.predict(mcbn.Deterministic(model), inputs, "bernoulli", batch_size=3)
    torch.testing.assert_close(found.log_odds, model(inputs).detach().double())
    assert len(found) == 7


def test_one_logit_is_one_label():
    model, inputs = network(nn.Flatten(0), outputs=1), drawn(1, 7, 5, dtype=torch.float32)[0]
    found = mcbn.predict(mcbn.Deterministic(model), inputs, "bernoulli")
    assert found.log_odds.shape == (7, 1)
    targets = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    alone = mcbn.evaluate(found, targets, resamples=0)
    assert alone["nll"].value == pytest.approx(float(
        nn.functional.binary_cross_entropy_with_logits(model(inputs).detach(), targets.float())
    ))  # fmt: skip


def test_as_classes_and_back_is_the_same():
    found = mcbn.Bernoulli("logits").summarize(LOGITS)
    back = mcbn.BernoulliPredictive.from_classes(found.as_classes)
    for name in ("log_odds", "expected_entropy", "variance", "variation_ratio"):
        torch.testing.assert_close(getattr(back, name), getattr(found, name))
    total = found.as_classes.probabilities.sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_positions_are_allowed():
    dense = mcbn.Bernoulli("logits").summarize(drawn(3, 4, 1, 5, 6))
    assert dense.entropy.shape == (4, 1, 5, 6)
    masks = (drawn(1, 4, 1, 5, 6, seed=2)[0] > 0).long()
    assert torch.equal(dense.aligned(masks[:, 0]), masks)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Softmax(1)])
def test_a_network_of_probabilities_is_refused_until_it_is_said(last):
    model, inputs = network(last), drawn(1, 40, 5, dtype=torch.float32)[0]
    with pytest.raises(ValueError, match=r'Bernoulli\(outputs="probabilities"\)'):
        mcbn.predict(mcbn.Deterministic(model), inputs, "bernoulli")
    # Of few values nothing can be told but by the network.
    with pytest.raises(ValueError, match="expected logits"):
        mcbn.predict(mcbn.Deterministic(model), inputs[:2], "bernoulli")
    said = mcbn.Bernoulli("probabilities")
    found = mcbn.predict(mcbn.Deterministic(model), inputs, said)
    torch.testing.assert_close(found.probabilities, model(inputs).detach().double())


def test_logits_that_are_said_to_be_probabilities_are_refused():
    with pytest.raises(ValueError, match="expected the network's outputs from 0 to 1"):
        mcbn.Bernoulli("probabilities").summarize(LOGITS)


@pytest.mark.unchecked
def test_other_outputs_are_refused():
    with pytest.raises(ValueError, match="expected outputs among"):
        mcbn.Bernoulli("softmax")


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (TARGETS.float() * 0.3, r"got 0.3 at \(\d, \d\); binarise"),
        (TARGETS - 1, r"got -1 at .*ignore_index=-1"),
        (torch.full((6, 3), torch.nan), r"got nan at .*ignore_index=-1"),
        (TARGETS[:, :2], r"shape \(6, 3\), got \(6, 2\)"),
        (TARGETS[:5], r"shape \(6, 3\), got \(5, 3\)"),
        (TARGETS[:, 0], r"shape \(6, 3\), got \(6,\)"),
    ],
)
def test_targets_that_are_no_labels_are_refused(targets, words):
    found = mcbn.Bernoulli("logits").summarize(LOGITS)
    with pytest.raises(ValueError, match=words):
        mcbn.evaluate(found, targets)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_targets_of_any_type_are_taken(kind):
    found = mcbn.Bernoulli("logits").summarize(LOGITS)
    assert torch.equal(found.aligned(TARGETS.to(kind)), TARGETS)
    assert torch.equal(found.aligned(TARGETS.numpy()), TARGETS)


def test_unknown_labels_are_marked():
    found = mcbn.Bernoulli("logits").summarize(LOGITS)
    targets = TARGETS.double()
    targets[2, 1] = 9
    aligned = found.aligned(targets, ignore_index=9)
    assert int(aligned[2, 1]) == UNKNOWN
    assert int((aligned == UNKNOWN).sum()) == 1
    with pytest.raises(ValueError, match="expected labels that are known"):
        found.aligned(torch.full((6, 3), 9), ignore_index=9)


def test_a_frame_has_columns_by_label():
    found = mcbn.Bernoulli("logits").summarize(LOGITS)
    frame = found.to_dataframe(("cat", "dog", "cow"))
    assert frame["p_dog"].tolist() == found.probabilities[:, 1].tolist()
    assert frame["prediction_cow"].tolist() == found.prediction[:, 2].tolist()
