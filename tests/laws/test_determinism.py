"""Determinism: draws depend on (seed, draw, layer) alone, and numbers on no way of asking.

Bit for bit where it says `same`; to rounding, relative to the largest output, where `near`. The
matrix of studies (executors, shards, orders) is in test_execution, that of processes that share the
work in test_distributed.
"""

import random
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import Jittered, examples, make_network, randomized, without_seed
from posteriors import Posterior
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.network.isolation import StreamStates
from mcbn.tasks.networks import convnet, mlp

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker"),  # of two cores
]

ENGINES = ("auto", "loop", "folded", "batched")
LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12}
WORKERS = [0, 2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 4))]
DRAWS = 9


def same(found, expected):
    assert_close(found, expected, rtol=0, atol=0)


def near(found, expected):
    limit = LIMITS[expected.dtype] * expected.abs().max().item()
    assert_close(found, expected, rtol=0, atol=limit)


def dense(dtype):
    return randomized(without_seed(lambda: mlp(4, 3, width=16))).to(dtype).eval()


def images(dtype):
    return randomized(without_seed(lambda: convnet(1, 3, width=4))).to(dtype).eval()


# Networks with the shape of an example.
NETWORKS = {"dense": (dense, (4,)), "images": (images, (1, 9, 9))}
WIDE = {name: ((lambda dtype, name=name: make_network(name, dtype)), None)
        for name in ("1d of 2-D", "1d of 3-D", "2d", "3d", "timm BatchNormAct2d")}  # fmt: skip
EVERY = [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in WIDE)]


def world(name, dtype=torch.float32, count=36):
    build, shape = {**NETWORKS, **WIDE}[name]
    if shape is None:
        return build(dtype), examples(name, count, dtype)
    generator = torch.Generator().manual_seed(4)
    return build(dtype), torch.randn(count, *shape, generator=generator).to(dtype)


def sampler(name, engine="auto", dtype=torch.float32, draws=DRAWS):
    model, x = world(name, dtype)
    bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=8, draws=draws, seed=3))
    return mcbn.MCBatchNorm(model, bank, engine=engine), x


# Which examples form a mini-batch, and the random transforms of them.

READ = {
    "in order": lambda batches: list(batches),
    "backwards": lambda batches: [batches[t] for t in reversed(range(6))][::-1],
    "in shards": lambda batches: [batches[t] for t in (1, 3, 5)] + [batches[t] for t in (0, 2, 4)],
    "of a longer run": lambda batches: list(replace(batches, draws=9))[:6],
    "twice": lambda batches: [list(batches), list(batches)][1],
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("how", READ)
def test_a_mini_batch_depends_on_seed_and_draw_alone(how, workers):
    if workers and how not in ("in order", "of a longer run"):
        pytest.skip("asked for one at a time, no worker loads it")
    data = Jittered(examples("2d", 40))
    batches = mcbn.minibatches(data, batch_size=8, draws=6, seed=5)
    expected = torch.stack(list(batches))
    found = torch.stack(READ[how](replace(batches, num_workers=workers)))
    same(found[torch.tensor([3, 0, 4, 1, 5, 2])] if how == "in shards" else found, expected)
    other = mcbn.minibatches(data, batch_size=8, draws=6, seed=6)
    assert all(batches.indices(t) != other.indices(t) for t in range(6))


# Dropout masks. The outputs of dropout on ones are its masks.


def masked(layers, *, draws=4, batch=3, width=64, seed=1):
    return mcbn.MCDropout(layers, draws=draws, seed=seed)(torch.ones(batch, width))


def test_a_mask_depends_on_seed_draw_and_layer_alone():
    layers = nn.Sequential(nn.Dropout(0.3), nn.Dropout(0.4))
    expected = masked(layers)
    same(masked(layers, draws=9)[:4], expected)
    same(masked(layers, batch=11)[:, :3], expected)
    same(masked(layers.train()), expected)
    alone = masked(nn.Sequential(nn.Dropout(0.3), nn.Identity()))
    kept = expected != 0
    second = masked(nn.Sequential(nn.Identity(), nn.Dropout(0.4)))
    assert bool((alone[kept] != 0).all()), "the first layer's masks are those without the second"
    assert bool((second[kept] != 0).all()), "the second layer's masks are those without the first"
    assert bool((masked(layers, seed=2) != expected).any())
    assert bool((alone[0] != alone[1]).any())


# Banks.


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ["dense", "images"])
def test_a_bank_does_not_depend_on_how_it_is_loaded_or_how_long_it_is(name, workers):
    model, x = world(name)
    batches = mcbn.minibatches(list(x), batch_size=8, draws=40, seed=3)
    expected = mcbn.collect(model, batches)
    loaded = mcbn.collect(model, replace(batches, num_workers=workers))
    same(dict(loaded.statistics), dict(expected.statistics))
    for draws in (1, 2, 33):
        found = mcbn.collect(model, replace(batches, draws=draws))
        same(dict(found.statistics), dict(expected.first(draws).statistics))


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", ["dense", "images"])
def test_a_bank_collected_in_parts_is_the_whole_one(name, dtype):
    """Bit for bit where mini-batches go one by one; many at a time, to rounding."""
    model, x = world(name, dtype)
    batches = mcbn.minibatches(x, batch_size=8, draws=40, seed=3)
    whole = mcbn.collect(model, batches).statistics
    for start, stop in ((0, 11), (11, 40)):
        part = mcbn.collect(model, [batches[t] for t in range(start, stop)]).statistics
        for key, rows in part.items():
            check = same if name == "images" else near
            check(rows, whole[key][start:stop])


