"""Detection of a positive class by a score, and selective prediction (risk-coverage).

A Bool mask says which examples are positive, and a higher score always means more likely positive.
Only the order of scores counts, so any scale will do.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from scipy.special import betaincinv
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import formulas
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.evaluation.group_risk import bounds_of_groups
from mcbn.io.display import Display, Displayed
from mcbn.uncertainty.predictive_scores import UncertaintyName, uncertainty_of
from mcbn.uncertainty.score import UncertaintyScore


def _check(scores: Tensor, positive: Tensor) -> None:
    """Check the scores, and that the mask fits and has both classes."""
    validation.vector(scores, "scores")
    validation.mask(positive, "positive", scores, "scores")
    count = int(positive.sum())
    if count in (0, len(positive)):
        raise ValueError(
            f"expected positive and negative examples, got {count} positive of {len(positive)}; "
            "the measure is not defined for one class, so leave it out"
        )


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
    _check(scores, positive)
    return formulas.auroc(scores, positive)


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
    _check(scores, positive)
    return formulas.aupr(scores, positive)


def fpr95(scores: Float[Tensor, " batch"], positive: Bool[Tensor, " batch"]) -> float:
    """Return the share of negatives flagged where at least 95% of positives are flagged.

    Taken at the highest threshold that flags so many, without interpolation; tied scores are
    flagged together. 0 is best, 0.95 or a little more is chance; lower is better.

    Raises:
        ValueError: a score is not finite, or only one class is present.

    Reference: Liang, Li, Srikant, ODIN, 2018.

    >>> fpr95(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([False, False, True]))
    0.5
    """
    _check(scores, positive)
    return formulas.fpr95(scores, positive)


SHOWN_COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Separation:
    """How well scores separate the positive class from the negative one.

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
    """Return how well uncertainty detects examples that are out of distribution (OOD).

    They are the positive class.

    Args:
        inside_uncertainty: of examples from the training distribution.
        outside_uncertainty: of examples that are out of distribution.

    Raises:
        ValueError: a value is not finite, or one of the two is empty.
    """
    validation.vector(inside_uncertainty, "inside_uncertainty")
    validation.vector(outside_uncertainty, "outside_uncertainty")
    return Separation(*formulas.out_of_distribution(inside_uncertainty, outside_uncertainty))


@dataclass(frozen=True, eq=False, repr=False)
class RiskCoverage(Displayed):
    """Mean loss among the most certain examples, as more of them are accepted.

    Attributes:
        coverage: share of examples accepted, k / n for k from 1 to n.
        risk: mean loss of those; within ties the expectation over their order.
        area: AURC, the plain mean of `risk`; lower is better.
        excess_area: E-AURC, `area` minus that of the best order; 0 is best.
        generalized_area: AUGRC, the area under `risk * coverage`; lower is better.
    """

    coverage: Float64[Tensor, " batch"]
    risk: Float64[Tensor, " batch"]
    area: float
    excess_area: float
    generalized_area: float

    def display(self) -> Display:
        """Its areas, and the risk at some coverages."""
        count = len(self.coverage)
        heading = (
            f"Risk-coverage curve of {count:,} examples: AURC {self.area:.4g}, E-AURC "
            f"{self.excess_area:.4g}, AUGRC {self.generalized_area:.4g}"
        )
        answered = dict.fromkeys(max(1, round(share * count)) for share in SHOWN_COVERAGES)
        return Display(heading, ("coverage", "risk"), [
            (f"{k / count:.2f}", f"{float(self.risk[k - 1]):.4g}") for k in answered
        ])  # fmt: skip


def risk_coverage(
    uncertainty: Any,
    loss: Float[Tensor, " batch"] | Bool[Tensor, " batch"],
    *,
    by: UncertaintyName | UncertaintyScore | None = None,
) -> RiskCoverage:
    """Return the risk-coverage curve of abstaining where uncertainty is highest.

    Generalised risk at coverage k / n is the accepted loss over n, in trapezoids from 0: for
    errors it is `(1 - AUROC) a (1 - a) + (1 - a)^2 / 2` at accuracy a.

    Args:
        uncertainty: one value per example, as a tensor or an array; higher is abstained from
            earlier. Or predictions of classes, or data for a detector of inputs.
        loss: 0 and 1 or Bool for errors, or any finite loss.
        by: name of the score of predictions, or any `UncertaintyScore`; by default `max_softmax` of
            predictions, and values as they are.

    Raises:
        TypeError: something that is not a score, or that it does not take.
        ValueError: a value is not finite, the shapes differ, or a score is not known.

    Reference: Geifman, Uziel, El-Yaniv, 2019 (AURC, E-AURC); Traub and others, 2024 (AUGRC).

    >>> risk_coverage(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([False, False, True])).risk
    tensor([0.0000, 0.0000, 0.3333], dtype=torch.float64)
    """
    uncertainty = validation.vector(uncertainty_of(uncertainty, by), "uncertainty")
    validation.vector(loss, "loss")
    validation.require_same_shape(uncertainty, loss, ("uncertainty", "loss"))
    return RiskCoverage(*formulas.risk_coverage(uncertainty, loss))


