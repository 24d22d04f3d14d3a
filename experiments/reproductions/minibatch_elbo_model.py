"""Networks of several layers with batch norm, many at once, and their variational objectives.

Leading axes are draws of the weights, variants (starts, learning rates, dropout rates) and seeds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5  # added to the variance, as in PyTorch
# plain: mean field over the weights and biases of a network without batch norm.
# absorbed: the same q and prior; batch norm, by the network at the means, parametrises the means.
# batch norm: mean field over v, gamma and beta of a network with batch norm in every hidden layer;
# the statistics are those of the drawn network.
Form = Literal["plain", "absorbed", "batch norm"]

Layer = tuple[Tensor, Tensor, Tensor | None]  # weight, bias or beta, gamma


@dataclass(frozen=True, eq=False)
class Data:
    """Training and test examples of each seed, and the precision of the Gaussian noise.

    Attributes:
        x: inputs of the training examples.
        y: their targets: real values, or classes.
        test_x: inputs of the test examples.
        test_y: their targets.
        precision: of the noise, in standardised units; None for classes.
    """

    x: Float[Tensor, "seeds examples inputs"]
    y: Shaped[Tensor, "seeds examples"]
    test_x: Float[Tensor, "seeds test inputs"]
    test_y: Shaped[Tensor, "seeds test"]
    precision: float | None


@dataclass(frozen=True)
class Shape:
    """Shape of a network.

    Attributes:
        inputs: number of inputs.
        outputs: number of outputs.
        width: units of each hidden layer.
        depth: number of hidden layers; 0 for a linear model.
        batch_norm: whether hidden layers have batch norm before the activation.
        activation: of the hidden layers.
    """

    inputs: int
    outputs: int = 1
    width: int = 20
    depth: int = 2
    batch_norm: bool = False
    activation: Callable[[Tensor], Tensor] = torch.tanh


@dataclass(frozen=True, eq=False)
class Answer:
    """Outputs of a pass, and the mean and standard deviation of each layer if asked for."""

    outputs: Tensor
    statistics: list[tuple[Tensor, Tensor]]


def pieces(shape: Shape) -> list[tuple[tuple[int, ...], float]]:
    """Dimensions and prior standard deviation of each parameter, in the order of a flat vector."""
    parts: list[tuple[tuple[int, ...], float]] = []
    wide = shape.inputs
    for _ in range(shape.depth):
        parts += [((shape.width, wide), wide**-0.5), ((shape.width,), 1.0)]
        parts += [((shape.width,), 1.0)] * shape.batch_norm
        wide = shape.width
    return [*parts, ((shape.outputs, wide), wide**-0.5), ((shape.outputs,), 1.0)]


def prior_sd(shape: Shape) -> Float[Tensor, " parameters"]:
    """Prior standard deviation of every parameter; all prior means are 0."""
    return torch.cat([torch.full((math.prod(dims),), sd) for dims, sd in pieces(shape)])


def layers(flat: Float[Tensor, "*leading parameters"], shape: Shape) -> list[Layer]:
    """The layers of flat vectors of parameters, the output layer last."""
    dims = [dims for dims, _ in pieces(shape)]
    parts = flat.split([math.prod(each) for each in dims], -1)
    parts = [part.unflatten(-1, each) for part, each in zip(parts, dims, strict=True)]
    step = 2 + shape.batch_norm
    answer: list[Layer] = []
    for place in range(0, step * shape.depth, step):
        gamma = parts[place + 2] if shape.batch_norm else None
        answer.append((parts[place], parts[place + 1], gamma))
    return [*answer, (parts[-2], parts[-1], None)]


def forward(
    flat: Float[Tensor, "*leading parameters"],
    x: Float[Tensor, "*data rows inputs"],
    shape: Shape,
    *,
    batch_size: int | None = None,
    statistics_of: int | None = None,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> Answer:
    """One pass of every network.

    Args:
        flat: parameters of the networks.
        x: their inputs.
        shape: of the networks.
        batch_size: M; every M rows in turn are normalised by their own statistics.
        statistics_of: number of first rows whose statistics normalise all rows, and are returned.
        drop: applied to the output of each hidden layer, an axis of rows last.
    """
    *hidden_layers, (last, offset, _) = layers(flat, shape)
    hidden, statistics = x.mT, []  # rows are last, so that a layer norm over them is batch norm
    for weight, bias, gamma in hidden_layers:
        value = weight @ hidden
        if gamma is not None and statistics_of is not None:
            mean, sd = moments(value[..., :statistics_of])
            statistics.append((mean, sd))
            value = gamma[..., None] * ((value - mean) / sd)
        elif gamma is not None:
            value = gamma[..., None] * normalized(value, batch_size or x.shape[-2])
        hidden = shape.activation(value + bias[..., None])
        hidden = drop(hidden) if drop else hidden
    return Answer((last @ hidden + offset[..., None]).mT, statistics)


def normalized(value: Float[Tensor, "*leading rows"], batch_size: int) -> Tensor:
    """Values normalised by the statistics of every `batch_size` of them."""
    groups = value.unflatten(-1, (-1, batch_size))
    return functional.layer_norm(groups, (batch_size,), eps=EPSILON).flatten(-2)


def moments(value: Float[Tensor, "*leading rows"]) -> tuple[Tensor, Tensor]:
    """Mean and biased standard deviation, with epsilon, over the last axis, which is kept."""
    variance, mean = torch.var_mean(value, -1, correction=0, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def absorbed(
    free: Float[Tensor, "*leading parameters"], x: Float[Tensor, "*data rows inputs"], shape: Shape
) -> Float[Tensor, "*leading plain"]:
    """Means of the plain network whose hidden layers are those of the batch-norm network `free`.

    The statistics are those of all rows, in the network at the means. Every plain mean can be
    written in this form.
    """
    *hidden_layers, (last, offset, _) = layers(free, shape)
    hidden, parts = x.mT, []
    for v, beta, gamma in hidden_layers:
        if gamma is None:
            raise ValueError("expected the shape of a network with batch norm, got a plain one")
        value = v @ hidden
        mean, sd = moments(value)
        factor = gamma[..., None] / sd
        bias = beta[..., None] - factor * mean
        parts += [(factor * v).flatten(-2), bias[..., 0]]
        hidden = shape.activation(factor * value + bias)
    return torch.cat([*parts, last.flatten(-2), offset], -1)


def log_likelihood(
    outputs: Float[Tensor, "*leading examples outputs"], y: Tensor, precision: float | None
) -> Float[Tensor, "*leading"]:
    """Mean over examples of log p(y | outputs), in nats."""
    if precision is None:
        logs = functional.log_softmax(outputs, -1)
        chosen = y.expand(logs.shape[:-1])[..., None]
        return logs.gather(-1, chosen)[..., 0].mean(-1)
    error = (outputs[..., 0] - y).square().mean(-1)
    return (math.log(precision / (2 * math.pi)) - precision * error) / 2


def divergence(mean: Tensor, log_sd: Tensor, prior: Float[Tensor, " parameters"]) -> Tensor:
    """KL divergence of a mean-field Gaussian from N(0, prior^2), in nats, over the last axis."""
    spread = (mean.square() + (2 * log_sd).exp()) / prior.square()
    return ((spread - 1) / 2 - log_sd + prior.log()).sum(-1)


def antithetic(draws: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers (draws, *size), the second half the negative of the first."""
    half = torch.randn((draws // 2, *size), generator=generator)
    return torch.cat([half, -half])
