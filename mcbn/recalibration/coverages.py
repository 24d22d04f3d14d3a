"""How often prediction sets, or intervals, contain the targets: as predicted, and conformal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import Sides, group_column, kind_of, partner_of, unknown_targets
from mcbn.recalibration.conformal import ConformalIntervals, ConformalSets
from mcbn.recalibration.conformal_by_class import ConformalSetsByClass
from mcbn.recalibration.conformal_by_subgroup import (
    ConformalIntervalsBySubgroup,
    ConformalSetsBySubgroup,
)
from mcbn.recalibration.conformal_labels import ConformalLabels
from mcbn.recalibration.conformal_parts import parts_of
from mcbn.recalibration.prediction_sets import (
    Coverage,
    LabelSets,
    PredictionIntervals,
    PredictionSets,
)
from mcbn.recalibration.temperature_labels import independent_labels

LEVEL = 0.9  # of prediction sets and intervals


@dataclass(frozen=True)
class SetCoverage:
    """Coverage and size of the prediction sets, or intervals, of one method.

    Attributes:
        method: name of the method.
        rule: "as predicted", "conformal" for those calibrated on held-out examples, or "conformal
            by" a column for those calibrated in each subgroup of it, or in each class.
        level: share of the targets that they were made to contain.
        coverage: share that they contain; of several labels, the mean over examples of the share
            of theirs.
        mean_size: mean number of classes or labels in a set, or mean length of an interval in
            target units.
        groups: the number of groups, each of which counts as one; None where examples do.
        part: the subgroup or class whose examples are counted; empty for all examples.
        examples: the number of examples, or groups, that are counted.
        held_out: the number of held-out examples, or groups, that conformal sets are made by.
    """

    method: str
    rule: str
    level: float
    coverage: Coverage
    mean_size: float
    groups: int | None = None
    part: str = ""
    examples: int = 0
    held_out: int = 0


def set_coverages(
    predictions: Sequence[Predictions],
    held_out: Sequence[Predictions],
    *,
    level: float = LEVEL,
    sides: Sides | None = None,
    by: str | None = None,
) -> tuple[SetCoverage, ...]:
    """Coverage of prediction sets, or intervals, by every method: as predicted, and conformal.

    As predicted a set holds the most probable classes until their probabilities reach the level,
    or the most probable labels until theirs reach that share of the sum of all, and an interval is
    the central one. Conformal are `ConformalSets` by "probability", `ConformalLabels` and
    `ConformalIntervals` by "residual". With groups these are for examples of new groups, and every
    group counts as one. Of several labels only examples that have one are counted.

    Args:
        predictions: to be scored, one item per method.
        held_out: predictions of other examples by the same methods, with targets.
        level: share of the targets that sets are made to contain.
        sides: the groups of both; None where every example is by itself.
        by: column of subgroups, or "target" for the true class: sets are also calibrated in each,
            and all are scored in each.

    Raises:
        ValueError: as for `fitted`; or there is no such column, or there are several labels.
    """
    rows = []
    for each in predictions:
        partner = partner_of(each, predictions, held_out, sides)
        group, held = (sides.scored, sides.held_out[partner.method]) if sides else (None, None)
        fit = _fit_sets(partner, level, held)  # refuses positions
        made: dict[str, Any] = {
            "as predicted": _as_predicted(each, level),
            "conformal": fit(each.scored),
        }
        parts: dict[str, Bool[Tensor, " batch"]] = {}
        if by is not None:
            made[f"conformal by {by}"] = _conformal_by(each, partner, by, level, held)
            parts = _parts(each, by)
        for rule, sets in made.items():
            whole = SetCoverage(
                each.method, rule, level,
                sets.coverage(each.known_targets, group=group, **unknown_targets(each)),
                sets.mean_size, _count(each, group),
                examples=_independent(each, group), held_out=_independent(partner, held),
            )  # fmt: skip
            rows += [whole, *(_of_part(whole, sets, each, group, name, inside)
                              for name, inside in parts.items())]  # fmt: skip
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
        rules, numbers = by_method.setdefault(row.method, {}), asdict(row)
        part = numbers.pop("part")
        if not part:
            rules[row.rule] = numbers
        else:
            rules[row.rule].setdefault("parts", {})[part] = numbers
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


def _conformal_by(
    each: Predictions, partner: Predictions, by: str, level: float, group: Groups | None
) -> PredictionSets | PredictionIntervals:
    """Sets, or intervals, calibrated in each subgroup of a column, or in each class."""
    options: Any = {"level": level, "group": group}
    scored: Any = each.scored
    kind = kind_of(each)
    if kind == "several labels" or (by == "target" and kind != "classes"):
        raise ValueError(
            f"expected predictions of classes, or of real values and a column, to make sets by "
            f"{by!r}, got {kind}; leave it out"
        )
    if by == "target":
        given = partner.scored, partner.known_targets
        return ConformalSetsByClass.fit(*given, **options)(scored)  # type: ignore[arg-type]
    method: Any = ConformalSetsBySubgroup if kind == "classes" else ConformalIntervalsBySubgroup
    fit = method.fit(
        partner.scored, partner.known_targets, **options,
        by=group_column(by, partner, "the held-out predictions"),
    )  # fmt: skip
    made: PredictionSets | PredictionIntervals = fit(
        scored, by=group_column(by, each, "the predictions")
    )
    return made


def _parts(predictions: Predictions, by: str) -> dict[str, Bool[Tensor, " batch"]]:
    """Which examples are in each subgroup of a column, or of each class that there is."""
    if by != "target":
        names, parts = parts_of(group_column(by, predictions, "the predictions"),
                                len(predictions.scored))  # fmt: skip
        return dict(zip(names, parts, strict=True))
    targets = predictions.known_targets.cpu()
    classes = predictions.classes
    return {
        classes[number] if classes else str(number): targets == number
        for number in sorted(set(targets.tolist()))
    }


def _of_part(
    whole: SetCoverage,
    sets: PredictionSets | PredictionIntervals,
    predictions: Predictions,
    group: Groups | None,
    name: str,
    inside: Bool[Tensor, " batch"],
) -> SetCoverage:
    """The coverage of the examples of a subgroup or class."""
    within = None
    if group is not None:
        names = names_of_groups(group, len(inside))
        within = [each for each, chosen in zip(names, inside.tolist(), strict=True) if chosen]
    if isinstance(sets, PredictionSets):
        few: Any = PredictionSets(sets.members[inside.to(sets.members.device)])
    else:
        chosen = inside.to(sets.low.device)
        few = PredictionIntervals(sets.low[chosen], sets.high[chosen])
    targets = predictions.known_targets[inside.to(predictions.known_targets.device)]
    groups = None if within is None else len(set(within))
    if groups == 1:  # one alone says nothing of others
        coverage = replace(few.coverage(targets), low=0.0, high=1.0)
    else:
        coverage = few.coverage(targets, group=within)
    return replace(
        whole, coverage=coverage, mean_size=few.mean_size, groups=groups, part=name,
        examples=int(inside.sum()) if groups is None else groups,
    )  # fmt: skip


def _count(predictions: Predictions, group: Groups | None) -> int | None:
    """The number of groups of the examples that are counted; None where there are none."""
    return None if group is None else _independent(predictions, group)


def _independent(predictions: Predictions, group: Groups | None) -> int:
    """The number of examples that are counted, or of their groups."""
    counted = torch.ones(len(predictions.scored), dtype=torch.bool)
    if kind_of(predictions) == "several labels":
        counted = (predictions.known_targets == 1).any(1)
    return independent_labels(counted, group)
