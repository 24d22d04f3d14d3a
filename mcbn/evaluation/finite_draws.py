"""What a finite number of draws does to the log score: its bias, and its Monte Carlo error."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


def target_logs(
    draws: Iterable[Float[Tensor, "batch classes *positions"]],
    targets: Int[Tensor, "batch *positions"],
) -> Float64[Tensor, "draws batch *positions"]:
    """The log-probability of each target by every draw: all that the log score needs of the draws.

    Args:
        draws: logits of each draw.
        targets: class indices, as checked.
    """
    index = targets.long().unsqueeze(1)
    logs = [
        logits.double().log_softmax(1).gather(1, index.to(logits.device)).squeeze(1)
        for logits in draws
    ]
    return torch.stack(logs)


def left_out(
    logs: Float64[Tensor, "draws batch *positions"],
) -> Float64[Tensor, "draws batch *positions"]:
    """The negative log-likelihood of the average of all draws but one, for each of them, in nats.

    Args:
        logs: log-probability of the target by every draw, two draws or more.
    """
    # Sums from both ends: the sum of all minus one would lose the digits of the others.
    none = torch.full_like(logs[:1], -math.inf)
    before = torch.cat([none, logs[:-1].logcumsumexp(0)])
    after = torch.cat([logs[1:].flip(0).logcumsumexp(0).flip(0), none])
    return math.log(len(logs) - 1) - torch.logaddexp(before, after)


def extrapolated_nll(
    logs: Float64[Tensor, "draws batch *positions"],
) -> Float64[Tensor, "batch *positions"]:
    r"""The negative log-likelihood of each example without its bias of order 1/T, in nats.

    The mean probability of T draws is unbiased, but the mean of its logarithm is too low, so that
    the loss falls as c/T on the way to that of infinitely many draws. The jackknife takes this
    away: with l of all draws and the mean of those without one draw,

    $$T \, l_T - (T - 1) \, \frac{1}{T} \sum_t l_{-t}.$$

    What is left is of order 1/T^2 where draws are independent; of heavy tails, as where one draw in
    a hundred gives the target a probability, some of c/T is left at small T. A single draw is taken
    for the whole method, as it is of a plain network, and keeps its likelihood.

    Args:
        logs: log-probability of the target by every draw.

    Reference:
        Quenouille 1956, "Notes on bias in estimation".
    """
    draws = len(logs)
    whole = math.log(draws) - logs.logsumexp(0)
    return whole if draws == 1 else draws * whole - (draws - 1) * left_out(logs).mean(0)


@dataclass(frozen=True)
class DrawError:
    """What T draws do to the mean of a loss: how far it is from that of infinitely many.

    Attributes:
        draws: T.
        bias: of order c/T, in nats: the mean loss at T minus its extrapolation. Usually above 0.
        error: standard deviation of the mean loss over other draws of the same number.
    """

    draws: int
    bias: float
    error: float

    @property
    def size(self) -> float:
        """Root mean square distance from the loss of infinitely many draws."""
        return math.hypot(self.bias, self.error)

    def draws_for(self, size: float) -> int:
        """T at which the root mean square distance is `size`.

        The bias falls as 1/T and the error as 1/sqrt(T), so that with r = T/T' the distance is the
        root of `(r bias)^2 + r error^2`.
        """
        if self.size == 0 or size <= 0:
            return self.draws
        squares = self.bias**2, self.error**2
        ratio = 2 * size**2 / (squares[1] + math.sqrt(squares[1] ** 2 + 4 * squares[0] * size**2))
        return math.ceil(self.draws / ratio)


def draw_error(
    first: Float64[Tensor, "draws batch *positions"],
    second: Float64[Tensor, "others batch *positions"] | None = None,
) -> DrawError:
    r"""Bias and Monte Carlo error of the mean loss of one method, or of its difference to another.

    Both by the jackknife over draws, of all examples together, since a draw is shared by all:

    $$s^2 = \frac{T - 1}{T} \sum_t (\bar l_{-t} - \bar l_{-})^2.$$

    The draws of two methods are independent, so their squared errors add; their biases subtract. A
    single draw is taken for the whole method, without either.

    Args:
        first: log-probability of each target by every draw.
        second: the same of another method, which the difference is from.

    Reference:
        Quenouille 1956; Tukey 1958, "Bias and confidence in not quite large samples".
    """
    bias, variance = _bias_and_variance(first)
    if second is None:
        return DrawError(len(first), bias, math.sqrt(variance))
    other_bias, other_variance = _bias_and_variance(second)
    error = math.sqrt(variance + other_variance)
    return DrawError(max(len(first), len(second)), bias - other_bias, error)


def _bias_and_variance(logs: Tensor) -> tuple[float, float]:
    draws = len(logs)
    if draws == 1:
        return 0.0, 0.0
    whole = math.log(draws) - logs.logsumexp(0)
    means = left_out(logs).flatten(1).mean(1)
    bias = (draws - 1) * float(means.mean() - whole.mean())
    return bias, (draws - 1) / draws * float((means - means.mean()).square().sum())


def mutual_information_factor(draws: int) -> float:
    """T / (T - 1), by which the mutual information of T draws is too low to first order.

    For small disagreement it is half the variance over draws, relative to the probabilities, and
    the biased variance of T draws is (T - 1) / T of the variance in expectation. NaN for a single
    draw, of which nothing is known, and where the number of draws is not.

    Args:
        draws: T, 0 if it is not known.
    """
    return draws / (draws - 1) if draws > 1 else math.nan
