"""What the scores of real values of pixels need of each image, so that its pixels can be forgotten.

Scores that are means come out as they would from all pixels; of the PIT error, transforms that
fall into one of `CELLS` cells of the unit interval count as equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mcbn.evaluation import formulas, intervals
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.image_sums import CELL_EDGES, CELLS, ImageSums
from mcbn.evaluation.intervals import GapsOf
from mcbn.evaluation.real_scores import REAL_MEANS, WeightedRealScores
from mcbn.evaluation.weighted import MeanScores


@dataclass(eq=False)
class RealImages:
    """Sums of predictions of real values, image by image.

    Attributes:
        sums: of every image.
    """

    sums: ImageSums = field(default_factory=ImageSums)

    def add(self, columns: ScoreColumns) -> None:
        """Add an image.

        Args:
            columns: of its pixels, as `evaluate.real_columns` returns them.
        """
        pit = columns["pit"].flatten().clamp(0, 1)
        means = {name: columns[name].double().sum()[None] for name in REAL_MEANS}
        cells = (pit * CELLS).long().clamp(max=CELLS - 1)
        steps = (pit * intervals.CELLS - 0.5).ceil().long().clamp(0, intervals.CELLS)
        vectors = {
            "pit": cells.bincount(minlength=CELLS),
            "steps": steps.bincount(minlength=intervals.CELLS + 1),
        }
        self.sums.add(len(pit), means | vectors)

    def only(self, images: Sequence[int]) -> "RealImages":
        """Some of the images, by their places among those that were added."""
        return RealImages(self.sums.only(images))

    def measure(self, clusters: Clusters) -> WeightedRealScores:
        """The scores of resamples of clusters, all but the PIT error."""
        sums = {name: self.sums.matrix(name, clusters).toarray()[0] for name in REAL_MEANS}
        return WeightedRealScores(MeanScores(sums, self.sums.sizes(clusters)))

    def calibration_errors(self) -> dict[str, float]:
        """The PIT error of all pixels."""
        counts = self.sums.total("pit")
        centres = (CELL_EDGES[1:] + CELL_EDGES[:-1]) / 2
        error = formulas.quantile_error_of_counts(centres, torch.from_numpy(counts))
        return {"pit_error": error}

    def gaps(self, clusters: Clusters) -> GapsOf:
        """The gaps of the PIT error in a resample, as `intervals.pit_gaps` has them."""
        return intervals.pit_gaps_of_steps(self.sums.per_pixel("steps", clusters))
