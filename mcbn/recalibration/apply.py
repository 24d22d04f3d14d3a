"""Predictions before and after recalibration on held-out predictions of the same methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.conformal import (
    ConformalIntervals,
    ConformalSets,
    Coverage,
    PredictionIntervals,
    PredictionSets,
)
from mcbn.recalibration.isotonic import Isotonic
from mcbn.recalibration.temperature import TemperatureScaling, TemperedCategorical
from mcbn.recalibration.variance import VarianceScaling
from mcbn.recalibration.vector import VectorScaling

Recalibration = Literal["temperature", "temperature-per-draw", "vector", "isotonic", "variance"]
# Each is fitted by `fit`, and called with predictions to be changed.
FITS: Mapping[str, Any] = {
    "temperature": TemperatureScaling,
    "temperature-per-draw": TemperedCategorical,
    "vector": VectorScaling,
    "isotonic": Isotonic,
    "variance": VarianceScaling,
}
LEVEL = 0.9  # of sets and intervals


@dataclass(frozen=True)
class Held:
    """How often the sets or intervals of one method held the target, and how large they were.

    Attributes:
        method: name of the method.
        rule: "as predicted", or "conformal" for those widened on held-out examples.
        level: share of the targets that they were made to hold.
        coverage: share that they held.
        mean_size: mean number of classes in a set, or mean length of an interval in target units.
    """

    method: str
    rule: str
    level: float
    coverage: Coverage
    mean_size: float


def fitted(
    found: Sequence[Predictions], held_out: Sequence[Predictions], by: Recalibration
) -> dict[str, Callable[[Any], Any]]:
    """A recalibration of each method, fitted on its held-out predictions.

    Args:
        found: predictions to be scored, one of each method.
        held_out: predictions of other examples by the same methods, with targets.
        by: what is fitted: a temperature, a scale and a bias a class, a rising function, or for
            real values a factor on the variance.

    Raises:
        ValueError: a method has no held-out predictions, they are the ones to be scored, or the
            recalibration is of another kind of target.
    """
    return {each.method: _fit(each, _partner(each, found, held_out), by) for each in found}


def before_and_after(
    found: Sequence[Predictions], fits: Mapping[str, Callable[[Any], Any]], by: Recalibration
) -> list[Predictions]:
    """Every method's predictions as they are, and then recalibrated by its fit."""
    both = []
    for each in found:
        # The only fit there is goes for a method of any name, as its predictions do.
        fit = fits[each.method] if len(fits) > 1 else next(iter(fits.values()))
        changed = replace(each, method=f"{each.method} + {by}", predictive=fit(each.scored))
        both += [each, changed]
    return both


def held_targets(
    found: Sequence[Predictions], held_out: Sequence[Predictions], *, level: float = LEVEL
) -> tuple[Held, ...]:
    """Sets or intervals of a level by every method: as predicted, and split-conformal.

    As predicted a set holds the most probable classes until their probabilities reach the level,
    an interval is the central one. Conformal are `ConformalSets` by "probability" and
    `ConformalIntervals` by "residual".

    Raises:
        ValueError: as for `fitted`.
    """
    rows = []
    for each in found:
        partner = _partner(each, found, held_out)
        targets = each.known_targets
        scored = each.scored
        method: Any = ConformalSets if _of_classes(each) else ConformalIntervals
        conformal = method.fit(partner.scored, partner.known_targets, level=level)(scored)
        for rule, made in (("as predicted", _as_predicted(each, level)), ("conformal", conformal)):
            coverage = made.coverage(targets)
            rows.append(Held(each.method, rule, level, coverage, made.mean_size))
    return tuple(rows)


def held_dicts(rows: Sequence[Held]) -> dict[str, dict[str, Any]]:
    """Plain numbers by method and rule, for JSON."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row.method, {})[row.rule] = asdict(row)
    return found


def _as_predicted(found: Predictions, level: float) -> PredictionSets | PredictionIntervals:
    scored = found.scored
    if not isinstance(scored, CategoricalPredictive):
        low, high = (end.reshape(len(scored)) for end in scored.interval(level))
        return PredictionIntervals(low, high)
    ordered, order = scored.probabilities.sort(dim=1, descending=True, stable=True)
    # A class is in as long as those before it do not reach the level.
    inside = ordered.cumsum(1) - ordered < level
    return PredictionSets(torch.zeros_like(inside).scatter_(1, order, inside))


def _partner(
    each: Predictions, found: Sequence[Predictions], held_out: Sequence[Predictions]
) -> Predictions:
    """The held-out predictions of a method; of a single method whoever made them."""
    named = [other for other in held_out if other.method == each.method]
    partners = named or (list(held_out) if len(found) == len(held_out) == 1 else [])
    if len(partners) != 1:
        raise ValueError(
            f"expected held-out predictions by {each.method!r} once, got those of "
            f"{[other.method for other in held_out]}; a file of columns is named after its method"
        )
    if torch.equal(_center(each), _center(partners[0])):
        raise ValueError(
            f"expected held-out predictions of other examples, got those of {each.method!r} that "
            "are to be scored, on which every score is too good; predict a held-out part"
        )
    return partners[0]


def _center(found: Predictions) -> Tensor:
    scored = found.scored
    return scored.log_probabilities if isinstance(scored, CategoricalPredictive) else scored.mean


def _fit(each: Predictions, held_out: Predictions, by: str) -> Callable[[Any], Any]:
    fitting = [name for name in FITS if (name == "variance") != _of_classes(each)]
    if by not in fitting:
        kind = "classes" if _of_classes(each) else "real values"
        raise ValueError(
            f"expected one of {fitting} for predictions of {kind}, got {by!r}; choose one of these"
        )
    found: Callable[[Any], Any] = FITS[by].fit(held_out.scored, held_out.known_targets)
    return found


def _of_classes(found: Predictions) -> bool:
    return isinstance(found.predictive, CategoricalPredictive)
