"""Images scored one after another, in memory that does not grow with their pixels."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import intervals
from mcbn.evaluation.class_images import ClassImages
from mcbn.evaluation.class_scores import class_columns, rows_of_positions
from mcbn.evaluation.clusters import Clusters, Groups
from mcbn.evaluation.evaluation import Evaluation, with_intervals
from mcbn.evaluation.real_images import RealImages
from mcbn.evaluation.real_scores import real_columns
from mcbn.evaluation.uncertain_images import UncertainImages
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.joining import example_of
from mcbn.predictive.labelled import labelled_positions


@dataclass(eq=False)
class ScoredImages:
    """What the scores of images need, once their pixels are forgotten.

    Attributes:
        ignore_index: the class of pixels that are not labelled; None if all are.
        group: what images that hang together share, one value each; None if each is by itself.
        kind: sums of the images that have a labelled pixel, once there is one.
        uncertain: the uncertainties of their labelled pixels, of classes.
        count: images, also those without a labelled pixel.
        labelled: the images that have one, in order.
        draw_count: T of the predictions.
        has_void: whether a pixel is not labelled.
    """

    ignore_index: int | None = None
    group: Groups | None = None
    kind: ClassImages | RealImages | None = None
    uncertain: UncertainImages = field(default_factory=lambda: UncertainImages(()))
    count: int = 0
    labelled: list[int] = field(default_factory=list)
    draw_count: int = 0
    has_void: bool = False

    def add(self, part: CategoricalPredictive | GaussianPredictive, targets: Tensor) -> None:
        """Add images.

        Raises:
            ValueError: predictions without positions, or targets that do not fit.
        """
        _require_positions(part)
        _require_one_each(part, targets)
        self.draw_count = part.draw_count
        for place in range(len(part)):
            self._add_one(example_of(part, place), targets[place : place + 1])
            self.count += 1

    def _add_one(self, one: CategoricalPredictive | GaussianPredictive, target: Tensor) -> None:
        if not isinstance(one, CategoricalPredictive):
            require_no_void(self.ignore_index)
            self.kind = self.kind or RealImages()
            self.kind.add(real_columns(one, target))
        else:
            if self.ignore_index is not None:
                known = target != self.ignore_index
                self.has_void = self.has_void or not bool(known.all())
                if not bool(known.any()):
                    return
            rows, labels, _ = labelled_positions(one, target, self.ignore_index)
            self.kind = self.kind or ClassImages()
            self.kind.add(rows_of_positions(class_columns(rows, labels)))
            self.uncertain.add_pixels(rows)
        self.labelled.append(self.count)

    def only(self, members: Bool[Tensor, " images"]) -> "ScoredImages":
        """The images of a part, which has at least one with a labelled pixel.

        Raises:
            ValueError: it has none.
        """
        places = [place for place, image in enumerate(self.labelled) if members[image]]
        if not places:
            raise ValueError(
                "expected a labelled pixel in the images of every group, got none in one; leave "
                "its images out"
            )
        of_classes = isinstance(self.kind, ClassImages)
        return replace(
            self,
            kind=self.sums.only(places),
            uncertain=self.uncertain.only(places) if of_classes else self.uncertain,
            labelled=[self.labelled[place] for place in places],
        )

    @property
    def sums(self) -> ClassImages | RealImages:
        """The sums of the images.

        Raises:
            ValueError: there was no image, or no labelled pixel.
        """
        if self.kind is None:
            raise ValueError(
                f"expected images with labelled pixels, got {self.count} images without any; check "
                "the data and ignore_index"
            )
        return self.kind

    @property
    def classes(self) -> ClassImages:
        """The sums of images of classes.

        Raises:
            ValueError: there are none, or they are of real values.
        """
        if isinstance(self.sums, ClassImages):
            return self.sums
        raise ValueError("expected predictions of classes, got those of real values; score these")

    @property
    def pixels(self) -> int:
        """The labelled pixels of all images."""
        return sum(self.sums.sums.pixels)

    @property
    def clusters(self) -> Clusters | None:
        """Of the images that have a labelled pixel; None if each image is one and has no void."""
        if self.group is None:
            return Clusters.alone(len(self.labelled)) if self.has_void else None
        return Clusters.of_groups(self.group, self.count).spread(torch.tensor(self.labelled))

    @property
    def units(self) -> Clusters:
        """What is resampled: the images, or their clusters."""
        return self.clusters or Clusters.alone(len(self.labelled))

    def evaluation(self, *, resamples: int, level: float, seed: int, progress: bool) -> Evaluation:
        """The scores of all pixels; the arguments are those of `evaluate`."""
        validation.fraction(level, "level")
        sums, whole, clusters = self.sums, self.units, self.clusters
        measure = sums.measure(whole)
        values = {**measure(np.ones(len(whole))), **sums.calibration_errors()}
        replicates = intervals.weighted_replicates(
            {}, whole, measure, kind=lambda *_: sums.gaps(whole), resamples=resamples, seed=seed,
            progress=progress,
        )  # fmt: skip
        return Evaluation(
            with_intervals(values, replicates, level), self.pixels, self.draw_count, level, seed,
            None if clusters is None else len(clusters),
        )  # fmt: skip


def require_no_void(ignore_index: int | None) -> None:
    """Check that no class of void pixels is given for real values.

    Raises:
        ValueError: one is.
    """
    if ignore_index is not None:
        raise ValueError(
            f"expected ignore_index with predictions of classes or labels only, got "
            f"{ignore_index} with those of real values; leave it out"
        )


def _require_positions(part: Any) -> None:
    known = isinstance(part, (CategoricalPredictive, GaussianPredictive))
    values = getattr(part, "log_probabilities", getattr(part, "mean", None))
    if not known or values is None or values.ndim < 3:
        got = type(part).__name__ if values is None else f"the shape {tuple(values.shape)}"
        raise ValueError(
            "expected predictions of classes or real values with positions, such as pixels, got "
            f"{got}; use mcbn.evaluate for one target an example"
        )


def _require_one_each(part: Any, targets: Tensor) -> None:
    if len(targets) != len(part):
        raise ValueError(
            f"expected the targets of {len(part)} images, got {len(targets)}; give one of each"
        )
