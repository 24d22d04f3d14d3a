"""Passes of a network, each on inputs that it may write into."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import PackedSequence

from mcbn.network.inputs import Inputs, map_inputs, tensors
from mcbn.network.isolation import call_with_tensors


def forward(model: Module, state: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """Call `model` on a copy of `inputs` with the tensors of `state` in place of its own.

    Raises:
        TypeError: the network does not take inputs of their integer type.
    """
    return call(model, state, Lender(inputs).lend())


def call(model: Module, state: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """Call `model` on `inputs` themselves, which it may write into."""
    several = isinstance(inputs, tuple) and not isinstance(inputs, PackedSequence)
    args: tuple[Any, ...] = inputs if several else (inputs,)  # type: ignore[assignment]
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, dict):
        args, kwargs = (), dict(inputs)
    try:
        return call_with_tensors(model, state, lambda: model(*args, **kwargs))
    except RuntimeError as error:
        if (reason := _type_mismatch(error, inputs)) is not None:
            raise TypeError(reason) from error
        raise


def _type_mismatch(error: RuntimeError, inputs: Inputs) -> str | None:
    """Why a network refuses integers, if that is the error that PyTorch raised."""
    kinds = [str(x.dtype) for x in tensors(inputs) if not (x.is_floating_point() or x.is_complex())]
    if not kinds or not re.search(r"dtype|scalar type|[Ii]nput type|data type", str(error)):
        return None
    first = str(error).splitlines()[0]
    return (
        f"expected inputs of a type that the network takes, got {kinds[0]} ({first}); convert and "
        "scale them as in training, for example x.float() / 255 for images"
    )


class Lender:
    """Lends the same inputs to one pass after another, as they were.

    A network may write into its inputs (`x.sub_(mean)`, `batch["x"] = ...`). Each pass gets new
    containers, around one copy of the tensors: a tensor counts the writes to it, and a copy that
    was written to is made anew.

    Args:
        inputs: what to lend; they are never written to themselves.
        always: make a new copy for every pass, for networks whose writes are not counted, such as
            those through `x.data`.
    """

    def __init__(self, inputs: Any, *, always: bool = False) -> None:
        self.inputs, self.always = inputs, always
        self.copies: Any = None
        self.versions: list[int] = []

    def lend(self) -> Any:
        """The inputs for one pass."""
        if self.always or self.versions != written(self.copies) or self.copies is None:
            # The caller may be in inference mode, whose tensors count no writes.
            with torch.inference_mode(False):
                self.copies = map_inputs(torch.clone, self.inputs)
            self.versions = written(self.copies)
        return map_inputs(_same, self.copies)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def written(values: Any) -> list[int]:
    """How many writes each tensor has seen; changes with every further one."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors(values)]
