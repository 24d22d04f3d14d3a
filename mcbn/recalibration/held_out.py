"""What was fitted on held-out data: which examples those were, and how it is filed."""

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from scipy.optimize import brentq
from torch import Tensor

from mcbn.io.plain import matches_type
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive

F = TypeVar("F")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The memory that held the predictions of the examples that something was fitted on.

    It is held weakly, so that it is freed as ever, and stays behind where the fitted thing is
    filed, copied or sent to another process. So this finds the slip of fitting and scoring on
    one set, not every way of it: a copy of the predictions, or a second run, is not known again.

    Attributes:
        storage: a weak reference to it; None if nothing is known of the examples.
        examples: where in it each of them starts.
    """

    storage: "weakref.ref[Any] | None" = None
    examples: range = range(0)

    @classmethod
    def of(cls, predictive: CategoricalPredictive | GaussianPredictive) -> "HeldOut":
        """The examples of these predictions."""
        rows = _rows(predictive)
        return cls(weakref.ref(rows.untyped_storage()), _places(rows))

    def require_other(self, predictive: CategoricalPredictive | GaussianPredictive) -> None:
        """Check that predictions are not of the examples fitted on; disjoint slices are fine.

        Raises:
            ValueError: they share memory with those.
        """
        rows = _rows(predictive)
        known = self.storage is not None and self.storage() is rows.untyped_storage()
        if known and not set(self.examples).isdisjoint(_places(rows)):
            raise ValueError(
                "expected predictions of examples that were not fitted on, got the held-out ones "
                "again, on which every score is too good; split off a held-out part first"
            )

    def __reduce__(self) -> tuple[type["HeldOut"], tuple[()]]:
        return HeldOut, ()


def _rows(predictive: CategoricalPredictive | GaussianPredictive) -> Tensor:
    """A tensor with one row an example, whatever the number of draws."""
    if isinstance(predictive, CategoricalPredictive):
        return predictive.log_probabilities
    return predictive.means[0]


def _places(rows: Tensor) -> range:
    start, step = rows.storage_offset(), max(1, rows.stride(0))
    return range(start, start + step * len(rows), step)


def to_dict(fitted: Any) -> dict[str, Any]:
    """The name of the method and its plain numbers, for JSON; not the examples fitted on."""
    found = {name: getattr(fitted, name) for name in _names(type(fitted))}
    lists = {name: list(value) for name, value in found.items() if isinstance(value, tuple)}
    return {"method": type(fitted).__name__, **found, **lists}


def from_dict(method: type[F], values: Mapping[str, Any]) -> F:
    """What `to_dict` filed.

    Raises:
        ValueError: it is of another method, or a value is missing, unknown or out of range.
    """
    expected = {"method", *_names(method)}
    given = values if isinstance(values, Mapping) else {}
    if given.keys() != expected or given["method"] != method.__name__:
        raise ValueError(
            f"expected {sorted(expected)} of the method {method.__name__}, got "
            f"{sorted(map(str, given))!s:.400} of {given.get('method')!r:.80}; read a file of "
            "this method"
        )
    given = {name: values[name] for name in _names(method)}
    kinds = {field.name: field.type for field in fields(method)}  # type: ignore[arg-type]
    for name, value in given.items():
        if not matches_type(value, kinds[name]):
            raise ValueError(
                f"expected {name} of the type {kinds[name]} and finite, got {value!r:.80}; read a "
                "file that mcbn wrote"
            )
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return method(**{**given, **lists})


def _names(method: Any) -> list[str]:
    return [field.name for field in fields(method) if field.name != "held_out"]


POINTS = 25  # of the scan, even in the logarithm
NEAR = 1e-9  # relative: a number this near an end of the search is at the end

Curve = Callable[[float], tuple[float, float]]


def lowest(curve: Curve, bounds: tuple[float, float]) -> float:
    """The number between `bounds` at which the curve is lowest; deterministic.

    Wherever the slope turns from falling to rising between two points of a scan, Brent's method
    finds its root; the best of those and of the ends that the curve falls towards is the answer.
    So a curve with one minimum is solved to rounding, and one with several as far as the scan
    tells them apart. A flat curve gives 1, which changes nothing.

    Args:
        curve: value and slope at the logarithm of a number.
        bounds: smallest and largest number.
    """
    low, high = (math.log(end) for end in bounds)
    scan = [low + (high - low) * index / (POINTS - 1) for index in range(POINTS)]
    slopes = [curve(point)[1] for point in scan]
    if not any(slopes):
        return 1.0
    found = []
    for left, right, falling, rising in zip(scan, scan[1:], slopes, slopes[1:], strict=False):
        if falling < 0 <= rising:
            found.append(math.exp(brentq(lambda point: curve(point)[1], left, right, xtol=1e-12)))
    found += [bounds[0]] * (slopes[0] >= 0) + [bounds[1]] * (slopes[-1] <= 0)
    return min(found, key=lambda number: curve(math.log(number))[0])


def end_of(number: float, bounds: tuple[float, float]) -> str | None:
    """The end of `bounds` that a number lies at, "lower" or "upper", if it does."""
    if number <= bounds[0] * (1 + NEAR):
        return "lower"
    return "upper" if number >= bounds[1] * (1 - NEAR) else None
