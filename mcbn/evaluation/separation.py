"""How well uncertainty tells out-of-distribution examples from those of the test set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap, detection, formulas
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.evaluate import require_predictive
from mcbn.evaluation.evaluation import Score, with_intervals
from mcbn.evaluation.uncertain_images import UncertainImages
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.positions import is_large
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES, UncertaintyName, as_score
from mcbn.uncertainty.score import UncertaintyScore, known_values, score_values

# Mutual information below this, in nats, is zero but for rounding.
ROUNDING = 1e-9
PREDICTIVES = (CategoricalPredictive, BernoulliPredictive)
# What tells how uncertain examples are.
Uncertain = CategoricalPredictive | BernoulliPredictive | UncertainImages
# The same, or the values of a score themselves.
Ranked = Uncertain | Tensor


def out_of_distribution(
    inside: Any,
    outside: Any,
    *,
    uncertainty: UncertaintyName | UncertaintyScore | None = None,
    inside_group: Groups | None = None,
    outside_group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """Score how well uncertainty detects examples that are out of distribution (OOD).

    They are the positive class. The two sets are resampled independently, by whole group where
    groups are given.

    Args:
        inside: predictions of examples from the training distribution; or their data, for a
            detector of inputs; or values of a score from elsewhere, higher where an example is more
            uncertain, as a tensor or an array with one row per example.
        outside: the same of examples that are out of distribution.
        uncertainty: what examples are ranked by: the name of a score of predictions, or any
            `UncertaintyScore`; of several labels, its mean over the labels. By default the mutual
            information of predictions, and values as they are. Compare methods by one score:
            a single draw has no mutual information.
        inside_group: what examples of the first set that hang together share; see `evaluate`.
        outside_group: the same of the second set.
        resamples: bootstrap resamples of each set; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.

    Raises:
        TypeError: predictions of the wrong kind, or something that is not a score.
        ValueError: no score of this name, a score that is not known of these predictions, values
            that are not finite, or groups of another number of examples.
    """
    score = None if uncertainty is None else as_score(uncertainty)
    if any(isinstance(each, PREDICTIVES) for each in (inside, outside)):
        for each in (inside, outside):  # never by the values of another score
            require_predictive(each, *PREDICTIVES)
    ranked = [_ranked(given, score) for given in (inside, outside)]
    groups = (inside_group, outside_group)
    return separation_scores(
        *(
            (each, clusters_of(group, len(each)))
            for each, group in zip(ranked, groups, strict=True)
        ),
        score=score or PREDICTIVE_SCORES["mutual_information"],
        resamples=resamples,
        level=level,
        seed=seed,
    )


def _ranked(given: Any, score: UncertaintyScore | None) -> Ranked:
    """Predictions, or the values of a score.

    Raises:
        TypeError: predictions of another kind, or data without a detector.
    """
    if isinstance(given, PREDICTIVES):
        return given
    if score is not None:
        return score_values(score, given)
    if not hasattr(given, "__array__"):
        require_predictive(given, *PREDICTIVES)
    return known_values(given, "uncertainty")


# What is ranked, and its rows that are resampled together; None where each is drawn by itself.
Clustered = tuple[Ranked, Clusters | None]


def separation_scores(
    inside: Clustered,
    outside: Clustered,
    *,
    score: UncertaintyScore,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """The scores of `out_of_distribution`, of rows or images whose clusters are known."""
    validation.fraction(level, "level")
    sets = [inside, outside]
    large = any(isinstance(given, UncertainImages) or is_large(given) for given, _ in sets)
    cells = (_of_images if large else _of_rows)(sets, score)

    def measure(counts: Sequence[np.ndarray]) -> dict[str, float]:
        drawn = [torch.from_numpy(each @ times) for each, times in zip(cells, counts, strict=True)]
        return _separation_scores(*formulas.separation_of_counts(*drawn))

    def measures(*counts: np.ndarray) -> dict[str, list[float]]:
        every = [measure(columns) for columns in zip(*(each.T for each in counts), strict=True)]
        return {name: [scores[name] for scores in every] for name in every[0]}

    units = [each.shape[1] for each in cells]
    replicates = bootstrap.counted_replicates(units, measures, resamples=resamples, seed=seed)
    return with_intervals(measure([np.ones(count) for count in units]), replicates, level)


def _of_rows(sets: Sequence[Clustered], score: UncertaintyScore) -> list[csc_array]:
    """How many rows of each cluster of the two sets have each of the values, ascending."""
    values = [
        (given if isinstance(given, Tensor) else score_values(score, given)).cpu()
        for given, _ in sets
    ]
    # This checks the values; resamples trust them.
    detection.out_of_distribution(*(each.flatten() for each in values))
    flat = [each.flatten().double().numpy() for each in values]
    different, places = np.unique(np.concatenate(flat), return_inverse=True)
    cells = []
    of_sets = np.split(places, [len(flat[0])])
    for each, (_, clusters), place in zip(values, sets, of_sets, strict=True):
        whole = clusters or Clusters.alone(len(each))
        unit = whole.of_row.repeat_interleave(each[0].numel()).numpy()
        shape = (len(different), len(whole))
        cells.append(csc_array((np.ones(len(unit)), (place, unit)), shape=shape))
    return cells


def _of_images(sets: Sequence[Clustered], score: UncertaintyScore) -> list[csc_array]:
    """The same of images in cells, whose values count as equal."""
    cells = []
    for given, clusters in sets:
        images = given if isinstance(given, UncertainImages) else UncertainImages.of(
            _of_classes(given), score
        )  # fmt: skip
        name = images.cells(score.name)
        cells.append(images.sums.matrix(name, clusters or Clusters.alone(len(images))))
    return cells


def _of_classes(given: Ranked) -> CategoricalPredictive:
    if isinstance(given, CategoricalPredictive):
        return given
    raise ValueError(
        "expected two sets of images of classes, got another kind beside them; give sets of one "
        "kind"
    )


def _separation_scores(auroc: float, aupr: float, fpr95: float) -> dict[str, float]:
    return {
        "auroc_out_of_distribution": auroc,
        "aupr_out_of_distribution": aupr,
        "fpr95_out_of_distribution": fpr95,
    }


def knows_epistemic(given: Uncertain) -> bool:
    """Whether the disagreement of the draws is known: files of other tools may not hold it."""
    if given.draw_count or isinstance(given, UncertainImages):
        return given.draw_count > 1
    return bool((given.mutual_information > ROUNDING).any())
