"""One row per example, read from a pass over data as a likelihood reads it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mcbn.predictive.joining import joined_parts


@dataclass(frozen=True, eq=False)
class Rows:
    """One row per example.

    Attributes:
        values: the rows.
    """

    values: Float[Tensor, "batch *values"]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class RowsOf:
    """The protocol of a likelihood, by which `predict` reads rows off a sampler of one draw.

    Attributes:
        read: makes the rows of a batch of what the sampler answers.
    """

    read: Callable[[Tensor], Tensor]

    def summarize(self, passes: Iterable[Tensor], *, keep_draws: bool = False) -> Rows:  # noqa: ARG002 - there is one alone
        """The rows of one batch."""
        return Rows(self.read(next(iter(passes)).detach()))

    def join(self, parts: Sequence[Rows]) -> Rows:
        """The rows of several batches together, in order."""
        return joined_parts(parts)
