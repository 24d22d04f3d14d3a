"""Classification: draws of logits made into a predictive distribution over classes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mcbn import scores, validation


@dataclass(frozen=True, eq=False)
class CategoricalPredictive:
    """A distribution over classes for each example (and position), averaged over draws.

    Probabilities are averaged, never logits, by a log-mean-exp in float64. Entropies are in nats.

    Attributes:
        log_probabilities: log of the mean probability of each class.
        expected_entropy: mean over draws of the entropy; the aleatoric part of `entropy`.
        variance: biased variance over draws of the probability of each class.
        variation_ratio: share of the draws that do not vote for the class voted for most.
        draw_count: T, the number of draws averaged.
        draws: the network's outputs, one row a draw, if they were kept.
    """

    log_probabilities: Float64[Tensor, "batch classes *positions"]
    expected_entropy: Float64[Tensor, "batch *positions"]
    variance: Float64[Tensor, "batch classes *positions"]
    variation_ratio: Float64[Tensor, "batch *positions"]
    draw_count: int
    draws: Float[Tensor, "draws batch classes *positions"] | None = None

    def __len__(self) -> int:
        return len(self.log_probabilities)

    @property
    def probabilities(self) -> Float64[Tensor, "batch classes *positions"]:
        """Mean over draws of the probability of each class."""
        return self.log_probabilities.exp()

    @property
    def prediction(self) -> Tensor:
        """The most probable class; the first of ties."""
        return self.log_probabilities.argmax(1)

    @property
    def confidence(self) -> Float64[Tensor, "batch *positions"]:
        """The probability of the most probable class."""
        return self.log_probabilities.amax(1).exp()

    @property
    def entropy(self) -> Float64[Tensor, "batch *positions"]:
        """Predictive entropy: the total uncertainty, in nats."""
        return scores.entropy(self.probabilities)

    @property
    def mutual_information(self) -> Float64[Tensor, "batch *positions"]:
        """Predictive minus expected entropy: the epistemic uncertainty, in nats, at least 0.

        Reference:
            Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference
            Learning", equation 2.
        """
        return (self.entropy - self.expected_entropy).clamp_min(0.0)


@dataclass(frozen=True)
class Categorical:
    """The likelihood of class labels: the network answers with logits along axis 1."""

    def summarise(
        self, passes: Iterable[Tensor], *, keep_draws: bool = False
    ) -> CategoricalPredictive:
        """Average the draws one at a time, in memory that does not grow with their number.

        Raises:
            ValueError: fewer than two classes, or logits that are not finite.
        """
        total = _Totals()
        kept = []
        for logits in passes:
            total.add(_checked(logits, total.count))
            if keep_draws:
                kept.append(logits.detach())
        return total.predictive(torch.stack(kept) if keep_draws else None)

    def join(self, parts: Sequence[CategoricalPredictive]) -> CategoricalPredictive:
        """One predictive of the examples of all parts, in order."""
        kept = [part.draws for part in parts if part.draws is not None]
        return CategoricalPredictive(
            torch.cat([part.log_probabilities for part in parts]),
            torch.cat([part.expected_entropy for part in parts]),
            torch.cat([part.variance for part in parts]),
            torch.cat([part.variation_ratio for part in parts]),
            parts[0].draw_count,
            torch.cat(kept, dim=1) if kept else None,
        )


def _checked(logits: Tensor, draw: int) -> Tensor:
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise ValueError(
            f"expected logits with axes (batch, classes, *positions) of at least 2 classes, got "
            f"shape {tuple(logits.shape)}; for one logit a case give "
            "output=lambda z: torch.cat([torch.zeros_like(z), z], 1)"
        )
    return validation.finite(logits, f"the logits of draw {draw}")


class _Totals:
    """Sums over draws: what the averages need, and no draw itself."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, logits: Tensor) -> None:
        logs = logits.detach().double().log_softmax(1)
        values = logs.exp()
        entropy = scores.entropy(values)
        votes = torch.zeros_like(logs).scatter_(1, logs.argmax(1, keepdim=True), 1.0)
        if self.count == 0:
            self.log_sum, self.entropy, self.votes = logs, entropy, votes
            self.mean, self.squares = values, torch.zeros_like(values)
        else:
            self.log_sum = torch.logaddexp(self.log_sum, logs)
            self.entropy += entropy
            self.votes += votes
            # Welford's update: no difference of large sums, so equal draws have no variance.
            step = values - self.mean
            self.mean = self.mean + step / (self.count + 1)
            self.squares += step * (values - self.mean)
        self.count += 1

    def predictive(self, draws: Tensor | None) -> CategoricalPredictive:
        return CategoricalPredictive(
            self.log_sum - math.log(self.count),
            self.entropy / self.count,
            self.squares / self.count,
            1 - self.votes.amax(1) / self.count,
            self.count,
            draws,
        )
