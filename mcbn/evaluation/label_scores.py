"""Scores of several labels an example: over all answers (micro), and as means of labels (macro).

An answer is the probability of one label of one example or position. Answers of one example hang
together, so resamples draw whole examples.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from scipy.sparse import coo_array, csc_array, vstack
from torch import Tensor
from torch.nn.functional import logsigmoid

from mcbn.evaluation import bootstrap, formulas, intervals
from mcbn.evaluation.bootstrap import Counts, ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.rankings import Rankings
from mcbn.evaluation.reliability import equal_mass, equal_width
from mcbn.evaluation.weighted import WeightedClassScores, one_by_one
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive

# In this order; the calibration errors come after the Brier score.
FIRST = ("accuracy", "exact_match", "nll", "brier")
OF_LABEL = ("nll", "brier", "entropy", "mutual_information")  # means over the answers of a label
# Scores of each label and then their mean; replicates of them, axes (*shapes, scores, resamples);
# and how many examples have each label.
Table = tuple[dict[str, Tensor], dict[str, Tensor], list[int]]


def label_columns(
    predictive: BernoulliPredictive, targets: Int[Tensor, "batch labels *positions"]
) -> ScoreColumns:
    """What the scores are computed from, with a row for each known answer.

    Args:
        predictive: of all examples.
        targets: as `BernoulliPredictive.aligned` gives them.
    """
    known = targets != UNKNOWN
    chosen = known.to(predictive.log_odds.device)
    odds = predictive.log_odds[chosen].cpu()
    present = targets[known].bool().cpu()
    for_truth = torch.where(present, odds, -odds)
    examples, labels, *positions = targets.shape
    place = torch.arange(math.prod(positions)).reshape(1, 1, *positions)
    ones = (1,) * len(positions)
    example = torch.arange(examples).reshape(-1, 1, *ones).expand(targets.shape)
    label = torch.arange(labels).reshape(1, -1, *ones).expand(targets.shape)
    row = example * place.numel() + place
    return {
        "nll": -logsigmoid(for_truth),
        "brier": (-for_truth).sigmoid().square(),
        # Even odds are an answer of absent.
        "correct": (odds > 0) == present,
        "confidence": odds.abs().sigmoid(),
        "probability": odds.sigmoid(),
        "odds": odds,  # which tell probabilities near 1 apart
        "present": present,
        "label": label[known.cpu()],
        "row": row[known.cpu()],
        "example": example[known.cpu()],
        "entropy": predictive.entropy[chosen].cpu(),
        "mutual_information": predictive.mutual_information[chosen].cpu(),
    }


@dataclass(frozen=True, eq=False)
class WeightedLabelScores:
    """All scores but the calibration errors, from how often each cluster was drawn.

    Attributes:
        answers: the scores that all answers have together.
        decided: hits, examples and predictions of every label in each cluster.
        all_right: rows with every known label right, and all rows, of each cluster.
        together: the ranking of all answers.
        by_label: the rankings of each label.
        labels: how many.
    """

    answers: WeightedClassScores
    decided: csc_array
    all_right: Float64[np.ndarray, "2 clusters"]
    together: Rankings
    by_label: Rankings
    labels: int

    @classmethod
    def of(cls, columns: ScoreColumns, clusters: Clusters, labels: int) -> "WeightedLabelScores":
        """Add up what every cluster has, and sort the answers.

        Args:
            columns: from `label_columns`.
            clusters: of the answers.
            labels: how many.
        """
        ranked = columns["odds"], columns["present"], clusters
        return cls(
            WeightedClassScores.of(columns, clusters),
            decisions(columns, clusters, labels),
            _rows_right(columns, clusters),
            Rankings.of(*ranked, torch.zeros_like(columns["label"]), 1),
            Rankings.of(*ranked, columns["label"], labels),
            labels,
        )

    def __call__(self, counts: Counts) -> dict[str, float]:
        """The scores of a resample."""
        found = self.answers(counts)
        decided = (self.decided @ counts).reshape(3, self.labels)
        right, rows = self.all_right @ counts
        auroc, aupr = self.by_label(counts)
        auroc_of_all, aupr_of_all = self.together(counts)
        first = {**found, "exact_match": right / rows}
        scores = {
            **{name: first.pop(name) for name in FIRST},
            "f1_micro": f1(decided.sum(1, keepdims=True)).item(),
            "f1_macro": f1(decided).nanmean(),
            "auroc_micro": auroc_of_all.item(),
            "auroc_macro": auroc.nanmean(),
            "aupr_micro": aupr_of_all.item(),
            "aupr_macro": aupr.nanmean(),
            **first,
        }
        return {name: float(value) for name, value in scores.items()}


def label_scores(
    columns: ScoreColumns, clusters: Clusters | None, examples: int, labels: int, **options: Any
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The scores, and replicates of them.

    Args:
        columns: from `label_columns`.
        clusters: of the examples; None to draw each by itself.
        examples: how many.
        labels: how many.
        options: `resamples`, `seed` and `progress` of `intervals.weighted_replicates`.
    """
    whole = answer_clusters(columns, clusters, examples)
    measure = WeightedLabelScores.of(columns, whole, labels)
    plain = measure(np.ones(len(whole)))
    first = {name: plain.pop(name) for name in FIRST}
    values = {**first, **_calibration_errors(columns, labels), **plain}
    replicates = intervals.weighted_replicates(
        columns, whole, one_by_one(measure), kind=intervals.label_gaps, **options
    )
    return values, replicates


