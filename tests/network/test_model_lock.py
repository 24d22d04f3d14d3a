"""What is given back: model, streams and locks, after a block that ended well or in an error."""

import os
import random
import threading
import warnings

import as_found
import numpy as np
import pytest
import torch
from models import examples, make_network
from torch.func import functional_call

from mcbn.network import isolation


def draw_from_every_stream():
    return float(torch.rand(()) + random.random() + np.random.rand())  # noqa: NPY002


BLOCKS = {
    "eval_mode": (isolation.eval_mode, lambda model: None),
    "intercepted": (
        lambda model: isolation.intercepted(model, {model[1]: print}, {model[4]: print}),
        lambda model: model[1]._buffers.update(running_mean=torch.zeros(6)),
    ),
    "random_streams": (
        lambda model: isolation.random_streams(0), lambda model: draw_from_every_stream()),
    "own_warnings": (
        lambda model: isolation.own_warnings(), lambda model: warnings.simplefilter("error")),
}  # fmt: skip


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize(("block", "change"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_gives_back_what_it_changed(block, change, error):
    model = make_network("1d of 2-D").train()
    model[3].eval()
    before = as_found.process(), as_found.model(model)

    def interrupted():
        with block(model):
            change(model)
            if error is not None:
                raise error

    if error is None:
        interrupted()
    else:
        with pytest.raises(error):
            interrupted()
    after = as_found.process(), as_found.model(model)
    assert [as_found.moved(*pair) for pair in zip(before, after, strict=True)] == [[], []]
    assert free_for_others(isolation.model_lock(model))
    assert free_for_others(isolation._process_lock)


def free_for_others(lock):
    """Whether another thread can take the lock at once."""
    taken = []

    def ask():
        if lock.acquire(blocking=False):
            lock.release()
            taken.append(True)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    return taken == [True]


class Full(dict):
    """Buffers of which one cannot be replaced: something goes wrong half-way."""

    def __setitem__(self, key, value):
        if key == "running_var" and not hasattr(self, "failed"):
            self.failed = True
            raise KeyboardInterrupt
        super().__setitem__(key, value)


@pytest.mark.parametrize("where", ["replacing", "calling", "nowhere"])
def test_tensors_are_given_back_wherever_it_fails(where):
    model, x = make_network("1d of 2-D").eval(), examples("1d of 2-D", 5)
    before, expected = as_found.model(model), model(x)
    state = {name: value + 0.5 for name, value in model.state_dict().items() if "running" in name}
    if where == "replacing":
        model[1]._buffers = Full(model[1]._buffers)

    def call():
        if where == "calling":
            raise KeyboardInterrupt
        return model(x)

    if where == "nowhere":
        found = isolation.call_with_tensors(model, state, call)
        torch.testing.assert_close(found, functional_call(model, state, x), rtol=0, atol=0)
        assert not torch.equal(found, expected)
    else:
        with pytest.raises(KeyboardInterrupt):
            isolation.call_with_tensors(model, state, call)
    assert as_found.moved(before, as_found.model(model)) == []
    assert torch.equal(model(x), expected)


def test_streams_are_repeatable_and_told_to_have_moved():
    with isolation.random_streams(3, "a"):
        first = draw_from_every_stream()
    before = isolation.StreamStates.now()
    assert before.unmoved()
    with isolation.random_streams(3, "a"):
        assert draw_from_every_stream() == first
    assert before.unmoved()


@pytest.mark.parametrize(
    "drawn",
    [lambda: torch.rand(1), lambda: np.random.rand(), random.random],  # noqa: NPY002
    ids=["torch", "numpy", "python"],
)
def test_a_draw_from_any_stream_is_seen_and_can_be_undone(drawn):
    before = isolation.StreamStates.now()
    drawn()
    assert not before.unmoved()
    before.restore()
    assert before.unmoved()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_waits_for_no_lock_of_its_parent():
    """A thread of the parent holds the model, its lock's registry and the process meanwhile."""
    model = make_network("1d of 2-D")
    held, done = threading.Event(), threading.Event()

    def hold():
        with isolation._process_lock, isolation.model_lock(model):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        free = isolation.model_lock(model).acquire(timeout=5)
        free = free and isolation._process_lock.acquire(timeout=5)
        os._exit(0 if free else 1)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        holder.join()
