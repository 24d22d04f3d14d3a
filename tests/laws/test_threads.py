"""Eight threads on one model and one bank get the serial answer, bit for bit."""

import copy
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import as_found
import pytest
import torch
from models import Jittered, examples, make_network, without_seed
from posteriors import Posterior
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.network.isolation import random_streams

NAME = "1d of 2-D"
X, Y = examples(NAME, 24, seed=8), torch.arange(24) % 3
TRAINING = examples(NAME, 60)
ENGINES = ("auto", "loop", "folded", "batched")
THREADS = 8

pytestmark = [
    pytest.mark.unchecked,
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
]


def batches(draws=5, seed=0, data=TRAINING):
    return mcbn.minibatches(data, batch_size=8, draws=draws, seed=seed)


def noisy(example):
    return example * (1 + 0.1 * torch.rand((), dtype=torch.float64))


def calls(model):
    """Calls of every kind on one model and one bank, by name."""
    bank = mcbn.collect(model, batches())
    drawn = mcbn.MCBatchNorm(model, bank)
    # A copy: hooks on layers that another network has as well are seen in its passes.
    own, posterior = copy.deepcopy(model), Posterior(copy.deepcopy(model))
    bare = nn.Sequential(*(layer for layer in own if not isinstance(layer, nn.Dropout)))
    return {
        **{engine: lambda e=engine: replace(drawn, engine=e)(X) for engine in ENGINES},
        "fewer draws": lambda: mcbn.MCBatchNorm(model, bank.first(2), engine="loop")(X),
        "one layer": lambda: mcbn.MCBatchNorm(model, bank, layers=1)(X),
        "rescaled": lambda: mcbn.MCBatchNorm(model, bank.rescale(batch_size=3.0))(X),
        "MCDropout": lambda: mcbn.MCDropout(model, draws=3)(X),
        "MCDropout put in": lambda: mcbn.MCDropout(bare, draws=3, insert=0.2, at=["1"])(X),
        "Augmented": lambda: mcbn.Augmented(drawn, noisy)(X),
        "Augmented at once": lambda: mcbn.Augmented(model, mcbn.RandomShift((1,)), draws=3)(X),
        "LastLayerLaplace": lambda: mcbn.LastLayerLaplace.fit(
            model, TRAINING, torch.arange(60) % 3, draws=3)(X),
        "LaplaceSampler": lambda: mcbn.LaplaceSampler(posterior, draws=3)(X),
        "Deterministic": lambda: mcbn.Deterministic(model)(X),
        "DeepEnsemble": lambda: mcbn.DeepEnsemble([model, model])(X),
        "LinearizedBatchNorm": lambda: mcbn.LinearizedBatchNorm(model, bank, exact=2)(X),
        "predict": lambda: mcbn.predict(drawn, X, batch_size=7).probabilities,
        "transforms": lambda: mcbn.predict(drawn, Jittered(X), batch_size=7).probabilities,
        "evaluate": lambda: accuracy(mcbn.predict(drawn, X)),
        "inspect": lambda: str(mcbn.inspect(model, X)),
        "collect": lambda: rows(mcbn.collect(model, batches(seed=1))),
        "collect transforms": lambda: rows(mcbn.collect(model, batches(data=Jittered(TRAINING)))),
        "collect loader": lambda: rows(mcbn.collect(
            model, DataLoader(TensorDataset(TRAINING), batch_size=8, shuffle=True), draws=9)),
    }  # fmt: skip


def rows(bank):
    """All numbers of a bank, those of the trained network too, in one row."""
    every = (*bank.statistics.values(), *bank.trained.values())
    return torch.cat([values.flatten() for values in every])


def accuracy(predictive):
    found = mcbn.evaluate(predictive, Y, resamples=3)
    return torch.tensor([found[name].value for name in ("accuracy", "nll", "brier")])


def bits(answer):
    return answer if isinstance(answer, str) else as_found.bits(answer)


def at_once(work, count=THREADS):
    """What each call gives, all of them started together."""
    barrier = threading.Barrier(count)

    def started(each):
        barrier.wait()
        return each()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(started, work))


@pytest.fixture(params=["plain", pytest.param("hooked", marks=pytest.mark.slow)])
def model(request):
    found = make_network(NAME).train()
    if request.param == "hooked":
        found[2].register_forward_hook(lambda module, args, answer: answer)
    return found


