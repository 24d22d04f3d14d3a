"""What was fitted on held-out data: which examples those were, and how it is filed."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from torch import Tensor

from mcbn.plain import is_of
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
        if not is_of(value, kinds[name]):
            raise ValueError(
                f"expected {name} of the type {kinds[name]} and finite, got {value!r:.80}; read a "
                "file that mcbn wrote"
            )
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return method(**{**given, **lists})


def _names(method: Any) -> list[str]:
    return [field.name for field in fields(method) if field.name != "held_out"]
