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
from mcbn.predictive.bernoulli import aligned_labels
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
        return _sizes(self.members, "classes")

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
class LabelSets(Displayed):
    """Sets of the labels that an example may have, one per example.

    Attributes:
        members: whether a label is in the set of an example; a set may be empty or whole.
    """

    members: Bool[Tensor, "batch labels"]

    def __len__(self) -> int:
        return len(self.members)

    def display(self) -> Display:
        """How many sets are of each size."""
        return _sizes(self.members, "labels")

    @property
    def mean_size(self) -> float:
        """Mean number of labels in a set; smaller is more informative."""
        return float(self.members.sum(1).double().mean())

    def coverage(
        self,
        targets: Targets,
        *,
        ignore_index: int | None = None,
        group: Groups | None = None,
        level: float = 0.95,
    ) -> Coverage:
        """Return which share of its labels the set of an example has, with an interval.

        It is one minus the false negative rate: the mean over examples with any label of the share
        of their labels in their set.

        Args:
            targets: 1 for each label that is there, and 0 for the others.
            ignore_index: the target of labels of which the truth is not known; they are left out.
            group: what examples that hang together share, one value per example; each group then
                counts as one.
            level: of the interval.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets or groups that do not fit, or no example has a label.
        """
        present = present_labels(targets, tuple(self.members.shape), ignore_index)
        found = present & self.members.to(present.device)
        known, clusters = counted_examples(present, group)
        shares = found.sum(1).double() / present.sum(1)
        return _bounds(*_independent(shares[known].cpu(), clusters, int(present.sum())), level)


def present_labels(
    targets: Targets, shape: tuple[int, ...], ignore_index: int | None
) -> Bool[Tensor, "batch labels"]:
    """Which labels are known to be there.

    Raises:
        TypeError: targets of the wrong kind.
        ValueError: they have another shape, or are neither 0 nor 1.
    """
    return aligned_labels(targets, shape, ignore_index=ignore_index) == 1


def counted_examples(
    present: Bool[Tensor, "batch labels"], group: Groups | None
) -> tuple[Bool[Tensor, " batch"], Clusters]:
    """The examples that have a label, and their clusters: groups, or each by itself.

    Raises:
        ValueError: groups that do not fit, or no example has a label.
    """
    known = present.any(1).cpu()
    if not bool(known.any()):
        raise ValueError(
            "expected examples that have a label, got none, of which no share can be found; give "
            "targets of 1 for each label that is there"
        )
    clusters = clusters_of(group, len(present)) or Clusters.alone(len(present))
    return known, clusters.spread(known.nonzero()[:, 0])


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


def _sizes(members: Bool[Tensor, "batch classes"], kind: str) -> Display:
    """How many sets are of each size."""
    sizes = members.sum(1)
    heading = (
        f"Sets of {members.shape[1]} {kind} for {len(members):,} examples, mean size "
        f"{float(sizes.double().mean()):.3g}"
    )
    counts = sizes.bincount().tolist()
    rows = [(str(size), f"{number:,}") for size, number in enumerate(counts) if number]
    return Display(heading, (f"{kind} in a set", "examples"), rows)


def _coverage(covered: Bool[Tensor, " batch"], group: Groups | None, level: float) -> Coverage:
    if (clusters := clusters_of(group, len(covered))) is not None:
        return _bounds(*_independent(covered.cpu().double(), clusters, len(covered)), level)
    return _bounds(int(covered.sum()), int((~covered).sum()), level)


def _bounds(hits: float, misses: float, level: float) -> Coverage:
    """The share of hits, with the interval of Clopper and Pearson."""
    tail = (1 - validation.fraction(level, "level")) / 2
    # Quantiles of the beta distribution are exact; scipy's `binomtest` searches, to 1e-12.
    low = float(betaincinv(hits, misses + 1, tail)) if hits else 0.0
    high = float(betainccinv(hits + 1, misses, tail)) if misses else 1.0
    return Coverage(hits / (hits + misses), low, high)


def _independent(
    covered: Float64[Tensor, " batch"], clusters: Clusters, most: int
) -> tuple[float, float]:
    """Hits and misses among so many independent examples that their share varies as much.

    Those of a group count as one where they are all alike, and nearly as themselves where they have
    nothing in common. How alike they are is told by few groups: so by these, one more of hits alone
    and one more of misses.

    Args:
        covered: the share of hits in each example.
        clusters: the groups of the examples.
        most: how many they can be.
    """
    groups = len(clusters)
    shares = torch.zeros(groups, dtype=torch.float64)
    shares = shares.index_add(0, clusters.of_row, covered) / clusters.sizes
    more = torch.cat([shares, torch.tensor([0.0, 1.0], dtype=torch.float64)])
    alike = float(more.var(correction=0) / (more.mean() * (1 - more.mean())))
    number = min(groups / alike, most)
    mean = float(shares.mean())
    return mean * number, (1 - mean) * number