def test_eight_threads_of_one_call_get_the_serial_answer(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        for name, call in calls(model).items():
            expected = bits(call())
            fresh = calls_again(model)[name]
            assert {bits(found) for found in at_once([fresh] * THREADS)} == {expected}, name


def calls_again(model):
    """The same calls on a copy of the network that nothing is known of yet."""
    twin = make_network(NAME).train()
    for module, other in zip(twin, model, strict=True):
        module._forward_hooks.update(other._forward_hooks)
    return calls(twin)


@pytest.mark.parametrize("repeats", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_mixed_calls_get_the_serial_answers_and_leave_all_as_found(model, repeats):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        serial = {name: bits(call()) for name, call in calls(model).items()}
        for repeat in range(repeats):
            work = list(calls_again(model).items())
            work = work[repeat:] + work[:repeat]
            before = as_found.process(), as_found.model(model)
            for start in range(0, len(work), THREADS):
                group = work[start : start + THREADS]
                found = at_once([call for _, call in group], len(group))
                for (name, _), answer in zip(group, found, strict=True):
                    assert bits(answer) == serial[name], name
            after = as_found.process(), as_found.model(model)
            assert [as_found.moved(*pair) for pair in zip(before, after, strict=True)] == [[], []]


class Waiting(nn.Module):
    """Stops in the middle of a pass until it may go on."""

    def __init__(self):
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def forward(self, x):
        self.reached.set()
        self.go_on.wait(10)
        return x


def test_inspect_does_not_read_what_a_pass_of_another_thread_has_put_in_place():
    waiting = Waiting()
    model = make_network(NAME).append(waiting)
    waiting.go_on.set()
    expected = str(mcbn.inspect(model))
    waiting.go_on.clear()
    waiting.reached.clear()
    with ThreadPoolExecutor(2) as pool:
        bank = pool.submit(mcbn.collect, model, batches())
        assert waiting.reached.wait(10)
        found = pool.submit(mcbn.inspect, model)
        with pytest.raises(TimeoutError):
            found.result(timeout=0.2)
        waiting.go_on.set()
        assert str(found.result()) == expected
        bank.result()


def test_threads_with_networks_of_their_own_do_not_wait_for_each_other():
    """One stops in the middle of a pass; nothing is drawn from the streams they share."""
    waiting, data = Waiting(), examples(NAME, 24)
    stopped, free = make_network(NAME).append(waiting).eval(), make_network(NAME).eval()
    waiting.go_on.set()
    drawn = mcbn.minibatches(data, batch_size=8, draws=3)
    bank = mcbn.collect(stopped, drawn)
    for call in (
        lambda model: mcbn.predict(mcbn.MCBatchNorm(model, bank, engine="loop"), data),
        lambda model: mcbn.predict(mcbn.Deterministic(model), data),
    ):
        waiting.go_on.clear()
        waiting.reached.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(call, stopped)
            assert waiting.reached.wait(10)
            try:
                pool.submit(call, free).result(timeout=5)
            finally:
                waiting.go_on.set()
            first.result()


def test_a_pass_takes_the_seeds_of_another_thread_for_no_draw_of_its_own():
    """It would restore the streams, under the feet of the thread that has seeded them."""
    with random_streams(1, "a"):
        expected = torch.rand(2)
    waiting, data = Waiting(), examples(NAME, 24)
    model = make_network(NAME).append(waiting).eval()
    with ThreadPoolExecutor(1) as pool:
        passing = pool.submit(mcbn.predict, mcbn.Deterministic(model), data)
        assert waiting.reached.wait(10)
        with random_streams(1, "a"):
            first = torch.rand(1)
            waiting.go_on.set()
            wait([passing], timeout=0.3)
            assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
        passing.result(timeout=10)


SAFE = ("folded", "MCDropout", "Deterministic", "collect", "inspect")


def watched(user, seconds=1.5):
    """What `user` gives, time and again, while our calls run; True if all is well with both."""
    model = make_network(NAME).eval()
    every = calls(model)
    for name in SAFE:
        expected, stop, wrong = bits(every[name]()), threading.Event(), []

        def go_on(stop=stop, wrong=wrong):
            while not stop.is_set():
                wrong.extend([] if user(model) else ["the user's"])

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                wrong.extend([] if bits(every[name]()) == expected else ["ours"])
        finally:
            stop.set()
            thread.join()
        yield name, wrong


def test_a_network_that_is_called_by_its_owner_meanwhile_answers_as_ever():
    """In eval mode, beside what puts no statistics into the network itself."""
    plain = make_network(NAME).eval()
    with torch.no_grad():
        expected = plain(X)

    def user(model):
        with torch.no_grad():
            return model(X).equal(expected)

    for name, wrong in watched(user, seconds=0.5):
        assert wrong == [], name


def test_other_networks_of_other_threads_are_no_part_of_a_trace():
    """Tracing patches `Module` for all threads; what the others call meanwhile is their own."""
    stop, wrong = threading.Event(), []
    own = without_seed(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    x = torch.ones(3, 4)
    with torch.no_grad():
        expected = own(x)

    def user():
        while not stop.is_set():
            with torch.no_grad():
                if not own(x).equal(expected):
                    wrong.append("other numbers")

    thread = threading.Thread(target=user)
    thread.start()
    try:
        for _ in range(20):
            model = make_network(NAME)
            mcbn.MCBatchNorm(model, mcbn.collect(model, batches()), engine="folded")(X)
    finally:
        stop.set()
        thread.join()
    assert wrong == []
