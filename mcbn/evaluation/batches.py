"""Predict and score dense data batch by batch, in memory that does not grow with the pixels."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcbn import validation
from mcbn.evaluation import intervals
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.class_images import ClassImages
from mcbn.evaluation.class_scores import class_columns, rows_of_positions
from mcbn.evaluation.clusters import Clusters, Groups
from mcbn.evaluation.evaluation import Evaluation, with_intervals
from mcbn.evaluation.real_images import RealImages
from mcbn.evaluation.real_scores import real_columns
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Select
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.predictive.joining import example_of
from mcbn.predictive.labelled import TargetReader, labelled_positions
from mcbn.predictive.predict import predict_batches
from mcbn.samplers.sampler import Sampler


def evaluate_batches(
    sampler: Sampler,
    data: DataLoader[Any] | Dataset[Any],
    likelihood: Literal["categorical"] | Categorical | Gaussian = "categorical",
    *,
    select: Select | None = None,
    ignore_index: int | None = None,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Predict and score images pixel by pixel, one batch after another, and forget each.

    The scores are those of `evaluate` on the result of `predict`, which holds every pixel: means
    and errors in bins of equal width are the same, while those of ranks and of bins of equal mass
    (aurc, e_aurc, augrc, auroc_of_errors, ece_equal_mass, ece_debiased, pit_error) take values that
    agree to 1/8192 for equal. Resampling is by whole image or group.

    Args:
        sampler: what makes the draws.
        data: a loader in fixed order, or a data set, of images with their targets.
        likelihood: "categorical" for classes of pixels, `Gaussian(...)` for real values of them.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        ignore_index: the class of pixels that are not labelled, which are left out.
        group: what images that hang together share; see `evaluate`.
        resamples: bootstrap resamples of the images; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.
        progress: show bars, on a terminal only.

    Raises:
        TypeError: data without targets.
        ValueError: predictions without positions, or what `evaluate` refuses.
    """
    validation.fraction(level, "level")
    reader = TargetReader(select)
    parts = predict_batches(sampler, data, likelihood, select=reader)
    images = _Images(ignore_index)
    for part in progress_bar(parts, label="evaluate", unit="batch", shown=progress):
        images.add(part, _taken(reader))
    sums, clusters = images.sums, images.clusters(group)
    measure = sums.measure(clusters)
    values = {**measure(np.ones(len(clusters))), **sums.calibration_errors()}
    replicates = intervals.weighted_replicates(
        {}, clusters, measure, kind=lambda *_: sums.gaps(clusters), resamples=resamples, seed=seed,
        progress=progress,
    )  # fmt: skip
    whole = group is None and not images.has_void
    return Evaluation(
        with_intervals(values, replicates, level), sum(sums.sums.pixels), images.draw_count, level,
        seed, None if whole else len(clusters),
    )  # fmt: skip


@dataclass(eq=False)
class _Images:
    """The sums of the images so far.

    Attributes:
        ignore_index: the class of pixels that are not labelled.
        kind: of the sums, once an image was added.
        count: images, also those without a labelled pixel.
        labelled: the images that have one, in order.
        draw_count: T of the predictions.
        has_void: whether a pixel is not labelled.
    """

    ignore_index: int | None
    kind: ClassImages | RealImages | None = None
    count: int = 0
    labelled: list[int] = field(default_factory=list)
    draw_count: int = 0
    has_void: bool = False

    def add(self, part: CategoricalPredictive | GaussianPredictive, targets: Tensor) -> None:
        """Add the images of a batch."""
        _require_positions(part)
        self.draw_count = part.draw_count
        for place in range(len(part)):
            one = example_of(part, place)
            columns = self._columns(one, targets[place : place + 1])
            if columns is not None:
                self.labelled.append(self.count)
                self.kind = self.kind or (
                    ClassImages() if isinstance(one, CategoricalPredictive) else RealImages()
                )
                self.kind.add(columns)
            self.count += 1

    def _columns(self, one: Any, target: Tensor) -> ScoreColumns | None:
        """What the scores of one image are computed from; None if no pixel is labelled."""
        if not isinstance(one, CategoricalPredictive):
            if self.ignore_index is not None:
                raise ValueError(
                    "expected ignore_index with predictions of classes only, got "
                    f"{self.ignore_index} with those of real values; leave it out"
                )
            return real_columns(one, target)
        if self.ignore_index is not None:
            known = target != self.ignore_index
            self.has_void = self.has_void or not bool(known.all())
            if not bool(known.any()):
                return None
        rows, labels, _ = labelled_positions(one, target, self.ignore_index)
        return rows_of_positions(class_columns(rows, labels))

    @property
    def sums(self) -> ClassImages | RealImages:
        """The sums.

        Raises:
            ValueError: there was no image, or no labelled pixel.
        """
        if self.kind is None:
            raise ValueError(
                f"expected images with labelled pixels, got {self.count} images without any; check "
                "the data and ignore_index"
            )
        return self.kind

    def clusters(self, group: Groups | None) -> Clusters:
        """The images that have a labelled pixel, or the groups that they belong to."""
        every = Clusters.alone(self.count) if group is None else Clusters.of_groups(
            group, self.count
        )  # fmt: skip
        return every.spread(torch.tensor(self.labelled))


def _taken(reader: TargetReader) -> Tensor:
    """The targets that were read for a batch, which are then forgotten."""
    found = reader.targets
    reader.read.clear()
    return found


def _require_positions(part: Any) -> None:
    values = getattr(part, "log_probabilities", getattr(part, "mean", None))
    known = isinstance(part, (CategoricalPredictive, GaussianPredictive))
    if not known or values is None or values.ndim < 3:
        got = type(part).__name__ if values is None else f"the shape {tuple(values.shape)}"
        raise ValueError(
            "expected predictions of classes or real values with positions, such as pixels, got "
            f"{got}; use mcbn.evaluate for one target an example"
        )