# Predictions.

ASKED = {
    "again": lambda s, x: s(x),
    "by a copy": lambda s, x: replace(s)(x),
    "after other calls": lambda s, x: (s(x[:3]), mcbn.Deterministic(s.model)(x), s(x))[2],
    "one draw at a time": lambda s, x: torch.stack(list(s.passes(x))),
    "layers in another order": lambda s, x: replace(s, layers=layers_of(s)[::-1])(x),
    "after another was half asked": lambda s, x: (next(iter(s.passes(x[:9]))), s(x))[1],
}


def layers_of(drawn):
    return [key.removesuffix(".running_mean") for key in drawn.bank.statistics if "mean" in key]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", EVERY)
def test_the_way_of_asking_does_not_show(name, engine):
    drawn, x = sampler(name, engine)
    expected = drawn(x)
    for how in ASKED.values():
        same(how(drawn, x), expected)


def jittered(example):
    """An example with noise from each of the three global streams."""
    noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
    return example * (1 + 0.1 * noise.to(example))


def methods(name):
    drawn, x = sampler(name)
    with_dropout = nn.Sequential(drawn.model, nn.Dropout(0.2))
    found = {
        **{f"MCBatchNorm {engine}": replace(drawn, engine=engine) for engine in ENGINES},
        "MCDropout": mcbn.MCDropout(with_dropout, draws=5),
        "DeepEnsemble": mcbn.DeepEnsemble([drawn.model, with_dropout]),
        "Deterministic": mcbn.Deterministic(drawn.model),
        "Augmented": mcbn.Augmented(drawn, jittered, seed=1),
        "Augmented at once": mcbn.Augmented(drawn, mcbn.RandomShift((1,)), seed=1),
        "LaplaceSampler": mcbn.LaplaceSampler(Posterior(with_dropout, 0.01), draws=5),
    }
    if name != "2d":  # it takes no positions
        found["LinearizedBatchNorm"] = mcbn.LinearizedBatchNorm(drawn.model, drawn.bank)
        found["LastLayerLaplace"] = mcbn.LastLayerLaplace.fit(
            drawn.model, x, torch.arange(len(x)) % 3, draws=5
        )
        kept = nn.Sequential(*(m for m in drawn.model if not isinstance(m, _DropoutNd))).eval()
        found["MCDropout put in"] = mcbn.MCDropout(kept, draws=5, insert=0.2)
    return x, found


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_size_that_is_given_makes_every_loader_give_the_same(name):
    x, every = methods(name)
    data = TensorDataset(x)
    for method in every.values():
        expected = mcbn.predict(method, x, batch_size=16).probabilities
        for size in (1, 5, 36):
            loader = DataLoader(data, batch_size=size)
            same(mcbn.predict(method, loader, batch_size=16).probabilities, expected)


@pytest.mark.parametrize("workers", WORKERS)
def test_workers_that_load_the_data_do_not_show(workers):
    drawn, x = sampler("dense")
    loader = DataLoader(TensorDataset(x), batch_size=16, num_workers=workers)
    expected = mcbn.predict(drawn, x, batch_size=16).probabilities
    same(mcbn.predict(drawn, loader).probabilities, expected)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", EVERY)
