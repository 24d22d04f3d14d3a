"""Uncertainties of dense predictions, image by image, so that the pixels can be forgotten.

A value is known to the cell of a logarithmic scale that it falls into, to 0.01% of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float64

from mcbn.evaluation.image_sums import ImageSums
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.joining import example_of

PER_DECADE, LOWEST, HIGHEST = 20000, -10, 2  # cells, and powers of ten of nats
EDGES = 10 ** (torch.arange((HIGHEST - LOWEST) * PER_DECADE + 1).double() / PER_DECADE + LOWEST)


@dataclass(eq=False)
class UncertainImages:
    """How uncertain the pixels of images are.

    Attributes:
        measure: the uncertainty that tells examples apart: "mutual_information" or "entropy"; by
            default the entropy of a single draw, which has no other, or else the former.
        draw_count: T of the predictions.
        has_cells: whether it is counted how many pixels fall into each cell of `measure`, as out of
            distribution data need.
        sums: of every image: its entropy and mutual information, and those counts.
    """

    measure: str = ""
    has_cells: bool = True
    draw_count: int = 0
    sums: ImageSums = field(default_factory=ImageSums)

    @classmethod
    def of(cls, predictive: CategoricalPredictive, measure: str = "") -> "UncertainImages":
        """Those of predictions with positions."""
        images = cls(measure)
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
        self.measure = self.measure or ("mutual_information" if part.draw_count > 1 else "entropy")
        entropy = part.entropy.flatten().cpu()
        information = (entropy - part.expected_entropy.flatten().cpu()).clamp_min(0.0)
        values = {"entropy": entropy, "mutual_information": information}
        vectors = {name: each.sum()[None] for name, each in values.items()}
        if self.has_cells:
            cells = torch.bucketize(values[self.measure], EDGES)
            vectors["cells"] = cells.bincount(minlength=len(EDGES) + 1)
        self.sums.add(len(entropy), vectors)

    def mean(self, name: str) -> float:
        """The mean over all pixels of "entropy" or "mutual_information"."""
        return float(self.sums.total(name)[0]) / sum(self.sums.pixels)

    def only(self, images: Sequence[int]) -> "UncertainImages":
        """Some of the images, by their places among those that were added."""
        return replace(self, sums=self.sums.only(images))

    @property
    def top(self) -> float:
        """The upper edge of the cell of the most uncertain pixel."""
        last = int(self.sums.total("cells").nonzero()[0][-1])
        return float(EDGES[min(last, len(EDGES) - 1)])

    def shares(self, edges: Float64[np.ndarray, " edges"]) -> Float64[np.ndarray, " bins"]:
        """The share of the pixels in each bin; the first and last also hold all beyond."""
        return shares_in_bins(self.centres, edges, self.sums.total("cells"))

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
