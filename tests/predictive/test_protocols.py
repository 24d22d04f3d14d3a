"""Samplers and likelihoods of one's own, data of any type, outputs that are no logits."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from models import dense, examples, without_seed
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

DATA = examples("1d of 2-D", 40, torch.float32)


def network(*last):
    return nn.Sequential(without_seed(lambda: dense(nn.BatchNorm1d(6))), *last).eval()


def drawn(net, **options):
    bank = mcbn.collect(net, mcbn.minibatches(DATA, batch_size=8, draws=3), progress=False)
    return mcbn.MCBatchNorm(net, bank, **options)


@dataclass
class Sorted:
    """Largest outputs first: joined, they have to be sorted again."""

    values: Tensor

    def __len__(self):
        return len(self.values)


class Largest:
    def summarize(self, passes, *, keep_draws=False):
        return Sorted(torch.stack(list(passes)).mean(0).amax(1).sort(descending=True).values)

    def join(self, parts):
        return Sorted(torch.cat([part.values for part in parts]).sort(descending=True).values)


def test_a_likelihood_of_ones_own_is_joined_by_its_own_method():
    sampler = drawn(network())
    whole = mcbn.predict(sampler, DATA, Largest()).values
    assert_close(mcbn.predict(sampler, DATA, Largest(), batch_size=7).values, whole)
    assert_close(whole, sampler(DATA).mean(0).amax(1).sort(descending=True).values)


class Halves:
    """A sampler of one's own: a plain object with three methods."""

    def __len__(self):
        return 2

    def passes(self, inputs):
        yield inputs[:, :3]
        yield inputs[:, :3] / 2

    def __call__(self, inputs):
        return torch.stack(list(self.passes(inputs)))


def test_any_sampler_is_predicted_and_compared():
    predictive = mcbn.predict(Halves(), DATA, batch_size=9)
    expected = Halves()(DATA).softmax(2).mean(0).double()
    assert_close(predictive.probabilities, expected, rtol=1e-6, atol=1e-6)
    targets = torch.arange(40) % 3
    samplers = {"plain": mcbn.Deterministic(network()), "halves": Halves()}
    scores = mcbn.compare(samplers, DATA, targets, resamples=0).evaluations["halves"]
    assert_close(scores["nll"].value, mcbn.evaluate(predictive, targets, resamples=0)["nll"].value)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, "numpy", "numpy float16"])
def test_floats_are_cast_to_the_type_of_the_network(kind):
    sampler = drawn(network())
    if isinstance(kind, str):
        data = DATA.numpy().astype(np.float16 if "16" in kind else np.float64)
    else:
        data = DATA.to(kind)
    rounded = DATA.half().float() if "16" in str(kind) else DATA
    assert_close(sampler(data), sampler(rounded))
    assert_close(mcbn.predict(sampler, data).probabilities,
                 mcbn.predict(sampler, rounded).probabilities)  # fmt: skip


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_integers_are_refused_with_a_remedy_that_works(kind):
    sampler, data = drawn(network()), (DATA * 9).clamp(0, 9).to(kind)
    for call in (sampler, mcbn.Deterministic(sampler.model), lambda x: mcbn.predict(sampler, x)):
        with pytest.raises(TypeError, match=rf"got {kind} .*for example x.float\(\) / 255"):
            call(data)
        call(data.float() / 255)


def test_equal_draws_are_told():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(x) + 0 * self.norm(x).sum(1, keepdim=True)

    with pytest.warns(UserWarning, match="all 3 draws gave the same outputs"):
        drawn(without_seed(Unused).eval())(DATA)


KINDS = {
    "softmax": (nn.Softmax(1), "sum to 1 over the classes"),
    "a softmax of positions": (nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Softmax(1)), "sum to 1"),
}


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_are_told_and_taken_for_what_they_are(name):
    last, words = KINDS[name]
    sampler = drawn(network(last))
    expected = sampler(DATA).double().mean(0)
    with pytest.warns(UserWarning, match=words):
        predictive = mcbn.predict(sampler, DATA)
    assert_close(predictive.probabilities, expected, rtol=1e-5, atol=1e-7)
    said = mcbn.predict(sampler, DATA, mcbn.Categorical(outputs="probabilities"))
    assert_close(said.probabilities, expected, rtol=1e-5, atol=1e-7)


def test_log_probabilities_are_logits():
    sampler = drawn(network(nn.LogSoftmax(1)))
    expected = sampler(DATA).double().exp().mean(0)
    assert_close(mcbn.predict(sampler, DATA).probabilities, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Sequential(nn.Sigmoid(), nn.Flatten())])
def test_a_sigmoid_is_refused_unless_its_values_are_said_to_be_logits(last):
    sampler = drawn(network(last))
    with pytest.raises(
        ValueError, match=r"got the outputs of a sigmoid; give likelihood=mcbn\.Bernoulli"
    ):
        mcbn.predict(sampler, DATA)
    as_logits = mcbn.Categorical(outputs="logits")
    assert_close(mcbn.predict(sampler, DATA, as_logits).probabilities,
                 sampler(DATA).double().softmax(2).mean(0), rtol=1e-6, atol=1e-6)  # fmt: skip


def test_small_positive_logits_are_logits():
    sampler = drawn(network(nn.Softsign(), nn.ReLU()))
    assert_close(mcbn.predict(sampler, DATA[:6]).probabilities,
                 sampler(DATA[:6]).double().softmax(2).mean(0), rtol=1e-6, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("pick", [lambda y: y[:-1], lambda y: y.mean(0, keepdim=True)])
def test_outputs_that_are_not_one_per_example_are_refused(pick):
    sampler = drawn(network(), output=pick)
    for data, size in ((DATA, None), (DataLoader(DATA, batch_size=8), None), (DATA, 16)):
        with pytest.raises(ValueError, match="expected one output per example, got"):
            mcbn.predict(sampler, data, batch_size=size)
    with pytest.warns(UserWarning, match="the outputs are not one per row of the inputs"):
        sampler(DATA)
