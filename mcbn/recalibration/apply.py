"""Predictions before and after recalibration on held-out predictions of the same methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.io.display import Displayed
from mcbn.io.tables import column, texts
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.name_order import same_classes
from mcbn.predictive.pairing import shared_rows
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.held_out import require_other_groups
from mcbn.recalibration.isotonic import Isotonic
from mcbn.recalibration.isotonic_by_label import IsotonicByLabel
from mcbn.recalibration.names import Recalibration
from mcbn.recalibration.platt import PlattScaling
from mcbn.recalibration.temperature import (
    TemperatureScaling,
    TemperedCategorical,
    fit_temperature,
    has_several_draws,
)
from mcbn.recalibration.variance import VarianceScaling
from mcbn.recalibration.vector import VectorScaling

# How the methods of each kind of predictions are fitted, by name; a fit is then called with the
# predictions to recalibrate.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "classes": {
        "temperature": fit_temperature,
        "temperature-per-draw": TemperedCategorical.fit,
        "temperature-of-average": TemperatureScaling.fit,
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
    others: Sequence[Predictions] = (),
    sides: Sides | None = None,
) -> dict[str, Callable[[Any], Any]]:
    """Fit a recalibration for each method on its held-out predictions.

    "temperature" is one of each draw of a method where several draws of all its predictions were
    kept, else of their average.

    Args:
        predictions: to be scored, one item per method.
        held_out: predictions of other examples by the same methods, with targets.
        by: what is fitted: a temperature, a scale and a bias per class or label, a rising function,
            or for real values a factor on the variance.
        others: predictions of further examples that the fits are for.
        sides: the groups of both; None where every example is by itself.

    Raises:
        ValueError: a method has no held-out predictions, they are the ones to be scored or of the
            same groups, or the recalibration is of another kind of target. Held-out classes are put
            in the order of the predictions by name, and refused where they are others.
    """
    fits = {}
    for each in predictions:
        partner = partner_of(each, predictions, held_out, sides)
        own = [other for other in others if other.method == each.method or len(predictions) == 1]
        group = sides.held_out[partner.method] if sides else None
        fits[each.method] = _fit(partner, by, [each, partner, *own], group)
    return fits


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


def unknown_targets(predictions: Predictions) -> dict[str, int | None]:
    """The target of labels that are not known, for methods of several labels."""
    labels = kind_of(predictions) == "several labels"
    return {"ignore_index": predictions.ignore_index} if labels else {}


def partner_of(
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
    kinds = [kind_of(each), kind_of(partners[0])]
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


def in_words(fit: Any) -> str:
    """What was fitted, in one line."""
    return fit.display().heading if isinstance(fit, Displayed) else str(fit)


def fit_dicts(fits: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The numbers of fits by method, for JSON, with the bound of a search that one lies at."""
    return {
        name: {**fit.to_dict(), **({"at_bound": fit.at_bound} if hasattr(fit, "at_bound") else {})}
        for name, fit in fits.items()
    }


def averaged_for_want_of_draws(fit: object, predictions: Predictions) -> bool:
    """Whether a temperature is of the average only since draws of the predictions are not there."""
    several = kind_of(predictions) == "classes" and predictions.predictive.draw_count > 1
    return several and isinstance(fit, TemperatureScaling)


def _fit(
    held_out: Predictions, by: str, used: Sequence[Predictions], group: Groups | None
) -> Callable[[Any], Any]:
    kind = kind_of(held_out)
    methods = METHODS[kind]
    if by not in methods:
        raise ValueError(
            f"expected one of {list(methods)} for predictions of {kind}, got {by!r}; choose one of "
            "these"
        )
    fit = methods[by]
    if fit is fit_temperature and not all(_has_draws(each) for each in used):
        fit = TemperatureScaling.fit
    predictive, targets = held_out.scored, held_out.known_targets
    options: dict[str, Any] = {"ignore_index": held_out.ignore_index}
    if kind == "several labels" or by.startswith("temperature"):
        options["group"] = group  # whose labels count as one
    else:
        rows = ScoredRows.of(predictive, targets, **options)
        predictive, targets, options = rows.predictive, rows.targets, {}
    recalibration: Callable[[Any], Any] = fit(predictive, targets, **options)
    return recalibration


def _has_draws(predictions: Predictions) -> bool:
    scored = predictions.scored
    return not isinstance(scored, CategoricalPredictive) or has_several_draws(scored)


def kind_of(predictions: Predictions) -> str:
    """What is predicted, in words."""
    if isinstance(predictions.predictive, CategoricalPredictive):
        return "classes"
    if isinstance(predictions.predictive, BernoulliPredictive):
        return "several labels"
    return "real values"
