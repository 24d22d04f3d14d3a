"""Networks that normalise by the batch at hand in eval mode, so that examples are not separate."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.overrides import TorchFunctionMode

# Parameters of the batch norms of PyTorch: the place of `training`, and those of tensors that tell
# to which layer a call belongs.
TRAINING = 5
TENSORS = {"running_mean": 1, "running_var": 2, "weight": 3, "bias": 4}
BATCH_NORMS = (functional.batch_norm, torch.batch_norm, torch.native_batch_norm)


class NormalizesByBatchError(ValueError):
    """A network normalises by the statistics of the batch at hand in eval mode."""


@contextmanager
def refuses_batch_statistics(model: Module) -> Iterator[None]:
    """Refuse the network if it normalises by the batch at hand in a pass in the block.

    The network has to be in eval mode: a layer that is in train mode at the end put itself there.

    Raises:
        NormalizesByBatchError: it did; names the layer.
    """
    watch = _Watch()
    with watch:
        yield
    switched = [name for name, module in model.named_modules() if module.training]
    if not watch.seen and not any(_is_normalizing(model.get_submodule(n)) for n in switched):
        return
    named = [_layer_of(model, each) for each in watch.seen] or [repr(name) for name in switched]
    raise NormalizesByBatchError(
        f"expected layers that use their running statistics in eval mode, got {named[0]}, which "
        "normalises by the batch at hand, so an example's output depends on the others; call "
        "batch norm with training=self.training, and leave train() out of the forward"
    )


class _Watch(TorchFunctionMode):
    """Notes the calls of batch norm with training=True."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[Any]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in BATCH_NORMS:
            training = kwargs.get("training", args[TRAINING] if len(args) > TRAINING else False)
            if training:
                tensors = [args[i] for i in range(1, min(len(args), TRAINING))]
                self.seen.append(tensors + [kwargs.get(name) for name in TENSORS])
        return func(*args, **kwargs)


def _layer_of(model: Module, tensors: list[Any]) -> str:
    """The layer that owns one of the tensors of a call."""
    numbers = {id(tensor) for tensor in tensors if isinstance(tensor, Tensor)}
    for name, module in model.named_modules():
        own = (*module._parameters.values(), *module._buffers.values())
        if numbers & {id(tensor) for tensor in own}:
            return repr(name)
    return "a call of batch_norm with training=True"


def _is_normalizing(module: Module) -> bool:
    return "running_mean" in module._buffers
