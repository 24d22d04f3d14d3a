"""Is the uncertainty high where it should be: detection of a positive class, and abstaining.

Which examples are positive is always said by a Bool mask, and a higher score always means more
likely positive. Only the order of scores counts, so any scale will do.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.stats import beta
from sklearn.metrics import average_precision_score, roc_curve
from torch import Tensor

from mcbn import validation

RECALL = 0.95


def _require_both(scores: Tensor, positive: Tensor) -> None:
    """Refuse a mask that does not fit, or under which there is nothing to tell apart."""
    validation.vector(scores, "scores")
    validation.mask(positive, "positive", scores, "scores")
    count = int(positive.sum())
    if count in (0, len(positive)):
        raise ValueError(
            f"expected positive and negative examples, got {count} positive of {len(positive)}; "
            "the measure is not defined for one class, so leave it out"
        )


def _checked(scores: Tensor, positive: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask and the scores as scikit-learn takes them."""
    _require_both(scores, positive)
    return positive.cpu().numpy(), scores.detach().double().cpu().numpy()


def auroc(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the area under the receiver operating characteristic.

    The probability that a positive example scores above a negative one, ties counting one half.
    1 is best, 0.5 is chance; higher is better.

    Raises:
        ValueError: a score is not finite, or only one class is present.

    Reference: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, 1982.

    >>> auroc(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([False, False, True]))
    0.75
    """
    _require_both(scores, positive)
    ordered, found = scores.sort().values, scores[positive]
    # Twice the number of examples below each positive one, ties and itself counting one half.
    below = sum(torch.searchsorted(ordered, found, right=right).sum() for right in (False, True))
    count = len(found)
    return (int(below) - count**2) / (2 * count * (len(scores) - count))


def aupr(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the average precision, the area under the precision-recall steps.

    `sum_k (recall_k - recall_{k-1}) precision_k` over distinct thresholds, so ties enter together.
    1 is best, the share of positives is chance; higher is better.

    Raises:
        ValueError: a score is not finite, or only one class is present.

    Reference: Davis and Goadrich, Precision-Recall and ROC Curves, 2006.

    >>> aupr(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([False, False, True]))
    0.5
    """
    return float(average_precision_score(*_checked(scores, positive)))


def fpr95(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the share of negatives flagged where at least 95 % of positives are found.

    Taken at the highest threshold that finds so many, without interpolation; tied scores are
    flagged together. 0 is best, 0.95 or a little more is chance; lower is better.

    Raises:
        ValueError: a score is not finite, or only one class is present.

    Reference: Liang, Li, Srikant, ODIN, 2018.

    >>> fpr95(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([False, False, True]))
    0.5
    """
    false_rate, true_rate, _ = roc_curve(*_checked(scores, positive), drop_intermediate=False)
    return float(false_rate[np.argmax(true_rate >= RECALL)])


@dataclass(frozen=True)
class Separation:
    """How well scores tell the positive class apart.

    Attributes:
        auroc: see `auroc`; higher is better.
        aupr: see `aupr`; higher is better.
        fpr95: see `fpr95`; lower is better.
    """

    auroc: float
    aupr: float
    fpr95: float


def out_of_distribution(
    inside_uncertainty: Float[Tensor, " inside"], outside_uncertainty: Float[Tensor, " outside"]
) -> Separation:
    """Return how well uncertainty tells data from outside the training distribution apart.

    The data from outside are the positive class.

    Raises:
        ValueError: a value is not finite, or one of the two is empty.
    """
    validation.vector(inside_uncertainty, "inside_uncertainty")
    validation.vector(outside_uncertainty, "outside_uncertainty")
    scores = torch.cat([inside_uncertainty.double(), outside_uncertainty.double()])
    positive = torch.arange(len(scores), device=scores.device) >= len(inside_uncertainty)
    return Separation(auroc(scores, positive), aupr(scores, positive), fpr95(scores, positive))


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Mean loss among the most certain examples, as more of them are accepted.

    Attributes:
        coverage: share of examples accepted, k / n for k from 1 to n.
        risk: mean loss of those; within ties the expectation over their order.
        area: AURC, the plain mean of `risk`; lower is better.
        excess_area: E-AURC, `area` less that of the best order; 0 is best.
        generalized_area: AUGRC, the area under `risk * coverage`; lower is better.
    """

    coverage: Float64[Tensor, " batch"]
    risk: Float64[Tensor, " batch"]
    area: float
    excess_area: float
    generalized_area: float


def risk_coverage(
    uncertainty: Float[Tensor, " batch"],
    loss: Float[Tensor, " batch"] | Bool[Tensor, " batch"],
) -> RiskCoverage:
    """Return the risk-coverage curve of abstaining where uncertainty is highest.

    Generalised risk at coverage k / n is the accepted loss over n, in trapezoids from 0: for
    errors it is `(1 - AUROC) a (1 - a) + (1 - a)^2 / 2` at accuracy a.

    Args:
        uncertainty: higher is abstained from earlier.
        loss: 0 and 1 or Bool for errors, or any finite loss.

    Raises:
        ValueError: a value is not finite, or the shapes differ.

    Reference: Geifman, Uziel, El-Yaniv, 2019 (AURC, E-AURC); Traub and others, 2024 (AUGRC).

    >>> risk_coverage(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([False, False, True])).risk
    tensor([0.0000, 0.0000, 0.3333], dtype=torch.float64)
    """
    validation.vector(uncertainty, "uncertainty")
    validation.vector(loss, "loss")
    validation.same_shape(uncertainty, loss, ("uncertainty", "loss"))
    losses, count = loss.double(), len(loss)
    ordered, order = uncertainty.sort()
    group = torch.cat([order.new_zeros(1), (ordered.diff() != 0).cumsum(0)])
    sizes = group.bincount()
    # In a random order every member of a tie costs the mean of the tie.
    totals = torch.zeros_like(sizes, dtype=torch.float64).index_add(0, group, losses[order])
    accepted = (totals / sizes).repeat_interleave(sizes).cumsum(0)
    number = torch.arange(1, count + 1, dtype=torch.float64, device=losses.device)
    risk = accepted / number
    best = losses.sort().values.cumsum(0) / number
    area = float(risk.mean())
    trapezoids = accepted.sum() - accepted[-1] / 2
    return RiskCoverage(
        number / count, risk, area, area - float(best.mean()), float(trapezoids) / count**2
    )


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
