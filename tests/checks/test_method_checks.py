"""Checks of methods, on data whose truth is known: each passes, tells, or has nothing to say."""

import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forecasters import forecaster, regressor
from law import share_is
from reports import comparison
from torch import nn

import mcbn
from mcbn.checks import (
    augmentation,
    banks,
    epistemic_ranking,
    equal_draws,
    equal_methods,
    few_examples,
    targets,
    temperature_bound,
)
from mcbn.checks.subject import Subject
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluate import ScoredRows, evaluate
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.glossary import number


def compared(stacks, labels, kinds=None, classes=()):
    """A comparison of methods, each given by the logits of its draws."""
    entries = {}
    for name, logits in stacks.items():
        predictive = mcbn.Categorical().summarize(logits, keep_draws=True)
        made = entry(ScoredRows.of(predictive, labels), outside={}, resamples=200, progress=False)
        entries[name] = replace(made, kind=(kinds or {}).get(name, ""))
    return Comparison(entries, labels, classes)


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(values, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(values.softmax(1), 1, generator=generator)[:, 0]


def status(module, subject):
    return module.CHECK(subject).status


def sentence(module, subject):
    (claim,) = module.CHECK(subject).claims
    return claim.sentence


# MCBN001: a bank of the data that gave the running statistics, and one of shifted data.


def network_and_data():
    data = logits(400, 6)
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3))
    model = model.double()
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            weight.copy_(logits(*weight.shape, seed=20 + index))
        model(data)  # the running statistics are those of all examples
    return model.eval(), data


@pytest.fixture(scope="module")
def samplers():
    model, data = network_and_data()
    right = mcbn.collect(model, mcbn.minibatches(data, batch_size=32, draws=8))
    with pytest.warns(mcbn.InconsistentBankWarning, match=r"\(MCBN001\)$"):
        wrong = mcbn.collect(model, mcbn.minibatches(data + 3, batch_size=32, draws=8))
    found = mcbn.compare(
        {
            "plain": mcbn.Deterministic(model),
            "right": mcbn.MCBatchNorm(model, right),
            "wrong": mcbn.MCBatchNorm(model, wrong),
            "augmented": mcbn.Augmented(model, [lambda x: x, lambda x: x + 0.01]),
        },
        data[:100], drawn(logits(100, 3)), resamples=20, progress=False,
    )  # fmt: skip
    return found, right, wrong


def test_a_bank_is_judged_wherever_its_sampler_was_compared(samplers):
    found, *_ = samplers
    said = {each.sentence.split()[3]: each for each in banks.CHECK(Subject(found)).claims}
    assert {name: claim.mark for name, claim in said.items()} == {"right": "good", "wrong": "bad"}
    assert "training transform" in said["wrong"].remedy
    assert status(banks, Subject(comparison())) == "not applicable"


def test_a_bank_may_be_given(samplers):
    _, right, wrong = samplers
    for bank, wanted in ((right, "passed"), (wrong, "issue")):
        subject = Subject(banks={"mine": mcbn.consistency(bank)})
        assert status(banks, subject) == wanted
        assert mcbn.consistency(bank).passed == (wanted == "passed")


def test_a_comparison_knows_the_classes_of_its_samplers(samplers):
    found, *_ = samplers
    assert {name: each.kind for name, each in found.entries.items()} == {
        "plain": "Deterministic", "right": "MCBatchNorm", "wrong": "MCBatchNorm",
        "augmented": "Augmented",
    }  # fmt: skip


# MCBN005: labels are drawn from the logits, to which one method is nearer.

KINDS = {"MCBN": "MCBatchNorm", "crop": "Augmented", "flip": "Augmented"}


@pytest.mark.parametrize(
    ("crop", "mcbn_noise", "wanted", "words"),
    [
        (0.0, 1.5, "tip", "crop, which augments its inputs, minus that of MCBN"),
        (0.0, 1.5, "tip", "augmentation does better"),
        (1.5, 0.0, "passed", "MCBN does better"),
        (0.5, 0.5, "tip", "not significant"),
    ],
)
def test_augmentation_is_compared_with_mcbn(crop, mcbn_noise, wanted, words):
    truth = 2 * logits(800, 4)
    given = {
        "plain": truth[None] + 3 * logits(1, 800, 4, seed=5),
        "MCBN": truth + mcbn_noise * logits(1, 800, 4, seed=2),
        "flip": truth + 2 * logits(1, 800, 4, seed=3),
        "crop": truth + crop * logits(1, 800, 4, seed=4),
    }
    subject = Subject(compared(given, drawn(truth), KINDS))
    assert status(augmentation, subject) == wanted
    assert words in sentence(augmentation, subject)


