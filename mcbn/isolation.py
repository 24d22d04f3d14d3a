"""The user's model and random streams, given back as they were found."""

import random
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import Module

# `functional_call` swaps tensors on the module itself, so one model serves one thread at a time.
_locks: WeakKeyDictionary[Module, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()


@contextmanager
def eval_mode(model: Module) -> Iterator[None]:
    """Hold `model` alone and in eval mode for the block; restore each module's own mode after.

    The `training` flags are set directly, since a model may override `train()` with other effects.
    """
    with _guard:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
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
    """Seed the global streams of torch, numpy and Python from `key`; give them back after."""
    seed = derived_seed(*key)
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            # Not torch.manual_seed: it would leave a seed waiting for a GPU not yet in use.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed_all(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def derived_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of `key` and on nothing else.

    Raises:
        ValueError: a number in the key is negative.
    """
    if any(isinstance(part, int) and part < 0 for part in key):
        raise ValueError(f"expected seeds of at least 0, got {key}; use a non-negative integer")
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
