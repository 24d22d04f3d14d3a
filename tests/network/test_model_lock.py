"""What an interrupt may leave behind, one thing at a time: `as_found` puts each of them back."""

import contextlib
import math
import sys
import threading
import warnings

import as_found
import pytest
import torch
from models import made
from torch import nn

from mcbn.network import isolation

# Put on the stack by PyTorch's own managers, whose ends an interrupt can keep from being reached.
FUNCTORCH = torch._C._functorch


def hooks(model):
    model[0].register_forward_hook(isolation.of_this_thread(print))
    model[0].register_forward_hook(print, with_kwargs=True)
    model[0].register_forward_pre_hook(print)
    model[0].register_forward_pre_hook(print, with_kwargs=True)


def forward(model):
    model[0].forward = isolation.of_this_thread(print)


def mode(model):
    for module in model.modules():
        module.training = not module.training


def tensors(model):
    model[0]._parameters["weight"] = nn.Parameter(torch.zeros(6, 4))
    model[1]._buffers["running_mean"] = torch.zeros(6)


def gradients(_):
    torch.set_grad_enabled(not torch.is_grad_enabled())


def function_mode(_):
    torch.overrides.BaseTorchFunctionMode().__enter__()


def transform(_):
    FUNCTORCH._vmap_increment_nesting(2, "error")


def functions_of_math(_):
    math.sqrt = print


THINGS = (hooks, forward, mode, tensors, gradients, function_mode, transform, functions_of_math)


@pytest.mark.parametrize("leave", THINGS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_left_behind_is_put_back(leave, error):
    model = made("1d of 2-D").train()
    model[0].register_forward_hook(lambda *_: None)
    model[3].eval()
    before = as_found.process(python_stream=False), as_found.model(model)

    @isolation.as_found
    def interrupted(model):
        leave(model)
        raise error

    with pytest.raises(error):
        interrupted(model)
    after = as_found.process(python_stream=False), as_found.model(model)
    assert [as_found.moved(*pair) for pair in zip(before, after, strict=True)] == [[], []]


def interrupting(code):
    """Interrupt the next call of a function at its start."""

    def trace(frame, event, _):
        if frame.f_code is code:
            raise KeyboardInterrupt

    return trace


def nothing():
    """`eval_mode` has changed what it is for by itself."""


MANAGERS = {
    "eval_mode": (isolation.eval_mode, nothing),
    "random_streams": (lambda _: isolation.random_streams(0), lambda: torch.rand(1)),
    "own_warnings": (lambda _: isolation.own_warnings(), lambda: warnings.simplefilter("error")),
}


@pytest.mark.parametrize(("manager", "change"), MANAGERS.values(), ids=MANAGERS)
def test_a_manager_whose_end_is_not_reached_is_closed(manager, change):
    """Its locks too: nobody else would ever get them while the traceback is kept."""
    model = made("1d of 2-D").train()
    before = as_found.process(python_stream=False), as_found.model(model)
    trace = sys.gettrace()

    @isolation.as_found
    def interrupted(model):
        with manager(model):
            change()
            sys.settrace(interrupting(contextlib._GeneratorContextManager.__exit__.__code__))

    try:
        with pytest.raises(KeyboardInterrupt) as kept:
            interrupted(model)
    finally:
        sys.settrace(trace)
    after = as_found.process(python_stream=False), as_found.model(model)
    assert [as_found.moved(*pair) for pair in zip(before, after, strict=True)] == [[], []]
    assert all(free_for_others(lock) for lock in (isolation.alone(model), isolation._process))
    assert kept.traceback


def free_for_others(lock):
    found = []

    def ask():
        if lock.acquire(blocking=False):
            lock.release()
            found.append(True)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    return found == [True]
