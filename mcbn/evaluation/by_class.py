"""Scores of each class: how often it is found, how often rightly, and their overlap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from scipy.sparse import coo_array, csc_array, vstack
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap
from mcbn.evaluation.clusters import Clusters, Groups
from mcbn.evaluation.evaluate import ScoredRows, what_is_scored
from mcbn.evaluation.evaluation import Score, interval_dicts, with_intervals
from mcbn.evaluation.glossary import IN_TABLE
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.label_scores import Table, answer_clusters, label_columns, scores_by_label
from mcbn.io.display import Display, Displayed
from mcbn.io.extras import optional
from mcbn.io.plain import to_plain
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive


@dataclass(frozen=True, eq=False, repr=False)
class ClassScores(Displayed):
    """The scores of each class, or label, and their means over those where they are defined.

    Attributes:
        by_class: scores by the name of the class: `recall`, the share of its examples that are
            predicted as it; `precision`, the share of what is predicted as it that is; and `iou`,
            intersection over union. Of several labels an example, also `f1`, AUROC and average
            precision, NLL, Brier score, calibration error, and the mean entropy and mutual
            information of each. NaN where there is no such example.
        mean: the means over the classes for which a score is defined: of recall the balanced
            accuracy, of `iou` the mean IoU of segmentation; of labels the macro averages.
        support: examples, or positions, of each class.
    """

    by_class: dict[str, dict[str, Score]]
    mean: dict[str, Score]
    support: dict[str, int]

    def display(self) -> Display:
        """The scores of each class, after their means."""
        several = "f1" in self.mean
        one, many = ("label", "labels") if several else ("class", "classes")
        every = {f"mean of the {many}": self.mean, **self.by_class}
        shown = [name for name in IN_TABLE if name in self.mean]
        rows = [
            (name, f"{self.support.get(name, sum(self.support.values())):,}",
             # With so many scores there is no place for intervals.
             *(f"{scores[score].value if several else scores[score]:.3f}" for score in shown))
            for name, scores in every.items()
        ]  # fmt: skip
        heading = f"Scores of {len(self.by_class)} {many}"
        return Display(heading, (one, "support", *shown), rows)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row per class and score: value, low, high and support.

        Raises:
            ImportError: pandas is not installed.
        """
        rows = [
            (name, score, each.value, each.low, each.high, self.support[name])
            for name, scores in self.by_class.items()
            for score, each in scores.items()
        ]
        columns = ("class", "score", "value", "low", "high", "support")
        return optional("pandas", extra="pandas").DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON, with None for what is not defined."""
        plain: dict[str, Any] = to_plain({
            "classes": {
                name: {"support": self.support[name], **interval_dicts(scores)}
                for name, scores in self.by_class.items()
            },
            "mean": interval_dicts(self.mean),
        })  # fmt: skip
        return plain


def class_scores(
    predictive: CategoricalPredictive | BernoulliPredictive,
    targets: Targets,
    *,
    classes: Sequence[str] = (),
    ignore_index: int | None = None,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ClassScores:
    """Score each class or label, with intervals that resample whole examples, images or groups.

    Args:
        predictive: from `predict`.
        targets: class indices, or 0 and 1 of each label; see `evaluate`.
        classes: names of the classes or labels; by default their numbers.
        ignore_index: the target of what is not labelled, which is left out.
        group: what examples that hang together share; see `evaluate`.
        resamples: bootstrap resamples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples, the same ones as in `evaluate`.

    Raises:
        TypeError: predictions of the wrong kind.
        ValueError: targets, names or groups that do not fit.

    Reference:
        Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.3, for
        the intersection over union.
    """
    kinds = (CategoricalPredictive, BernoulliPredictive)
    advice = "give what mcbn.predict returns for classes or labels"
    validation.require_type(predictive, kinds, "predictions of classes or labels", advice)
    validation.fraction(level, "level")
    scored = what_is_scored(predictive, targets, ignore_index=ignore_index, group=group)
    return class_scores_of(scored, classes=classes, resamples=resamples, level=level, seed=seed)


def class_scores_of(
    scored: ScoredRows | ScoredImages,
    *,
    classes: Sequence[str] = (),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ClassScores:
    """The same of rows or images."""
    several = isinstance(scored, ScoredRows) and isinstance(scored.predictive, BernoulliPredictive)
    count = _class_count(scored)
    names = list(classes) or [str(number) for number in range(count)]
    if len(names) != count:
        raise ValueError(f"expected the names of {count} classes, got {len(names)}; name each once")
    options: Any = {"resamples": resamples, "seed": seed}
    of_kind: Any = _of_labels if several else _of_classes
    observed, drawn, support = of_kind(scored, count, **options)
    # The last column is of the means.
    rows = [
        with_intervals(
            {score: float(values[k]) for score, values in observed.items()},
            {score: values[..., k, :] for score, values in drawn.items()},
            level,
        )
        for k in range(count + 1)
    ]
    return ClassScores(
        dict(zip(names, rows[:-1], strict=True)),
        rows[-1],
        dict(zip(names, support, strict=True)),
    )


def _of_labels(rows: ScoredRows, count: int, **options: Any) -> Table:
    """The scores of labels."""
    columns = label_columns(rows.predictive, rows.targets)
    clusters = answer_clusters(columns, rows.clusters, len(rows.targets))
    return scores_by_label(columns, clusters, count, **options)


def _class_count(scored: ScoredRows | ScoredImages) -> int:
    if isinstance(scored, ScoredImages):
        return scored.classes.class_count
    return int(scored.predictive.probabilities.shape[1])


def _of_classes(
    scored: ScoredRows | ScoredImages, count: int, *, resamples: int, seed: int
) -> Table:
    """The scores of classes of which an example has one."""
    if isinstance(scored, ScoredImages):
        counted = scored.classes.sums.matrix("found", scored.units)
    else:
        predictive, targets = scored.predictive, scored.targets
        probabilities = predictive.log_probabilities
        validation.labels(targets, count, (len(probabilities), *probabilities.shape[2:]))
        counted = _counts(predictive.prediction.cpu(), targets.cpu(), count, scored.clusters)
    observed = _scores(counted.sum(1), count)
    drawn = bootstrap.counted_replicates(
        [counted.shape[1]],
        lambda counts: {name: each.T for name, each in _scores(counted @ counts, count).items()},
        resamples=resamples,
        seed=seed,
    )
    support = counted.sum(1)[count : 2 * count].astype(int).tolist()
    return observed, {name: values.T for name, values in drawn.items()}, support


def _counts(
    predicted: Int[Tensor, "batch *positions"],
    targets: Int[Tensor, "batch *positions"],
    count: int,
    clusters: Clusters | None,
) -> csc_array:
    """Of each class the hits, the examples and the predictions, for every unit of resampling.

    Returns:
        Axes (hits, then examples, then predictions of every class; units).
    """
    shape = (len(targets), -1)
    truth, guess = targets.long().reshape(shape).numpy(), predicted.reshape(shape).numpy()
    unit = np.arange(len(truth)) if clusters is None else clusters.of_row.numpy()
    units = int(unit.max()) + 1
    matrices = []
    # One kind after the other, since there may be many pixels.
    for labels, kept in ((truth, truth == guess), (truth, None), (guess, None)):
        chosen = labels if kept is None else labels[kept]
        of_label = np.broadcast_to(unit[:, None], labels.shape)
        of_chosen = of_label if kept is None else of_label[kept]
        where = chosen.ravel(), of_chosen.ravel()
        # Repeated places are added up.
        ones = np.broadcast_to(1.0, where[0].shape)
        matrices.append(csc_array(coo_array((ones, where), shape=(count, units))))
    return csc_array(vstack(matrices))


def _scores(counts: Float64[np.ndarray, "counts *resamples"], count: int) -> dict[str, Tensor]:
    """The scores of every class, then their mean over those for which they are defined."""
    hits, examples, predictions = counts[:count], counts[count : 2 * count], counts[2 * count :]
    wholes = {"recall": examples, "precision": predictions, "iou": examples + predictions - hits}
    found = {}
    for name, whole in wholes.items():
        values = torch.from_numpy(
            np.divide(hits, whole, out=np.full(whole.shape, math.nan), where=whole > 0)
        )
        found[name] = torch.cat([values, values.nanmean(0)[None]])
    return found
