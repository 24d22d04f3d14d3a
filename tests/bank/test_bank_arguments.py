"""Arguments of mini-batches, banks and inspection: in words, and integers of NumPy are taken."""

import numpy as np
import pytest
import torch
from models import without_seed
from torch import nn
from torch.testing import assert_close
from torch.utils.data import StackDataset

import mcbn
from mcbn.bank.posteriors import JointPosterior

pytestmark = [
    pytest.mark.unchecked,
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
]

X = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))


def model():
    return without_seed(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))).eval()


def collected(**options):
    batches = mcbn.minibatches(X, batch_size=8, draws=3)
    return mcbn.collect(model(), batches, progress=False, **options)


INTEGERS = {
    "batch_size of minibatches": lambda n: mcbn.minibatches(X, batch_size=n),
    "draws of minibatches": lambda n: mcbn.minibatches(X, batch_size=4, draws=n),
    "seed of minibatches": lambda n: mcbn.minibatches(X, batch_size=4, seed=n),
    "num_workers": lambda n: mcbn.minibatches(X, batch_size=4, num_workers=n),
    "draws of collect": lambda n: collected(draws=n),
    "seed of collect": lambda n: collected(seed=n),
    "thin": lambda n: collected().thin(n),
    "first": lambda n: collected().first(n),
    "sample": lambda n: JointPosterior.from_bank(collected()).sample(n),
    "inspect": lambda n: mcbn.inspect(model(), X, batch_size=n),
}


@pytest.mark.parametrize("wrong", [1.5, True, None, float("inf")])
@pytest.mark.parametrize("argument", INTEGERS)
def test_what_is_no_integer_is_refused(argument, wrong):
    if argument == "draws of collect" and wrong is None:
        pytest.skip("as many as there are")
    with pytest.raises((TypeError, ValueError), match=r"^expected .* to be an integer.*, got "):
        INTEGERS[argument](wrong)


@pytest.mark.parametrize("argument", INTEGERS)
def test_an_integer_of_numpy_is_one(argument):
    INTEGERS[argument](np.int64(2))


def test_a_seed_of_numpy_is_the_same_seed():
    one, other = (mcbn.minibatches(X, batch_size=4, seed=seed)[0] for seed in (3, np.int64(3)))
    assert_close(one, other, rtol=0, atol=0)


FUNCTIONS = {
    "collate": lambda wrong: mcbn.minibatches(X, batch_size=4, collate=wrong),
    "select": lambda wrong: mcbn.minibatches(X, batch_size=4, select=wrong),
    "select of collect": lambda wrong: collected(select=wrong),
    "size": lambda wrong: collected(size=wrong),
}


@pytest.mark.parametrize("argument", FUNCTIONS)
def test_what_is_no_function_is_refused(argument):
    words = rf"^expected {argument.partition(' ')[0]}= to be a function, got 3; give "
    with pytest.raises(TypeError, match=words):
        FUNCTIONS[argument](3)


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        ({"x": X, "y": torch.zeros(20)}, lambda columns: StackDataset(**columns)),
        ((X, torch.zeros(20)), lambda columns: StackDataset(*columns)),
    ],
)
def test_whole_columns_are_no_examples_and_the_remedy_works(columns, remedy):
    with pytest.raises(TypeError, match=r"wrap .*StackDataset"):
        mcbn.minibatches(columns, batch_size=1)
    batches = mcbn.minibatches(remedy(columns), batch_size=4, draws=2)
    assert_close(batches[1], mcbn.minibatches(X, batch_size=4, draws=2)[1], rtol=0, atol=0)


SIZES = [float("inf"), float("nan"), 0, -1, None, "8", 1j, 10**400, torch.ones(2)]


@pytest.mark.parametrize("size", SIZES, ids=range(len(SIZES)))
def test_a_bank_is_rescaled_to_positive_numbers_alone(size):
    with pytest.raises(ValueError, match=r"^expected a positive and finite batch_size, got "):
        collected().rescale(size)


def test_an_array_is_inspected():
    assert mcbn.inspect(model(), X.numpy(), batch_size=4).servable
