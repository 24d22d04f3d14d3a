"""The user's model, random streams and settings, given back as they were before the call.

Everything is given back by `with` and `finally`, so after a call that returns or raises, by Ctrl-C
too, all is as before it. The one exception is an interrupt that lands inside the tidying itself.
"""

import copy
import os
import random
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from mcbn import validation

T = TypeVar("T")

# Attributes that PyTorch gives every module.
FRAMEWORK = frozenset(vars(Module()))
COLLECTIONS = (list, dict, set, deque)

# A draw's tensors stand in the module itself, so one model serves one thread at a time.
_model_locks: WeakKeyDictionary[Module, threading.RLock] = WeakKeyDictionary()
_registry_lock = threading.Lock()

# A process has one set of random streams and of warning filters: one thread at a time uses them.
# A thread that needs these and a model takes these first.
_process_lock = threading.RLock()


def _renew_locks() -> None:
    """Forget all locks: a forked child has copies of those that other threads held at the time."""
    global _process_lock, _registry_lock, _model_locks
    _process_lock, _registry_lock = threading.RLock(), threading.Lock()
    _model_locks = WeakKeyDictionary()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_locks)


def model_lock(model: Module) -> threading.RLock:
    """The lock of `model`, for a `with` block in which no other thread swaps its tensors."""
    with _registry_lock:
        return _model_locks.setdefault(model, threading.RLock())


@contextmanager
def eval_mode(model: Module) -> Iterator[None]:
    """Lock `model` and hold it in eval mode for the block; give each module its own mode back.

    The `training` flags are set directly, since a model may override `train()` with other effects.
    """
    with model_lock(model):
        modes = [(module, module.training) for module in model.modules()]
        try:
            for module, training in modes:
                if training:
                    module.training = False
            yield
        finally:
            # A forward may have switched others on.
            for module, training in modes:
                if module.training is not training:
                    module.training = training


@contextmanager
def restored(
    model: Module, *, buffers: bool = True, parameters: bool = False
) -> Iterator[list[str]]:
    """Put back what passes in the block change in `model` itself: its attributes and tensors.

    A forward may count its calls, keep what it computed, or update a buffer in place, so it gets
    copies of the buffers and, where asked for, of the parameters. Collections among the attributes
    are put back too.

    Yields:
        A list that is filled at the end of the block with the names of what was changed.
    """
    with model_lock(model):
        # TorchScript keeps the state of its modules to itself.
        modules = {
            name: module
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }
        attributes = {name: _attributes(module) for name, module in modules.items()}
        lent = {
            name: [
                *(_lend(module._buffers) if buffers else ()),
                *(_lend(module._parameters) if parameters else ()),
            ]
            for name, module in modules.items()
        }
        changed: list[str] = []
        try:
            yield changed
        finally:
            for name, module in modules.items():
                prefix = f"{name}." if name else ""
                changed += [prefix + key for key in _put_back(module, attributes[name])]
                changed += [prefix + tensor.name for tensor in lent[name] if tensor.changed()]
                for tensor in lent[name]:
                    tensor.put_back()


@dataclass(frozen=True, eq=False)
class _LentTensor:
    """A copy of a buffer or parameter, in its place.

    Attributes:
        holder: what the module keeps it in.
        name: its key there.
        own: the tensor of the module.
        copy: what passes get.
        version: the writes that the copy had seen.
    """

    holder: dict[str, Any]
    name: str
    own: Tensor
    copy: Tensor
    version: int

    def changed(self) -> bool:
        """Whether it was replaced, or written to."""
        if self.holder.get(self.name) is not self.copy or self.copy._version != self.version:
            return True
        # Writes through `.data` are not counted.
        strided = self.own.layout == torch.strided and not self.own.is_meta
        return strided and not _same_values(self.copy.detach(), self.own.detach())

    def put_back(self) -> None:
        self.holder[self.name] = self.own


