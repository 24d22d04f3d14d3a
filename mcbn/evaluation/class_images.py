"""What the scores of classes of pixels need of each image, so that its pixels can be forgotten.

Scores that are means, and calibration errors in bins of equal width, come out as they would from
all pixels. Where pixels are ranked or put into bins of equal mass, confidences that fall into one
of `CELLS` cells of the unit interval count as equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation import formulas, intervals
from mcbn.evaluation.bootstrap import Counts, ScoreColumns
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.detection import RiskCoverage
from mcbn.evaluation.forecasts import Tally
from mcbn.evaluation.image_sums import CELL_EDGES, CELLS, ImageSums
from mcbn.evaluation.intervals import GapsOf
from mcbn.evaluation.reliability import Reliability, of_sums, width_edges
from mcbn.evaluation.weighted import MEANS, CellScores, MeanScores

MASS_BINS = 15
# Of each row the places that it adds to, what it adds, and how many places there are.
Entries = tuple[Tensor, Tensor, int]


@dataclass(eq=False)
class ClassImages:
    """Sums of predictions of classes, image by image.

    Attributes:
        sums: of every image.
    """

    sums: ImageSums = field(default_factory=ImageSums)

    def add(self, columns: ScoreColumns) -> None:
        """Add an image.

        Args:
            columns: of its pixels, as `class_scores.class_columns` returns them, one row for each.
        """
        vectors = {
            name: places.flatten().bincount(values.double().flatten(), minlength=size)
            for name, (places, values, size) in row_entries(columns).items()
        }
        self.sums.add(len(columns["confidence"]), vectors)

    @property
    def class_count(self) -> int:
        """How many classes there are."""
        return self.sums.size["found"] // 3

    def only(self, images: Sequence[int]) -> "ClassImages":
        """Some of the images, by their places among those that were added."""
        return ClassImages(self.sums.only(images))

    def reliability(self) -> Reliability:
        """Confidence against accuracy in bins of equal width."""
        return self._bins("width_rows", "width_errors", "width", width_edges())

    def risk_coverage(self) -> RiskCoverage:
        """Risk among the most certain pixels, where a cell of them ends."""
        every = Clusters(torch.zeros(len(self.sums.pixels), dtype=torch.long))
        areas = self.measure(every)(np.ones(1))
        rows, errors = (self.sums.total(name)[::-1] for name in ("rows", "errors"))
        filled = rows > 0
        number, wrong = rows.cumsum()[filled], errors.cumsum()[filled]
        return RiskCoverage(
            torch.from_numpy(number / number[-1]),
            torch.from_numpy(wrong / number),
            *(areas[name] for name in ("aurc", "e_aurc", "augrc")),
        )

    @property
    def tally(self) -> Tally:
        """Right pixels, and how far they are from their confidence: that of their cell."""
        rows, wrong = self.sums.total("rows"), self.sums.total("errors")
        middles = ((CELL_EDGES[1:] + CELL_EDGES[:-1]) / 2).numpy()
        gaps = (rows - wrong) @ (1 - middles) ** 2 + wrong @ middles**2
        return Tally(
            float((rows - wrong).sum()), float(rows @ (middles * (1 - middles))), float(gaps)
        )

    def confidence_gaps(
        self, clusters: Clusters
    ) -> tuple[Float64[Tensor, " clusters"], Float64[Tensor, " clusters"]]:
        """The sum of confidence minus correctness over each cluster of images, and its pixels."""
        residuals = self.sums.matrix("residuals", clusters).sum(0)
        return torch.from_numpy(-residuals), torch.from_numpy(self.sums.sizes(clusters))

    def measure(self, clusters: Clusters) -> CellScores:
        """The scores of a resample of clusters, all but the calibration errors."""
        means = {
            name: self.sums.matrix(name, clusters).toarray()[0]
            for name in MEANS
            if name in self.sums.size
        }
        # The most certain first; only cells with an error are asked for their place.
        rows, errors = (
            self.sums.matrix(name, clusters).tocsr()[::-1] for name in ("rows", "errors")
        )
        return CellScores(MeanScores(means, self.sums.sizes(clusters)), rows, errors)

    def calibration_errors(self) -> dict[str, float]:
        """The calibration errors of all pixels."""
        width, mass = self.reliability(), self._mass()
        by_class = self._mean("classes")
        return {
            "ece": width.expected_error,
            "ece_equal_mass": mass.expected_error,
            "ece_debiased": mass.debiased_error,
            "ece_classwise": float(np.abs(by_class).sum()) / self.class_count,
            "ece_smooth": formulas.smooth_error_of_shares(self._mean("smooth")),
            "mce": width.maximum_error,
        }

    def gaps(self, clusters: Clusters) -> GapsOf:
        """The gaps of the calibration errors in a resample, as `intervals.class_gaps` has them."""
        width, mass = self.reliability(), self._mass()
        share_of_width, share_of_mass = (
            bins.counts.double().clamp(min=1) / bins.counts.sum() for bins in (width, mass)
        )
        by_width, by_cell, by_class, shares = (
            self.sums.per_pixel(name, clusters)
            for name in ("width", "residuals", "classes", "smooth")
        )
        cell_bins = _bins_of_cells(mass)
        bandwidth = formulas.smooth_error_of_shares(self._mean("smooth"))

        def gaps_of(counts: Counts) -> dict[str, Tensor]:
            width_gaps = torch.from_numpy(by_width(counts).T)
            cell_gaps = torch.from_numpy(by_cell(counts).T)
            empty = torch.zeros(*cell_gaps.shape[:-1], len(mass.counts), dtype=torch.float64)
            mass_gaps = empty.index_add_(-1, cell_bins, cell_gaps)
            smooth = formulas.smoothed_residuals(
                shares(counts).T, width=bandwidth, cells=intervals.CELLS
            )
            return {
                "ece": width_gaps,
                "mce": width_gaps / share_of_width,
                "ece_equal_mass": mass_gaps,
                "ece_debiased": mass_gaps / share_of_mass.sqrt(),
                "ece_classwise": torch.from_numpy(by_class(counts).T) / self.class_count,
                "ece_smooth": smooth / intervals.CELLS,
            }

        return gaps_of

    def _mean(self, name: str) -> Float64[np.ndarray, " entries"]:
        """A vector of all images together, per pixel."""
        means: np.ndarray = self.sums.total(name) / sum(self.sums.pixels)
        return means

    def _bins(
        self, rows: str, errors: str, residuals: str, edges: Float64[Tensor, " edges"]
    ) -> Reliability:
        counts, wrong, gaps = (self.sums.total(name) for name in (rows, errors, residuals))
        right = counts - wrong
        return of_sums(
            torch.from_numpy(counts), torch.from_numpy(right), torch.from_numpy(right - gaps), edges
        )

    def _mass(self) -> Reliability:
        """Bins of equal mass, whose edges are those of cells."""
        cells = self._bins("rows", "errors", "residuals", CELL_EDGES)
        until, total = cells.counts.cumsum(0), int(cells.counts.sum())
        ranks = (torch.arange(1, MASS_BINS) * total + MASS_BINS - 1) // MASS_BINS
        last = torch.searchsorted(until, ranks)
        # The last cell that is not empty ends the last bin.
        last = last[last < torch.searchsorted(until, torch.tensor(total))]
        last = last[last.diff(prepend=last.new_full((1,), -1)) > 0]
        edges = torch.cat([CELL_EDGES[:1], CELL_EDGES[last + 1], CELL_EDGES[-1:]])
        place = torch.bucketize(torch.arange(CELLS), last)
        empty = torch.zeros(len(edges) - 1, dtype=torch.int64)
        counts, hits, *parts = (
            empty.index_add(0, place, each)
            for each in (cells.counts, cells.correct_counts, *cells.confidence_parts)
        )
        return Reliability(counts, hits, torch.stack(parts), edges)


def _bins_of_cells(bins: Reliability) -> Tensor:
    """The bin of each cell."""
    return torch.bucketize(CELL_EDGES[1:], bins.edges[1:-1])


def row_entries(columns: ScoreColumns) -> dict[str, Entries]:
    """What every row adds to the sums of an image.

    Args:
        columns: as `class_scores.class_columns` returns them, one row for each pixel.
    """
    # Rounding may lift a confidence over 1.
    confidence, correct = columns["confidence"].clamp(max=1), columns["correct"]
    right, bins = correct.double(), len(width_edges()) - 1
    residuals, ones = right - confidence, torch.ones_like(right)
    cells, shares = (part.movedim(0, -1) for part in formulas.residual_shares(confidence, correct))
    cell = torch.bucketize(confidence, CELL_EDGES[1:-1])
    width = torch.bucketize(confidence, width_edges()[1:-1])
    means = {
        name: (torch.zeros_like(cell), columns[column].double(), 1)
        for name, column in MEANS.items()
        if column in columns
    }
    return {
        **means,
        "rows": (cell, ones, CELLS),
        "errors": (cell, 1 - right, CELLS),
        "residuals": (cell, residuals, CELLS),
        "width_rows": (width, ones, bins),
        "width_errors": (width, 1 - right, bins),
        "width": (width, residuals, bins),
        "smooth": (cells, shares, CELLS),
        "classes": _by_class(columns["probabilities"], columns["targets"]),
        "found": _found(columns["probabilities"], columns["targets"]),
    }


def _by_class(probabilities: Tensor, targets: Tensor) -> Entries:
    """The residuals of "is it this class" in bins of equal width, class by class."""
    happened = torch.nn.functional.one_hot(targets.long(), probabilities.shape[1])
    edges = width_edges()
    bins, classes = len(edges) - 1, probabilities.shape[1]
    places = torch.bucketize(probabilities.contiguous(), edges[1:-1]) + bins * torch.arange(classes)
    return places, happened.double() - probabilities, bins * classes


def _found(probabilities: Tensor, targets: Tensor) -> Entries:
    """Of each class the hits, then its pixels, then the predictions of it."""
    guess, classes = probabilities.argmax(1), probabilities.shape[1]
    truth = targets.long()
    places = torch.stack([truth, classes + truth, 2 * classes + guess], dim=-1)
    ones = torch.ones_like(truth)
    return places, torch.stack([(guess == truth).long(), ones, ones], dim=-1), 3 * classes
