"""Predictives of a changed average, in which each part of the uncertainty keeps its share."""

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive, entropy


def averaged(
    predictive: CategoricalPredictive, logits: Float64[Tensor, "batch classes *positions"]
) -> CategoricalPredictive:
    """Return the predictive with `softmax(logits)` as mean probability; draws are not kept.

    A change of the average says nothing about the draws. So each part of an uncertainty keeps its
    share of the whole: expected entropy and mutual information of the entropy, and the variance
    over draws of `p (1 - p)`, which is the variance of "is it this class". No part is ever below
    0 or above the whole. The variation ratio stays.
    """
    log_probabilities = logits.log_softmax(1)
    total, before = entropy(log_probabilities.exp()), predictive.entropy
    aleatoric = torch.where(before > 0, predictive.expected_entropy / before, 1.0).clamp(0, 1)
    spread, spread_before = _spread(log_probabilities), _spread(predictive.log_probabilities)
    epistemic = torch.where(spread_before > 0, predictive.variance / spread_before, 0.0)
    return CategoricalPredictive(
        log_probabilities,
        total * aleatoric,
        spread * epistemic.clamp(0, 1),
        predictive.variation_ratio,
        predictive.draw_count,
    )


def averaged_labels(
    predictive: BernoulliPredictive, log_odds: Float64[Tensor, "batch labels *positions"]
) -> BernoulliPredictive:
    """Return the predictive with these log-odds of the mean probability; see `averaged`."""
    states = torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)
    return BernoulliPredictive.from_classes(averaged(predictive.as_classes, states))


def _spread(log_probabilities: Tensor) -> Tensor:
    """Return `p (1 - p)`, exact also where p is nearly 1."""
    return log_probabilities.exp() * -torch.expm1(log_probabilities)
