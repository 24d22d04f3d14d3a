"""Scores of groups of examples, each with its interval and a test against the other examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mcbn.evaluation import calibration, intervals, scores
from mcbn.evaluation.bootstrap import Columns
from mcbn.evaluation.compare import interval_dicts, knows_epistemic
from mcbn.evaluation.evaluate import NONE, Score, score_of
from mcbn.evaluation.glossary import BETTER
from mcbn.evaluation.significance import holm, welch
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.targets import by_number

FEW = 50  # examples under which a group's scores say little
MOST = 50  # groups of a column: more are no groups, and could not be read


@dataclass(frozen=True, eq=False)
class Subgroup:
    """What predictions are worth for one group of examples.

    Attributes:
        name: value of the column that the group shares.
        size: how many examples it has.
        scores: with their intervals, by name; mutual information only where draws are known.
        p_value: two-sided, of Welch's t test of the group's log scores against those of the other
            examples; NaN where there is none to be made.
        adjusted: the same by Holm's method, over all groups of the column.
    """

    name: str
    size: int
    scores: Mapping[str, Score]
    p_value: float
    adjusted: float = math.nan

    @property
    def is_small(self) -> bool:
        """Whether it has so few examples that its scores say little."""
        return self.size < FEW

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "size": self.size,
            "few": self.is_small,
            "p_value": self.p_value,
            "adjusted_p_value": self.adjusted,
            "scores": interval_dicts(self.scores),
        }


def subgroups(
    predictive: CategoricalPredictive | GaussianPredictive,
    targets: Tensor,
    labels: Sequence[str],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Score the examples of each group apart.

    Args:
        predictive: of all examples.
        targets: their class indices or real values.
        labels: the group of each example.
        resamples: bootstrap resamples of each group's examples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.

    Returns:
        The groups, by number or in the order of the alphabet.

    Raises:
        ValueError: labels of another number of examples, or of more than `MOST` groups.
    """
    names = sorted(set(labels), key=by_number)
    if len(labels) != len(predictive) or not 1 <= len(names) <= MOST:
        raise ValueError(
            f"expected a group for each of {len(predictive)} examples and at most {MOST} groups, "
            f"got {len(labels)} values of which {len(names)} differ; put numbers into a few ranges"
        )
    columns: Columns
    kind: intervals.Kind
    if isinstance(predictive, CategoricalPredictive):
        columns, measure = _class_columns(predictive, targets), _class_scores
        kind = intervals.binned_gaps
    else:
        columns, measure = _real_columns(predictive, targets), _real_scores
        kind = intervals.no_gaps
    place = {name: number for number, name in enumerate(names)}
    codes = torch.tensor([place[label] for label in labels])
    losses = columns["loss"].flatten(1).mean(1) if columns["loss"].ndim > 1 else columns["loss"]
    found = []
    for number, name in enumerate(names):
        inside = codes == number
        mine = {key: values[inside] for key, values in columns.items()}
        drawn = intervals.replicates(mine, measure, kind=kind, resamples=resamples, seed=seed)
        each = {key: score_of(key, value, drawn.get(key, NONE), level)
                for key, value in measure(mine).items()}  # fmt: skip
        p_value = welch(losses[inside], losses[~inside])
        found.append(Subgroup(name or "(none)", int(inside.sum()), each, p_value))
    adjusted = holm([group.p_value for group in found])
    return tuple(
        replace(group, adjusted=value) for group, value in zip(found, adjusted, strict=True)
    )


def group_dicts(
    groups: Mapping[str, Mapping[str, Sequence[Subgroup]]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Groups by column and method as plain numbers, for JSON."""
    return {
        column: {
            method: {group.name: group.to_dict() for group in found}
            for method, found in methods.items()
        }
        for column, methods in groups.items()
    }


def worst(groups: Sequence[Subgroup]) -> Subgroup:
    """The group of the worst log score: of those that are not small, if there are any."""
    name = loss_name(groups)
    sign = 1 if BETTER[name] == "lower" else -1
    large = [group for group in groups if not group.is_small]
    return max(large or groups, key=lambda group: sign * group.scores[name].value)


def loss_name(groups: Sequence[Subgroup]) -> str:
    """The score that groups are ordered and tested by."""
    return "nll" if "nll" in groups[0].scores else "pll"


def _class_columns(predictive: CategoricalPredictive, targets: Tensor) -> Columns:
    targets = targets.to(predictive.log_probabilities.device)
    found = {
        "loss": scores.negative_log_likelihood(predictive.log_probabilities, targets),
        "correct": scores.correct(predictive.probabilities, targets),
        "confidence": predictive.confidence,
    }
    if knows_epistemic(predictive):
        found["mutual_information"] = predictive.mutual_information
    return {name: values.cpu() for name, values in found.items()}


def _class_scores(columns: Columns) -> dict[str, float]:
    correct, confidence = columns["correct"].flatten(), columns["confidence"].flatten()
    found = {
        "accuracy": float(correct.double().mean()),
        "nll": float(columns["loss"].mean()),
        "ece_debiased": calibration.debiased_calibration_error(confidence, correct),
    }
    if "mutual_information" in columns:
        found["mutual_information"] = float(columns["mutual_information"].mean())
    return found


def _real_columns(predictive: GaussianPredictive, targets: Tensor) -> Columns:
    aligned = predictive.aligned(targets)
    low, high = predictive.interval(0.9)
    found = {
        "loss": -predictive.log_prob(aligned),
        "error": scores.squared_error(predictive.mean, aligned),
        "inside": ((aligned >= low) & (aligned <= high)).double(),
    }
    return {name: values.cpu() for name, values in found.items()}


def _real_scores(columns: Columns) -> dict[str, float]:
    return {
        "rmse": float(columns["error"].mean().sqrt()),
        "pll": float(-columns["loss"].mean()),
        "coverage_90": float(columns["inside"].mean()),
    }
