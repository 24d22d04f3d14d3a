"""One row of the matrix: a network as a package builds it, and what it is called with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

Output = Callable[[Any], Tensor]
# Largest relative difference that rounding explains in float32; in float64 it is 1e-9.
TOLERANCE = 1e-4
# Part of what the refusal says.
NO_BATCH_NORM = "with batch-norm layers"


@dataclass(frozen=True)
class Case:
    """A network and what is expected of it.

    Attributes:
        package: where it comes from, as it is installed.
        family: what it is listed under.
        name: which of the family.
        build: makes it, with random weights.
        inputs: one mini-batch.
        output: picks the tensor to compare.
        refused: part of what the refusal says, if one is due.
        note: what a user has to know.
        tolerance: largest difference that rounding explains, relative to the largest output.
        plain: the network inside, for one that is held by something else.
        observed: what a bank is collected from, if not from the network itself.
    """

    package: str
    family: str
    name: str
    build: Callable[[], Any]
    inputs: Callable[[Generator], Any]
    output: Output | None = None
    refused: str = ""
    note: str = ""
    tolerance: float = TOLERANCE
    plain: Callable[[Any], nn.Module] | None = None
    observed: Callable[[Any], nn.Module] | None = None

    @property
    def title(self) -> str:
        return f"{self.package}/{self.family}/{self.name}"


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Callable[[Generator], Tensor]:
    """Random inputs that are not centred."""

    def drawn(generator: Generator) -> Tensor:
        return (torch.randn(shape, generator=generator) + 0.3).to(dtype)

    return drawn


def on_meta(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The same network without memory for its weights: enough to see that it is refused."""

    def built() -> nn.Module:
        with torch.device("meta"):
            return build()

    return built


def logits(answer: Any) -> Tensor:
    """The answer itself, or its first part where auxiliary heads answer too."""
    return answer if isinstance(answer, Tensor) else answer[0]