def test_augmentation_is_compared_with_the_best_by_mcbn():
    truth = 2 * logits(800, 4)
    given = {
        name: truth + noise * logits(1, 800, 4, seed=seed)
        for seed, (name, noise) in enumerate({"M = 2": 3.0, "M = 8": 0.0, "crop": 1.5}.items())
    }
    kinds = {"M = 2": "MCBatchNorm", "M = 8": "MCBatchNorm", "crop": "Augmented"}
    said = sentence(augmentation, Subject(compared(given, drawn(truth), kinds)))
    assert "minus that of M = 8" in said
    assert "M = 8 does better" in said


@pytest.mark.parametrize("kinds", [{}, {"MCBN": "MCBatchNorm"}, {"crop": "Augmented"}])
def test_augmentation_is_judged_only_beside_mcbn(kinds):
    given = {"MCBN": logits(1, 60, 3), "crop": logits(1, 60, 3, seed=1)}
    subject = Subject(compared(given, drawn(logits(60, 3)), kinds))
    assert status(augmentation, subject) == "not applicable"


class Losses:
    """The mean loss of a method and its resamples, in the place of an evaluation."""

    level = 0.95

    def __init__(self, losses, rows):
        self.mean, self.replicates = losses.mean(), losses[rows].mean(1)

    def __getitem__(self, _):
        return SimpleNamespace(value=float(self.mean))

    def minus(self, other):
        value, replicates = self.mean - other.mean, self.replicates - other.replicates
        return {"nll": Score.from_replicates("nll", float(value), replicates, self.level)}


@pytest.mark.unchecked
def test_of_equal_methods_augmentation_is_rarely_called_better():
    rows = torch.randint(100, (300, 100), generator=torch.Generator().manual_seed(0))
    kinds = {"MCBN": "MCBatchNorm", **{f"a{k}": "Augmented" for k in range(20)}}
    alarms = 0
    for seed in range(400):
        losses = 1 + logits(len(kinds), 100, seed=seed)
        found = SimpleNamespace(
            evaluations={
                name: Losses(each, rows) for name, each in zip(kinds, losses, strict=True)
            },
            entries={name: SimpleNamespace(kind=kind) for name, kind in kinds.items()},
        )
        alarms += "augmentation does better" in augmentation.augmentation_claim(found).sentence
    # Any of twenty may be called better, in this direction; 6% for the bootstrap of 100 examples.
    assert share_is(alarms, 400, 0.0, 0.06)


# MCBN007: of two classes and equal noise of every example both scores fall with the margin.


def margins(noise, count=200, seed=0):
    """Two draws of two classes, whose logits differ by a margin plus or minus a noise."""
    margin = 2 * logits(count, seed=seed)
    stack = torch.stack([margin + noise, margin - noise])
    return torch.stack([stack / 2, -stack / 2], dim=2)


@pytest.mark.parametrize(("noise", "wanted"), [(0.1, "tip"), (logits(200, seed=9).exp(), "passed")])
def test_mutual_information_that_ranks_as_entropy_is_told(noise, wanted):
    stack = margins(noise)
    subject = Subject(compared({"MCBN": stack}, drawn(stack[0])))
    assert status(epistemic_ranking, subject) == wanted
    p = stack.softmax(2)
    entropy = -(p * p.log()).sum(2)
    mean = p.mean(0)
    expected = entropy.mean(0)
    information = -(mean * mean.log()).sum(1) - expected
    ranks = [np.argsort(np.argsort(each.numpy())) for each in (expected, information)]
    correlation = np.corrcoef(*ranks)[0, 1]
    found = epistemic_ranking.rank_correlations(subject.comparison)["MCBN"]
    assert found == pytest.approx(correlation, abs=1e-9)
    assert number(correlation, 3) in sentence(epistemic_ranking, subject)


def test_rankings_are_of_methods_whose_draws_differ():
    stack = margins(0.1)
    for given in (stack[:1], stack[:1].expand(2, -1, -1), stack[:, :20]):
        subject = Subject(compared({"m": given}, drawn(given[0])))
        assert status(epistemic_ranking, subject) == "not applicable"
    both = compared({"a": margins(logits(200, seed=9).exp()), "b": stack}, drawn(stack[0]))
    assert "of b" in sentence(epistemic_ranking, Subject(both))
    assert "highest of 2 methods" in sentence(epistemic_ranking, Subject(both))


# MCBN010: a temperature of labels that are all right is at its bound.


