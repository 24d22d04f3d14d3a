"""The user's model, random streams and settings, given back as they were found.

An interrupt (Ctrl-C) can land between any two calls, also inside what tidies up: then the end of a
`with` block is never reached, and its manager stays open for as long as somebody keeps the
traceback. `as_found` is for that: what was found is written down before anything is changed, and
put back from outside, so that an interrupt leaves nothing behind wherever it lands.
"""

import os
import random
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from inspect import GEN_SUSPENDED, getgeneratorstate
from types import GeneratorType, TracebackType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import Module

from mcbn.network.surroundings import Filters, Settings, Streams

P = ParamSpec("P")
T = TypeVar("T")

OURS = "_mcbn"  # marks what stands in for a layer's forward

# `functional_call` swaps tensors on the module itself, so one model serves one thread at a time.
_locks: WeakKeyDictionary[Module, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()

# Of the process there is one set of random streams and of warning filters: one thread at a time has
# them. Where a thread needs these and a model, it takes these first.
_process = threading.RLock()


def _unlocked() -> None:
    """Fork copies a lock that another thread holds, and nobody would release the copy."""
    global _process, _guard
    _process, _guard = threading.RLock(), threading.Lock()


os.register_at_fork(after_in_child=_unlocked)


def alone(model: Module) -> threading.RLock:
    """The lock of `model`, for a `with` block: while it is held its tensors are its own."""
    with _guard:
        return _locks.setdefault(model, threading.RLock())


@contextmanager
def eval_mode(model: Module) -> Iterator[None]:
    """Hold `model` alone and in eval mode for the block; restore each module's own mode after.

    The `training` flags are set directly, since a model may override `train()` with other effects.
    """
    with alone(model):
        training = [module for module in model.modules() if module.training]
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True


@contextmanager
def random_streams(*key: int | str) -> Iterator[None]:
    """Seed the global streams of torch, numpy and Python from `key`; give them back after.

    One thread at a time has them: the streams are those of the process.
    """
    seed = derived_seed(*key)
    with _process:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
        with _put_back(Streams.now()), torch.random.fork_rng(devices=devices):
            # Not torch.manual_seed: it would leave a seed waiting for a GPU not yet in use.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed_all(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield


@contextmanager
def own_warnings() -> Iterator[None]:
    """Warning filters of one's own for the block; one thread at a time has them."""
    with _process, _put_back(Filters.now()), warnings.catch_warnings():
        yield


@contextmanager
def _put_back(found: Streams | Filters) -> Iterator[None]:
    """Put back what was found; once more if an interrupt lands in that."""
    try:
        try:
            yield
        finally:
            found.put_back()
    except BaseException:
        found.put_back()
        raise


def unchanged(*_: Any, **__: Any) -> None:
    """A hook that changes nothing."""


def of_this_thread(
    mine: Callable[..., Any], others: Callable[..., Any] = unchanged
) -> Callable[..., Any]:
    """`mine` in the thread that asks for this, `others` in any other: for hooks on a model.

    Another thread may call the network too, whose answer is none of ours.
    """
    thread = threading.get_ident()

    @wraps(mine)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (mine if threading.get_ident() == thread else others)(*args, **kwargs)

    setattr(chosen, OURS, True)
    return chosen


def derived_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of `key` and on nothing else.

    Raises:
        ValueError: a number in the key is negative.
    """
    if any(isinstance(part, int) and part < 0 for part in key):
        raise ValueError(f"expected seeds of at least 0, got {key}; use a non-negative integer")
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def as_found(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, which leaves the process and every model it is given as found, if it raises too.

    A model is an argument, or the `model` or `models` of an argument. A step of a generator is
    guarded by `as_found(next)`. What goes well has its own `with` blocks to tidy up.
    """

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        given = [*args, *kwargs.values()]
        found: list[Settings | _Held] = [Settings.now(), *map(_Held.now, _models(given))]
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            _close(error.__traceback__)
            for each in found:
                each.put_back()
            raise

    return guarded


def _models(given: Iterable[Any]) -> Iterator[Module]:
    for each in given:
        if isinstance(each, Module):
            yield each
            continue
        held = getattr(each, "models", None) or (getattr(each, "model", None),)
        if isinstance(held, tuple):
            yield from (model for model in held if isinstance(model, Module))


def _close(traceback: TracebackType | None) -> None:
    """Close the context managers that an interrupt left open, the innermost first.

    One written as a generator waits at its `yield` if the interrupt lands in contextlib's steps.
    """
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    for frame in reversed(frames):
        if frame.f_code.co_name in ("__enter__", "__exit__"):
            left = getattr(frame.f_locals.get("self"), "gen", None)
            if isinstance(left, GeneratorType) and getgeneratorstate(left) == GEN_SUSPENDED:
                with suppress(Exception):  # the interrupt is what the caller must hear
                    left.close()


@dataclass(frozen=True, eq=False)
class _Held:
    """The modes, tensors and hooks of a model's modules, as one thread that holds it found them.

    Taken for every pass, so in few steps: hooks of ours are the last ones of a module.
    """

    model: Module
    modules: list[Module]
    training: list[Module]
    tensors: list[tuple[dict[str, Any], dict[str, Any]]]
    hooks: list[tuple[int, int]]

    @classmethod
    def now(cls, model: Module) -> "_Held":
        with alone(model):
            modules = list(model.modules())
            return cls(
                model,
                modules,
                [module for module in modules if module.training],
                [
                    (held, held.copy())
                    for module in modules
                    for held in (module._parameters, module._buffers)
                    if held and isinstance(held, dict)  # those of scripted code cannot be swapped
                ],
                [(len(each._forward_hooks), len(each._forward_pre_hooks)) for each in modules],
            )

    def put_back(self) -> None:
        with alone(self.model):
            training = set(self.training)
            for module, counts in zip(self.modules, self.hooks, strict=True):
                module.training = module in training
                if hasattr(module.__dict__.get("forward"), OURS):
                    del module.__dict__["forward"]
                kinds = (module._forward_hooks, module._forward_pre_hooks)
                for hooks, count in zip(kinds, counts, strict=True):
                    for key in list(hooks)[count:]:
                        hooks.pop(key)
                        module._forward_hooks_with_kwargs.pop(key, None)
                        module._forward_pre_hooks_with_kwargs.pop(key, None)
            for held, found in self.tensors:
                held.update(found)