def answer_clusters(columns: ScoreColumns, clusters: Clusters | None, examples: int) -> Clusters:
    """The clusters of the answers, which hold whole examples."""
    return (clusters or Clusters.alone(examples)).spread(columns["example"])


def f1(decided: Float64[np.ndarray, "3 labels"]) -> Float64[Tensor, " labels"]:
    """F1 of hits, examples and predictions; NaN where there are neither examples nor predictions.

    It is the harmonic mean of recall and precision.
    """
    hits, examples, predictions = decided
    return _divided(2 * hits, examples + predictions)


def decisions(columns: ScoreColumns, clusters: Clusters, labels: int) -> csc_array:
    """Hits, then examples, then predictions of every label, for every cluster."""
    label, unit = columns["label"].numpy(), clusters.of_row.numpy()
    present = columns["present"]
    predicted = present == columns["correct"]
    matrices = []
    for chosen in (present & predicted, present, predicted):
        kept = chosen.numpy()
        # Repeated places are added up.
        places = label[kept], unit[kept]
        ones = np.ones(len(places[0]))
        matrices.append(csc_array(coo_array((ones, places), shape=(labels, len(clusters)))))
    return csc_array(vstack(matrices))


def _rows_right(columns: ScoreColumns, clusters: Clusters) -> Float64[np.ndarray, "2 clusters"]:
    """How many rows of each cluster have every known label right, and how many there are."""
    rows, of_row = np.unique(columns["row"].numpy(), return_inverse=True)
    wrong = np.bincount(of_row, ~columns["correct"].numpy(), len(rows))
    unit = np.zeros(len(rows), dtype=np.int64)
    unit[of_row] = clusters.of_row.numpy()
    counts = [np.bincount(each, minlength=len(clusters)) for each in (unit[wrong == 0], unit)]
    return np.stack(counts).astype(np.float64)


def _calibration_errors(columns: ScoreColumns, labels: int) -> dict[str, float]:
    """The errors of the probabilities of labels: the share of them that are there, against them."""
    flags = columns["probability"], columns["present"]
    width, mass = equal_width(*flags), equal_mass(*flags)
    each = errors_by_label(columns, labels)
    return {
        "ece": width.expected_error,
        "ece_equal_mass": mass.expected_error,
        "ece_debiased": mass.debiased_error,
        "ece_classwise": float(each.nanmean()),
        "ece_smooth": formulas.smooth_calibration_error(*flags),
        "mce": width.maximum_error,
    }


def errors_by_label(columns: ScoreColumns, labels: int) -> Float64[Tensor, " labels"]:
    """The expected calibration error of each label; NaN where none of its answers is known."""
    errors = torch.full((labels,), math.nan, dtype=torch.float64)
    for number in np.unique(columns["label"].numpy()).tolist():
        chosen = columns["label"] == number
        bins = equal_width(columns["probability"][chosen], columns["present"][chosen])
        errors[number] = bins.expected_error
    return errors