def test_a_temperature_at_its_bound_is_told():
    predictive, labels = forecaster(batch=300, sharpness=2.0)
    inside = mcbn.TemperatureScaling.fit(predictive, labels)
    certain = predictive.probabilities.argmax(1)
    with pytest.warns(UserWarning, match=r"bound of the search.*\(MCBN010\)$"):
        at_bound = mcbn.TemperatureScaling.fit(predictive, certain, prior=0.0)
    assert (inside.at_bound, at_bound.at_bound) == (None, "lower")
    vector = mcbn.VectorScaling.fit(predictive, labels)

    def judged(**fits):
        return temperature_bound.CHECK(Subject(recalibrations=fits))

    assert judged(a=inside).status == "passed"
    assert judged(a=inside, b=at_bound).status == "issue"
    (claim,) = judged(a=inside, b=at_bound).claims
    assert "fitted to b lies at the lower bound" in claim.sentence
    assert judged(a=vector).status == judged().status == "not applicable"


# MCBN022 and MCBN023: equal draws, and equal methods.


def test_equal_draws_are_told():
    stack, labels = logits(4, 50, 3), drawn(logits(50, 3))
    equal, single = stack[:1].expand(4, -1, -1), stack[:1]
    for given, wanted in ((stack, "passed"), (equal, "issue"), (single, "not applicable")):
        assert status(equal_draws, Subject(compared({"m": given}, labels))) == wanted
    some = torch.cat([equal[:, :49], stack[:, 49:]], dim=1)
    assert status(equal_draws, Subject(compared({"m": some}, labels))) == "passed"
    both = Subject(compared({"good": stack, "stuck": equal}, labels))
    assert "All draws of stuck are equal" in sentence(equal_draws, both)


def test_samplers_warn_of_equal_draws_with_the_same_code():
    model, data = network_and_data()
    same = mcbn.Augmented(model, [lambda x: x] * 3)
    with pytest.warns(UserWarning, match=r"all 3 draws gave the same outputs.*\(MCBN022\)$"):
        mcbn.predict(same, data[:5], progress=False)


def test_equal_methods_are_told_in_pairs():
    labels, one, other = drawn(logits(50, 3)), logits(1, 50, 3), logits(1, 50, 3, seed=1)
    given = {"a": one, "b": other, "c": one.clone()}
    subject = Subject(compared(given, labels))
    assert status(equal_methods, subject) == "tip"
    assert sentence(equal_methods, subject).startswith("a and c give the same")
    near = one.clone()
    near[0, 0, 0] += 1e-6
    assert status(equal_methods, Subject(compared({"a": one, "b": near}, labels))) == "passed"
    assert status(equal_methods, Subject(compared({"a": one}, labels))) == "not applicable"


# MCBN024 and MCBN025: the test examples.


@pytest.mark.parametrize(("examples", "wanted"), [(60, "tip"), (3000, "passed")])
def test_few_examples_are_told_with_a_number_that_is_enough(examples, wanted):
    truth = logits(examples, 3)
    found = compared({"m": truth[None]}, drawn(truth))
    assert status(few_examples, Subject(found)) == wanted
    accuracy = found.entries["m"].evaluation["accuracy"]
    width = 2 * 1.96 * math.sqrt(accuracy.value * (1 - accuracy.value) / examples)
    said = sentence(few_examples, Subject(found))
    assert float(said.partition(" points")[0].rpartition(" ")[2]) == pytest.approx(
        100 * width, rel=0.25
    )
    if wanted == "tip":
        needed = float(said.partition("about ")[2].split()[0].replace(",", ""))
        enough = 4 * 1.96**2 * accuracy.value * (1 - accuracy.value) / few_examples.MAX_WIDTH**2
        assert needed == pytest.approx(enough, rel=0.5)


def test_few_real_values_are_told_by_their_coverage():
    for examples, wanted in ((40, "tip"), (2000, "passed")):
        given, values = regressor(batch=examples)
        scores = evaluate(given, values, resamples=100, progress=False)
        subject = Subject(evaluations={"m": scores})
        assert status(few_examples, subject) == wanted
        assert "coverage" in sentence(few_examples, subject)
    without = evaluate(given, values, resamples=0, progress=False)
    assert status(few_examples, Subject(evaluations={"m": without})) == "not applicable"


def test_targets_of_one_class_are_told():
    truth = logits(40, 3)
    one, two = torch.full((40,), 2), torch.tensor([0, 2] * 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        single = Subject(compared({"m": truth[None]}, one, classes=("a", "b", "<c>")))
        several = Subject(compared({"m": truth[None]}, two))
    assert status(targets, single) == "issue"
    assert "one class, <c>, of 3" in sentence(targets, single)
    assert status(targets, several) == "passed"
    assert "2 of the 3 classes" in sentence(targets, several)


@pytest.mark.unchecked
def test_nothing_is_said_of_predictions_that_were_not_kept():
    kept = comparison().entries["MCBN"]
    lost = SimpleNamespace(
        entries={"m": replace(kept, predictive=None)}, targets=None, has_labels=False
    )
    for module in (epistemic_ranking, equal_draws, equal_methods, targets):
        assert status(module, Subject(lost)) == "not applicable"
