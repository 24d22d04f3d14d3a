"""The batched engine: many draws in one pass by `vmap`, sized to the memory of a pass."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.overrides import TorchFunctionMode

from mcbn.network.rounding import autocasts
from mcbn.samplers.folding import scaled
from mcbn.samplers.outputs import all_tensors, map_tensors

# Values in the largest tensor of a pass that were fastest in measurements on CPUs: for dense
# networks, for images, and for images where the network itself has more than IMAGE_VALUES weights.
DENSE_VALUES, IMAGE_VALUES, HEAVY_VALUES = 2**19, 2**20, 2**22


@dataclass(frozen=True)
class PassCost:
    """The size of one example in a pass, and of the network.

    Attributes:
        values: size of the largest intermediate tensor, per example.
        dense: whether all intermediate tensors are rows of features.
        weights: number of parameters, which every pass reads.
        multiplications: of weights, per example.
    """

    values: int
    dense: bool
    weights: int
    multiplications: int = 0

    @property
    def budget(self) -> int:
        """Number of values that the largest tensor of a pass may have.

        It fits in a cache beside the weights. Where the weights alone do not fit, a pass has to be
        larger to make up for reading them.
        """
        if self.dense:
            return DENSE_VALUES
        return IMAGE_VALUES if self.weights <= IMAGE_VALUES else HEAVY_VALUES


# Draws in one pass, where the budget allows: what is before the first stochastic layer is computed
# once for them. Dense networks, and others.
MIN_DRAWS = {True: 32, False: 8}


def pass_size(cost: PassCost, examples: int, draws: int) -> tuple[int, int]:
    """Number of examples and of draws in one pass, so that it stays within the budget."""
    rows = max(1, cost.budget // max(1, cost.values))
    piece = min(examples, max(1, rows // min(MIN_DRAWS[cost.dense], draws)))
    return max(1, piece), max(1, min(draws, rows // max(1, piece)))


# Products with weights, each of which is used for every value of the output, or of the input.
FORWARD = functional.linear, functional.conv1d, functional.conv2d, functional.conv3d
TRANSPOSED = (
    functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d,
)  # fmt: skip
PRODUCTS = (*FORWARD, *TRANSPOSED, torch.matmul, torch.bmm, torch.baddbmm)


class Scaling(TorchFunctionMode):
    """Runs batch norm as one multiplication and addition, which `vmap` batches at no cost.

    It replaces every call of PyTorch's batch norm, from whatever layer. Products are given what
    autocast would give them: it does not see those that `vmap` batches.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is functional.batch_norm:
            return _normalized(*args, **(kwargs or {}))
        if func is functional.adaptive_avg_pool2d:
            return _averaged(*args, **(kwargs or {}))
        if func in PRODUCTS:
            args, kwargs = tuple(map(_cast, args)), {k: _cast(v) for k, v in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _cast(value: Any) -> Any:
    """A tensor of float32 in the type of autocast, where that is on."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or not autocasts(value):
        return value
    return value.to(torch.get_autocast_dtype(value.device.type))


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
    """Batch norm with the parameters of `torch.nn.functional.batch_norm`."""
    if training:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps
        )
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    return scaled(input, scale, shift if bias is None else shift + bias)


def _averaged(input: Tensor, output_size: Any) -> Tensor:
    """The global average; PyTorch's own has no rule for `vmap` and would run once per draw."""
    if output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), keepdim=True)
    return functional.adaptive_avg_pool2d(input, output_size)


class CostProbe(TorchFunctionMode):
    """Measures the cost of a pass: the size of its largest tensor, and its multiplications."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.dense, self.multiplications = 0, True, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not isinstance(result, torch.nn.Parameter):
            self.values = max(self.values, result.numel())
            self.dense = self.dense and result.ndim <= 2
            if func in FORWARD or func in TRANSPOSED:
                given = {**dict(zip(("input", "weight"), args, strict=False)), **(kwargs or {})}
                uses = result if func in FORWARD else given["input"]
                self.multiplications += uses.numel() * given["weight"][0].numel()
        return result

    def cost(self, model: Module, examples: int) -> PassCost:
        """The cost per example of the pass seen; parameters are counted apart."""
        weights = sum(parameter.numel() for parameter in model.parameters())
        each = max(1, examples)
        return PassCost(
            max(1, self.values // each), self.dense, weights, self.multiplications // each
        )


@contextmanager
def refuses_slow_rules() -> Iterator[None]:
    """Where `vmap` has no rule it runs one draw at a time, slower than the loop: an error here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop")
        yield


def batched_answer(
    call: Callable[[Mapping[str, Tensor]], Any], states: Mapping[str, Tensor]
) -> Any:
    """What `call` returns under all states at once; its tensors have a leading axis of draws.

    Raises:
        Exception: whatever `vmap` meets in a network that it cannot run.
    """
    returned = []

    def one(state: Mapping[str, Tensor]) -> list[Tensor]:
        raw = call(state)
        returned.append(raw)
        return all_tensors(raw)

    with Scaling():
        tensors = iter(torch.vmap(one)(dict(states)))
    # vmap itself takes tensors alone: they go back to their places in what the network returns.
    return map_tensors(lambda _: next(tensors), returned[0])
