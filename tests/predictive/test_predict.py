"""Prediction: the same result from any kind of data and batches, in bounded memory."""

import inspect
import math
import weakref
from collections import namedtuple

import numpy as np
import pytest
import torch
from models import examples, make_network
from torch import nn
from torch.testing import assert_close
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import mcbn
from mcbn.samplers.sampler import Sampler

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
NAME = "1d of 2-D"
PARTS = ("log_probabilities", "expected_entropy", "variance", "variation_ratio")


@pytest.fixture(scope="module")
def sampler():
    model = make_network(NAME)
    batches = mcbn.minibatches(examples(NAME, 60), batch_size=8, draws=5)
    return mcbn.MCBatchNorm(model, mcbn.collect(model, batches))


@pytest.fixture(scope="module")
def x():
    return examples(NAME, 37, seed=8)


LIKELIHOODS = {"classes": "categorical", "real": mcbn.Gaussian(precision=2.0)}


@pytest.fixture(params=LIKELIHOODS)
def likelihood(request):
    return LIKELIHOODS[request.param]


def parts_of(predictive):
    if isinstance(predictive, mcbn.GaussianPredictive):
        return {"means": predictive.means, "variance": predictive.variance}
    return {name: getattr(predictive, name) for name in PARTS}


def assert_same(first, second, tolerance=0.0):
    assert type(first) is type(second)
    assert_close(parts_of(first), parts_of(second), rtol=tolerance, atol=tolerance)


class Pairs(Dataset):
    """A map-style data set of somebody's own, with what the network needs somewhere in it."""

    def __init__(self, x, form):
        self.x, self.form = x, form

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.form(self.x[index], index)


class Stream(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


Row = namedtuple("Row", "x y")
DATA = {
    "tensor": lambda x: x,
    "data set": TensorDataset,
    "data set with targets": lambda x: TensorDataset(x, torch.arange(len(x))),
    "(x, y, index)": lambda x: Pairs(x, lambda row, index: (row, 0, index)),
    "dict": lambda x: Pairs(x, lambda row, index: {"pixels": row, "label": index}),
    "named tuple": lambda x: Pairs(x, lambda row, index: Row(row, index)),
    "stream": Stream,
    "loader": lambda x: DataLoader(TensorDataset(x, torch.arange(len(x))), batch_size=5),
    "loader of a batch sampler": lambda x: DataLoader(
        TensorDataset(x), batch_sampler=BatchSampler(SequentialSampler(x), 7, drop_last=False)
    ),
}


@pytest.mark.parametrize("data", DATA)
def test_any_kind_of_data_gives_the_same(data, sampler, x, likelihood):
    expected = mcbn.predict(sampler, x, likelihood)
    assert_same(mcbn.predict(sampler, DATA[data](x), likelihood), expected, 1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 16, 36, 37, 1000])
def test_the_batch_size_does_not_matter(batch_size, sampler, x, likelihood):
    expected = mcbn.predict(sampler, x, likelihood)
    assert_same(mcbn.predict(sampler, x, likelihood, batch_size=batch_size), expected, 1e-12)


def test_workers_do_not_matter(sampler, x):
    loader = DataLoader(TensorDataset(x), batch_size=8, num_workers=2)
    assert_same(mcbn.predict(sampler, loader), mcbn.predict(sampler, x), 1e-12)


def test_the_order_of_the_data_is_kept(sampler, x, likelihood):
    order = torch.arange(36, -1, -1)
    forwards, backwards = (
        mcbn.predict(sampler, rows, likelihood, batch_size=5) for rows in (x, x[order])
    )
    for name, values in parts_of(forwards).items():
        axis = 1 if name == "means" else 0
        assert_close(
            parts_of(backwards)[name].index_select(axis, order), values, rtol=1e-12, atol=1e-12
        )


def test_the_predictive_is_that_of_the_draws(sampler, x):
    draws = sampler(x)
    assert_same(mcbn.predict(sampler, x), mcbn.Categorical().summarize(draws), 1e-12)
    gaussian = mcbn.Gaussian(precision=2.0)
    assert_same(mcbn.predict(sampler, x, gaussian), gaussian.summarize(draws), 1e-12)


def test_categorical_is_the_default_and_its_object_the_same(sampler, x):
    expected = mcbn.predict(sampler, x)
    assert_same(mcbn.predict(sampler, x, "categorical"), expected)
    assert_same(mcbn.predict(sampler, x, mcbn.Categorical()), expected)


def test_a_network_with_its_own_noise(x):
    model = nn.Sequential(nn.Linear(4, 2, device="meta")).to_empty(device="cpu").double()
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[0].bias.copy_(torch.tensor([0.0, math.log(4)]))
    predictive = mcbn.predict(mcbn.Deterministic(model), x, mcbn.Gaussian(), batch_size=8)
    outputs = model(x).detach()
    assert_close(predictive.mean, outputs[:, :1], rtol=1e-12, atol=1e-12)
    assert_close(predictive.variance, outputs[:, 1:].exp(), rtol=1e-12, atol=1e-12)


def test_select_picks_what_the_default_rule_does_not(sampler, x):
    data = TensorDataset(torch.arange(len(x)), x)
    picked = mcbn.predict(sampler, data, select=lambda batch: batch[1])
    assert_same(picked, mcbn.predict(sampler, x))


