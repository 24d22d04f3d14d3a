"""The state of a network that decides which way a pass takes: modules, tensors, attributes."""

import weakref
from collections.abc import Mapping
from itertools import chain
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.isolation import FRAMEWORK

PLAIN = frozenset(
    {type(None), bool, int, str, bytes, complex, torch.dtype, torch.device, torch.Size, type}
)
# Objects inside objects inside attributes are seen up to this depth, such as `self.config.heads`,
# and collections up to this many values.
MAX_DEPTH, MAX_VALUES = 4, 1000


def signature(model: Module) -> tuple[Any, ...]:
    """What is equal as long as `model` is in the same state, but for the values of its tensors.

    It changes when a module or tensor is replaced, cast, moved or hooked, and when an attribute
    changes, of a module, of its class or inside an object it holds: the active head, a temperature,
    the depth of an early exit, the flag of an adapter. It keeps nothing alive.
    """
    modules: list[Any] = []
    classes: dict[type, None] = {}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            modules.append(id(module))  # it keeps its state to itself, and no plan looks into it
            continue
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks))
        tensors = [
            (id(tensor), tensor.dtype, tensor.device)
            for tensor in chain(module._parameters.values(), module._buffers.values())
            if tensor is not None
        ]
        modules.append((id(module), hooks, attributes(module), tensors))
        classes[type(module)] = None
    return (*modules, *map(_class_attributes, classes), _autocast(model))


def attributes(module: Module) -> tuple[Any, ...]:
    """The attributes of a module that are neither tensors nor modules of its own, described."""
    return tuple(
        [
            (name, value if type(value) in PLAIN else _described(value, 0))
            for name, value in vars(module).items()
            if name not in FRAMEWORK
        ]
    )


def _class_attributes(cls: type) -> tuple[Any, ...]:
    """The attributes of a class and those above it, up to the classes of PyTorch."""
    found = []
    for each in cls.__mro__:
        if each.__module__.startswith("torch.nn."):
            break
        found += [
            (name, _described(value, 0))
            for name, value in vars(each).items()
            if not name.startswith("__")
        ]
    return (_Identity(cls), _globals(cls), *found)


def _globals(cls: type) -> list[Any]:
    """The settings that a class's forward reads outside: global names, and those of a closure."""
    forward = getattr(cls, "forward", None)
    if cls.__module__.startswith("torch.") or not isinstance(forward, FunctionType):
        return []
    names = [name for name in forward.__code__.co_names if name in forward.__globals__]
    values = {name: forward.__globals__[name] for name in names}
    outside = [
        (name, _described(value, 0))
        for name, value in values.items()
        if not isinstance(value, (type, ModuleType))
    ]
    return [*outside, _described(forward, 0)]


def _described(value: Any, depth: int) -> Any:
    """What to compare a value by: itself if it is plain, else what is in it, or which it is."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is float:
        return "nan" if value != value else value
    if kind is tuple and PLAIN.issuperset(map(type, value)):
        return value
    if isinstance(value, Tensor):
        return id(value), value.dtype, None if value.is_inference() else value._version
    if isinstance(value, np.ndarray) and value.dtype != object:
        small = value.size <= MAX_VALUES
        return id(value), value.shape, value.tobytes() if small else None
    if depth == MAX_DEPTH or isinstance(value, (Module, ModuleType, BuiltinFunctionType)):
        return _Identity(value)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
        outside = [*cells, *vars(value).values()]
        return _Identity(value), [_described(each, depth + 1) for each in outside]
    if isinstance(value, (classmethod, staticmethod, property)):
        return kind
    if isinstance(value, MethodType):
        return _Identity(value.__func__), id(value.__self__)
    if isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_VALUES]
        return kind, len(value), [(str(k), _described(v, depth + 1)) for k, v in pairs]
    if isinstance(value, (list, tuple)):
        return kind, len(value), [_described(v, depth + 1) for v in value[:MAX_VALUES]]
    if isinstance(value, (set, frozenset)):
        return kind, len(value), sorted(map(str, value))[:MAX_VALUES]
    inside = dict(getattr(value, "__dict__", {}))
    for name in getattr(kind, "__slots__", ()):
        inside[name] = getattr(value, name, None)
    if not inside:
        return _Identity(value)
    return _Identity(value), [(name, _described(v, depth + 1)) for name, v in inside.items()]


def _is_full(cell: CellType) -> bool:
    """Whether a variable of a closure has a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


class _Identity:
    """Equal to that of the same object, which it does not keep alive."""

    def __init__(self, value: Any) -> None:
        self.number = id(value)
        try:
            self.reference: Any = weakref.ref(value)
        except TypeError:  # of a type that knows no weak references
            self.reference = lambda: None

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, _Identity) and self.number == other.number
        return same and self.reference() is other.reference()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return self.number


def _autocast(model: Module) -> tuple[Any, ...]:
    """The precision that a pass would have here."""
    kind = next((tensor.device.type for tensor in model.parameters()), "cpu")
    try:
        return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    except RuntimeError:  # a device that knows no autocast
        return ()
