"""Conformal risk control of several labels an example: sets that hold a share of those it has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import logsigmoid

from mcbn import validation
from mcbn.evaluation.clusters import Groups
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.recalibration import held_out
from mcbn.recalibration.conformal_scores import shared_threshold
from mcbn.recalibration.held_out import HeldOut
from mcbn.recalibration.prediction_sets import LabelSets, counted_examples, present_labels


@dataclass(frozen=True)
class ConformalLabels:
    """Sets of labels that hold at least a share `level` of those that an example has, on average.

    A label is in the set if its score `-log p`, p its mean probability, is at most a threshold
    fitted on held-out examples; it is the same for all labels, so recalibrate them first. The
    guarantee: if held-out and new examples are exchangeable, the expected false negative rate of a
    new example, the share of its labels that its set misses, is at most 1 - `level`, for any
    network. It is for examples that have a label: those without, for which nothing can be missed,
    are left out, since they would let sets miss more of the others. It holds on average, not for
    each label, nor after a shift. Labels of which the truth is not known are not counted.

    Attributes:
        level: guaranteed share.
        threshold: the smallest held-out score up to which the shares of the labels of each example
            sum to (n + 1) level over examples. It is infinite for n < level / (1 - level): every
            set is then whole. With groups the shares are those of the K groups.
        examples: n, the examples fitted on, which have a label.
        groups: K, the groups fitted on; None where every example is by itself.

    Reference:
        Angelopoulos, Bates, Fisch, Lei and Schuster 2024, "Conformal Risk Control", theorem 1 and
        section 3.1 (false negative rate); groups as in `ConformalSets`.
    """

    level: float
    threshold: float
    examples: int
    groups: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        validation.fraction(self.level, "level")

    @classmethod
    def fit(
        cls,
        predictive: BernoulliPredictive,
        targets: Targets,
        *,
        level: float = 0.9,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "ConformalLabels":
        """Fit the threshold on held-out examples that nothing else was fitted on.

        Args:
            predictive: predictions of held-out examples.
            targets: 1 for each label that is there, and 0 for the others.
            level: share to guarantee.
            ignore_index: the target of labels of which the truth is not known; they are left out.
            group: what examples that hang together share, one value per example, such as the
                patient of a scan: the guarantee is then for an example of a new group.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: a level that is no share, targets or groups that do not fit, no example has
                a label, or predictions have positions.
        """
        scores = _scores(predictive)
        present = present_labels(targets, tuple(scores.shape), ignore_index).cpu()
        known, clusters = counted_examples(present, group)
        # An example has an equal share of its group, and a label of its example.
        sizes = torch.zeros(len(present), dtype=torch.long)
        sizes[known] = clusters.sizes[clusters.of_row]
        size = (sizes * present.sum(1))[:, None].expand_as(present)[present]
        groups = None if group is None else len(clusters)
        unfitted = cls(level, math.inf, int(known.sum()), groups, HeldOut.of(predictive, group))
        threshold = shared_threshold(scores.cpu()[present], level, size, len(clusters))
        return replace(unfitted, threshold=threshold)

    def __call__(
        self, predictive: BernoulliPredictive, *, group: Groups | None = None
    ) -> LabelSets:
        """Return the set of each example.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of several labels.
            ValueError: they are the ones fitted on, or of groups fitted on, or have positions.
        """
        scores = _scores(predictive)
        self.held_out.require_other(predictive, group)
        return LabelSets(scores <= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; an infinite threshold is None."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalLabels":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def _scores(predictive: BernoulliPredictive) -> Float64[Tensor, "batch labels"]:
    """The score of every label of each example."""
    held_out.require_of_labels(predictive, "ConformalSets")
    odds = predictive.log_odds
    if odds.ndim > 2:
        raise ValueError(
            f"expected labels of each example, got positions {tuple(odds.shape[2:])}, which are "
            "not exchangeable: those of one image are alike; predict the labels of each image"
        )
    return -logsigmoid(odds)
