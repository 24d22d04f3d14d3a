"""What a batch size is judged by: the loss of each example at any size that a bank is moved to."""

import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank
from mcbn.evaluation import scores
from mcbn.network.inputs import Inputs, count, slice_examples
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.outputs import Output

EXAMPLES = 256  # in a pass


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound, on examples of the training data.

    `N mean_n mean_t log p(y_n | x_n, omega_t) - KL`, with
    `KL = K/2 (M_p / M - 1 - log(M_p / M))` from the prior, the same Gaussian as for mini-batches
    of M_p examples. Its optimum depends on K and M_p. See docs/method.md.

    Args:
        prior_batch_size: M_p; 1 is a prior as wide as the statistics of a single example.
        dimensions: K, in how many directions the statistics vary; by default the numerical rank
            of the bank's deviations, which is at most its draws less one.
        population: N, the number of training examples; the bank's by default.
    """

    prior_batch_size: float = 1.0
    dimensions: int | None = None
    population: int | None = None

    def __post_init__(self) -> None:
        for name in ("prior_batch_size", "dimensions", "population"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"expected a positive {name}, got {value}; leave it out")


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of each example at the exponential of a log size, in nats; lower is better."""

    model: Module
    bank: Bank
    inputs: Inputs
    targets: Tensor
    family: Categorical | Gaussian
    elbo: ELBO | None
    output: Output | None

    def __call__(self, log_size: float) -> Float64[Tensor, " batch"]:
        """The loss of each example, the divergence of the ELBO shared out among them."""
        size = math.exp(log_size)
        sampler = MCBatchNorm(self.model, self.bank.rescale(size), output=self.output)
        starts = range(0, count(self.inputs), EXAMPLES)
        found = torch.cat([self._log_likelihoods(sampler, start) for start in starts])
        return _divergence(self.elbo, size) - found

    @torch.no_grad()
    def _log_likelihoods(self, sampler: MCBatchNorm, start: int) -> Float64[Tensor, " batch"]:
        """Of each example: the log of the mean likelihood over draws; for the ELBO, mean of logs.

        Positions of an example are averaged, as in the score; the ELBO takes their joint law.
        """
        targets = self.targets[start : start + EXAMPLES]
        add = torch.logaddexp if self.elbo is None else torch.add
        rows = (
            _log_likelihood(self.family.summarize([row]), targets.to(row.device))
            for row in sampler.passes(slice_examples(self.inputs, start, start + EXAMPLES))
        )
        total = reduce(add, rows).reshape(len(targets), -1).cpu()
        if self.elbo is None:
            return total.mean(1) - math.log(len(sampler))
        return total.sum(1) / len(sampler)


def _log_likelihood(
    predictive: CategoricalPredictive | GaussianPredictive, targets: Tensor
) -> Float64[Tensor, "batch *positions"]:
    if isinstance(predictive, CategoricalPredictive):
        return -scores.negative_log_likelihood(predictive.log_probabilities, targets)
    return predictive.log_prob(targets)


def _divergence(elbo: ELBO | None, size: float) -> float:
    """KL divergence from the prior, shared out among the N examples; 0 for the log score."""
    if elbo is None:
        return 0.0
    ratio = elbo.prior_batch_size / size
    dimensions, population = elbo.dimensions or 0, elbo.population or 1
    return dimensions / 2 * (ratio - 1 - math.log(ratio)) / population


def elbo_of(criterion: Any, bank: Bank) -> ELBO | None:
    """The criterion with what it leaves open filled in from the bank; None is the log score.

    Raises:
        ValueError: no such criterion, a bank without spread, or a population that is not known.
    """
    if all(bool((rows == rows[0]).all()) for rows in bank.statistics.values()):
        raise ValueError(
            f"expected a bank whose draws differ, got {len(bank)} equal ones, which no batch size "
            "moves; collect several at a batch size below N"
        )
    if criterion == "log_score":
        return None
    elbo = ELBO() if criterion == "elbo" else criterion
    if not isinstance(elbo, ELBO):
        raise ValueError(
            f"expected the criterion 'log_score', 'elbo' or mcbn.ELBO(...), got {criterion!r}; "
            "take 'log_score' with held-out examples"
        )
    population = elbo.population or bank.population
    if population is None:
        raise ValueError(
            "expected the number of training examples for the ELBO, got a bank that does not know "
            "it; give criterion=mcbn.ELBO(population=...)"
        )
    return replace(elbo, population=population, dimensions=elbo.dimensions or _rank(bank))


def _rank(bank: Bank) -> int:
    """In how many directions the draws differ by more than the rounding of the bank's own type."""
    rows = torch.cat([values.detach().cpu() for values in bank.coordinates().values()], 1)
    kept = next(iter(bank.statistics.values())).dtype
    rounding = max(rows.shape) * torch.finfo(kept).eps
    return int(torch.linalg.matrix_rank(rows - rows.mean(0), rtol=rounding))
