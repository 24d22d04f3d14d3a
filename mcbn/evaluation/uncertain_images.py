"""Uncertainties of dense predictions, image by image, so that the pixels can be forgotten.

A value is known to the cell of a logarithmic scale that it falls into, to 0.01% of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation.image_sums import ImageSums
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.joining import example_of
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES, USUAL, is_epistemic
from mcbn.uncertainty.score import UncertaintyScore, score_values

USUAL_SCORES: tuple[UncertaintyScore, ...] = tuple(PREDICTIVE_SCORES[name] for name in USUAL)
PER_DECADE, LOWEST, HIGHEST = 20000, -10, 2  # cells, and powers of ten of nats
EDGES = 10 ** (torch.arange((HIGHEST - LOWEST) * PER_DECADE + 1).double() / PER_DECADE + LOWEST)


@dataclass(eq=False)
class UncertainImages:
    """How uncertain the pixels of images are.

    Attributes:
        scores: of which it is counted how many pixels fall into each cell, as out-of-distribution
            data need; but for those that a single draw does not have.
        draw_count: T of the predictions.
        sums: of every image: its entropy and mutual information, and those counts.
    """

    scores: tuple[UncertaintyScore, ...] = USUAL_SCORES
    draw_count: int = 0
    sums: ImageSums = field(default_factory=ImageSums)

    @classmethod
    def of(cls, predictive: CategoricalPredictive, *scores: UncertaintyScore) -> "UncertainImages":
        """Those of predictions with positions."""
        images = cls(scores or USUAL_SCORES)
        images.add(predictive)
        return images

    def __len__(self) -> int:
        return len(self.sums.pixels)

    def add(self, part: CategoricalPredictive) -> None:
        """Add images."""
        for place in range(len(part)):
            self.add_pixels(example_of(part, place))

    def add_pixels(self, part: CategoricalPredictive) -> None:
        """Add the pixels of one image, or those of them that are labelled."""
        self.draw_count = part.draw_count
        entropy = part.entropy.flatten().cpu()
        information = (entropy - part.expected_entropy.flatten().cpu()).clamp_min(0.0)
        values = {"entropy": entropy, "mutual_information": information}
        vectors = {name: each.sum()[None] for name, each in values.items()}
        for score in self.scores:
            if is_epistemic(score) and part.draw_count == 1 and len(self.scores) > 1:
                continue
            known = values.get(score.name)
            if known is None:
                known = _not_negative(score_values(score, part).flatten(), score.name)
            cells = torch.bucketize(known, EDGES)
            vectors[f"cells of {score.name}"] = cells.bincount(minlength=len(EDGES) + 1)
        self.sums.add(len(entropy), vectors)

    @property
    def counted(self) -> tuple[str, ...]:
        """The names of the scores whose cells are counted."""
        known = (f"cells of {score.name}" in self.sums.size for score in self.scores)
        return tuple(s.name for s, is_known in zip(self.scores, known, strict=True) if is_known)

    def cells(self, name: str) -> str:
        """What the counts of a score are called in the sums.

        Raises:
            ValueError: it was not counted.
        """
        if name not in self.counted:
            raise ValueError(
                f"expected a score that was counted in images of very many positions, one of "
                f"{list(self.counted)}, got {name!r}; choose one, or give mcbn.compare "
                f"uncertainties=({name!r},)"
            )
        return f"cells of {name}"

    def mean(self, name: str) -> float:
        """The mean over all pixels of "entropy" or "mutual_information"."""
        return float(self.sums.total(name)[0]) / sum(self.sums.pixels)

    def only(self, images: Sequence[int]) -> "UncertainImages":
        """Some of the images, by their places among those that were added."""
        return replace(self, sums=self.sums.only(images))

    def top(self, name: str) -> float:
        """The upper edge of the cell of the most uncertain pixel by a score."""
        last = int(self.sums.total(self.cells(name)).nonzero()[0][-1])
        return float(EDGES[min(last, len(EDGES) - 1)])

    def shares(
        self, name: str, edges: Float64[np.ndarray, " edges"]
    ) -> Float64[np.ndarray, " bins"]:
        """The share of the pixels in each bin of a score; the first and last hold all beyond."""
        return shares_in_bins(self.centres, edges, self.sums.total(self.cells(name)))

    @property
    def centres(self) -> Float64[np.ndarray, " cells"]:
        """A value in each cell."""
        middles = (EDGES[1:] * EDGES[:-1]).sqrt()
        every: np.ndarray = torch.cat([torch.zeros(1).double(), middles, EDGES[-1:]]).numpy()
        return every


def shares_in_bins(
    values: Float64[np.ndarray, " values"],
    edges: Float64[np.ndarray, " edges"],
    weights: Float64[np.ndarray, " values"] | None = None,
) -> Float64[np.ndarray, " bins"]:
    """The share of the values in each bin; the first and last also hold all beyond."""
    counts = np.histogram(values.clip(edges[0], edges[-1]), edges, weights=weights)[0]
    shares: np.ndarray = counts / counts.sum()
    return shares


def _not_negative(values: Float64[Tensor, " pixels"], name: str) -> Float64[Tensor, " pixels"]:
    if bool((values < 0).any()):
        raise ValueError(
            f"expected a score of at least 0 for images of very many positions, whose values are "
            f"counted on a logarithmic scale, got {name!r} of {float(values.min()):.4g}; choose "
            "another such as 'entropy', or score fewer images at a time"
        )
    return values
