"""A study that takes seconds: every method on small digits, and executors to run it on."""

from concurrent.futures import Future
from typing import get_args

from mcbn.study.names import Method
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes


def tiny(**change) -> Plan:
    """Two training sizes, two seeds, every method."""
    axes = {
        "title": "tiny",
        "data": DataAxes(train_sizes=(300,), test_size=60, outside=("rotated",), outside_size=50),
        "network": NetworkAxes(names=("mlp",), width=8),
        "training": TrainingAxes(batch_sizes=(32, 100), epochs=2),
        "inference": InferenceAxes(batch_sizes=(8, 64), draws=(4,), members=2),
        "methods": get_args(Method),
        "seeds": (0, 1),
    }
    return Plan(**{**axes, **change})


def smallest(**change) -> Plan:
    """One network, two cells."""
    axes = {
        "training": TrainingAxes(batch_sizes=(32,), epochs=1),
        "seeds": (0,),
        "methods": ("Deterministic", "MC Dropout"),
    }
    return tiny(**{**axes, **change})


class Here:
    """An executor that does each call at once, in this process, and keeps what was asked."""

    def __init__(self, slots=1):
        self.slots, self.calls, self.closed = slots, [], False

    def submit(self, fn, /, *args):
        self.calls.append(args)
        future = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.closed = True
