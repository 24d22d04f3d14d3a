"""Isolation: after any public call, however it ended, the user's model and process are as found."""

import importlib
import sys
import warnings
from functools import partial
from pathlib import Path
from random import Random

import as_found
import pytest
import torch.distributed as dist
from injection import Injector
from public_calls import CALLS, VALUES, Place, plainly

import mcbn

# Importing scikit-learn sets variables of OpenMP and draws from Python's stream, which is no call's
# doing: it is imported before any.
importlib.import_module("sklearn.datasets")
PUBLIC = {name: getattr(mcbn, name) for name in mcbn.__all__}

pytestmark = pytest.mark.filterwarnings(
    # An interrupt may land where Python throws away a generator, which cannot raise.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
HERE = Place()

ERRORS = (KeyboardInterrupt, RuntimeError)


def quiet():
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)


@pytest.fixture(autouse=True)
def no_complaints():
    with warnings.catch_warnings():
        quiet()
        hook = sys.excepthook
        yield
        if dist.is_initialized():
            dist.destroy_process_group()
            sys.excepthook = hook


def folder_of(path: Path, count: int) -> Path:
    made = path / str(count)
    made.mkdir()
    return made


def temporary_files(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.name.startswith(".") or ".tmp" in p.name]


def ended(call, models, error=None) -> list[str]:
    """Do the call; what is not as it was, be it that the call ended well or in `error`."""
    before = as_found.process(), [as_found.model(m) for m in models]
    try:
        call()
    except BaseException as caught:  # torch may make another error of the one that was raised
        if error is None or not isinstance(caught, (error, Exception)):
            raise
        # Looked at while the traceback is still there, as it is in a notebook.
        return differences(before, models)
    return differences(before, models)


def differences(before, models) -> list[str]:
    process = as_found.moved(before[0], as_found.process())
    pairs = zip(before[1], models, strict=True)
    return process + [name for was, m in pairs for name in as_found.moved(was, as_found.model(m))]


def faults(name: str, folder: Path, *, points: int, seed: int) -> list[str]:
    """Errors at random instants of a call: what is not as found, or goes wrong in the next call."""
    build, chance, counting = CALLS[name], Random(seed), Injector()
    expected = plainly(build(folder_of(folder, 0), HERE)[0]())
    counting(build(folder_of(folder, 1), HERE)[0])
    found = []
    for point in range(points):
        error = ERRORS[point % 2]
        injector = Injector(chance.randint(1, counting.count), error)
        own = folder_of(folder, point + 2)
        call, models = build(own, HERE)
        wrong = ended(partial(injector, call), models, error)
        again = plainly(call())
        # An error that is caught, as of a trial, may send later calls another way.
        if error is KeyboardInterrupt and again != expected:
            wrong.append("the next answer")
        wrong += temporary_files(own)
        found += [f"{error.__name__} at {injector.where}: {wrong}"] if wrong else []
    return found


def test_every_public_name_has_a_call_or_is_a_value():
    called = {name.split()[0] for name in CALLS}
    assert called.isdisjoint(VALUES)
    assert called | VALUES == set(PUBLIC)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_everything_as_found(name, tmp_path):
    call, models = CALLS[name](tmp_path, HERE)
    assert ended(call, models) == []


@pytest.mark.unchecked
@pytest.mark.parametrize("name", CALLS)
def test_an_error_at_any_instant_leaves_everything_as_found(name, tmp_path):
    """Two instants of each call, the second an interrupt."""
    assert faults(name, tmp_path, points=2, seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_an_error_at_any_of_a_hundred_instants_of_each_call_does(name, tmp_path):
    assert faults(name, tmp_path, points=100, seed=1) == []
