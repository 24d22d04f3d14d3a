"""What a score of uncertainty is: one number per example, higher where it is less certain."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.network.targets import as_targets


@runtime_checkable
class UncertaintyScore(Protocol):
    """One number for each example (and position), higher where it is more uncertain.

    Only the order of the numbers counts, so they may have any scale. There are two kinds: scores of
    a predictive distribution, such as the entropy, which any method has, and detectors of inputs,
    such as `NearestNeighbors`, which take the data themselves. Any object with a name and a call
    will do.
    """

    @property
    def name(self) -> str:
        """What it is called in tables and files."""
        ...

    def __call__(self, given: Any, /) -> Tensor:
        """The score of each example of a predictive distribution, or of data."""
        ...


def score_values(score: UncertaintyScore, given: Any) -> Float64[Tensor, "batch *positions"]:
    """What a score says of each example (and position), as finite numbers on the CPU.

    Args:
        score: of the kind that takes what is given.
        given: a predictive distribution, or data.

    Raises:
        TypeError: the score answers with something else than a tensor.
        ValueError: it answers with a number that is not finite, or with a single one.
    """
    return known_values(validation.tensor(score(given), f"the score {score.name!r}"), score.name)


def known_values(values: Any, name: str) -> Float64[Tensor, "batch *positions"]:
    """Numbers of each example that are known, as finite numbers on the CPU.

    Args:
        values: a tensor, an array or a column of numbers.
        name: of the score.

    Raises:
        TypeError: they are no numbers.
        ValueError: a number is not finite, or there is a single one without an axis.
    """
    numbers = validation.finite(as_targets(values, f"the score {name!r}"), f"the score {name!r}")
    if numbers.ndim == 0:
        raise ValueError(
            f"expected one number per example of the score {name!r}, got a single one; leave the "
            "mean over examples out"
        )
    return numbers.detach().double().cpu()
