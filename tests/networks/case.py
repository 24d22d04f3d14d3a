"""One row of the matrix: a network as a package builds it, and what it is called with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

Output = Callable[[Any], Tensor]
# Largest relative difference that rounding explains in float32; in float64 it is 1e-9.
TOLERANCE = 1e-4
# Part of the message for a network without batch norm.
NO_BATCH_NORM = "with batch-norm layers"


@dataclass(frozen=True)
class Case:
    """A network and what is expected of it.

    Attributes:
        package: the package it comes from, by its name on the index.
        family: the heading it is listed under.
        name: its name within the family.
        build: makes it, with random weights.
        inputs: makes one mini-batch.
        output: picks the tensor to compare out of its output.
        refused: part of the error's message, if it is to be refused.
        note: what a user has to know.
        tolerance: largest difference that rounding explains, relative to the largest output.
        inside: gives the network inside a wrapper.
        observed: gives the network to collect from, if that is another.
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
    inside: Callable[[Any], nn.Module] | None = None
    observed: Callable[[Any], nn.Module] | None = None

    @property
    def title(self) -> str:
        return f"{self.package}/{self.family}/{self.name}"


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Callable[[Generator], Tensor]:
    """Random inputs that are not centred."""

    def draw(generator: Generator) -> Tensor:
        return (torch.randn(shape, generator=generator) + 0.3).to(dtype)

    return draw


def on_meta(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Build without memory for the weights: enough to see that the network is refused."""

    def build_on_meta() -> nn.Module:
        with torch.device("meta"):
            return build()

    return build_on_meta


def logits(answer: Any) -> Tensor:
    """The output itself, or its first part where there are auxiliary heads."""
    return answer if isinstance(answer, Tensor) else answer[0]
