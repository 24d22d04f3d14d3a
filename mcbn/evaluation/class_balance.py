"""How much more, or less, probable each class or label is said to be than it is frequent."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mcbn.evaluation.class_images import ClassImages
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.label_scores import label_columns
from mcbn.evaluation.simultaneous import ClusterMeans
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive

MIN_COUNT = 10  # of a class, and of the rest: of fewer a mean is far from normal

# Of a class: what each cluster adds to the sum of its gap, its rows, and how often it happened.
ClassSums = tuple[Tensor, Tensor, float]


@dataclass(frozen=True)
class ClassGap:
    """The mean probability of a class minus its frequency; above 0 it is overestimated.

    Attributes:
        name: of the class or label.
        value: the gap.
        low: lower end of its interval.
        high: upper end.
        frequency: share of the rows that are of the class.
    """

    name: str
    value: float
    low: float
    high: float
    frequency: float

    @property
    def clear(self) -> float:
        """How far the interval lies from 0, relative to the frequency; 0 where it contains 0."""
        return max(self.low, -self.high, 0.0) / self.frequency


def class_balance(method: str, comparison: Comparison, *, level: float) -> tuple[ClassGap, ...]:
    """The gap of each class by a method, with intervals that hold for all classes at once.

    Classes of which fewer than 10 are there, or all but 10, are left out.

    Args:
        method: its name.
        comparison: of methods.
        level: of all intervals together, by Bonferroni's correction.
    """
    every = list(_class_sums(method, comparison))
    names = comparison.classes or tuple(str(number) for number in range(len(every)))
    known = [
        (name, sums, sizes, happened)
        for name, (sums, sizes, happened) in zip(names, every, strict=True)
        if min(happened, float(sizes.sum()) - happened) >= MIN_COUNT
    ]
    return tuple(
        _gap(name, sums, sizes, happened, 1 - (1 - level) / len(known))
        for name, sums, sizes, happened in known
    )


def _gap(name: str, sums: Tensor, sizes: Tensor, happened: float, level: float) -> ClassGap:
    total, none = float(sizes.sum()), torch.zeros(1, dtype=torch.float64)
    (interval,) = ClusterMeans.of_sums(sums[None], sizes, none).intervals(level)
    return ClassGap(name, *interval, happened / total)


def _class_sums(method: str, comparison: Comparison) -> Iterator[ClassSums]:
    forecasts = comparison.forecasts(method)
    if isinstance(forecasts, ClassImages):
        return _of_images(forecasts, comparison.units)
    known, targets = comparison.entries[method].known, comparison.known_targets
    if isinstance(known, BernoulliPredictive):
        return _of_labels(known, targets, comparison.units)
    return _of_classes(known, targets, comparison.units)


def _of_classes(known: CategoricalPredictive, targets: Tensor, units: Clusters
                ) -> Iterator[ClassSums]:  # fmt: skip
    example = torch.arange(len(targets)).repeat_interleave(math.prod(targets.shape[1:]))
    of_rows, flat = units.spread(example), targets.flatten().cpu()
    for number in range(known.probabilities.shape[1]):
        # One class after another: of many, all residuals together take as much as the predictions.
        probability = known.probabilities[:, number].flatten().cpu().double()
        yield _summed(probability, flat == number, of_rows)


def _of_labels(known: BernoulliPredictive, targets: Tensor, units: Clusters
               ) -> Iterator[ClassSums]:  # fmt: skip
    columns = label_columns(known, targets)
    for number in range(targets.shape[1]):
        chosen = columns["label"] == number
        if not bool(chosen.any()):
            yield torch.zeros(1), torch.zeros(1), 0.0
            continue
        of_rows = units.spread(columns["example"][chosen])
        yield _summed(columns["probability"][chosen].double(), columns["present"][chosen], of_rows)


def _summed(probability: Tensor, happened: Tensor, of_rows: Clusters) -> ClassSums:
    sums = torch.zeros(len(of_rows), dtype=torch.float64)
    sums = sums.index_add(0, of_rows.of_row, probability - happened.double())
    return sums, of_rows.sizes.double(), float(happened.sum())


def _of_images(images: ClassImages, units: Clusters) -> Iterator[ClassSums]:
    sizes = torch.from_numpy(images.sums.sizes(units))
    count = images.class_count
    residuals = images.sums.matrix("classes", units).toarray().reshape(count, -1, len(units))
    happened = images.sums.total("found")[count : 2 * count]
    for number in range(count):
        yield -torch.from_numpy(residuals[number].sum(0)), sizes, float(happened[number])
