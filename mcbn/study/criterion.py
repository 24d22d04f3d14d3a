"""Criteria for the batch size: the loss of each example with the bank rescaled to any size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank
from mcbn.evaluation import scores
from mcbn.network.inputs import Inputs, count, slice_examples
from mcbn.network.layer_names import Layers
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.outputs import Output

EXAMPLES_PER_PASS = 256


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound, on examples of the training data.

    `N mean_n mean_t log p(y_n | x_n, omega_t) - KL`, with
    `KL = K/2 (M_p / M - 1 - log(M_p / M))` from the prior, the Gaussian of the statistics of
    mini-batches of M_p examples. Its optimum depends on K and M_p. See docs/method.md.

    Args:
        prior_batch_size: M_p; 1 is a prior as wide as the statistics of a single example.
        dimensions: K, the number of directions in which the statistics vary; by default the
            numerical rank of the bank's deviations, which is at most its draws - 1.
        population: N, the number of training examples; by default that of the bank.
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
    """The loss of each example in nats as a function of log M; lower is better."""

    model: Module
    bank: Bank
    inputs: Inputs
    targets: Tensor
    family: Categorical | Bernoulli | Gaussian
    elbo: ELBO | None
    output: Output | None

    def __call__(self, log_size: float) -> Float64[Tensor, " batch"]:
        """The loss of each example, with its share of the divergence of the ELBO."""
        size = math.exp(log_size)
        bank = self.bank.rescale(size, warn=False)
        return _divergence(self.elbo, size) + self.losses(bank)

    def losses(self, bank: Bank, layers: Layers = None) -> Float64[Tensor, " batch"]:
        """Minus the log-likelihood of each example under the draws of a bank, in some layers."""
        sampler = MCBatchNorm(self.model, bank, output=self.output, layers=layers)
        add = torch.logaddexp if self.elbo is None else torch.add
        totals = (reduce(add, self._passes(sampler, start)) for start in self._starts())
        return -torch.cat([self._joined(total, len(sampler)) for total in totals])

    @torch.no_grad()
    def outputs(self, layers: Layers = None) -> Float[Tensor, "draws batch ..."]:
        """The outputs for all inputs under every draw of the bank, in some layers."""
        sampler = MCBatchNorm(self.model, self.bank, output=self.output, layers=layers)
        parts = [sampler(self._inputs(start)).cpu() for start in self._starts()]
        return torch.cat(parts, dim=1)

    def by_draw(self, bank: Bank) -> Float64[Tensor, "draws batch positions"]:
        """The log-likelihood of every target under each draw of a bank, as it is.

        Positions are those of a dense prediction, or the labels of an example.
        """
        sampler = MCBatchNorm(self.model, bank, output=self.output)
        parts = [torch.stack(list(self._passes(sampler, start))) for start in self._starts()]
        return torch.cat(parts, dim=1)

    def value(self, by_draw: Float64[Tensor, "draws batch positions"], size: float) -> float:
        """The criterion of draws at batch size `size`, from their log-likelihoods."""
        total = by_draw.logsumexp(0) if self.elbo is None else by_draw.sum(0)
        return _divergence(self.elbo, size) - float(self._joined(total, len(by_draw)).mean())

    def _starts(self) -> range:
        return range(0, count(self.inputs), EXAMPLES_PER_PASS)

    def _inputs(self, start: int) -> Inputs:
        """The inputs of a pass."""
        return slice_examples(self.inputs, start, start + EXAMPLES_PER_PASS)

    @torch.no_grad()
    def _passes(
        self, sampler: MCBatchNorm, start: int
    ) -> Iterator[Float64[Tensor, "batch positions"]]:
        """The log-likelihoods of some examples, under one draw after another."""
        targets = self.targets[start : start + EXAMPLES_PER_PASS]
        for row in sampler.passes(self._inputs(start)):
            found = _log_likelihood(self.family.summarize([row]), targets.to(row.device))
            yield found.reshape(len(targets), -1).cpu()

    def _joined(
        self, total: Float64[Tensor, "batch positions"], draws: int
    ) -> Float64[Tensor, " batch"]:
        """The log of the mean likelihood over draws; for the ELBO, the mean of the logs.

        Positions of an example are averaged, as in the score; for the ELBO they are summed.
        """
        if self.elbo is None:
            return total.mean(1) - math.log(draws)
        return total.sum(1) / draws


def _log_likelihood(
    predictive: CategoricalPredictive | BernoulliPredictive | GaussianPredictive, targets: Tensor
) -> Float64[Tensor, "batch *positions"]:
    if isinstance(predictive, CategoricalPredictive):
        return -scores.negative_log_likelihood(predictive.log_probabilities, targets)
    return predictive.log_prob(targets)


def _divergence(elbo: ELBO | None, size: float) -> float:
    """KL divergence from the prior, per example; 0 for the log score."""
    if elbo is None:
        return 0.0
    ratio = elbo.prior_batch_size / size
    dimensions, population = elbo.dimensions or 0, elbo.population or 1
    return dimensions / 2 * (ratio - 1 - math.log(ratio)) / population


def elbo_of(criterion: Any, bank: Bank) -> ELBO | None:
    """The ELBO with its defaults taken from the bank; None for the log score.

    Raises:
        ValueError: the criterion is unknown, all draws are equal, or N is not known.
    """
    if all(bool((rows == rows[0]).all()) for rows in bank.statistics.values()):
        raise ValueError(
            f"expected a bank whose draws differ, got {len(bank)} equal ones, which rescaling does "
            "not change; collect several at a batch size below N"
        )
    if criterion == "log_score":
        return None
    elbo = ELBO() if criterion == "elbo" else criterion
    if not isinstance(elbo, ELBO):
        raise ValueError(
            f"expected the criterion 'log_score', 'elbo' or mcbn.ELBO(...), got {criterion!r}; "
            "use 'log_score' with held-out examples"
        )
    population = elbo.population or bank.population
    if population is None:
        raise ValueError(
            "expected the number of training examples for the ELBO, got a bank that does not know "
            "it; use criterion=mcbn.ELBO(population=...)"
        )
    return replace(elbo, population=population, dimensions=elbo.dimensions or _rank(bank))


def _rank(bank: Bank) -> int:
    """The number of directions in which draws differ by more than rounding in the bank's dtype."""
    rows = bank.points()
    dtype = next(iter(bank.statistics.values())).dtype
    rounding = torch.finfo(dtype).eps
    deviations = rows - rows.mean(0)
    spread = deviations.square().mean(0).sqrt()
    # By their own spread, so that the units of one layer do not hide the directions of another;
    # what varies in its last bits alone is left out.
    moving = spread > 4 * rounding * rows.abs().amax(0)
    scaled = deviations[:, moving] / spread[moving]
    return int(torch.linalg.matrix_rank(scaled, rtol=max(rows.shape) * rounding))
