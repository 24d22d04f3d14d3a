"""What every sampler is: inputs in, draws of outputs out.

No sampler keeps randomness for later: the same inputs give the same rows in any order and cut.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor

from mcbn.network.inputs import Inputs


@runtime_checkable
class Sampler(Protocol):
    """Inputs in, draws of outputs out: all that predicting asks of an uncertainty method.

    The same inputs give the same rows, whatever they are batched with.
    """

    def __len__(self) -> int:
        """T, the number of draws."""
        ...

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """The network's outputs for all inputs, one draw at a time."""
        ...

    def __call__(self, inputs: Inputs) -> Tensor:
        """All draws stacked: axes (draws, batch, ...)."""
        ...
