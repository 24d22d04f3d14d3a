"""Mean-field objectives of each form on one data set, their training, and scores of the optima."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.reproductions import minibatch_elbo_model as model
from experiments.reproductions.minibatch_elbo_model import Data, Form, Shape
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import GaussianPredictive

START_SD = 0.1  # of q at the start, as a share of the prior's
CHUNK = 16  # draws of the weights that are evaluated at once


@dataclass(frozen=True, eq=False)
class Problem:
    """A form of the network on a data set.

    Attributes:
        data: of every seed.
        shape: of the network whose mean and log standard deviation are the free parameters.
        form: what q is a distribution of.
        batch_size: M of the objective; None for the statistics of all examples.
    """

    data: Data
    shape: Shape
    form: Form
    batch_size: int | None = None

    @property
    def drawn(self) -> Shape:
        """Shape of the network whose weights q is a distribution of."""
        return replace(self.shape, batch_norm=self.form == "batch norm")

    def at(self, batch_size: int | None) -> "Problem":
        """The same problem with the statistics of mini-batches of M."""
        return replace(self, batch_size=batch_size)


def problem(data: Data, form: Form, *, width: int, depth: int) -> Problem:
    """The problem of a form; classes have an output each."""
    outputs = 1 if data.precision is not None else int(data.y.max()) + 1
    shape = Shape(data.x.shape[-1], outputs, width, depth, batch_norm=form != "plain")
    return Problem(data, shape, form)


def start(problem: Problem, restarts: int) -> Float[Tensor, "restarts seeds parameters"]:
    """Random means with the prior's spread, biases 0 and gamma 1, and a narrow q."""
    count = len(problem.data.x)
    rows = []
    for seed in range(restarts * count):
        generator = torch.Generator().manual_seed(10_000 + seed)
        parts = [torch.randn(dims, generator=generator).flatten() * sd if len(dims) == 2
                 else torch.zeros(dims) for dims, sd in model.pieces(problem.shape)]  # fmt: skip
        if problem.shape.batch_norm:  # weight, beta, gamma of each layer
            for place in range(2, 3 * problem.shape.depth, 3):
                parts[place] = torch.ones_like(parts[place])
        rows.append(torch.cat(parts))
    mean = torch.stack(rows).view(restarts, count, -1)
    log_sd = (START_SD * model.prior_sd(problem.drawn)).log().expand(restarts, count, -1)
    return torch.cat([mean, log_sd], -1)


def posterior(free: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of q, of the parameters of `problem.drawn`."""
    drawn = len(model.prior_sd(problem.drawn))
    mean, log_sd = free[..., :-drawn], free[..., -drawn:]
    if problem.form == "absorbed":
        mean = model.absorbed(mean, problem.data.x, problem.shape)
    return mean, log_sd


def objective(
    free: Float[Tensor, "variants seeds parameters"],
    problem: Problem,
    generator: torch.Generator,
    *,
    draws: int = 2,
) -> Float[Tensor, "draws variants seeds"]:
    """The objective per example of every draw of the weights, in nats.

    With mini-batches, all examples are divided at random, so that every example counts once.
    """
    mean, log_sd = posterior(free, problem)
    prior = model.prior_sd(problem.drawn)
    weights = mean + log_sd.exp() * model.antithetic(draws, tuple(mean.shape), generator)
    fit = fitted(weights, problem, generator)
    return fit - model.divergence(mean, log_sd, prior) / problem.data.x.shape[1]


def fitted(weights: Tensor, problem: Problem, generator: torch.Generator) -> Tensor:
    """Mean log-likelihood of the training examples, by drawn weights."""
    x, y = problem.data.x, problem.data.y
    if problem.batch_size is not None:
        order = torch.randperm(x.shape[1], generator=generator)
        x, y = x[:, order], y[:, order]
    answer = model.forward(weights, x, problem.drawn, batch_size=problem.batch_size)
    return model.log_likelihood(answer.outputs, y, problem.data.precision)


@torch.no_grad()
def estimated(free: Tensor, problem: Problem, *, draws: int, seed: int) -> Tensor:
    """The objective of so many draws, (draws, variants, seeds)."""
    generator = torch.Generator().manual_seed(seed)
    chunks = [objective(free, problem, generator, draws=min(CHUNK, draws))
              for _ in range(max(1, draws // CHUNK))]  # fmt: skip
    return torch.cat(chunks)


@torch.no_grad()
def bias(
    free: Float[Tensor, "seeds parameters"],
    problem: Problem,
    sizes: tuple[int, ...],
    *,
    draws: int,
    seed: int,
) -> Float[Tensor, "sizes draws seeds"]:
    """Mini-batch objective minus that with all statistics, at the same weights, for every M.

    The division of the examples is another for every draw; mini-batches of one M are parts of
    those of the next.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, log_sd = posterior(free[None], problem)
    rows: list[list[Tensor]] = [[] for _ in sizes]
    for _ in range(draws // 2):
        weights = mean + log_sd.exp() * model.antithetic(2, tuple(mean.shape), generator)
        state = generator.get_state()
        whole = fitted(weights, problem.at(None), generator)
        for row, size in zip(rows, sizes, strict=True):
            generator.set_state(state)
            row.append((fitted(weights, problem.at(size), generator) - whole)[:, 0])
    return torch.stack([torch.cat(row) for row in rows])


@torch.no_grad()
def predictions(
    free: Float[Tensor, "seeds parameters"], problem: Problem, *, draws: int, seed: int
) -> Float[Tensor, "draws seeds test outputs"]:
    """Outputs on the test examples, with the statistics of the training examples."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_sd = posterior(free[None], problem)
    data, parts = problem.data, []
    rows = torch.cat([data.x, data.test_x], 1)
    for _ in range(max(1, draws // CHUNK)):
        size = (min(CHUNK, draws), *mean.shape)
        weights = mean + log_sd.exp() * model.antithetic(size[0], size[1:], generator)
        count = data.x.shape[1]
        answer = model.forward(weights, rows, problem.drawn, statistics_of=count)
        parts.append(answer.outputs[:, 0, :, count:])
    return torch.cat(parts)


def scores(
    outputs: Float[Tensor, "draws seeds test outputs"], data: Data
) -> dict[str, list[float]]:
    """Held-out log score (nats) and epistemic spread of every seed.

    The spread is the mean standard deviation over draws of the prediction (regression), or the
    mean mutual information in nats (classes).
    """
    log_score, spread = [], []
    for seed, targets in enumerate(data.test_y):
        each = outputs[:, seed].double()
        if data.precision is None:
            classes = Categorical().summarize(each)
            logs = classes.log_probabilities.gather(1, targets[:, None])
            epistemic = classes.mutual_information
        else:
            noise = torch.tensor(1 / data.precision, dtype=torch.float64)
            real = GaussianPredictive(each, noise)
            logs = real.log_prob(targets[:, None].double())
            epistemic = real.epistemic_variance.sqrt()
        log_score.append(float(logs.mean()))
        spread.append(float(epistemic.mean()))
    return {"log score": log_score, "spread": spread}
