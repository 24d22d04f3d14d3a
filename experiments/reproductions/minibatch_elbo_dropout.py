"""MC dropout as variational inference, plain and with batch norm: objective and training.

The objective is that of Gal and Ghahramani, up to the constant of the narrow Gaussians of q, which
does not depend on the form: expected log-likelihood - penalty + entropy of the masks.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.reproductions import minibatch_elbo_model as model
from experiments.reproductions.minibatch_elbo_model import Answer, Data, Shape


@dataclass(frozen=True, eq=False)
class Dropout:
    """A network with dropout on its hidden units, on a data set.

    Attributes:
        data: of every seed.
        shape: of the network.
        rates: dropout rate of each variant.
    """

    data: Data
    shape: Shape
    rates: Float[Tensor, " variants"]

    def drop(self, hidden: Tensor, generator: torch.Generator) -> Tensor:
        """Hidden units, each dropped with its own mask in every example."""
        kept = (1 - self.rates)[:, None, None, None]
        masks = torch.rand(hidden.shape, generator=generator) < kept  # units, rows
        return hidden * masks / kept


def objective(
    free: Float[Tensor, "variants seeds parameters"],
    problem: Dropout,
    generator: torch.Generator,
    *,
    draws: int = 1,
) -> Float[Tensor, "draws variants seeds"]:
    """The objective per example of each pass over all examples, in nats."""
    data = problem.data
    answer = model.forward(
        free.expand(draws, *free.shape),
        data.x,
        problem.shape,
        statistics_of=data.x.shape[1],
        drop=partial(problem.drop, generator=generator),
    )
    fit = model.log_likelihood(answer.outputs, data.y, data.precision)
    return fit - penalty(free, answer, problem) / data.x.shape[1]


def penalty(free: Tensor, answer: Answer, problem: Dropout) -> Tensor:
    """Divergence of q from the prior, up to a constant, in nats.

    It is that of the weights and biases of the plain network which has the same outputs: batch
    norm with the statistics of a pass is a scale and a shift of each unit.
    """
    *hidden, (last, offset, _) = model.layers(free, problem.shape)
    kept = (1 - problem.rates)[:, None]
    total, share = torch.zeros(()), torch.ones(())
    for place, (weight, bias, gamma) in enumerate(hidden):
        if gamma is not None:
            mean, sd = (each[..., 0] for each in answer.statistics[place])
            factor = gamma / sd
            weight, bias = factor[..., None] * weight, bias - factor * mean
        total = total + share * weight.square().sum((-2, -1)) * weight.shape[-1] / 2
        total = total + bias.square().sum(-1) / 2
        share = kept
    total = total + share * last.square().sum((-2, -1)) * last.shape[-1] / 2
    total = total + offset.square().sum(-1) / 2
    units = problem.shape.width * problem.shape.depth
    return total - units * entropy(kept)


def entropy(kept: Tensor) -> Tensor:
    """Entropy of a mask, in nats."""
    return -(torch.xlogy(kept, kept) + torch.xlogy(1 - kept, 1 - kept))


@torch.no_grad()
def estimated(free: Tensor, problem: Dropout, *, draws: int, seed: int) -> Tensor:
    """The objective of so many passes, (draws, variants, seeds)."""
    generator = torch.Generator().manual_seed(seed)
    chunk = 8
    return torch.cat([objective(free, problem, generator, draws=min(chunk, draws))
                      for _ in range(max(1, draws // chunk))])  # fmt: skip


@torch.no_grad()
def predictions(
    free: Float[Tensor, "variants seeds parameters"], problem: Dropout, *, draws: int, seed: int
) -> Float[Tensor, "draws variants seeds test outputs"]:
    """Outputs on the test examples; batch norm uses the statistics of the training examples."""
    generator = torch.Generator().manual_seed(seed)
    data, count = problem.data, problem.data.x.shape[1]
    rows = torch.cat([data.x, data.test_x], 1)
    passes = []
    for _ in range(draws):
        drop = partial(problem.drop, generator=generator)
        answer = model.forward(free, rows, problem.shape, statistics_of=count, drop=drop)
        passes.append(answer.outputs[..., count:, :])
    return torch.stack(passes)
