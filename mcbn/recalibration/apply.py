"""Predictions before and after recalibration on held-out predictions of the same methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.io.tables import column, texts
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.name_order import same_classes
from mcbn.predictive.pairing import shared_rows
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.conformal import ConformalIntervals, ConformalSets
from mcbn.recalibration.conformal_labels import ConformalLabels
from mcbn.recalibration.held_out import require_other_groups
from mcbn.recalibration.isotonic import Isotonic
from mcbn.recalibration.isotonic_by_label import IsotonicByLabel
from mcbn.recalibration.platt import PlattScaling
from mcbn.recalibration.prediction_sets import (
    Coverage,
    LabelSets,
    PredictionIntervals,
    PredictionSets,
)
from mcbn.recalibration.temperature import TemperatureScaling, TemperedCategorical
from mcbn.recalibration.variance import VarianceScaling
from mcbn.recalibration.vector import VectorScaling

Recalibration = Literal[
    "temperature", "temperature-per-draw", "temperature-per-label", "vector", "platt", "isotonic",
    "variance",
]  # fmt: skip
# How the methods of each kind of predictions are fitted, by name; a fit is then called with the
# predictions to recalibrate.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "classes": {
        "temperature": TemperatureScaling.fit,
        "temperature-per-draw": TemperedCategorical.fit,
        "vector": VectorScaling.fit,
        "isotonic": Isotonic.fit,
    },
    "several labels": {
        "temperature": TemperatureScaling.fit,
        "temperature-per-label": partial(PlattScaling.fit, biases=False),
        "platt": PlattScaling.fit,
        "isotonic": IsotonicByLabel.fit,
    },
    "real values": {"variance": VarianceScaling.fit},
}
LEVEL = 0.9  # of prediction sets and intervals


@dataclass(frozen=True, eq=False)
class Sides:
    """What examples that hang together share, such as patients, none of whom is on both sides.

    Attributes:
        scored: of the examples to be scored, which are the same by all methods.
        held_out: of the held-out examples, by the method that predicted them.
    """

    scored: Groups
    held_out: Mapping[str, Groups]

    @classmethod
    def of_column(
        cls, name: str, predictions: Sequence[Predictions], held_out: Sequence[Predictions]
    ) -> "Sides":
        """The groups in a column of predictions, whose rows are the same, and of held-out ones.

        Raises:
            ValueError: some have no such column.
        """
        return cls(
            group_column(name, predictions[0], "the predictions"),
            {each.method: group_column(name, each, "the held-out predictions")
             for each in held_out},
        )  # fmt: skip


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


def group_column(name: str, predictions: Predictions, kind: str) -> tuple[str, ...]:
    """What examples share by a column of their predictions.

    Raises:
        ValueError: there is no such column.
    """
    return texts(column(predictions.columns, name, f"{kind} by {predictions.method!r}"))


def fitted(
    predictions: Sequence[Predictions],
    held_out: Sequence[Predictions],
    by: Recalibration,
    *,
    sides: Sides | None = None,
) -> dict[str, Callable[[Any], Any]]:
    """Fit a recalibration for each method on its held-out predictions.

    Args:
        predictions: to be scored, one item per method.
        held_out: predictions of other examples by the same methods, with targets.
        by: what is fitted: a temperature, a scale and a bias per class or label, a rising function,
            or for real values a factor on the variance.
        sides: the groups of both; None where every example is by itself.

    Raises:
        ValueError: a method has no held-out predictions, they are the ones to be scored or of the
            same groups, or the recalibration is of another kind of target. Held-out classes are put
            in the order of the predictions by name, and refused where they are others.
    """
    return {each.method: _fit(each, _partner(each, predictions, held_out, sides), by)
            for each in predictions}  # fmt: skip


def before_and_after(
    predictions: Sequence[Predictions],
    fits: Mapping[str, Callable[[Any], Any]],
    by: Recalibration,
) -> list[Predictions]:
    """Return the predictions of every method as they are, and then recalibrated by its fit."""
    both = []
    for each in predictions:
        # A single fit applies to a method of any name, as the predictions it was fitted on do.
        fit = fits[each.method] if len(fits) > 1 else next(iter(fits.values()))
        changed = replace(each, method=f"{each.method} + {by}", predictive=fit(each.scored))
        both += [each, changed]
    return both


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
        partner = _partner(each, predictions, held_out, sides)
        group, held = (sides.scored, sides.held_out[partner.method]) if sides else (None, None)
        fit = _fit_sets(partner, level, held)
        made: dict[str, Any] = {
            "as predicted": _as_predicted(each, level),
            "conformal": fit(each.scored),
        }
        for rule, sets in made.items():
            coverage = sets.coverage(each.known_targets, group=group, **_ignored(each))
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
    fit: Callable[[Any], Any] = methods[_kind(held_out)].fit(
        held_out.scored, held_out.known_targets, level=level, group=group, **_ignored(held_out)
    )
    return fit


def _ignored(predictions: Predictions) -> dict[str, int | None]:
    """The target of labels that are not known, for methods of several labels."""
    labels = _kind(predictions) == "several labels"
    return {"ignore_index": predictions.ignore_index} if labels else {}


def _count(predictions: Predictions, group: Groups | None) -> int | None:
    """The number of groups of the examples that are counted; None where there are none."""
    if group is None:
        return None
    counted = torch.ones(len(predictions.scored), dtype=torch.bool)
    if _kind(predictions) == "several labels":
        counted = (predictions.known_targets == 1).any(1)
    names = names_of_groups(group, len(counted))
    return len({name for name, known in zip(names, counted.tolist(), strict=True) if known})


def _partner(
    each: Predictions,
    predictions: Sequence[Predictions],
    held_out: Sequence[Predictions],
    sides: Sides | None,
) -> Predictions:
    """Return the held-out predictions of a method; where there is one method only, of any name."""
    named = [other for other in held_out if other.method == each.method]
    partners = named or (list(held_out) if len(predictions) == len(held_out) == 1 else [])
    if len(partners) != 1:
        raise ValueError(
            f"expected held-out predictions by {each.method!r} once, got those of "
            f"{[other.method for other in held_out]}; a file of columns is named after its method"
        )
    kinds = [_kind(each), _kind(partners[0])]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"expected held-out predictions of the same kind by {each.method!r}, got {kinds[0]} "
            f"and {kinds[1]}; predict the same kind of target"
        )
    if shared := shared_rows(each, partners[0]):
        raise ValueError(
            f"expected held-out predictions of other examples, got those of {each.method!r} that "
            f"are to be scored ({shared}), on which every score is too good; predict a held-out "
            "part"
        )
    if sides is not None:
        scored = names_of_groups(sides.scored, len(each.scored))
        held = names_of_groups(sides.held_out[partners[0].method], len(partners[0].scored))
        require_other_groups(held, scored, f"the held-out predictions by {each.method!r}",
                             "those to be scored")  # fmt: skip
    if bool(partners[0].classes) != bool(each.classes):
        raise ValueError(
            f"expected names of classes in the held-out predictions by {each.method!r} and in "
            "those to be scored, or in neither, got them in one; write both in the same format"
        )
    return same_classes(partners[0], each, f"the held-out predictions by {each.method!r}")


def _fit(each: Predictions, held_out: Predictions, by: str) -> Callable[[Any], Any]:
    methods = METHODS[_kind(each)]
    if by not in methods:
        raise ValueError(
            f"expected one of {list(methods)} for predictions of {_kind(each)}, got {by!r}; choose "
            "one of these"
        )
    predictive, targets, options = held_out.scored, held_out.known_targets, _ignored(held_out)
    if not options:
        rows = ScoredRows.of(predictive, targets, ignore_index=held_out.ignore_index)
        predictive, targets = rows.predictive, rows.targets
    fit: Callable[[Any], Any] = methods[by](predictive, targets, **options)
    return fit


def _kind(predictions: Predictions) -> str:
    """What is predicted, in words."""
    if isinstance(predictions.predictive, CategoricalPredictive):
        return "classes"
    if isinstance(predictions.predictive, BernoulliPredictive):
        return "several labels"
    return "real values"