def test_the_size_of_a_pass_shows_in_rounding_alone(name, engine, dtype):
    drawn, x = sampler(name, engine, dtype)
    expected = drawn(x)
    for size in (1, 7, 32):
        near(torch.cat([drawn(part) for part in x.split(size)], 1), expected)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("draws", [DRAWS, pytest.param(70, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EVERY)
def test_the_first_draws_are_those_of_a_shorter_run(name, draws, engine, dtype):
    """Bit for bit in the loop, which runs each draw apart; other engines to rounding."""
    drawn, x = sampler(name, engine, dtype, draws)
    whole = drawn(x)
    for fewer in (1, 2, 7, draws // 2):
        found = replace(drawn, bank=drawn.bank.first(fewer))(x)
        (same if engine == "loop" else near)(found, whole[:fewer])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_the_draws_shows_in_rounding_alone(name, engine):
    drawn, x = sampler(name, engine)
    turned = {key: rows.flip(0) for key, rows in drawn.bank.statistics.items()}
    found = replace(drawn, bank=replace(drawn.bank, statistics=turned))(x).flip(0)
    (same if engine == "loop" else near)(found, drawn(x))


@pytest.mark.parametrize(
    "kind",
    [
        "MCDropout",
        "MCDropout put in",
        "DeepEnsemble",
        "Augmented",
        "Augmented at once",
        "LastLayerLaplace",
        "LaplaceSampler",
    ],
)
def test_the_first_draws_of_the_other_methods_are_those_of_a_shorter_run(kind):
    x, every = methods("dense")
    method = every[kind]
    fewer = {"models": method.models[:1]} if kind == "DeepEnsemble" else {"draws": 2}
    shorter = replace(method, **fewer)
    same(shorter(x), method(x)[: len(shorter)])


# Threads and processes.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", EVERY)
def test_the_number_of_threads_shows_in_rounding_alone(name, engine):
    drawn, x = sampler(name, engine)
    expected = drawn(x)
    torch.set_num_threads(2)
    try:
        found = drawn(x)
        same(drawn(x), found)
    finally:
        torch.set_num_threads(1)
    near(found, expected)


class Drawing(nn.Module):
    """A network with noise of its own in every pass, from one of the three global streams."""

    def __init__(self, noise):
        super().__init__()
        self.net, self.noise = make_network("1d of 2-D").eval(), noise

    def forward(self, x):
        return self.net(x) + self.noise()


NOISES = {
    "torch": lambda: torch.rand(()).double(),
    "numpy": lambda: np.random.rand(),  # noqa: NPY002
    "python": random.random,
}


@pytest.mark.filterwarnings("ignore:The network's outputs are random")
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_a_network_that_draws_in_its_passes_repeats_and_leaves_the_streams(noise):
    model, data = Drawing(noise), examples("1d of 2-D", 36)
    batches = mcbn.minibatches(data, batch_size=8, draws=5)
    before = StreamStates.now()
    banks = [mcbn.collect(model, batches) for _ in range(2)]
    sampler = mcbn.MCBatchNorm(model, banks[0], engine="loop")
    first, again, in_one = (mcbn.predict(sampler, data, batch_size=size) for size in (9, 9, 36))
    assert before.unmoved()
    same(dict(banks[0].statistics), dict(banks[1].statistics))
    same(first.log_probabilities, again.log_probabilities)
    # A draw has one noise for all inputs, which all batches share.
    near(first.log_probabilities, in_one.log_probabilities)
    assert not torch.equal(sampler(data)[0], mcbn.Deterministic(model.net)(data)[0])


FRESH = """
import hashlib, sys, warnings, torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
import mcbn
from mcbn.tasks.networks import convnet, mlp
def digest():
    found = hashlib.sha256()
    for model, shape in MODELS:
        x = torch.randn(70, *shape, generator=torch.Generator().manual_seed(4))
        bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=8, draws=40, seed=3))
        methods = [mcbn.MCBatchNorm(model, bank, engine=e) for e in ("auto", "loop", "batched")]
        for method in (*methods, mcbn.MCDropout(model, draws=5)):
            found.update(method(x).numpy().tobytes())
    return found.hexdigest()
with torch.random.fork_rng():
    torch.manual_seed(0)
    MODELS = [(mlp(4, 3, width=16).eval(), (4,)), (convnet(1, 3, width=4).eval(), (1, 9, 9))]
print(digest())
"""


@pytest.mark.slow
def test_a_fresh_process_gives_the_bits_of_a_warm_one():
    """In another process, with other imports, another hash seed and other calls before."""
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "1", "PATH": ""},
    )  # fmt: skip
    said = []
    with warnings.catch_warnings():
        exec(FRESH, {"print": said.append})
    assert fresh.stdout.split() == said
