"""How well any score of uncertainty ranks a method's wrong answers above its right ones."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap, formulas
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.evaluation import Score, with_intervals
from mcbn.evaluation.weighted import WeightedClassScores
from mcbn.predictive.categorical import CategoricalPredictive

AREAS = ("auroc_of_errors", "aurc", "e_aurc", "augrc")


def error_detection(
    scored: ScoredRows,
    uncertainty: Float64[Tensor, "batch *positions"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """Score how well uncertainty detects the errors of predictions of classes.

    `auroc_of_errors` is the chance that a wrong answer is more uncertain than a right one; `aurc`,
    `e_aurc` and `augrc` are the areas of `risk_coverage`. Resamples are those of `evaluate`.

    Args:
        scored: predictions of classes and their targets.
        uncertainty: of each of its rows (and positions).
        resamples: bootstrap resamples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.

    Raises:
        ValueError: another number of values than of targets.
    """
    targets = scored.targets
    validation.require_same_shape(uncertainty, targets, ("uncertainty", "targets"))
    correct = formulas.correct(scored.predictive.probabilities.cpu(), targets.cpu())
    whole = scored.clusters or Clusters.alone(len(targets))
    if targets.ndim > 1:
        whole = whole.spread(torch.arange(len(targets)).repeat_interleave(targets[0].numel()))
    ranks = WeightedClassScores.of_ranks(uncertainty.flatten(), correct.flatten(), whole)
    replicates = bootstrap.counted_replicates(
        [len(whole)], ranks.areas, resamples=resamples, seed=seed
    )
    values = ranks.areas(np.ones(len(whole), dtype=np.uint8))
    return with_intervals({name: values[name] for name in AREAS}, replicates, level)


def rows_of(scored: Any, values: Float64[Tensor, "batch *positions"]) -> Tensor | None:
    """Values of all examples as values of what was scored; None where it was not by rows of them.

    One value of an example counts for each of its positions.

    Args:
        scored: rows of classes, with which values can be compared; others have none.
        values: of all examples, whether they are labelled or not.
    """
    if not isinstance(scored, ScoredRows) or not isinstance(
        scored.predictive, CategoricalPredictive
    ):
        return None
    shape = scored.targets.shape
    if scored.example is not None:
        return values[scored.example] if values.ndim == 1 else None
    if values.ndim == 1 and len(shape) > 1 and len(values) == shape[0]:
        return values.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    return values if values.shape == shape else None
