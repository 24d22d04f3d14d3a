"""Abstaining: the uncertainty above which a network had better not answer, for a risk agreed on."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.stats import beta
from torch import Tensor

from mcbn import validation

# Shares of the held-out examples that may be answered: fixed before they are looked at.
STEPS = 20


@dataclass(frozen=True)
class Abstention:
    """A threshold of uncertainty, and what it promises.

    Attributes:
        threshold: answer where uncertainty is below it, abstain elsewhere; infinite if every
            example may be answered.
        coverage: share of the held-out examples answered.
        risk: share of wrong answers among those, on the held-out examples.
        bound: with the confidence asked for, the share of wrong answers on new examples of the
            same kind is at most this.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def choose_abstention(
    uncertainty: Float[Tensor, " batch"],
    wrong: Bool[Tensor, " batch"],
    *,
    risk: float,
    confidence: float = 0.95,
) -> Abstention:
    """The highest threshold whose answers are wrong no more often than `risk`, with confidence.

    Twenty thresholds are looked at, those that answer 1/20, 2/20, ... of the held-out examples.
    Given the number answered, the errors among them are binomial, so the exact upper bound of
    Clopper and Pearson holds for each; at the confidence 1 - (1 - confidence) / 20 it holds for all
    at once, whichever is chosen. It holds for new examples that come as the held-out ones did, not
    after a shift.

    Args:
        uncertainty: of held-out examples, such as entropy or mutual information; higher is less
            certain. Equal values are answered together or not at all.
        wrong: which of them the network got wrong.
        risk: share of wrong answers that is allowed.
        confidence: probability, over held-out sets, that the promise holds.

    Raises:
        ValueError: a value is not finite, shapes differ, or no threshold can promise it.

    Reference:
        Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", section 3;
        thresholds on a fixed grid in place of their search, whose choices depend on the errors.
    """
    validation.vector(uncertainty, "uncertainty")
    validation.mask(wrong, "wrong", uncertainty, "uncertainty")
    validation.fraction(risk, "risk")
    validation.fraction(confidence, "confidence")
    found = _promises(uncertainty.double(), wrong, (1 - confidence) / STEPS)
    kept = [each for each in found if each.bound <= risk]
    if not kept:
        best = min(each.bound for each in found)
        raise ValueError(
            f"expected a threshold that promises a risk of {risk:g}, got {best:.3g} at best from "
            f"{len(wrong)} held-out examples; give more of them, or allow more risk"
        )
    return max(kept, key=lambda each: each.threshold)


def _promises(uncertainty: Tensor, wrong: Tensor, chance: float) -> list[Abstention]:
    """What each threshold of the grid promises, except with `chance`."""
    count = len(uncertainty)
    ranks = torch.arange(1, STEPS + 1).mul(count).add(STEPS - 1) // STEPS
    # The example at the threshold chose it and is not answered: only those below are a sample.
    ends = torch.cat([uncertainty.sort().values, uncertainty.new_full((1,), math.inf)])[ranks]
    answered = uncertainty < ends[:, None]
    totals, errors = answered.sum(1), (answered & wrong).sum(1)
    bounds = torch.from_numpy(beta.ppf(1 - chance, (errors + 1).numpy(), (totals - errors).numpy()))
    bounds = torch.where(errors == totals, 1.0, bounds)
    risks = errors.double() / totals.clamp_min(1)
    rows = zip(ends, totals.double() / count, risks, bounds, strict=True)
    return [Abstention(*map(float, row)) for row in rows]
