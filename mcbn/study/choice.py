"""The batch size that was chosen, with the curve that it was chosen from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn.bank.doubts import VALID_RATIOS
from mcbn.io.display import Display, Displayed
from mcbn.study.confirmation import Confirmation

CURVES = ("batch_sizes", "values", "low", "high")
# In log M: a best size this near a bound counts as the bound; it is refined to a tenth of this.
LOG_SIZE_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False, repr=False)
class BatchSizeChoice(Displayed):
    """The batch size that predicts best, its uncertainty, and the curve over batch sizes.

    Values are in nats per example; lower is better.

    Attributes:
        best: the best batch size, any real number.
        value: the criterion there: the mean held-out negative log-likelihood, or minus the ELBO.
        flat: smallest and largest size of the curve that, with all between, are not significantly
            different from the best, by paired differences over examples.
        interval: bootstrap interval of `best`, over examples, and over draws where it is confirmed.
            It is open, 0 or infinite, at an end of the search that it reaches.
        batch_sizes: the sizes of the curve.
        values: the criterion at each size.
        low: lower end of the bootstrap interval of each value.
        high: upper end of it.
        criterion: "log_score" or "elbo".
        bank_size: M of the bank that was rescaled.
        draws: T of that bank.
        level: level of all intervals.
        doubts: why a bank collected at `best` may predict otherwise than the rescaled one.
        dimensions: K of the ELBO; None for the log score.
        confirmation: what draws really collected give at the best size and at both ends of the
            curve; None where there was nothing to draw them from.
    """

    best: float
    value: float
    flat: tuple[float, float]
    interval: tuple[float, float]
    batch_sizes: Float64[Tensor, " points"]
    values: Float64[Tensor, " points"]
    low: Float64[Tensor, " points"]
    high: Float64[Tensor, " points"]
    criterion: Literal["log_score", "elbo"]
    bank_size: float
    draws: int
    level: float
    doubts: tuple[str, ...] = ()
    dimensions: int | None = None
    confirmation: Confirmation | None = None

    def display(self) -> Display:
        """The best size, and how sure it is; `print` says more."""
        rows = [
            ("best batch size", f"{self.best:.4g}"),
            (f"{100 * self.level:g}% interval", self._interval_text()),
            ("not significantly different", f"{self.flat[0]:.4g} to {self.flat[1]:.4g}"),
            ("nats per example", f"{self.value:.4g}"),
            ("collected at", f"{self.bank_size:.4g}"),
            ("draws", str(self.draws)),
            ("confirmed by collected draws", "no" if self.confirmation is None else "yes"),
        ]
        doubted = ", in doubt; print it to read why" if self.doubts else ""
        heading = f"BatchSizeChoice by {self.criterion}{doubted}"
        return Display(heading, ("quantity", "value"), rows)

    @property
    def at_bound(self) -> Literal["lower", "upper"] | None:
        """The end of the searched range that the best size is at; None if it is inside."""
        for end, index in (("lower", 0), ("upper", -1)):
            if abs(math.log(self.best / float(self.batch_sizes[index]))) < LOG_SIZE_TOLERANCE:
                return "lower" if end == "lower" else "upper"
        return None

    @property
    def extrapolated(self) -> bool:
        """Whether the best size is outside the range in which rescaling was measured."""
        return (
            not VALID_RATIOS[0] * (1 - LOG_SIZE_TOLERANCE)
            <= self.best / self.bank_size
            <= VALID_RATIOS[1] * (1 + LOG_SIZE_TOLERANCE)
        )

    def __str__(self) -> str:
        name = "held-out log score" if self.criterion == "log_score" else "ELBO"
        name += "" if self.dimensions is None else f" in {self.dimensions} dimensions"
        lines = [
            f"best batch size {self.best:.4g} {self._interval_text()} by {name}, "
            f"{self.value:.4g} nats per example",
            f"not significantly different: {self.flat[0]:.4g} to {self.flat[1]:.4g}",
            f"searched {float(self.batch_sizes[0]):.4g} to {float(self.batch_sizes[-1]):.4g} with "
            f"{self.draws} draws collected at {self.bank_size:.4g}",
        ]
        if self.at_bound:
            lines.append(
                f"the best size is at the {self.at_bound} end of the search: collect a bank at "
                "that size and choose again"
            )
        if self.confirmation is None:
            lines.append("not confirmed by collected draws; give batches= to do so")
        else:
            lines.append(str(self.confirmation))
        return "\n".join([*lines, *self.doubts])

    def _interval_text(self) -> str:
        low, high = self.interval
        if low == 0 and math.isinf(high):
            return "[any size]"
        if low == 0:
            return f"[{high:.4g} or less]"
        return f"[{low:.4g} or more]" if math.isinf(high) else f"[{low:.4g}, {high:.4g}]"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BatchSizeChoice":
        """Make a choice from the values of `to_dict`, which may have been through JSON.

        Raises:
            ValueError: values are missing or of another kind.
        """
        try:
            given = {each.name: values[each.name] for each in fields(cls)}
            curves = {name: torch.tensor(given[name], dtype=torch.float64) for name in CURVES}
            low, high = given["interval"]
            found = given["confirmation"]
            changed = {
                "flat": tuple(given["flat"]),
                "interval": (low or 0.0, math.inf if high is None else high),
                "doubts": tuple(given["doubts"]),
                "confirmation": None if found is None else Confirmation.from_dict(found),
            }
            return cls(**{**given, **curves, **changed})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected the values of a choice of batch size, got damaged ones ({error!s:.80}); "
                "make the choice again"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        curve = {name: getattr(self, name) for name in CURVES}
        return {
            "criterion": self.criterion,
            "best": self.best,
            "value": self.value,
            "flat": list(self.flat),
            "interval": [end if math.isfinite(end) else None for end in self.interval],
            "dimensions": self.dimensions,
            "confirmation": None if self.confirmation is None else self.confirmation.to_dict(),
            "level": self.level,
            "at_bound": self.at_bound,
            "extrapolated": self.extrapolated,
            "doubts": list(self.doubts),
            "bank_size": self.bank_size,
            "draws": self.draws,
            **{name: values.tolist() for name, values in curve.items()},
        }
