"""Scores of groups of examples, each with its interval and a test against the other examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import formulas, glossary, intervals
from mcbn.evaluation.bootstrap import Counts, ScoreColumns
from mcbn.evaluation.class_images import ClassImages
from mcbn.evaluation.class_scores import class_columns
from mcbn.evaluation.clusters import Clusters, Groups
from mcbn.evaluation.evaluate import ScoredPredictive, what_is_scored
from mcbn.evaluation.evaluation import Score, interval_dicts, with_intervals
from mcbn.evaluation.glossary import BETTER
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.label_scores import label_columns
from mcbn.evaluation.reliability import equal_mass
from mcbn.evaluation.separation import knows_epistemic
from mcbn.evaluation.significance import holm, welch
from mcbn.evaluation.weighted import MeanScores
from mcbn.io.display import Display, Displayed
from mcbn.io.plain import to_plain
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.labels import by_number

MIN_EXAMPLES = 50  # the scores of a smaller group are too uncertain to judge it by
MAX_SHOWN = 4  # scores that fit in a line of a group
# The scores of a group of images, of classes or real values.
OF_GROUP = ("accuracy", "nll", "ece_debiased", "rmse", "pll", "coverage_90")
# The means of columns that the scores of a group are, or are computed from.
CLASS_MEANS = {"accuracy": "right", "nll": "loss", "mutual_information": "mutual_information"}
REAL_MEANS = {name: name for name in ("error", "loss", "inside")}
MAX_GROUPS = 50  # per column: more would not be readable as groups


@dataclass(frozen=True, eq=False, repr=False)
class Subgroup(Displayed):
    """Scores of one group of examples.

    Attributes:
        name: value of the column that the group shares.
        size: how many examples it has.
        scores: with their intervals, by name; mutual information only where draws are known.
        p_value: two-sided, of Welch's t test of the group's log scores against those of the other
            examples; NaN where the test is not defined.
        adjusted: the same by Holm's method, over all groups of the column.
    """

    name: str
    size: int
    scores: Mapping[str, Score]
    p_value: float
    adjusted: float = math.nan

    def display(self) -> Display:
        """Its scores."""
        p_value = self.p_value if math.isnan(self.adjusted) else self.adjusted
        chance = "" if math.isnan(p_value) else f", {glossary.probability(p_value)}"
        heading = f"Group {self.name!r} of {self.size:,} examples{chance}"
        return Display(heading, ("score", "value", "low", "high"), [
            (name, *(f"{end:.4g}" for end in (score.value, score.low, score.high)))
            for name, score in self.scores.items()
        ])  # fmt: skip

    @property
    def is_small(self) -> bool:
        """Whether it has fewer than `MIN_EXAMPLES` examples."""
        return self.size < MIN_EXAMPLES

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON, with None for what is not defined or infinite."""
        plain: dict[str, Any] = to_plain({
            "size": self.size,
            "few": self.is_small,
            "p_value": self.p_value,
            "adjusted_p_value": self.adjusted,
            "scores": interval_dicts(self.scores),
        })  # fmt: skip
        return plain


class Subgroups(Displayed, tuple[Subgroup, ...]):
    """The groups of a column, sorted by name; a tuple of them that shows itself as a table."""

    __slots__ = ()

    def display(self) -> Display:
        """The scores of every group."""
        names = list(dict.fromkeys(name for group in self for name in group.scores))[:MAX_SHOWN]
        return Display(f"Scores of {len(self)} groups", ("group", "examples", *names), [
            (group.name, f"{group.size:,}",
             *(f"{group.scores[name]:.3g}" if name in group.scores else "-" for name in names))
            for group in self
        ])  # fmt: skip