def scores_by_label(
    columns: ScoreColumns, clusters: Clusters, labels: int, *, resamples: int, seed: int
) -> Table:
    """The scores of each label.

    Args:
        columns: from `label_columns`.
        clusters: of the answers.
        labels: how many.
        resamples: bootstrap resamples.
        seed: chooses them.
    """
    decided = decisions(columns, clusters, labels)
    ranked = columns["odds"], columns["present"], clusters, columns["label"], labels
    by_label, sums = Rankings.of(*ranked), _sums_by_label(columns, clusters, labels)

    def measure(counts: Counts) -> dict[str, Tensor]:
        counted = (decided @ counts).reshape(3, labels)
        auroc, aupr = by_label(counts)
        means = (sums @ counts).reshape(-1, labels)
        found = {
            **_shares(counted),
            "auroc": auroc,
            "aupr": aupr,
            **dict(zip(OF_LABEL, _divided(means[:-1], means[-1]), strict=True)),
        }
        return {name: _with_mean(each) for name, each in found.items()}

    gaps_of, measures = intervals.gaps_by_label(columns, clusters), one_by_one(measure)
    drawn = bootstrap.counted_replicates(
        [len(clusters)],
        lambda counts: {**measures(counts), "ece": gaps_of(counts)},
        resamples=resamples,
        seed=seed,
    )
    once = np.ones(len(clusters))
    errors = errors_by_label(columns, labels)
    replicates = {name: values.T for name, values in drawn.items() if name != "ece"}
    if drawn:
        known = ~errors.isnan()
        replicates["ece"] = _error_replicates(gaps_of(once), drawn["ece"], known)
    support = decided.sum(1)[labels : 2 * labels].astype(int).tolist()
    return {**measure(once), "ece": _with_mean(errors)}, replicates, support


def _with_mean(of_labels: Float64[Tensor, " labels"]) -> Float64[Tensor, " labels+1"]:
    """The values of the labels, then their mean over those for which they are defined."""
    return torch.cat([of_labels, of_labels.nanmean()[None]])


def _shares(decided: Float64[np.ndarray, "3 labels"]) -> dict[str, Float64[Tensor, " labels"]]:
    """Recall, precision and F1 of hits, examples and predictions."""
    hits, examples, predictions = decided
    return {
        "recall": _divided(hits, examples),
        "precision": _divided(hits, predictions),
        "f1": f1(decided),
    }


def _divided(
    parts: Float64[np.ndarray, "... labels"], wholes: Float64[np.ndarray, "... labels"]
) -> Float64[Tensor, "... labels"]:
    """Parts of wholes; NaN where a whole is 0."""
    missing = np.full(parts.shape, math.nan)
    return torch.from_numpy(np.divide(parts, wholes, out=missing, where=wholes > 0))


def _sums_by_label(columns: ScoreColumns, clusters: Clusters, labels: int) -> csc_array:
    """The sums of each of `OF_LABEL`, then the known answers, of every label and cluster."""
    places = columns["label"].numpy(), clusters.of_row.numpy()
    known = torch.ones_like(columns["nll"])
    matrices = [
        csc_array(coo_array((values.numpy(), places), shape=(labels, len(clusters))))
        for values in (*(columns[name] for name in OF_LABEL), known)
    ]
    return csc_array(vstack(matrices))


def _error_replicates(
    observed: Float64[Tensor, "known bins"],
    drawn: Float64[Tensor, "resamples known bins"],
    known: Bool[Tensor, " labels"],
) -> Float64[Tensor, "shapes labels+1 resamples"]:
    """Replicates of the calibration error of each label, and of their mean."""
    resamples = len(drawn)
    found = torch.full((2, len(known) + 1, resamples), math.nan, dtype=torch.float64)
    for place, label in enumerate(known.nonzero()[:, 0].tolist()):
        found[:, label] = intervals.errors(observed[place], drawn[:, place], 1.0)
    flat = observed.flatten() / len(observed), drawn.flatten(1) / len(observed)
    found[:, -1] = intervals.errors(*flat, 1.0)
    return found
