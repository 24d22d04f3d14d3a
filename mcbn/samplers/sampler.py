"""The protocol of samplers: inputs in, draws of the network's outputs out."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor

from mcbn.network.inputs import Inputs


@runtime_checkable
class Sampler(Protocol):
    """An uncertainty method: inputs in, draws of the network's outputs out.

    Any object with these three methods will do. An input's outputs must not depend on what it is
    batched with, nor on the calls before.
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
