"""Exact variational objectives of one small hidden layer, plain and with batch norm, in float64.

A hidden unit is u = a.x + b, its effective parameters. Batch norm writes it as
u = gamma (v.x - mu(v)) / sigma(v) + beta, which no scaling of v changes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

FEATURES, UNITS = 2, 3  # of the mean-field model; hidden units of the dropout model
OBSERVED_PRECISION = 1 / 0.3**2  # tau, in inverse squared target units
PRIOR_SD = 2.0  # of each effective parameter
NODES, NODES_3D = 40, 4  # of the Gauss-Hermite rules, an axis
RATE = 0.2  # of dropout, on inputs and on units
PRIOR_SCALE = 0.3  # l in the penalty of MC dropout, l^2/2 (1 - p) |W|^2

Family = Literal["effective", "own", "full"]


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs with their full-data statistics, and targets."""

    x: Tensor
    y: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of each input."""
        return self.x.mean(0)

    @property
    def covariance(self) -> Tensor:
        """Biased covariance of the inputs."""
        return torch.cov(self.x.T, correction=0)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Gaussian q of the hidden unit's (a, b), and an independent one of the output weight c."""

    mean: Tensor
    factor: Tensor  # lower triangular; covariance = factor factor'
    output: Tensor  # mean and standard deviation of c


@dataclass(frozen=True)
class Form:
    """Mapping from a vector of free parameters to a posterior of the effective parameters.

    Attributes:
        batch_norm: whether the mean is parametrised by v, gamma, beta instead of a, b.
        family: "effective", mean field over (a, b); "own", mean field over the parameters of the
            form ((a, beta) with batch norm); or "full", any covariance of (a, b).
    """

    batch_norm: bool
    family: Family = "effective"


def sample(count: int, seed: int) -> Data:
    """Correlated inputs with non-zero means, and noisy outputs of one hidden unit."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    x = torch.stack([1 + z[:, 0], 0.6 * z[:, 0] + 0.8 * z[:, 1] - 0.5], 1)
    y = 1.2 * torch.tanh(0.8 * x[:, 0] - 0.6 * x[:, 1] + 0.3)
    return Data(x, y + OBSERVED_PRECISION**-0.5 * z[:, 2])


def start(data: Data, form: Form) -> Tensor:
    """Initial free parameters: the same posterior in every form; v = 3 a, as its scale is free."""
    a, b = torch.tensor([0.3, -0.3], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    tail = torch.tensor([1.0, -1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    corner = torch.zeros(3, dtype=torch.float64)
    gamma = (a @ data.covariance @ a).sqrt()[None]
    head = [3 * a, gamma, b + a @ data.mean] if form.batch_norm else [a, b]
    return torch.cat([*head, tail, corner])


def posterior(free: Tensor, data: Data, form: Form) -> Posterior:
    """The effective posterior of a vector of free parameters."""
    size = FEATURES + 1 + form.batch_norm
    head, rest = free[:size], free[size:]
    shift = torch.eye(3, dtype=free.dtype)
    if form.batch_norm:
        v, gamma, beta = head[:2], head[2], head[3]
        a = gamma * v / (v @ data.covariance @ v).sqrt()
        mean = torch.cat([a, (beta - a @ data.mean)[None]])
        shift[2, :2] = -data.mean
    else:
        mean = head
    factor = torch.diag(rest[2:5].exp())
    if form.family == "full":
        rows, columns = torch.tril_indices(3, 3, offset=-1)
        factor = factor.index_put((rows, columns), rest[5:])
    if form.family == "own":
        factor = shift @ factor
    output = torch.stack([rest[0], rest[1].exp()])
    # tanh is odd, so (a, b, c) and (-a, -b, -c) are the same function; choose c > 0.
    sign = output[0].sign().detach()
    return Posterior(sign * mean, factor, torch.stack([sign * output[0], output[1]]))


def divergence(q: Posterior) -> Tensor:
    """KL divergence from the prior N(0, PRIOR_SD^2) of a, b and c, in nats."""
    means = torch.cat([q.mean, q.output[:1]])
    spread = q.factor.square().sum() + q.output[1].square()
    logs = q.factor.diagonal().log().sum() + q.output[1].log() - 4 * math.log(PRIOR_SD)
    return (spread + means.square().sum()) / (2 * PRIOR_SD**2) - 2 - logs


def population_elbo(q: Posterior, data: Data) -> Tensor:
    """The ELBO with full-data statistics, in nats; u is Gaussian, so a 1-D quadrature suffices."""
    ones = torch.cat([data.x, torch.ones(len(data.x), 1, dtype=data.x.dtype)], 1)
    nodes, weights = hermite(NODES, 1)
    u = ones @ q.mean + nodes * (ones @ q.factor).square().sum(1).sqrt()
    return len(data.x) * expected_log_likelihood(u, data.y, weights, q) - divergence(q)


def minibatch_elbo(q: Posterior, data: Data, batches: Tensor) -> Tensor:
    """The ELBO with the statistics of each mini-batch, averaged over mini-batches, in nats."""
    nodes, weights = hermite(NODES_3D, 3)
    drawn = q.mean + nodes @ q.factor.T
    a, b = drawn[:, :2], drawn[:, 2]
    # h = a.x: its scale does not matter, so v = a and gamma = sigma(a), beta = b + mu(a).
    h = torch.einsum("pk,bmk->pbm", a, data.x[batches])
    gamma = torch.einsum("pk,kl,pl->p", a, data.covariance, a).sqrt()
    variance, mean = torch.var_mean(h, -1, correction=0, keepdim=True)
    u = gamma[:, None, None] * (h - mean) / variance.sqrt() + (b + a @ data.mean)[:, None, None]
    fit = expected_log_likelihood(u, data.y[batches], weights[..., None], q)
    return len(data.x) * fit - divergence(q)


def expected_log_likelihood(u: Tensor, y: Tensor, weights: Tensor, q: Posterior) -> Tensor:
    """Mean over examples of E log N(y; c tanh u, 1/tau); c is integrated in closed form."""
    hidden = torch.tanh(u)
    square = q.output.square().sum() * (weights * hidden.square()).sum(0)
    error = y.square() - 2 * y * q.output[0] * (weights * hidden).sum(0) + square
    constant = math.log(OBSERVED_PRECISION / (2 * math.pi))
    return (constant - OBSERVED_PRECISION * error.mean()) / 2


def hermite(count: int, axes: int) -> tuple[Tensor, Tensor]:
    """Nodes (points, axes) and weights (points, 1) of a standard normal's expectation."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    grid = torch.tensor(list(product(points, repeat=axes)), dtype=torch.float64)
    products = [math.prod(chosen) for chosen in product(weights / weights.sum(), repeat=axes)]
    return grid, torch.tensor(products, dtype=torch.float64)[:, None]


