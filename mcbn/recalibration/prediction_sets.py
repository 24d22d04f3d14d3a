"""Sets of classes and intervals of real values, and how often they contain the targets."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from scipy.special import betainccinv, betaincinv
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.frames import spread_row


@dataclass(frozen=True)
class Coverage:
    """Share of the targets that their sets contain, with its exact Clopper-Pearson interval.

    With groups it is the mean over groups of the share in each, and the interval is that of as many
    independent examples as would vary as much. It reflects the choice of these examples, or groups,
    not that of the held-out ones.

    Reference:
        Korn and Graubard 1998, "Confidence Intervals for Proportions with Small Expected Number of
        Positive Counts Estimated from Survey Data".
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False, repr=False)
class PredictionSets(Displayed):
    """Sets of classes, one per example.

    Attributes:
        members: whether a class is in the set of an example; a set may be empty or whole.
    """

    members: Bool[Tensor, "batch classes"]

    def __len__(self) -> int:
        return len(self.members)

    def display(self) -> Display:
        """How many sets are of each size."""
        count, classes = self.members.shape
        heading = (
            f"Sets of {classes} classes for {count:,} examples, mean size {self.mean_size:.3g}"
        )
        sizes = self.members.sum(1).bincount().tolist()
        rows = [(str(size), f"{number:,}") for size, number in enumerate(sizes) if number]
        return Display(heading, ("classes in a set", "examples"), rows)

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set; smaller is more informative."""
        return float(self.members.sum(1).double().mean())

    def coverage(
        self, targets: Targets, *, group: Groups | None = None, level: float = 0.95
    ) -> Coverage:
        """Return how often the set contains the target, with an interval of this level.

        Args:
            targets: class indices.
            group: what examples that hang together share, one value per example; each group then
                counts as one.
            level: of the interval.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets or groups that do not fit.
        """
        classes = self.members.shape[1]
        index = validation.labels(as_targets(targets), classes, (len(self),)).long()
        inside = self.members.gather(1, index.to(self.members.device)[:, None])
        return _coverage(inside[:, 0], group, level)


@dataclass(frozen=True, eq=False, repr=False)
class PredictionIntervals(Displayed):
    """Intervals of real values, one per example, ends included, in target units.

    Attributes:
        low: lower ends; where one is above its upper end the interval is empty.
        high: upper ends.
    """

    low: Float64[Tensor, " batch"]
    high: Float64[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.low)

    def display(self) -> Display:
        """Where the ends are, and how long the intervals."""
        heading = f"Intervals for {len(self):,} examples, mean length {self.mean_size:.4g}"
        ends = {"low": self.low, "high": self.high, "length": (self.high - self.low).clamp_min(0.0)}
        rows = [spread_row(name, values) for name, values in ends.items()] if len(self) else []
        return Display(heading, ("quantity", "mean", "least", "most"), rows)

    @property
    def mean_size(self) -> float:
        """Mean length, that of an empty interval being 0; shorter is more informative."""
        return float((self.high - self.low).clamp_min(0.0).mean())

    def coverage(
        self, targets: Targets, *, group: Groups | None = None, level: float = 0.95
    ) -> Coverage:
        """Return how often the interval contains the target, with an interval of this level.

        Args:
            targets: real values.
            group: what examples that hang together share, one value per example; each group then
                counts as one.
            level: of the interval.

        Raises:
            ValueError: targets or groups that do not fit, or targets that are not finite.
        """
        values = validation.finite(as_targets(targets), "targets").to(self.low.device)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        validation.require_same_shape(values, self.low, ("targets", "intervals"))
        return _coverage((values >= self.low) & (values <= self.high), group, level)


def _coverage(covered: Bool[Tensor, " batch"], group: Groups | None, level: float) -> Coverage:
    tail = (1 - validation.fraction(level, "level")) / 2
    if (clusters := clusters_of(group, len(covered))) is not None:
        hits, misses = _independent(covered.cpu(), clusters)
    else:
        hits, misses = int(covered.sum()), int((~covered).sum())
    # Quantiles of the beta distribution are exact; scipy's `binomtest` searches, to 1e-12.
    low = float(betaincinv(hits, misses + 1, tail)) if hits else 0.0
    high = float(betainccinv(hits + 1, misses, tail)) if misses else 1.0
    return Coverage(hits / (hits + misses), low, high)


def _independent(covered: Bool[Tensor, " batch"], clusters: Clusters) -> tuple[float, float]:
    """Hits and misses among so many independent examples that their share varies as much.

    Those of a group count as one where they are all alike, and nearly as themselves where they have
    nothing in common. How alike they are is told by few groups: so by these, one more of hits alone
    and one more of misses.
    """
    groups, examples = len(clusters), len(covered)
    shares = torch.zeros(groups, dtype=torch.float64)
    shares = shares.index_add(0, clusters.of_row, covered.double()) / clusters.sizes
    more = torch.cat([shares, torch.tensor([0.0, 1.0], dtype=torch.float64)])
    alike = float(more.var(correction=0) / (more.mean() * (1 - more.mean())))
    number = min(groups / alike, examples)
    mean = float(shares.mean())
    return mean * number, (1 - mean) * number
