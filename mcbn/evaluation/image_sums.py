"""Sums of every image, by which its pixels can be forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64
from scipy.sparse import csc_array
from torch import Tensor

from mcbn.evaluation import formulas
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.sums import Sums, dense_if_filled

# Of the unit interval: what falls into one of them counts as equal where pixels are ranked.
CELLS = formulas.CELLS
CELL_EDGES = torch.arange(CELLS + 1, dtype=torch.float64) / CELLS


@dataclass(eq=False)
class ImageSums:
    """Vectors of every image, by what they are the sums of; most of their entries are zero.

    Attributes:
        size: the length of the vectors of each name.
        entries: of each image the places and the values of those that are not zero.
        pixels: of each image.
    """

    size: dict[str, int] = field(default_factory=dict)
    entries: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    pixels: list[int] = field(default_factory=list)

    def add(self, pixels: int, vectors: dict[str, Tensor]) -> None:
        """Add an image."""
        self.pixels.append(pixels)
        for name, vector in vectors.items():
            values = vector.double().numpy()
            places = values.nonzero()[0].astype(np.int32)
            self.size[name] = len(values)
            self.entries.setdefault(name, []).append((places, values[places]))

    def only(self, images: Sequence[int]) -> "ImageSums":
        """The sums of some of the images."""
        entries = {name: [each[k] for k in images] for name, each in self.entries.items()}
        return ImageSums(dict(self.size), entries, [self.pixels[k] for k in images])

    def total(self, name: str) -> Float64[np.ndarray, " entries"]:
        """The sums of all images together."""
        places, values = zip(*self.entries[name], strict=True)
        summed = np.bincount(np.concatenate(places), np.concatenate(values), self.size[name])
        return summed.astype(np.float64)  # where there are no entries they are counts

    def matrix(self, name: str, clusters: Clusters) -> csc_array:
        """The sums of each cluster of images, axes (entries, clusters)."""
        places, values = zip(*self.entries[name], strict=True)
        starts = np.cumsum([0, *map(len, places)])
        by_image = csc_array(
            (np.concatenate(values), np.concatenate(places), starts),
            shape=(self.size[name], len(places)),
        )
        rows = np.arange(len(places))
        members = csc_array((np.ones(len(rows)), (rows, clusters.of_row.numpy())))
        return csc_array(by_image @ members)

    def per_pixel(self, name: str, clusters: Clusters) -> Sums:
        """The same as means over pixels, in a resample over those that it has."""
        total = sum(self.pixels)
        return Sums(dense_if_filled(self.matrix(name, clusters) / total), self.sizes(clusters))

    def sizes(self, clusters: Clusters) -> Float64[np.ndarray, " clusters"]:
        """The pixels of each cluster."""
        pixels = torch.tensor(self.pixels, dtype=torch.float64)
        sizes = torch.zeros(len(clusters), dtype=torch.float64)
        summed: np.ndarray = sizes.index_add(0, clusters.of_row, pixels).numpy()
        return summed
