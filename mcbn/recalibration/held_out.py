"""Shared parts of the recalibration methods: refusing the examples fitted on, files, search."""

import math
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from torch import Tensor

from mcbn import validation
from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.io.plain import matches_type
from mcbn.io.tables import shortened
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive

F = TypeVar("F")
HeldPredictive = CategoricalPredictive | BernoulliPredictive | GaussianPredictive


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The examples that a method was fitted on, known by the memory of their predictions.

    With it a method refuses to recalibrate those examples, on which every score is too good. The
    reference is weak, so the memory is freed as usual, and is not saved, copied or sent to another
    process. So this finds the common mistake of fitting and scoring on one set, but not a copy of
    the predictions or a second run. Where groups are known, such as patients, other examples of
    those are refused as well; these are not saved either.

    Attributes:
        storage: weak reference to the memory; None if nothing is known of the examples.
        examples: offsets in it at which they start.
        groups: what the examples share with others; empty if it is not known.
    """

    storage: "weakref.ref[Any] | None" = None
    examples: range = range(0)
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, predictive: HeldPredictive, group: Groups | None = None) -> "HeldOut":
        """Remember the examples of these predictions, and what they share.

        Raises:
            ValueError: groups of another number of examples.
        """
        rows = _rows(predictive)
        groups = () if group is None else names_of_groups(group, len(predictive))
        return cls(weakref.ref(rows.untyped_storage()), _offsets(rows), frozenset(groups))

    def require_other(self, predictive: HeldPredictive, group: Groups | None = None) -> None:
        """Check that predictions are not of the examples fitted on; disjoint slices are fine.

        Raises:
            ValueError: some are in the same place of the same memory, or of a group fitted on.
        """
        rows = _rows(predictive)
        shared = self.storage is not None and self.storage() is rows.untyped_storage()
        if shared and not set(self.examples).isdisjoint(_offsets(rows)):
            raise ValueError(
                "expected predictions of examples that were not fitted on, got the held-out ones "
                "again, on which every score is too good; split off a held-out part first"
            )
        if group is not None:
            names = names_of_groups(group, len(predictive))
            require_other_groups(self.groups, names, "the held-out examples", "those predicted")

    def __reduce__(self) -> tuple[type["HeldOut"], tuple[()]]:
        return HeldOut, ()


def require_of_classes(predictive: object, for_labels: str) -> None:
    """Check that predictions are of classes.

    Args:
        predictive: of any type.
        for_labels: what to take for several labels an example.

    Raises:
        TypeError: they are not.
    """
    advice = f"give what mcbn.predict returns for classes; for several labels take {for_labels}"
    validation.require_type(predictive, CategoricalPredictive, "a CategoricalPredictive", advice)


def require_of_labels(predictive: object, for_classes: str) -> None:
    """Check that predictions are of several labels an example.

    Args:
        predictive: of any type.
        for_classes: what to take for classes.

    Raises:
        TypeError: they are not.
    """
    advice = f'give what mcbn.predict returns with "bernoulli"; for classes take {for_classes}'
    validation.require_type(predictive, BernoulliPredictive, "a BernoulliPredictive", advice)


def require_of_as_many_labels(predictive: BernoulliPredictive, labels: int) -> None:
    """Check that predictions have as many labels as those fitted on.

    Raises:
        ValueError: they have not.
    """
    if predictive.log_odds.shape[1] != labels:
        raise ValueError(
            f"expected predictions of {labels} labels, got {predictive.log_odds.shape[1]}; fit on "
            "predictions of the same labels"
        )


def require_of_real_values(predictive: object) -> None:
    """Check that predictions are of real values.

    Raises:
        TypeError: they are not.
    """
    advice = "give what mcbn.predict returns with mcbn.Gaussian(...)"
    validation.require_type(predictive, GaussianPredictive, "a GaussianPredictive", advice)


def require_other_groups(
    fitted_on: Collection[str], others: Collection[str], one: str, other: str
) -> None:
    """Check that no group, such as a patient, is on both sides.

    Args:
        fitted_on: groups of the one side; empty if they are not known.
        others: groups of the other.
        one: what has the groups of the one side.
        other: what has those of the other.

    Raises:
        ValueError: a group is on both.
    """
    if shared := sorted(set(fitted_on).intersection(others)):
        raise ValueError(
            f"expected groups on one side only, got {shortened(shared)} in {one} and in {other}, "
            "whose examples are alike; split by whole groups"
        )


def require_prior(prior: float) -> None:
    """Check that the precision of a prior is finite and not below 0.

    Raises:
        ValueError: it is.
    """
    if not (prior >= 0 and math.isfinite(prior)):
        raise ValueError(f"expected a prior of at least 0, got {prior}; 1 is usual")


def _rows(predictive: HeldPredictive) -> Tensor:
    """A tensor with one row per example, whatever the number of draws."""
    if isinstance(predictive, CategoricalPredictive):
        return predictive.log_probabilities
    if isinstance(predictive, BernoulliPredictive):
        return predictive.log_odds
    return predictive.means[0]


def _offsets(rows: Tensor) -> range:
    start, step = rows.storage_offset(), max(1, rows.stride(0))
    return range(start, start + step * len(rows), step)


def to_dict(fitted: Any) -> dict[str, Any]:
    """The name of a method and its plain numbers, for JSON; an infinite number is None."""
    numbers = {name: getattr(fitted, name) for name in _names(type(fitted))}
    for name, value in numbers.items():
        if isinstance(value, tuple):
            numbers[name] = [None if each == math.inf else each for each in value]
        elif value == math.inf:
            numbers[name] = None
    return {"method": type(fitted).__name__, **numbers}


def from_dict(method: type[F], values: Mapping[str, Any]) -> F:
    """Rebuild what `to_dict` returned.

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
    kinds = {field.name: field.type for field in fields(method)}  # type: ignore[arg-type]
    numbers: dict[str, Any] = {}
    for name in _names(method):
        value, kind = values[name], kinds[name]
        if value is None and kind is float:
            numbers[name] = math.inf
        elif kind == tuple[float, ...] and isinstance(value, (list, tuple)) and None in value:
            finite = [each for each in value if each is not None]
            if not matches_type(finite, kind):
                raise _not_of(name, kind, value)
            numbers[name] = tuple(math.inf if each is None else each for each in value)
        elif matches_type(value, kind):
            numbers[name] = _as_tuples(value)
        else:
            raise _not_of(name, kind, value)
    return method(**numbers)


def _not_of(name: str, kind: Any, value: object) -> ValueError:
    return ValueError(
        f"expected {name} of the type {kind} and finite, got {value!r:.80}; read a file that mcbn "
        "wrote"
    )


def _as_tuples(value: Any) -> Any:
    """The value, with tuples in place of lists at every level."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


def _names(method: Any) -> list[str]:
    return [field.name for field in fields(method) if field.name != "held_out"]