def cut(count: int, batch_size: int, permutations: int, seed: int) -> Tensor:
    """Mini-batches (batches, M): divided permutations of all examples, the same for every M."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(permutations)]
    return torch.cat([order.view(-1, batch_size) for order in orders])


def maximize(objective: Callable[[Tensor], Tensor], free: Tensor) -> tuple[Tensor, float]:
    """Maximise by L-BFGS; return the argument and the maximum."""
    free = free.clone().requires_grad_()
    descent = torch.optim.LBFGS(
        [free], max_iter=2000, tolerance_grad=1e-9, tolerance_change=0.0, history_size=30,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        descent.zero_grad()
        value = -objective(free)
        value.backward()
        return value

    descent.step(loss)
    with torch.no_grad():
        return free.detach(), float(objective(free))


@dataclass(frozen=True, eq=False)
class Layer:
    """Point parameters of the dropout model: a (units, inputs), b, c (units), and the offset."""

    a: Tensor
    b: Tensor
    c: Tensor
    offset: Tensor
    gamma: Tensor  # standard deviation of each unit before tanh, over data and input masks
    beta: Tensor  # its mean


def layer(free: Tensor, data: Data, *, batch_norm: bool) -> Layer:
    """The effective parameters of a vector of free parameters."""
    head, b, c, offset, gamma = free.split([FEATURES * UNITS, UNITS, UNITS, 1, UNITS])
    a = head.view(UNITS, FEATURES)
    spread = data.covariance + torch.diag(RATE / (1 - RATE) * data.x.square().mean(0))
    sigma = torch.einsum("uk,kl,ul->u", a, spread, a).sqrt()
    if not batch_norm:
        return Layer(a, b, c, offset, sigma, b + a @ data.mean)
    a = (gamma / sigma)[:, None] * a
    return Layer(a, b - a @ data.mean, c, offset, gamma, b)


def dropout_start(data: Data, seed: int, *, batch_norm: bool) -> Tensor:
    """Random initial parameters, the same function in both forms."""
    generator = torch.Generator().manual_seed(seed)
    free = torch.randn(UNITS * (FEATURES + 2) + 1, generator=generator, dtype=torch.float64)
    free = torch.cat([free, torch.ones(UNITS, dtype=torch.float64)])
    if not batch_norm:
        return free
    plain = layer(free, data, batch_norm=False)
    return torch.cat([3 * plain.a.flatten(), plain.beta, plain.c, plain.offset, plain.gamma])


def masked_outputs(net: Layer, data: Data) -> tuple[Tensor, Tensor]:
    """Outputs (masks, examples) for every mask of inputs and units, and the mask probabilities."""
    masks = torch.tensor(list(product((0.0, 1.0), repeat=FEATURES + UNITS)), dtype=torch.float64)
    kept = masks.sum(1)
    chances = RATE ** (FEATURES + UNITS - kept) * (1 - RATE) ** kept
    scaled = masks / (1 - RATE)
    inputs = data.x * scaled[:, None, :FEATURES]
    hidden = torch.tanh(inputs @ net.a.T + net.b) * scaled[:, None, FEATURES:]
    return hidden @ net.c + net.offset, chances


def dropout_objective(net: Layer, data: Data, *, penalized: Literal["effective", "own"]) -> Tensor:
    """Expected log-likelihood over all masks minus the penalty of MC dropout, in nats.

    The penalty is on the effective a, b, c, or, like weight decay in a network with batch
    norm, on gamma, beta, c: v can shrink to zero without changing the function.
    """
    outputs, chances = masked_outputs(net, data)
    error = (chances @ (data.y - outputs).square()).sum()
    constant = len(data.y) * math.log(OBSERVED_PRECISION / (2 * math.pi))
    kept = 1 - RATE
    effective = kept * net.a.square().sum() + net.b.square().sum()
    own = kept * net.gamma.square().sum() + net.beta.square().sum()
    penalty = effective if penalized == "effective" else own
    penalty = penalty + kept * net.c.square().sum() + net.offset.square().sum()
    return (constant - OBSERVED_PRECISION * error - PRIOR_SCALE**2 * penalty) / 2


def canonical(net: Layer) -> Tensor:
    """Effective parameters in an order and with signs that remove the layer's symmetries."""
    sign = net.c.sign()
    rows = torch.cat([sign[:, None] * net.a, (sign * net.b)[:, None], net.c.abs()[:, None]], 1)
    return torch.cat([rows[rows[:, -1].argsort()].flatten(), net.offset])
