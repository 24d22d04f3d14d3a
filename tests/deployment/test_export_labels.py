"""One file of a network of several labels: the outputs of `predict`, and by another formula."""

import onnxruntime
import pytest
import torch
from models import randomized, without_seed
from scipy import special
from torch import nn

import mcbn
from mcbn.deployment.modules import bernoulli_summary

NAMES = ("probabilities", "entropy", "mutual_information")
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def dense(ending=()):
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4), *(each() for each in ending)
    )


def masks():
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))


def one_logit():
    return nn.Sequential(dense(), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))


CASES = {
    "logits": (dense, "bernoulli", (3,)),
    "sigmoid": (lambda: dense([nn.Sigmoid]), mcbn.Bernoulli("probabilities"), (3,)),
    "masks": (masks, mcbn.Bernoulli("logits"), (2, 7, 6)),
    "one label": (one_logit, "bernoulli", (3,)),
}


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_gives_the_outputs_of_predict_for_each_label(case, kind, tmp_path):
    build, likelihood, shape = CASES[case]
    model = randomized(without_seed(build)).eval()
    data = torch.randn(64, *shape, generator=torch.Generator().manual_seed(1))
    batches = mcbn.minibatches(data, batch_size=8, draws=8, seed=0)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, batches))
    path = tmp_path / f"net.{kind}"
    artifact = mcbn.export(sampler, data[:4], path, likelihood=likelihood)
    assert artifact.outputs == NAMES
    for batch in (1, 2, 33):
        if kind == "pt2":
            with torch.no_grad():
                found = torch.export.load(path).module()(data[:batch])
        else:
            session = onnxruntime.InferenceSession(path)
            values = session.run(None, {"inputs": data[:batch].numpy()})
            found = dict(zip(NAMES, map(torch.from_numpy, values), strict=True))
        expected = mcbn.predict(sampler, data[:batch], likelihood)
        assert expected.mutual_information.max() > 1e-3
        for name in NAMES:
            torch.testing.assert_close(
                found[name].double(), getattr(expected, name), rtol=1e-6, atol=2e-6
            )


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3])
def test_the_summary_of_logits_by_scipy(scale):
    logits = scale * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    found = bernoulli_summary(False, logits)
    p = special.expit(logits.numpy())
    mean = p.mean(1)
    entropy = special.entr(mean) + special.entr(1 - mean)
    drawn = special.entr(p) + special.entr(special.expit(-logits.numpy()))
    expected = {
        "probabilities": mean,
        "entropy": entropy,
        "mutual_information": entropy - drawn.mean(1),
    }
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.from_numpy(values), rtol=1e-9, atol=1e-12)


def test_probabilities_of_zero_and_one_are_those_of_predict():
    p = torch.tensor([[[0.0, 1.0, 0.5], [1.0, 1.0, 1e-30]]])
    found = bernoulli_summary(True, p)
    expected = mcbn.Bernoulli("probabilities").summarize(p.movedim(1, 0))
    for name in NAMES:
        torch.testing.assert_close(
            found[name].double(), getattr(expected, name), rtol=1e-6, atol=1e-12
        )


def test_a_sigmoid_that_is_not_said_is_refused_before_any_file(tmp_path):
    # Sixteen labels of the five examples that are tried are enough to tell.
    model = nn.Sequential(nn.BatchNorm1d(16), nn.Sigmoid()).eval()
    data = 3 * torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    sampler = mcbn.Deterministic(model)
    with pytest.raises(
        ValueError, match=r'give likelihood=mcbn.Bernoulli\(outputs="probabilities"'
    ):
        mcbn.export(sampler, data, tmp_path / "net.pt2", likelihood="bernoulli")
    assert not list(tmp_path.iterdir())
