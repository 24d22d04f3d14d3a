"""Many draws in one pass: they share every product with the weights, and all before the first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.overrides import TorchFunctionMode

from mcbn.samplers.folding import scaled

# Values in the largest tensor of a pass, 4 bytes each, as measured on processors.
DENSE, IMAGES, HEAVY = 2**19, 2**20, 2**22


@dataclass(frozen=True)
class Load:
    """What one example weighs in a pass.

    Attributes:
        values: size of the largest tensor on the way, per example.
        dense: whether all tensors on the way are rows of features.
        weights: how many numbers the network itself holds, which every pass reads.
    """

    values: int
    dense: bool
    weights: int

    @property
    def budget(self) -> int:
        """Values that the largest tensor of a pass may have.

        What fits in a cache beside the weights, unless the weights do not fit either: a pass then
        has to be large for reading them to pay.
        """
        if self.dense:
            return DENSE
        return IMAGES if self.weights <= IMAGES else HEAVY


# Draws that a piece of the inputs is shared by, at least: what is before them is computed once.
SHARED = {True: 32, False: 8}


def cut(load: Load, examples: int, draws: int) -> tuple[int, int]:
    """How many examples and how many draws go in one pass, so that it stays within the budget."""
    rows = max(1, load.budget // max(1, load.values))
    piece = min(examples, max(1, rows // min(SHARED[load.dense], draws)))
    return max(1, piece), max(1, min(draws, rows // max(1, piece)))


class Scaling(TorchFunctionMode):
    """Batch norm as one multiplication and addition, which carry an axis of draws at no cost.

    Any layer that calls PyTorch's batch norm is met, whatever else it does.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is functional.batch_norm:
            return _normalized(*args, **(kwargs or {}))
        if func is functional.adaptive_avg_pool2d:
            return _averaged(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _normalized(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The names and order are those of `torch.nn.functional.batch_norm`."""
    if training:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps
        )
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    return scaled(input, scale, shift if bias is None else shift + bias)


def _averaged(input: Tensor, output_size: Any) -> Tensor:
    """The global average, which PyTorch's own runs once a draw for want of a rule for `vmap`."""
    if output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), keepdim=True)
    return functional.adaptive_avg_pool2d(input, output_size)


class Weighing(TorchFunctionMode):
    """Watches a pass and notes its largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.dense = 0, True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and not isinstance(found, torch.nn.Parameter):
            self.values = max(self.values, found.numel())
            self.dense = self.dense and found.ndim <= 2
        return found

    def load(self, model: Module, examples: int) -> Load:
        """What was seen, per example; parameters are no part of it but counted apart."""
        weights = sum(parameter.numel() for parameter in model.parameters())
        return Load(max(1, self.values // max(1, examples)), self.dense, weights)


def stacked(
    call: Callable[[Mapping[str, Tensor], Any], Any], states: Mapping[str, Tensor], inputs: Any
) -> Any:
    """The answers under all states at once, with a leading axis of draws."""
    with Scaling():
        return torch.vmap(lambda state: call(state, inputs))(dict(states))
