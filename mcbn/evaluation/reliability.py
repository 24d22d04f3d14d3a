"""Confidence against accuracy in bins that add, the errors computed from them, and their bands.

`confidence` is a probability, and `correct` is whether the event it was given to happened. For a
classifier they are the largest probability and `scores.correct`; for a binary problem, the
probability of the positive class and `targets == 1`. Logits are refused, never guessed.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.special import ndtri
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.distributions import binomial_quantile
from mcbn.io.display import Display, Displayed

# A float64 confidence is kept as two integers, of 2^-26 and of 2^-52: sums of integers are the
# same in every order, so splits, workers and GPUs agree to the last bit (up to 10^11 examples).
LIMB = 2.0**26


def _checked(confidence: Tensor, correct: Tensor) -> Float64[Tensor, " batch"]:
    """Return `confidence` in float64, with `correct` checked against it."""
    validation.mask(correct, "correct", confidence, "confidence")
    return validation.unit_interval(confidence, "confidence")


def checked_bins(bins: int) -> int:
    """Return `bins` if there is at least one."""
    if bins < 1:
        raise ValueError(f"expected at least 1 bin, got {bins}; 15 is usual")
    return bins


@dataclass(frozen=True, eq=False, repr=False)
class Reliability(Displayed):
    """Confidence and accuracy in bins, as sums that add: `Reliability(a) + Reliability(b)`.

    Bins are right-closed, `(edges[b], edges[b + 1]]`; 0 goes to the first one and 1 stays in the
    last. Empty bins are NaN in what is given per bin and weigh nothing in the errors.

    Attributes:
        counts: examples in each bin.
        correct_counts: of these, the correct ones.
        confidence_parts: sums of confidence in fixed point, see `LIMB`.
        edges: from 0 to 1.
    """

    counts: Int64[Tensor, " bins"]
    correct_counts: Int64[Tensor, " bins"]
    confidence_parts: Int64[Tensor, "2 bins"]
    edges: Float64[Tensor, " bins+1"]

    @classmethod
    def from_edges(
        cls,
        confidence: Float[Tensor, " batch"],
        correct: Bool[Tensor, " batch"],
        edges: Float64[Tensor, " edges"],
    ) -> "Reliability":
        """Return the bins given by `edges`, which rise from 0 to 1.

        Raises:
            ValueError: confidence is not a probability, or edges do not rise from 0 to 1.
        """
        values = _checked(confidence, correct)
        rising = edges.ndim == 1 and len(edges) > 1 and bool((edges.diff() >= 0).all())
        if not (rising and edges[0] == 0 and edges[-1] == 1):
            raise ValueError(
                f"expected edges that rise from 0 to 1, got {edges.tolist()}; "
                "take those of another Reliability"
            )
        return binned(values, correct, edges)

    @classmethod
    def from_predictions(
        cls,
        confidence: Float[Tensor, " batch"],
        correct: Bool[Tensor, " batch"],
        *,
        bins: int = 15,
    ) -> "Reliability":
        """Return bins of equal width.

        Raises:
            ValueError: confidence is not a probability, or `bins` is below 1.
        """
        return equal_width(_checked(confidence, correct), correct, checked_bins(bins))

    @classmethod
    def from_quantiles(
        cls,
        confidence: Float[Tensor, " batch"],
        correct: Bool[Tensor, " batch"],
        *,
        bins: int = 15,
    ) -> "Reliability":
        """Return bins of equal mass.

        Bin k ends at the example of rank `ceil(k n / bins)` and holds all ties of it, so equal
        values are never parted. Ties make fewer and uneven bins; none is empty. The edges belong
        to these data: bin a second set with `from_edges` to add it.

        Raises:
            ValueError: confidence is not a probability, or `bins` is below 1.
        """
        return equal_mass(_checked(confidence, correct), correct, checked_bins(bins))

    def __add__(self, other: "Reliability") -> "Reliability":
        """Return the bins of both sets of examples together, equal to the last bit.

        Raises:
            ValueError: the edges differ.
        """
        if not torch.equal(self.edges, other.edges):
            raise ValueError(
                f"expected bins with the same edges, got {len(self.counts)} and "
                f"{len(other.counts)} bins with others; build both with the same `edges`"
            )
        return Reliability(
            self.counts + other.counts,
            self.correct_counts + other.correct_counts,
            self.confidence_parts + other.confidence_parts,
            self.edges,
        )

    def places_of(self, confidence: Float64[Tensor, "*batch"]) -> Int64[Tensor, "*batch"]:
        """The bin of each confidence."""
        return torch.bucketize(confidence, self.edges[1:-1])

    def display(self) -> Display:
        """The calibration error, and every bin that is not empty."""
        examples, filled = int(self.counts.sum()), self.counts > 0
        heading = f"Reliability of {examples:,} examples in {int(filled.sum())} bins"
        heading += f", ECE {self.expected_error:.4g}" if examples else ""
        edges, counts = self.edges.tolist(), self.counts.tolist()
        confidence, accuracy = self.confidence.tolist(), self.accuracy.tolist()
        return Display(heading, ("bin", "examples", "confidence", "accuracy"), [
            (f"({edges[k]:.3g}, {edges[k + 1]:.3g}]", f"{counts[k]:,}", f"{confidence[k]:.3f}",
             f"{accuracy[k]:.3f}")
            for k in filled.nonzero()[:, 0].tolist()
        ])  # fmt: skip

    @property
    def accuracy(self) -> Float64[Tensor, " bins"]:
        """Share of correct examples in each bin."""
        return self.correct_counts.double() / self.counts

    @property
    def confidence(self) -> Float64[Tensor, " bins"]:
        """Mean confidence in each bin."""
        parts = self.confidence_parts.double()
        return (parts[0] + parts[1] / LIMB) / LIMB / self.counts

    def _gaps(self) -> tuple[Tensor, Tensor]:
        """Return accuracy minus confidence and the share of examples, of bins that hold any."""
        full = self.counts > 0
        if not full.any():
            raise ValueError("expected at least one example, got none; add a bin that holds some")
        share = self.counts[full].double() / self.counts.sum()
        return (self.accuracy - self.confidence)[full], share

    @property
    def expected_error(self) -> float:
        """Expected calibration error, `sum_b share_b |accuracy_b - confidence_b|`; 0 is best."""
        gaps, share = self._gaps()
        return float((gaps.abs() * share).sum())

    @property
    def maximum_error(self) -> float:
        """Maximum calibration error, the largest gap of any bin however small; 0 is best."""
        return float(self._gaps()[0].abs().max())

    @property
    def root_mean_square_error(self) -> float:
        """Root of `sum_b share_b (accuracy_b - confidence_b)^2`; 0 is best."""
        gaps, share = self._gaps()
        return math.sqrt(float((gaps.square() * share).sum()))

    @property
    def debiased_square_error(self) -> float:
        """Square error minus what chance adds; 0 on average if calibrated, so at times below 0.

        `sum_b share_b ((accuracy_b - confidence_b)^2 - accuracy_b (1 - accuracy_b) / (n_b - 1))`.
        A bin of one example has no variance to take off and counts 0. Where confidence varies
        inside a bin, a little too much is taken off.

        Reference: Kumar, Liang, Ma, Verified Uncertainty Calibration, 2019, section 5.
        """
        gaps, share = self._gaps()
        counts, accuracy = (x[self.counts > 0] for x in (self.counts, self.accuracy))
        chance = accuracy * (1 - accuracy) / (counts - 1).clamp(min=1)
        return float(((gaps.square() - chance) * share)[counts > 1].sum())

    @property
    def debiased_error(self) -> float:
        """Root of `debiased_square_error`, or 0 where that is below 0; 0 is best."""
        return math.sqrt(max(0.0, self.debiased_square_error))

    def interval(
        self, *, level: float = 0.95
    ) -> tuple[Float64[Tensor, " bins"], Float64[Tensor, " bins"]]:
        """Return lower and upper ends of the Wilson score interval for each bin's accuracy.

        One interval per bin, not simultaneous; NaN for empty bins.

        Reference: Wilson, Probable Inference, 1927.
        """
        validation.fraction(level, "level")
        z2 = float(ndtri((1 - level) / 2)) ** 2
        counts, accuracy = self.counts.double(), self.accuracy
        middle = accuracy + z2 / (2 * counts)
        half = (z2 * (accuracy * (1 - accuracy) / counts + z2 / (4 * counts**2))).sqrt()
        scale = 1 + z2 / counts
        # Clamped: at 0 or all correct, rounding would leave the end a hair outside [0, 1].
        return ((middle - half) / scale).clamp(0, 1), ((middle + half) / scale).clamp(0, 1)

    def consistency_band(
        self, *, level: float = 0.95
    ) -> tuple[Float64[Tensor, " bins"], Float64[Tensor, " bins"]]:
        """Return the ends between which a calibrated forecaster's bin accuracy would lie.

        Exact quantiles of Binomial(n_b, confidence_b) / n_b; nothing is simulated. True counts
        are Poisson-binomial, never wider than this binomial, so each bin is covered with at least
        `level`. One band per bin: for all at once use `level = 1 - (1 - level) / bins`.
        NaN for empty bins.

        Reference: Broecker and Smith, Reliability of Reliability Diagrams, 2007; Hoeffding, 1956.
        """
        tail = (1 - validation.fraction(level, "level")) / 2
        counts, confidence = self.counts.cpu().numpy(), self.confidence.cpu().numpy()
        low, high = (binomial_quantile(end, counts, confidence) for end in (tail, 1 - tail))
        lower, upper = (torch.as_tensor(hits).to(self.edges) / self.counts for hits in (low, high))
        return lower, upper


# The bins of predictions that were checked before: `confidence` is in [0, 1].


def binned(
    confidence: Float64[Tensor, " batch"],
    correct: Bool[Tensor, " batch"],
    edges: Float64[Tensor, " edges"],
) -> Reliability:
    """Return the bins given by `edges`, without checks."""
    index = torch.searchsorted(edges[1:-1].contiguous(), confidence.contiguous())
    high = (confidence * LIMB).floor()
    low = ((confidence * LIMB - high) * LIMB).floor()
    items = (torch.ones_like(index), correct, high, low)
    empty = torch.zeros(len(edges) - 1, dtype=torch.int64, device=confidence.device)
    counts, hits, *parts = (empty.index_add(0, index, item.long()) for item in items)
    return Reliability(counts, hits, torch.stack(parts), edges)


def of_sums(
    counts: Float64[Tensor, " bins"],
    correct: Float64[Tensor, " bins"],
    confidence: Float64[Tensor, " bins"],
    edges: Float64[Tensor, " edges"],
) -> Reliability:
    """Return bins from sums over the examples of each, which may be too many to be held."""
    high = (confidence * LIMB).floor()
    low = ((confidence * LIMB - high) * LIMB).floor()
    parts = torch.stack([high, low]).long()
    return Reliability(counts.long(), correct.long(), parts, edges)


def equal_width(
    confidence: Float64[Tensor, " batch"], correct: Bool[Tensor, " batch"], bins: int = 15
) -> Reliability:
    """Return bins of equal width, without checks."""
    return binned(confidence, correct, width_edges(bins).to(confidence.device))


def width_edges(bins: int = 15) -> Float64[Tensor, " edges"]:
    """Return the edges of bins of equal width."""
    # Divided, not multiplied by a width: 0.3 is then the edge 3/10 to the last bit.
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def equal_mass(
    confidence: Float64[Tensor, " batch"], correct: Bool[Tensor, " batch"], bins: int = 15
) -> Reliability:
    """Return bins of equal mass, without checks."""
    ordered = confidence.sort().values
    ranks = torch.arange(1, bins, device=ordered.device) * len(ordered)
    last = ordered[((ranks + bins - 1) // bins - 1).clamp(min=0)]
    inner = last[last < ordered[-1]]
    inner = inner[inner.diff(prepend=inner.new_full((1,), -1)) > 0]
    edges = torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])
    return binned(confidence, correct, edges)
