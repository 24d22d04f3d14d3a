"""What a network does in train mode, seen in a copy: layers it freezes, statistics it keeps."""

import copy
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.instancenorm import _InstanceNorm

from mcbn.network.isolation import StreamStates
from mcbn.network.passes import forward

# Names of buffers that may be statistics of mini-batches, whatever their shape.
STATISTICS = re.compile(r"running|moving")


def kept_in_eval_mode(model: Module, layers: Iterable[str]) -> list[str]:
    """Layers that the network's own `train()` leaves in eval mode, so that training froze them."""
    if all(type(module).train is Module.train for module in model.modules()):
        return []
    twin = _copied(model)
    if twin is None:
        return []
    twin.train()
    return [name for name in layers if not twin.get_submodule(name).training]


def unknown_statistics(model: Module, layers: Iterable[str], inputs: Any) -> list[str]:
    """Modules that look like normalisers of a mini-batch, but keep their statistics elsewhere.

    They are not of PyTorch, and train mode changes buffers of theirs that may be statistics:
    several vectors of one length, or any that is named so, such as a running covariance.
    """
    names = [
        name
        for name, module in model.named_modules()
        if name not in layers and _may_be_normalizer(module)
    ]
    twin = _copied(model) if names else None
    if twin is None:
        return []
    twin.train()
    for module in twin.modules():
        if "Drop" in type(module).__name__:
            module.training = False
    before = {
        name: [buffer.clone() for buffer in _statistics(twin.get_submodule(name))] for name in names
    }
    streams = StreamStates.now()
    try:
        with torch.no_grad():
            forward(twin, {}, inputs)
        after = {name: _statistics(twin.get_submodule(name)) for name in names}
        return [name for name in names if not _same(before[name], after[name])]
    except Exception:  # a network in train mode may want targets
        return []
    finally:
        streams.restore()


def _same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return len(ones) == len(others) and all(map(torch.equal, ones, others))


def _statistics(module: Module) -> list[Tensor]:
    """The buffers of a module that may be statistics of mini-batches."""
    return [*_vectors(module), *_named(module)]


def _vectors(module: Module) -> list[Tensor]:
    """Those that may be means or variances of channels."""
    return [b for b in module._buffers.values() if b is not None and b.ndim == 1 and len(b) > 1]


def _named(module: Module) -> list[Tensor]:
    """Those that are named so."""
    return [b for name, b in module._buffers.items() if b is not None and STATISTICS.search(name)]


def _may_be_normalizer(module: Module) -> bool:
    own = not type(module).__module__.startswith("torch.")
    if not own or isinstance(module, (torch.jit.ScriptModule, _InstanceNorm)):
        return False
    lengths = [len(buffer) for buffer in _vectors(module) if buffer.is_floating_point()]
    return bool(_named(module)) or len(lengths) > len(set(lengths))


def _copied(model: Module) -> Module | None:
    try:
        return copy.deepcopy(model)
    except Exception:  # whatever a network of the user raises that cannot be copied
        return None