def test_kept_draws_are_those_of_the_sampler(sampler, x):
    predictive = mcbn.predict(sampler, x, keep_draws=True, batch_size=6)
    assert_close(predictive.draws, sampler(x), rtol=1e-12, atol=1e-12)
    assert mcbn.predict(sampler, x).draws is None


def shuffled(x, kind):
    data = TensorDataset(x)
    if kind == "shuffle=True":
        return DataLoader(data, shuffle=True)
    order = {
        "random": RandomSampler(data),
        "subset": SubsetRandomSampler(range(len(x))),
        "weighted": WeightedRandomSampler([1.0] * len(x), len(x)),
        "batches": RandomSampler(data),
    }[kind]
    if kind == "batches":
        return DataLoader(data, batch_sampler=BatchSampler(order, 4, drop_last=False))
    return DataLoader(data, sampler=order)


@pytest.mark.parametrize("kind", ["shuffle=True", "random", "subset", "weighted", "batches"])
def test_a_loader_that_shuffles_is_refused(kind, sampler, x):
    with pytest.raises(ValueError, match="fixed order"):
        mcbn.predict(sampler, shuffled(x, kind))


@pytest.mark.parametrize("likelihood", ["gaussian", None, mcbn.Gaussian, 4.0])
def test_an_unknown_likelihood_is_refused_with_the_remedy(likelihood, sampler, x):
    with pytest.raises(ValueError, match=r"expected the likelihood .*Gaussian\(precision=tau\)"):
        inspect.unwrap(mcbn.predict)(sampler, x, likelihood)


@pytest.mark.parametrize("empty", ["tensor", "data set", "stream"])
def test_empty_data_are_refused(empty, sampler, x):
    with pytest.raises(ValueError, match="at least one example to predict"):
        mcbn.predict(sampler, DATA[empty](x[:0]))


@pytest.mark.parametrize("data", [[1.0], "path"], ids=["list", "text"])
def test_data_of_another_kind_are_refused(data, sampler):
    with pytest.raises(TypeError, match="expected a tensor, an array, a data frame, a Dataset or"):
        inspect.unwrap(mcbn.predict)(sampler, data)


def test_inputs_that_are_not_finite_are_refused(sampler, x):
    broken = x.clone()
    broken[20, 2] = float("nan")
    with pytest.raises(ValueError, match="the inputs"):
        mcbn.predict(sampler, broken, batch_size=4)


class Watched:
    """A sampler that counts which of its outputs are still alive when the next is made."""

    def __init__(self, draws, classes=5):
        self.draws, self.classes, self.most = draws, classes, 0

    def __len__(self):
        return self.draws

    def passes(self, inputs):
        given = []
        for draw in range(self.draws):
            generator = torch.Generator().manual_seed(draw)
            output = torch.randn(len(inputs), self.classes, generator=generator)
            given.append(weakref.ref(output))
            yield output
            del output
            self.most = max(self.most, sum(ref() is not None for ref in given))

    def __call__(self, inputs):
        return torch.stack(list(self.passes(inputs)))


def test_for_classes_no_more_than_one_draw_is_ever_held():
    watched = Watched(draws=40)
    predictive = mcbn.predict(watched, torch.zeros(30, 2), batch_size=15)
    assert predictive.draw_count == 40
    # The one is the loop's own; a list of draws would show 40.
    assert watched.most <= 1


def test_a_batch_is_freed_before_the_next_is_loaded():
    alive = []

    class Loud(Watched):
        def passes(self, inputs):
            alive.append(weakref.ref(inputs))
            yield from super().passes(inputs)

    mcbn.predict(Loud(draws=2), torch.zeros(60, 2), batch_size=6)
    assert len(alive) == 10
    assert all(ref() is None for ref in alive)


def test_the_predictive_holds_nothing_that_grows_with_the_draws():
    def size(draws):
        predictive = mcbn.predict(Watched(draws), torch.zeros(8, 2))
        tensors = [value for value in vars(predictive).values() if isinstance(value, torch.Tensor)]
        return sum(value.untyped_storage().nbytes() for value in tensors)

    assert size(3) == size(50)


def test_no_graph_is_kept(sampler, x, likelihood):
    wanted = x.clone().requires_grad_()
    predictive = mcbn.predict(sampler, wanted, likelihood, batch_size=10)
    assert not any(value.requires_grad for value in parts_of(predictive).values())
    kept = mcbn.predict(sampler, wanted, keep_draws=True).draws
    assert not kept.requires_grad
    assert kept.grad_fn is None


class Noisy(Dataset):
    """Examples whose transform draws from the global streams, as image transforms do."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + torch.randn(4).double() + np.random.rand()  # noqa: NPY002


def test_transforms_that_draw_are_repeatable_and_leave_the_global_streams(sampler, x):
    # That the streams are left as they were is looked at after each test, in conftest.
    first, second = (mcbn.predict(sampler, Noisy(x), batch_size=8) for _ in range(2))
    assert_same(first, second)


def test_an_interrupted_prediction_leaves_the_global_streams(x):
    class Broken(Watched):
        def passes(self, inputs):
            yield torch.zeros(len(inputs), 3)
            torch.rand(3)
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        mcbn.predict(Broken(draws=2), x)


def test_any_object_with_the_three_methods_is_a_sampler(x):
    assert isinstance(Watched(draws=3), Sampler)
    assert isinstance(mcbn.Deterministic(make_network(NAME)), Sampler)
    assert not isinstance(make_network(NAME), Sampler)