def subgroups(
    predictive: ScoredPredictive,
    targets: Targets,
    groups: Sequence[str],
    *,
    ignore_index: int | None = None,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Subgroups:
    """Score the examples of each group separately.

    Args:
        predictive: of all examples.
        targets: their class indices or real values.
        groups: the group of each example.
        ignore_index: the class of positions that are not labelled, which are left out.
        group: what examples that are resampled together share; see `evaluate`.
        resamples: bootstrap resamples of each group's examples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.

    Returns:
        The groups, sorted by name, numbers by value.

    Raises:
        ValueError: groups of another number of examples, or more than `MAX_GROUPS` of them.
    """
    validation.fraction(level, "level")
    names = group_names(groups, len(predictive))
    options: Any = {"resamples": resamples, "level": level, "seed": seed}
    scored_rows = what_is_scored(predictive, targets, ignore_index=ignore_index, group=group)
    if isinstance(scored_rows, ScoredImages):
        return _adjusted([
            _of_images(scored_rows, torch.tensor([each == name for each in groups]),
                       name or _nameless(names), **options)
            for name in names
        ])  # fmt: skip
    classes = not isinstance(predictive, GaussianPredictive)
    columns = dict(_columns(scored_rows.predictive, scored_rows.targets))
    example, clusters = scored_rows.example, scored_rows.clusters
    if isinstance(predictive, BernoulliPredictive):
        example = columns.pop("example")
        clusters = (clusters or Clusters.alone(len(predictive))).spread(example)
    losses = columns["loss"].flatten(1).mean(1) if columns["loss"].ndim > 1 else columns["loss"]
    scored = []
    for name in names:
        members = torch.tensor([each == name for each in groups])
        inside = members if example is None else members[example]
        rows = {key: values[inside] for key, values in columns.items()}
        values = _class_scores(rows) if classes else _real_scores(_means(rows))
        within = None if clusters is None else clusters.spread(inside.nonzero()[:, 0])
        replicates = _replicates(rows, within, classes, resamples=resamples, seed=seed)
        p_value = welch(*(_unit_losses(losses, clusters, part) for part in (inside, ~inside)))
        scores = with_intervals(values, replicates, level)
        scored.append(Subgroup(name or _nameless(names), int(members.sum()), scores, p_value))
    return _adjusted(scored)


def _adjusted(scored: Sequence[Subgroup]) -> Subgroups:
    """The groups with the p-values of Holm's method."""
    adjusted = holm([group.p_value for group in scored])
    return Subgroups(
        replace(group, adjusted=value) for group, value in zip(scored, adjusted, strict=True)
    )


def _of_images(
    images: ScoredImages, members: Tensor, name: str, *, resamples: int, level: float, seed: int
) -> Subgroup:
    """The scores of the images of a group, from the sums of each."""
    inside = images.only(members)
    sums, units = inside.sums, inside.units
    measure, sizes = sums.measure(units), sums.sums.sizes(units)
    information = None
    if isinstance(sums, ClassImages) and inside.draw_count > 1:
        information = inside.uncertain.sums.matrix("mutual_information", units).toarray()[0]

    def scores_of(counts: Counts) -> dict[str, Any]:
        found = measure(counts)
        kept = {key: found[key] for key in OF_GROUP if key in found}
        if information is not None:
            kept["mutual_information"] = (information @ counts) / (sizes @ counts)
        return kept

    def gaps_of(counts: Counts) -> dict[str, Tensor]:
        return {key: gaps for key, gaps in every_gap(counts).items() if key in OF_GROUP}

    every_gap = sums.gaps(units)
    every = {**scores_of(np.ones(len(units))), **sums.calibration_errors()}
    values = {key: every[key] for key in (*OF_GROUP, "mutual_information") if key in every}
    replicates = intervals.weighted_replicates(
        {}, units, scores_of, kind=lambda *_: gaps_of, resamples=resamples, seed=seed,
        progress=False,
    )  # fmt: skip
    parts = (inside, None if bool(members.all()) else images.only(~members))
    losses = (torch.empty(0).double() if part is None else _image_losses(part) for part in parts)
    scores = with_intervals(values, replicates, level)
    return Subgroup(name, int(members.sum()), scores, welch(*losses))


def _image_losses(images: ScoredImages) -> Float64[Tensor, " units"]:
    """The mean loss of the pixels of each image, or of each cluster of images."""
    sums, units = images.sums.sums, images.units
    name, sign = ("nll", 1) if "nll" in sums.size else ("log_prob", -1)
    return torch.from_numpy(sign * sums.matrix(name, units).toarray()[0] / sums.sizes(units))


def _unit_losses(losses: Tensor, clusters: Clusters | None, part: Tensor) -> Tensor:
    """The mean loss of each row of a part, or of each cluster in it, which are independent."""
    if clusters is None:
        return losses[part]
    within = clusters.spread(part.nonzero()[:, 0])
    sums = torch.zeros(len(within), dtype=losses.dtype)
    return sums.index_add(0, within.of_row, losses[part]) / within.sizes


def _nameless(names: Sequence[str]) -> str:
    """What the group with an empty name is called, unlike all others."""
    called = "(none)"
    while called in names:
        called = f"({called})"
    return called


def group_names(groups: Sequence[str], examples: int, *, of: str = "") -> list[str]:
    """The names of the groups, sorted, numbers by value; checks them before any work.

    Args:
        groups: the group of each example.
        examples: how many there are.
        of: what the groups are the values of, for errors.

    Raises:
        ValueError: groups of another number of examples, or more than `MAX_GROUPS` of them.
    """
    names = sorted(set(groups), key=by_number)
    if len(groups) != examples or not 1 <= len(names) <= MAX_GROUPS:
        raise ValueError(
            f"expected a group{f' by {of!r}' if of else ''} for each of {examples} examples and at "
            f"most {MAX_GROUPS} groups, got {len(groups)} values of which {len(names)} differ; put "
            "numbers into a few ranges"
        )
    return names


def group_dicts(
    groups: Mapping[str, Mapping[str, Sequence[Subgroup]]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Groups by column and method as plain numbers, for JSON."""
    return {
        column: {
            method: {group.name: group.to_dict() for group in of_method}
            for method, of_method in methods.items()
        }
        for column, methods in groups.items()
    }


def worst(groups: Sequence[Subgroup]) -> Subgroup:
    """The group with the worst log score, among those that are not small if there are any."""
    name = loss_name(groups)
    sign = 1 if BETTER[name] == "lower" else -1
    large = [group for group in groups if not group.is_small]
    return max(large or groups, key=lambda group: sign * group.scores[name].value)


def loss_name(groups: Sequence[Subgroup]) -> str:
    """The score that groups are ordered and tested by."""
    return "nll" if "nll" in groups[0].scores else "pll"


def _columns(predictive: ScoredPredictive, targets: Tensor) -> ScoreColumns:
    """Check the arguments, and return what the scores are computed from, one row per example.

    Of several labels there is a row for each known one, with its example.
    """
    if isinstance(predictive, BernoulliPredictive):
        every = label_columns(predictive, targets)
        columns = {
            "loss": every["nll"],
            "right": every["correct"],
            # What the calibration errors are of.
            "confidence": every["probability"],
            "correct": every["present"],
            "example": every["example"],
        }
        if knows_epistemic(predictive):
            columns["mutual_information"] = every["mutual_information"]
    elif isinstance(predictive, CategoricalPredictive):
        every = class_columns(predictive, targets)
        columns = {"loss": every["nll"], "right": every["correct"]}
        columns |= {name: every[name] for name in ("correct", "confidence")}
        if knows_epistemic(predictive):
            columns["mutual_information"] = predictive.mutual_information
    else:
        aligned = predictive.aligned(targets)
        low, high = predictive.interval(0.9)
        columns = {
            "loss": -predictive.log_prob(aligned),
            "error": formulas.squared_error(predictive.mean, aligned),
            "inside": ((aligned >= low) & (aligned <= high)).double(),
        }
    return {name: values.cpu() for name, values in columns.items()}


def _replicates(
    rows: ScoreColumns, clusters: Clusters | None, classes: bool, **options: Any
) -> dict[str, Tensor]:
    """Replicates of the scores of rows of classes, or of real values."""
    whole = clusters or Clusters.alone(len(rows["loss"]))
    kind = intervals.binned_gaps if classes else intervals.no_gaps
    names = CLASS_MEANS if classes else REAL_MEANS
    known = {name: rows[column] for name, column in names.items() if column in rows}
    means = MeanScores.of(known, whole)
    return intervals.weighted_replicates(
        rows, whole, means if classes else lambda counts: _real_scores(means(counts)),
        kind=lambda columns, _: kind(columns, clusters), **options,
    )  # fmt: skip


def _class_scores(columns: ScoreColumns) -> dict[str, float]:
    confidence, correct = columns["confidence"].flatten(), columns["correct"].flatten()
    plain = {
        name: float(columns[column].double().mean())
        for name, column in CLASS_MEANS.items()
        if column in columns
    }
    first = {name: plain.pop(name) for name in ("accuracy", "nll")}
    # Rounding may lift a confidence over 1.
    error = equal_mass(confidence.clamp(max=1), correct).debiased_error
    return {**first, "ece_debiased": error, **plain}


def _means(columns: ScoreColumns) -> dict[str, float]:
    """The means that the scores of real values are computed from."""
    return {name: float(columns[column].mean()) for name, column in REAL_MEANS.items()}


def _real_scores(means: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rmse": means["error"] ** 0.5,
        "pll": -means["loss"],
        "coverage_90": means["inside"],
    }
