"""How often prediction sets, or intervals, contain the targets: as predicted, and conformal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import Sides, kind_of, partner_of, unknown_targets
from mcbn.recalibration.conformal import ConformalIntervals, ConformalSets
from mcbn.recalibration.conformal_labels import ConformalLabels
from mcbn.recalibration.prediction_sets import (
    Coverage,
    LabelSets,
    PredictionIntervals,
    PredictionSets,
)

LEVEL = 0.9  # of prediction sets and intervals


@dataclass(frozen=True)
class SetCoverage:
    """Coverage and size of the prediction sets, or intervals, of one method.

    Attributes:
        method: name of the method.
        rule: "as predicted", or "conformal" for those calibrated on held-out examples.
        level: share of the targets that they were made to contain.
        coverage: share that they contain; of several labels, the mean over examples of the share
            of theirs.
        mean_size: mean number of classes or labels in a set, or mean length of an interval in
            target units.
        groups: the number of groups, each of which counts as one; None where examples do.
    """

    method: str
    rule: str
    level: float
    coverage: Coverage
    mean_size: float
    groups: int | None = None


def set_coverages(
    predictions: Sequence[Predictions],
    held_out: Sequence[Predictions],
    *,
    level: float = LEVEL,
    sides: Sides | None = None,
) -> tuple[SetCoverage, ...]:
    """Coverage of prediction sets, or intervals, by every method: as predicted, and conformal.

    As predicted a set holds the most probable classes until their probabilities reach the level,
    or the most probable labels until theirs reach that share of the sum of all, and an interval is
    the central one. Conformal are `ConformalSets` by "probability", `ConformalLabels` and
    `ConformalIntervals` by "residual". With groups these are for examples of new groups, and every
    group counts as one. Of several labels only examples that have one are counted.

    Raises:
        ValueError: as for `fitted`.
    """
    rows = []
    for each in predictions:
        partner = partner_of(each, predictions, held_out, sides)
        group, held = (sides.scored, sides.held_out[partner.method]) if sides else (None, None)
        fit = _fit_sets(partner, level, held)
        made: dict[str, Any] = {
            "as predicted": _as_predicted(each, level),
            "conformal": fit(each.scored),
        }
        for rule, sets in made.items():
            coverage = sets.coverage(each.known_targets, group=group, **unknown_targets(each))
            rows.append(
                SetCoverage(each.method, rule, level, coverage, sets.mean_size, _count(each, group))
            )
    return tuple(rows)


def have_sets(predictions: Predictions) -> bool:
    """Whether there are prediction sets: of one target an example, but not of its positions.

    Those of one image are alike, and no exchangeable ones to calibrate on.
    """
    scored: Any = predictions.scored
    if isinstance(scored, GaussianPredictive):
        return True
    probabilities: Tensor = scored.probabilities
    return probabilities.ndim == 2


def coverage_dicts(rows: Sequence[SetCoverage]) -> dict[str, dict[str, Any]]:
    """Plain numbers by method and rule, for JSON."""
    by_method: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.rule] = asdict(row)
    return by_method


def _as_predicted(
    predictions: Predictions, level: float
) -> PredictionSets | LabelSets | PredictionIntervals:
    scored = predictions.scored
    if isinstance(scored, GaussianPredictive):
        low, high = (end.reshape(len(scored)) for end in scored.interval(level))
        return PredictionIntervals(low, high)
    if isinstance(scored, BernoulliPredictive):
        probabilities = scored.probabilities
        return LabelSets(_most_probable(probabilities, level * probabilities.sum(1, keepdim=True)))
    return PredictionSets(_most_probable(scored.probabilities, level))


def _most_probable(
    probabilities: Float64[Tensor, "batch classes"], until: float | Float64[Tensor, "batch 1"]
) -> Bool[Tensor, "batch classes"]:
    """The most probable classes, each as long as the probabilities of those before sum to less."""
    ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
    inside = ordered.cumsum(1) - ordered < until
    return torch.zeros_like(inside).scatter_(1, order, inside)


def _fit_sets(held_out: Predictions, level: float, group: Groups | None) -> Callable[[Any], Any]:
    """Conformal sets, or intervals, fitted on held-out predictions."""
    methods: Mapping[str, Any] = {
        "classes": ConformalSets,
        "several labels": ConformalLabels,
        "real values": ConformalIntervals,
    }
    fit: Callable[[Any], Any] = methods[kind_of(held_out)].fit(
        held_out.scored,
        held_out.known_targets,
        level=level,
        group=group,
        **unknown_targets(held_out),
    )
    return fit


def _count(predictions: Predictions, group: Groups | None) -> int | None:
    """The number of groups of the examples that are counted; None where there are none."""
    if group is None:
        return None
    counted = torch.ones(len(predictions.scored), dtype=torch.bool)
    if kind_of(predictions) == "several labels":
        counted = (predictions.known_targets == 1).any(1)
    names = names_of_groups(group, len(counted))
    return len({name for name, known in zip(names, counted.tolist(), strict=True) if known})
