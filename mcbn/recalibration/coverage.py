"""Sets of classes and intervals of values, and how often they hold the target."""

from dataclasses import dataclass

from jaxtyping import Bool, Float64
from scipy.special import betainccinv, betaincinv
from torch import Tensor

from mcbn import validation


@dataclass(frozen=True)
class Coverage:
    """Share of the targets that were held, with its exact interval of Clopper and Pearson.

    The interval holds the chance of these examples, not that of the held-out ones.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """The classes that each target may be.

    Attributes:
        members: whether a class is in the set of an example; a set may be empty, or hold all.
    """

    members: Bool[Tensor, "batch classes"]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set; smaller says more."""
        return float(self.members.sum(1).double().mean())

    def coverage(self, targets: Tensor, *, level: float = 0.95) -> Coverage:
        """How often the set holds the target, with an interval of this level.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets that do not fit.
        """
        classes = self.members.shape[1]
        index = validation.labels(targets, classes, (len(self),)).to(self.members.device)
        return _coverage(self.members.gather(1, index.long()[:, None]), level)


@dataclass(frozen=True, eq=False)
class PredictionIntervals:
    """The values that each target may take, ends included, in target units.

    Attributes:
        low: lower ends; where one is above its upper end the interval is empty.
        high: upper ends.
    """

    low: Float64[Tensor, " batch"]
    high: Float64[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.low)

    @property
    def mean_size(self) -> float:
        """Mean length, an empty interval having none; shorter says more."""
        return float((self.high - self.low).clamp_min(0.0).mean())

    def coverage(self, targets: Tensor, *, level: float = 0.95) -> Coverage:
        """How often the interval holds the target, with an interval of this level.

        Raises:
            ValueError: targets that do not fit or are not finite.
        """
        values = validation.finite(targets, "targets").to(self.low.device)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        validation.same_shape(values, self.low, ("targets", "intervals"))
        return _coverage((values >= self.low) & (values <= self.high), level)


def _coverage(held: Tensor, level: float) -> Coverage:
    tail = (1 - validation.fraction(level, "level")) / 2
    hits, misses = int(held.sum()), int((~held).sum())
    # By quantiles of the beta distribution, which are exact: `binomtest` searches, to 1e-12.
    low = float(betaincinv(hits, misses + 1, tail)) if hits else 0.0
    high = float(betainccinv(hits + 1, misses, tail)) if misses else 1.0
    return Coverage(hits / (hits + misses), low, high)
