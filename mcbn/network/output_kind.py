"""What the outputs of a classifier are: logits or probabilities."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mcbn.network.batchnorm import HALF_PRECISION

Kind = Literal["logits", "probabilities", "between 0 and 1"]

# Rounding of a sum of probabilities over thousands of classes: float32, and half precision.
SUM_TO_ONE, HALF_SUM_TO_ONE = 2e-5, 1e-2
# Values between 0 and 1 are no logits where there are so many, some near each end: the logits of a
# network that was hardly trained may all be small and positive.
MIN_VALUES, NEAR_END = 64, 0.1


def output_kind(outputs: Tensor) -> Kind:
    """What outputs with classes along the second axis look like.

    Probabilities are at least 0 and sum to 1 over the classes, as those of a softmax. Values
    between 0 and 1 that do not, as those of a sigmoid, are told where there are enough of them.
    """
    if not outputs.is_floating_point() or outputs.ndim < 2 or outputs.numel() == 0:
        return "logits"
    outputs = outputs.detach()
    rounding = HALF_SUM_TO_ONE if outputs.dtype in HALF_PRECISION else SUM_TO_ONE
    low, high = (float(end) for end in outputs.aminmax())
    if not (low >= 0 and high <= 1 + rounding) or low == high:
        return "logits"
    if bool(((outputs == 0) | (outputs == 1)).all()):
        return "logits"
    if outputs.shape[1] > 1 and float((outputs.double().sum(1) - 1).abs().max()) <= rounding:
        return "probabilities"
    spread = low < NEAR_END and high > 1 - NEAR_END
    return "between 0 and 1" if outputs.numel() >= MIN_VALUES and spread else "logits"


READS = (Tensor.__bool__, Tensor.item, Tensor.tolist)
SIGMOIDS = (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, functional.sigmoid,
            functional.hardsigmoid, torch.special.expit)  # fmt: skip


class PassWatch(TorchFunctionMode):
    """Knows whether a tensor came out of a sigmoid, and whether values decided on the path.

    Attributes:
        sigmoids: what came out of each sigmoid.
        decides: whether a value was read from a tensor, as `if x.mean() > 0` does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigmoids: list[Tensor] = []
        self.decides = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in SIGMOIDS and isinstance(result, Tensor):
            self.sigmoids.append(result)
        self.decides = self.decides or func in READS
        return result

    def ends_in_sigmoid(self, output: Tensor) -> bool:
        """Whether the output is that of a sigmoid, or a view of it."""
        storage = output.untyped_storage().data_ptr() if output.layout == torch.strided else 0
        return any(
            each.layout == torch.strided
            and each.numel() == output.numel()
            and each.untyped_storage().data_ptr() == storage
            for each in self.sigmoids
        )
