"""Parts of the held-out examples that each have a conformal threshold of their own.

Split conformal prediction covers the target on average over examples: a rare class, or a small
subgroup, may be missed far more often than the level says, if others are missed less often. Here
the guarantee holds within each: its threshold is fitted on its own held-out examples alone. So each
needs as many examples as all do otherwise, n >= level / (1 - level); the threshold of one with
fewer is infinite, and its sets hold everything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mcbn.evaluation.clusters import Clusters, Groups, names_of_groups
from mcbn.io.display import Display
from mcbn.predictive.labels import by_number
from mcbn.recalibration.conformal_scores import conformal_threshold


@dataclass(frozen=True)
class Fits:
    """What is fitted on each part.

    Attributes:
        thresholds: of each part; infinite where it has too few examples.
        examples: of each part.
        groups: that have examples in each part; None where every example is by itself.
    """

    thresholds: tuple[float, ...]
    examples: tuple[int, ...]
    groups: tuple[int, ...] | None


def fit_parts(
    scores: Float64[Tensor, " batch"],
    parts: Sequence[Bool[Tensor, " batch"]],
    level: float,
    clusters: Clusters | None,
) -> Fits:
    """Fit the threshold of each part on its own scores.

    Args:
        scores: of all held-out targets.
        parts: which of them each part has.
        level: coverage to guarantee in each.
        clusters: the groups of the examples; None where every example is by itself.
    """
    thresholds, groups = [], []
    for part in parts:
        within = None if clusters is None else clusters.spread(part.nonzero()[:, 0])
        thresholds.append(conformal_threshold(scores[part], level, within))
        groups.append(0 if within is None else len(within))
    examples = tuple(int(part.sum()) for part in parts)
    return Fits(tuple(thresholds), examples, None if clusters is None else tuple(groups))


def parts_of(by: Groups, examples: int) -> tuple[tuple[str, ...], list[Bool[Tensor, " batch"]]]:
    """The names of the subgroups, sorted, numbers by value, and which examples are in each.

    Args:
        by: the subgroup of each example.
        examples: how many there are.

    Raises:
        ValueError: subgroups of another number of examples, or one is missing.
    """
    of_example = names_of_groups(by, examples)
    names = tuple(sorted(set(of_example), key=by_number))
    return names, [torch.tensor([each == name for each in of_example]) for name in names]


def of_examples(
    names: Sequence[str], thresholds: Sequence[float], by: Groups, *, like: Tensor
) -> Tensor:
    """The threshold of each example; infinite for a subgroup that was not fitted on.

    Args:
        names: of the subgroups.
        thresholds: of the subgroups.
        by: the subgroup of each example.
        like: a tensor with a row for each example.

    Raises:
        ValueError: subgroups of another number of examples, or one is missing.
    """
    known = dict(zip(names, thresholds, strict=True))
    return like.new_tensor([known.get(name, math.inf) for name in names_of_groups(by, len(like))])


def require_names(names: Sequence[str]) -> None:
    """Check that no two subgroups have one name.

    Raises:
        ValueError: two have.
    """
    if len(set(names)) < len(names):
        raise ValueError(
            f"expected subgroups of different names, got {list(names)!s:.200}; fit them with .fit"
        )


def require_as_many(thresholds: Sequence[float], *others: Sequence[object] | None) -> None:
    """Check that there is a threshold, and whatever else is known, of each class or subgroup.

    Args:
        thresholds: of each.
        *others: what is known of each; None where it is not.

    Raises:
        ValueError: there is not, or a number of examples or groups is below 0.
    """
    known = [each for each in others if each is not None]
    below = any(isinstance(number, int) and number < 0 for each in known for number in each)
    if not thresholds or below or any(len(each) != len(thresholds) for each in known):
        raise ValueError(
            f"expected a threshold for each class or subgroup, and how many examples it has, got "
            f"{len(thresholds)} thresholds and {[len(each) for each in known]} others; fit them "
            "with .fit"
        )


def display_parts(heading: str, kind: str, names: Sequence[str], fits: Fits) -> Display:
    """A table of the threshold of each part, with how many have too few examples.

    Args:
        heading: what is shown.
        kind: "class" or "subgroup".
        names: of the parts.
        fits: their thresholds.
    """
    few = sum(map(math.isinf, fits.thresholds))
    if few:
        holds = "in every set" if kind == "class" else "whose sets hold everything"
        heading += f"; {few} of too few examples, {holds}"
    grouped = fits.groups is not None
    counts = zip(fits.examples, fits.groups or fits.examples, strict=True)
    rows = [
        (name, *(f"{count:,}" for count in (both if grouped else both[:1])),
         "infinite" if math.isinf(threshold) else f"{threshold:.4g}")
        for name, threshold, both in zip(names, fits.thresholds, counts, strict=True)
    ]  # fmt: skip
    counted = ("examples", "groups") if grouped else ("examples",)
    return Display(heading, (kind, *counted, "threshold"), rows)
