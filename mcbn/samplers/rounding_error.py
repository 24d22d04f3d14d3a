"""What rounding does to the answer of T draws, as a fraction of their Monte Carlo error."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.network.output_kind import output_kind

# Values of a draw that are compared: those of some examples, or of some positions of them.
MAX_PLACES = 2048


@dataclass(frozen=True)
class RoundingError:
    """Errors by rounding, each as a fraction of its Monte Carlo error at T draws.

    Attributes:
        outputs: of the mean of the network's outputs over the draws.
        spread: of their standard deviation over the draws.
        probabilities: of the mean probabilities of classes; 0 of a single output.
        information: of the mutual information of class and draw; 0 of a single output.
    """

    outputs: float
    spread: float
    probabilities: float = 0.0
    information: float = 0.0

    @property
    def largest(self) -> float:
        """The largest of them."""
        return max(self.outputs, self.spread, self.probabilities, self.information)


def rounding_error(
    exact: Iterable[Tensor], rounded: Iterable[Tensor], draws: int
) -> RoundingError | None:
    """Compare the same draws in two precisions; None where they cannot be compared.

    Outputs of two columns or more are also taken for classes, whatever they are: what is not a
    class is judged by the stricter of both.

    Args:
        exact: two draws or more of the outputs, axes (batch, ...), in the wider precision.
        rounded: the same draws in the narrower one.
        draws: T, the number of draws of the answer, whose Monte Carlo error it is.

    Reference:
        The Monte Carlo errors are those of the jackknife: Tukey 1958, "Bias and confidence in not
        quite large samples".
    """
    wide, narrow = _places(exact), _places(rounded)
    if wide.shape != narrow.shape or len(wide) < 2 or wide.numel() == 0:
        return None
    known = (wide.isfinite() & narrow.isfinite()).all(0)  # a class ruled out: minus infinity
    if not bool((known | (wide == narrow).all(0)).all()):
        return None
    shrink = math.sqrt(len(wide) / draws)
    parts = (
        _ratio(narrow.mean(0) - wide.mean(0), _means_without(wide), shrink, known),
        _ratio(narrow.std(0) - wide.std(0), _spreads_without(wide), shrink, known),
    )
    if wide.shape[-1] < 2:
        return RoundingError(*parts)
    wide, narrow = _probabilities(wide), _probabilities(narrow)
    information = _information(narrow) - _information(wide)
    return RoundingError(
        *parts,
        _ratio(narrow.mean(0) - wide.mean(0), _means_without(wide), shrink),
        _ratio(information, _information_without(wide), shrink),
    )


def _places(draws: Iterable[Tensor]) -> Float64[Tensor, "draws places columns"]:
    """Every draw at some of its places, classes or columns last."""

    def chosen() -> Iterator[Tensor]:
        for outputs in draws:
            columns = outputs.detach().reshape(len(outputs), outputs.shape[1:2].numel(), -1)
            rows = columns.movedim(1, -1).reshape(-1, columns.shape[1])
            every = torch.linspace(0, len(rows) - 1, min(len(rows), MAX_PLACES)).long()
            yield rows[every.to(rows.device)].cpu().double()

    return torch.stack(list(chosen()))


def _ratio(error: Tensor, without: Tensor, shrink: float, known: Tensor | None = None) -> float:
    """Root mean square of errors, by that of the jackknife's errors, over all columns."""
    count = len(without)
    variance = (count - 1) * (without - without.mean(0)).square().mean(0) * shrink**2
    squares = error.square()
    if known is not None:
        squares, variance = squares.where(known, 0.0), variance.where(known, 0.0)
    ratios = squares.mean(0) / variance.mean(0)  # each column by its own scale
    return math.sqrt(float(ratios.where(squares.mean(0) > 0, 0.0).mean()))


def _means_without(draws: Tensor) -> Tensor:
    return (draws.sum(0) - draws) / (len(draws) - 1)


def _spreads_without(draws: Tensor) -> Tensor:
    """The standard deviation of all draws but one; of two draws, the half of their distance."""
    count = len(draws)
    if count == 2:
        return (draws - draws.mean(0)).abs()
    deviations = draws - draws.mean(0)
    squares = deviations.square().sum(0) - deviations.square() * count / (count - 1)
    return (squares.clamp(min=0) / (count - 2)).sqrt()


def _probabilities(outputs: Tensor) -> Tensor:
    if output_kind(outputs[0]) == "probabilities":
        return outputs
    return outputs.softmax(-1)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(-1)
    return entropy


def _information(probabilities: Tensor) -> Tensor:
    return _entropy(probabilities.mean(0)) - _entropy(probabilities).mean(0)


def _information_without(probabilities: Tensor) -> Tensor:
    return _entropy(_means_without(probabilities)) - _means_without(_entropy(probabilities))