def _same_values(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    # NaN counts as equal to NaN alone; asked second, since that takes longer.
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def _lend(tensors: dict[str, Any]) -> list[_LentTensor]:
    """Put a copy of each tensor in its place."""
    lent = []
    # The caller may be in inference mode, whose tensors count no writes.
    with torch.inference_mode(False):
        for name, own in tensors.items():
            if own is not None and not is_lazy(own):
                copied = own.detach().clone()
                if isinstance(own, torch.nn.Parameter):
                    copied = torch.nn.Parameter(copied, requires_grad=own.requires_grad)
                lent.append(_LentTensor(tensors, name, own, copied, copied._version))
    for tensor in lent:
        tensor.holder[tensor.name] = tensor.copy
    return lent


def _attributes(module: Module) -> dict[str, tuple[Any, Any]]:
    """The attributes of a module, each with a copy of what is in it if it is a collection."""
    return {
        name: (value, copy.copy(value) if type(value) in COLLECTIONS else value)
        for name, value in vars(module).items()
        if name not in FRAMEWORK
    }


def _put_back(module: Module, attributes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Give a module the attributes that it had; the names of those that differed."""
    present = vars(module)
    changed = [name for name in present if name not in FRAMEWORK and name not in attributes]
    for name in changed:
        del present[name]
    for name, (value, content) in attributes.items():
        if present.get(name, changed) is not value:
            present[name] = value
            changed.append(name)
        if value is not content and not _same_items(value, content):
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(content)
            changed.append(name)
    return changed


def _same_items(one: Any, other: Any) -> bool:
    """Whether two collections hold the same objects."""
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and other[key] is value for key, value in one.items())
    if isinstance(one, set):
        return bool(one == other)
    return all(a is b for a, b in zip(one, other, strict=True))


def call_with_tensors(model: Module, state: Mapping[str, Tensor], call: Callable[[], T]) -> T:
    """The answer of `call()` while `model` holds the tensors of `state` in place of its own.

    `torch.func.functional_call` does the same, but an interrupt while it replaces them leaves the
    model with some of those of the draw.

    Args:
        model: the network, which the caller has locked.
        state: tensors by the names of parameters and buffers.
        call: calls the network.

    Raises:
        KeyError: the network has no parameter or buffer of that name.
    """
    holders = [_holder(model, name) for name in state]
    before = [tensors[name] for tensors, name in holders]
    try:
        for (tensors, name), value in zip(holders, state.values(), strict=True):
            tensors[name] = value
        return call()
    finally:
        for (tensors, name), value in zip(holders, before, strict=True):
            tensors[name] = value


def _holder(model: Module, name: str) -> tuple[Any, str]:
    """What a module keeps the parameter or buffer `name` in, and its key there."""
    *path, key = name.split(".")
    module: Any = model
    for part in path:  # not get_submodule, which takes ten times as long: this runs in every pass
        module = module._modules[part]
    return (module._buffers if key in module._buffers else module._parameters), key


@dataclass(frozen=True, eq=False)
class StreamStates:
    """The states of the global random streams of torch, numpy and Python at one moment.

    Of the user's streams: while another thread has seeded them for itself, it is waited for.
    """

    torch: Tensor
    gpus: list[Tensor]
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> "StreamStates":
        """The present states; of GPUs only where they are in use."""
        with _process_lock:
            gpu = _gpu_in_use()
            gpus = [] if gpu is None else gpu.get_rng_state_all()
            return cls(torch.get_rng_state(), gpus, np.random.get_state(), random.getstate())  # noqa: NPY002

    def restore(self) -> None:
        """Give the streams these states again."""
        with _process_lock:
            torch.set_rng_state(self.torch)
            if self.gpus:
                _gpu_in_use().set_rng_state_all(self.gpus)
            np.random.set_state(self.numpy)  # noqa: NPY002
            random.setstate(self.python)

    def unmoved(self) -> bool:
        """Whether nothing has been drawn from a stream since."""
        now = StreamStates.now()
        return (
            torch.equal(self.torch, now.torch)
            and all(map(torch.equal, self.gpus, now.gpus))
            and self.numpy[2:] == now.numpy[2:]
            and np.array_equal(self.numpy[1], now.numpy[1])
            and self.python == now.python
        )


def _gpu_in_use() -> Any:
    """What PyTorch knows of this machine's GPUs, such as `torch.cuda`; None if none is in use."""
    device = torch.accelerator.current_accelerator()
    module: Any = None if device is None else torch.get_device_module(device)
    # Only some kinds of GPU have a stream that can be read.
    usable = hasattr(module, "get_rng_state_all") and module.is_initialized()
    return module if usable else None


@contextmanager
def random_streams(*key: int | str) -> Iterator[None]:
    """Seed the global streams of torch, numpy and Python from `key`; give them back after.

    The streams are those of the process, so one thread at a time has them.
    """
    seed = derived_seed(*key)
    with _process_lock:
        before = StreamStates.now()
        try:
            # Not torch.manual_seed: it would leave a seed waiting for a GPU not yet in use.
            torch.default_generator.manual_seed(seed)
            if before.gpus:
                _gpu_in_use().manual_seed_all(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            before.restore()


@contextmanager
def own_warnings() -> Iterator[None]:
    """Warning filters of one's own for the block; one thread at a time has them."""
    with _process_lock, warnings.catch_warnings():
        yield


Forward = Callable[..., Any]


@contextmanager
def intercepted(
    model: Module, forwards: Mapping[Any, Forward], pre_hooks: Mapping[Any, Forward]
) -> Iterator[None]:
    """Hold `model` in eval mode, with some layers' forwards replaced and others' inputs watched.

    Only calls of this thread are intercepted: what another thread asks of the model is not ours.
    The buffers of all these layers are put back after, whatever the forwards wrote there.

    Args:
        model: the network.
        forwards: what stands in for the forward of each of these layers.
        pre_hooks: a forward pre-hook, which takes keyword arguments too, for each of these layers.
    """
    with eval_mode(model), restored(model), ExitStack() as stack:
        for layer in (*forwards, *pre_hooks):
            stack.callback(layer._buffers.update, dict(layer._buffers))
        for layer, forward in forwards.items():
            stack.callback(layer.__dict__.pop, "forward", None)
            layer.__dict__["forward"] = in_this_thread(forward, partial(type(layer).forward, layer))
        for layer, hook in pre_hooks.items():
            stack.enter_context(
                layer.register_forward_pre_hook(in_this_thread(hook), with_kwargs=True)
            )
        yield


def _no_change(*_: Any, **__: Any) -> None:
    """A hook that changes nothing."""


def in_this_thread(function: Forward, others: Forward = _no_change) -> Forward:
    """`function` for calls from the thread that asks for this, `others` for any other thread."""
    thread = threading.get_ident()

    @wraps(function)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (function if threading.get_ident() == thread else others)(*args, **kwargs)

    return chosen


def derived_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of `key` and on nothing else.

    Raises:
        TypeError: a number in the key is not an integer.
        ValueError: it is negative.
    """
    numbers = [validation.integer(part, "a seed") for part in key if not isinstance(part, str)]
    if any(number < 0 for number in numbers):
        raise ValueError(f"expected seeds of at least 0, got {key}; use a non-negative integer")
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