# Thresholds that are tried: fixed before the held-out examples are seen.
THRESHOLDS = 20


@dataclass(frozen=True)
class Abstention:
    """A rule for selective prediction: answer where uncertainty is below a threshold.

    Attributes:
        threshold: answer where uncertainty is below it, abstain elsewhere; infinite if every
            example may be answered.
        coverage: share of the held-out examples answered; with groups, its mean over those that
            the bound is from.
        risk: share of wrong answers among those, on the held-out examples; with groups, its mean
            over groups with any.
        bound: upper bound, at the level asked for, of the share of wrong answers on new examples,
            or in new groups, from the same distribution.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def choose_abstention(
    uncertainty: Any,
    wrong: Bool[Tensor, " batch"],
    *,
    risk: float,
    level: float = 0.95,
    group: Groups | None = None,
    by: UncertaintyName | UncertaintyScore | None = None,
) -> Abstention:
    """Choose the highest threshold of uncertainty below which at most `risk` of answers are wrong.

    Twenty thresholds are tried, those that answer 1/20, 2/20, ... of the held-out examples. Given
    the number answered, the number of errors among them is binomial, so the exact upper bound of
    Clopper and Pearson holds for each; at the level 1 - (1 - level) / 20 it holds for all at once,
    whichever is chosen. It holds for new examples from the same distribution, not after a shift.

    Examples have to be independent; those that hang together, such as the scans of a patient, are
    not, and the binomial bound is then far too low. With `group` it is a bound for new groups: of
    the mean over groups of the share of wrong answers among those to its examples, each group
    counting as one, however many examples it has. These shares are independent and from 0 to 1, so
    the bound of Hoeffding and Bentkus holds whatever their distribution. Every fifth group sets
    the thresholds, and the bounds are from the others.

    Args:
        uncertainty: of held-out examples, one value each, as a tensor or an array; higher is less
            certain. Or predictions of them, or their data for a detector of inputs. Equal values
            are answered together or not at all.
        wrong: which of them the network got wrong.
        risk: share of wrong answers that is allowed.
        level: probability, over held-out sets, that the bound holds.
        group: what examples that hang together share, one value per example.
        by: name of the score of predictions, or any `UncertaintyScore`; by default `max_softmax` of
            predictions, and values as they are. The threshold is in its units.

    Raises:
        TypeError: something that is not a score, or that it does not take.
        ValueError: a value is not finite, shapes differ, groups do not fit, a score is not known,
            or no threshold has so low a bound.

    Reference:
        Bates and others 2021, "Distribution-Free, Risk-Controlling Prediction Sets", for groups;
        Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", section 3;
        thresholds on a fixed grid in place of their search, whose choices depend on the errors.
    """
    uncertainty = validation.vector(uncertainty_of(uncertainty, by), "uncertainty")
    validation.mask(wrong, "wrong", uncertainty, "uncertainty")
    validation.fraction(risk, "risk")
    validation.fraction(level, "level")
    uncertainty, wrong = uncertainty.double().cpu(), wrong.cpu()
    clusters, chance = clusters_of(group, len(wrong)), (1 - level) / THRESHOLDS
    if clusters is None:
        candidates = _candidates(uncertainty, wrong, chance)
    else:
        rows = bounds_of_groups(uncertainty, wrong, clusters, thresholds=THRESHOLDS, chance=chance)
        candidates = [Abstention(*row) for row in rows]
    allowed = [each for each in candidates if each.bound <= risk]
    if not allowed:
        best = min(each.bound for each in candidates)
        raise ValueError(
            f"expected a threshold with a risk of at most {risk:g}, got a bound of {best:.3g} at "
            f"best from {len(wrong) if clusters is None else len(clusters)} held-out "
            f"{'examples' if clusters is None else 'groups'}; give more of them, or allow more risk"
        )
    return max(allowed, key=lambda each: each.threshold)


def _candidates(uncertainty: Tensor, wrong: Tensor, chance: float) -> list[Abstention]:
    """Return each threshold with a bound that fails with probability `chance`."""
    count = len(uncertainty)
    ranks = torch.arange(1, THRESHOLDS + 1).mul(count).add(THRESHOLDS - 1) // THRESHOLDS
    # The example at the threshold chose it and is not answered: only those below are a sample.
    ends = torch.cat([uncertainty.sort().values, uncertainty.new_full((1,), math.inf)])[ranks]
    answered = uncertainty < ends[:, None]
    totals, errors = answered.sum(1), (answered & wrong).sum(1)
    bounds = torch.from_numpy(
        betaincinv((errors + 1).numpy(), (totals - errors).numpy(), 1 - chance)
    )
    bounds = torch.where(errors == totals, 1.0, bounds)
    risks = errors.double() / totals.clamp_min(1)
    rows = zip(ends, totals.double() / count, risks, bounds, strict=True)
    return [Abstention(*map(float, row)) for row in rows]
