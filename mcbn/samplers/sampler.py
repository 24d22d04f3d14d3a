"""The protocol of samplers: inputs in, draws of the network's outputs out."""

from collections.abc import Iterator
from itertools import islice
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


@runtime_checkable
class DrawSampler(Sampler, Protocol):
    """A sampler that can run one of its draws alone, at the cost of that draw."""

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The network's outputs for all inputs under draw `index`: those of `passes`."""
        ...


def one_draw(sampler: Sampler, index: int, inputs: Inputs) -> Tensor:
    """The outputs of any sampler for all inputs under draw `index`.

    A sampler of the three methods of `Sampler` alone is asked for the draws before it as well.

    Raises:
        ValueError: the sampler has no such draw.
    """
    if isinstance(sampler, DrawSampler):
        return sampler.draw(index, inputs)
    for outputs in islice(sampler.passes(inputs), index, index + 1):
        return outputs
    raise ValueError(
        f"expected {len(sampler)} draws, as len() of the {type(sampler).__name__} says, got "
        f"{index} or fewer; let passes() yield all of them"
    )


def require_draw(index: int, draws: int) -> None:
    """Check that there is a draw of that index.

    Raises:
        ValueError: there is not.
    """
    if not 0 <= index < draws:
        raise ValueError(f"expected a draw from 0 to {draws - 1}, got {index}; count from 0")
