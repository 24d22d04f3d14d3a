"""Arguments of a wrong kind are refused in words.

Users have no checker of annotations, which would be faster to refuse: these tests run without it.
"""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
X, Y = torch.linspace(-1, 1, 48).reshape(12, 4), torch.arange(12) % 3
NAMES = ["a"] * 12
MODEL = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def batches(data=X, **options):
    return mcbn.minibatches(data, **{"batch_size": 4, "draws": 2, **options})


def bank():
    return mcbn.collect(MODEL, batches())


def classes():
    return mcbn.predict(mcbn.Deterministic(MODEL), X)


def labels():
    return mcbn.Bernoulli("logits").summarize(X[None, :, :3])


def reals():
    return mcbn.predict(mcbn.Deterministic(MODEL), X, mcbn.Gaussian(precision=1.0))


# The call, the kind of its error, and words of the message: what was expected, what came.
CASES = {
    "a loader for data": (
        lambda: batches(DataLoader(X)), TypeError, "a data set, got a DataLoader; give collect"),
    "a stream for data": (
        lambda: batches(Stream()), TypeError, "a data set with a length, got Stream; wrap"),
    "no data": (
        lambda: batches(X[:0]), ValueError, "training examples, got an empty data set; check"),
    "a draw too far": (lambda: batches()[2], IndexError, "a draw from 0 to 1, got 2"),
    "a size in words": (
        lambda: batches(batch_size="8"), ValueError, "batch_size to be an integer of at least 1"),
    "no draws": (
        lambda: mcbn.collect(MODEL, DataLoader(X, 4), draws=0), ValueError,
        "at least 1 draw, got 0; leave it out"),
    "no network": (
        lambda: mcbn.collect("net.pt", batches()), TypeError, "a torch.nn.Module, got str; give"),
    "nothing to inspect": (
        lambda: mcbn.inspect({}, X), TypeError, "a torch.nn.Module, got dict; give"),
    "inspecting by numbers": (
        lambda: mcbn.inspect(MODEL, [1.0]), TypeError, "a dict of tensors, got list; give"),
    "an engine of another name": (
        lambda: mcbn.MCBatchNorm(MODEL, bank(), engine="fast")(X),
        ValueError, "got 'fast'"),
    "passes of no example": (
        lambda: mcbn.predict(mcbn.Deterministic(MODEL), X, batch_size=0), ValueError,
        "batch_size of at least 1, got 0; leave it out"),
    "data that are numbers": (
        lambda: mcbn.predict(mcbn.Deterministic(MODEL), 3), TypeError,
        "a Dataset or a DataLoader, got int"),
    "an unknown likelihood": (
        lambda: mcbn.predict(mcbn.Deterministic(MODEL), X, "poisson"), ValueError, "poisson"),
    "a network for a sampler": (
        lambda: mcbn.predict(MODEL, X), TypeError,
        "a sampler, got Sequential; wrap the network by mcbn.MCBatchNorm(model, bank)"),
    "a bank for a sampler": (lambda: mcbn.predict(bank(), X), TypeError, "a sampler, got Bank"),
    "a path for a bank": (
        lambda: mcbn.MCBatchNorm(MODEL, "bank.st"), TypeError, "a bank, got str; load"),
    "a bank before its network": (
        lambda: mcbn.MCBatchNorm(bank(), MODEL), TypeError, "a bank, got Sequential; load"),
    "a path for a bank to be linearised": (
        lambda: mcbn.LinearizedBatchNorm(MODEL, "bank.st"), TypeError, "a bank, got str; load"),
    "a path for a network": (
        lambda: mcbn.Deterministic("net.pt"), TypeError, "a torch.nn.Module, got str; give"),
    "no network for dropout": (
        lambda: mcbn.MCDropout(None), TypeError, "a torch.nn.Module, got NoneType; give"),
    "a rate for a network": (
        lambda: mcbn.MCDropout(0.1, insert=0.1), TypeError, "a torch.nn.Module, got float; give"),
    "a path to be augmented": (
        lambda: mcbn.Augmented("net.pt", torch.clone), TypeError,
        "a sampler or a network, got str; give mcbn.MCBatchNorm"),
    "a path for a network to fit": (
        lambda: mcbn.LastLayerLaplace.fit("net.pt", X, [0] * len(X)), TypeError,
        "a torch.nn.Module, got str; give"),
    "a name for a transform": (
        lambda: mcbn.Augmented(MODEL, "flip"), TypeError,
        "the transform of an example, got str; give"),
    "one network for several": (
        lambda: mcbn.DeepEnsemble(MODEL), TypeError, "a list of networks, got Sequential; put"),
    "paths for networks": (
        lambda: mcbn.DeepEnsemble(["a.pt", "b.pt"]), TypeError, "a torch.nn.Module, got str"),
    "data for mini-batches": (
        lambda: mcbn.collect(MODEL, X), TypeError, "mini-batches, a DataLoader or another iterable "
        "of batches, got Tensor; cut data by mcbn.minibatches"),
    "a data set for mini-batches": (
        lambda: mcbn.collect(MODEL, TensorDataset(X)), TypeError, "got TensorDataset; cut"),
    "nothing for mini-batches": (
        lambda: mcbn.collect(MODEL, None), TypeError, "got NoneType; cut data"),
    "names for targets": (
        lambda: mcbn.evaluate(classes(), NAMES), TypeError,
        "targets as numbers, got values such as ['a']; map"),
    "targets in a mapping": (
        lambda: mcbn.evaluate(classes(), {"labels": Y}), TypeError,
        "that has them, got dict; give"),
    "names for real targets": (
        lambda: mcbn.evaluate(reals(), NAMES), TypeError,
        "targets as numbers, got values such as ['a']; map"),
    "targets that are real": (
        lambda: mcbn.evaluate(classes(), Y.float()), TypeError,
        "targets of an integer type, got torch.float32; use"),
    "probabilities for predictions": (
        lambda: mcbn.evaluate(classes().probabilities, Y), TypeError,
        "a CategoricalPredictive, BernoulliPredictive or GaussianPredictive, got Tensor; give"),
    "inputs for predictions outside": (
        lambda: mcbn.out_of_distribution(classes(), X), TypeError,
        "a CategoricalPredictive or BernoulliPredictive, got Tensor; give what mcbn.predict"),
    "another uncertainty": (
        lambda: mcbn.out_of_distribution(classes(), classes(), uncertainty="variance"), ValueError,
        "'max_logit'], got 'variance'; choose one"),
    "a level in per cent": (
        lambda: mcbn.evaluate(classes(), Y, level=95), ValueError, "got 95; write 95% as 0.95"),
    "resamples below 0": (
        lambda: mcbn.evaluate(classes(), Y, resamples=-1), ValueError,
        "at least 0 resamples, got -1"),
    "held-out names for targets": (
        lambda: mcbn.choose_batch_size(MODEL, bank(), X, NAMES), TypeError,
        "targets as numbers, got values such as ['a']; map"),
    "a path for a bank to choose from": (
        lambda: mcbn.choose_batch_size(MODEL, "bank.st", X, Y), TypeError, "a bank, got str"),
    "names for targets of a temperature": (
        lambda: mcbn.TemperatureScaling.fit(classes(), NAMES), TypeError,
        "targets as numbers, got values such as ['a']; map"),
    "names for targets of sets": (
        lambda: mcbn.ConformalSets.fit(classes(), NAMES), TypeError,
        "targets as numbers, got values such as ['a']; map"),
    "another score of sets": (
        lambda: mcbn.ConformalSets.fit(classes(), Y, score="best"), ValueError, "got 'best'"),
    "another score of intervals": (
        lambda: mcbn.ConformalIntervals.fit(reals(), X[:, :3], score="best"), ValueError,
        "got 'best'"),
    "another part of the variance": (
        lambda: mcbn.VarianceScaling.fit(reals(), X[:, :3], part="noise"), ValueError,
        "'epistemic', got 'noise'"),
    "another criterion of the variance": (
        lambda: mcbn.VarianceScaling.fit(reals(), X[:, :3], criterion="crps"), ValueError,
        "'moments', got 'crps'"),
    "another criterion of the precision": (
        lambda: mcbn.fit_precision(reals(), X[:, :3], criterion="mse"), ValueError, "got 'mse'"),
    "the precision of classes": (
        lambda: mcbn.fit_precision(classes(), Y), TypeError,
        "a GaussianPredictive, got CategoricalPredictive; give"),
    "the temperature of real values": (
        lambda: mcbn.TemperatureScaling.fit(reals(), X[:, :3]), TypeError,
        "a CategoricalPredictive or BernoulliPredictive, got GaussianPredictive; give"),
    "Platt scaling of classes": (
        lambda: mcbn.PlattScaling.fit(classes(), Y), TypeError,
        "a BernoulliPredictive, got CategoricalPredictive; give"),
    "isotonic functions of classes": (
        lambda: mcbn.IsotonicByLabel.fit(classes(), Y), TypeError,
        "a BernoulliPredictive, got CategoricalPredictive; give"),
    "sets of labels of classes": (
        lambda: mcbn.ConformalLabels.fit(classes(), Y), TypeError,
        "a BernoulliPredictive, got CategoricalPredictive; give"),
    "scales of labels": (
        lambda: mcbn.VectorScaling.fit(labels(), X[:, :3] > 0), TypeError,
        "a CategoricalPredictive, got BernoulliPredictive; give"),
    "an isotonic function of labels": (
        lambda: mcbn.Isotonic.fit(labels(), X[:, :3] > 0), TypeError,
        "a CategoricalPredictive, got BernoulliPredictive; give"),
    "the temperature of draws of labels": (
        lambda: mcbn.TemperedCategorical.fit(labels(), X[:, :3] > 0), TypeError,
        "a CategoricalPredictive, got BernoulliPredictive; give"),
    "sets of labels": (
        lambda: mcbn.ConformalSets.fit(labels(), X[:, :3] > 0), TypeError,
        "a CategoricalPredictive, got BernoulliPredictive; give"),
    "the variance of labels": (
        lambda: mcbn.VarianceScaling.fit(labels(), X[:, :3] > 0), TypeError,
        "a GaussianPredictive, got BernoulliPredictive; give"),
    "intervals of classes": (
        lambda: mcbn.ConformalIntervals.fit(classes(), Y), TypeError,
        "a GaussianPredictive, got CategoricalPredictive; give"),
    "uncertainties in a list": (
        lambda: mcbn.choose_abstention([0.1, 0.2], [True, False], risk=0.1), TypeError,
        "wrong to be a torch.Tensor, got list; convert"),
}  # fmt: skip


@pytest.mark.unchecked
@pytest.mark.parametrize(("call", "error", "words"), CASES.values(), ids=CASES)
def test_a_wrong_argument_is_refused_in_words(call, error, words):
    with pytest.raises(error) as refusal:
        call()
    assert refusal.type is error
    assert str(refusal.value).startswith("expected ")
    assert words in str(refusal.value)
