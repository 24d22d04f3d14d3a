"""Checks of arguments and warnings to the caller, shared by all public functions.

Each check raises `ValueError` or `TypeError` with one sentence: expected this, got that; do this.
"""

import re
import sys
import warnings
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Softmax in half precision over a few thousand classes still sums to one within this.
SUM_TOLERANCE = 1e-2
# Rounding may lift a single probability this far above 1.
PROBABILITY_TOLERANCE = 1e-6
# Packages whose frames lie between a warning and the user's line; jaxtyping and beartype wrap
# functions where types are checked at run time.
SKIPPED_PACKAGES = frozenset({"mcbn", "jaxtyping", "beartype"})
# How messages that a check says end; docs/checks.md lists the codes.
CODE_AT_END = re.compile(r"MCBN\d{3}\)")


def warn(message: str, category: type[Warning] = UserWarning, *, code: str = "") -> None:
    """Warn at the user's line: the nearest call from outside this package.

    Args:
        message: what is said.
        category: of the warning.
        code: of the check that says it, such as "MCBN001", with which the message then ends.
    """
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and _package(frame.f_globals) in SKIPPED_PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(coded(message, code), category, stacklevel=level)


def coded(message: str, code: str) -> str:
    """A message that ends with the code of its check; as it is without a code."""
    return f"{message} ({code})" if code else message


def uncoded(message: str) -> tuple[str, str]:
    """A message without the code of its check, and that code; empty if it has none."""
    text, _, end = message.rpartition(" (")
    return (text, end[:-1]) if CODE_AT_END.fullmatch(end) else (message, "")


def _package(namespace: dict[str, Any]) -> str:
    return str(namespace.get("__name__", "")).partition(".")[0]


def require_type(value: object, types: type | tuple[type, ...], expected: str, advice: str) -> None:
    """Check that an argument is an instance of one of some types.

    Args:
        value: the argument.
        types: what it may be an instance of.
        expected: what that is, in words.
        advice: what to do, in words.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, types):
        raise TypeError(f"expected {expected}, got {type(value).__name__}; {advice}")


def integer(value: object, name: str) -> int:
    """Return an integer as one of Python; those of NumPy count too, but not True and False.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {name} to be an integer, got {value!r:.80}; give a whole number")
    return int(value)


def require_function(value: object, name: str, advice: str) -> None:
    """Check that an argument, if there is one, is a function.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not callable(value):
        raise TypeError(f"expected {name}= to be a function, got {value!r:.80}; {advice}")


def tensor(values: object, name: str) -> Tensor:
    """Return `values` if it is a tensor with at least one element.

    Raises:
        TypeError: it is something else.
        ValueError: it is empty.
    """
    if not isinstance(values, Tensor):
        raise TypeError(
            f"expected {name} to be a torch.Tensor, got {type(values).__name__}; "
            "convert it with torch.as_tensor"
        )
    if values.numel() == 0:
        raise ValueError(
            f"expected at least one value in {name}, got shape {tuple(values.shape)}; "
            "check the data set, or the filter that selected from it"
        )
    return values


def finite(values: Tensor, name: str) -> Tensor:
    """Return `values` if all are finite.

    Raises:
        ValueError: some are NaN or infinite; says how many and where the first one is.
    """
    tensor(values, name)
    # A sum is not finite if any value is not; but that of finite values may overflow as well.
    if not values.is_floating_point() or torch.isfinite(values.detach().sum()):
        return values
    bad = ~torch.isfinite(values)
    if bad.any():
        first = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"expected finite numbers in {name}, got {int(bad.sum())} NaN or infinite of "
            f"{values.numel()}, the first at index {first}; remove or repair them"
        )
    return values


def real(values: Tensor, name: str) -> Tensor:
    """Return `values` if they are real numbers.

    Raises:
        ValueError: they are complex.
    """
    if values.is_complex():
        raise ValueError(
            f"expected real {name}, got {values.dtype}; give output=, a function that makes real "
            "numbers of them, such as torch.abs"
        )
    return values


def require_same_shape(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Check that two tensors have the same shape, so that nothing is broadcast by accident.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"expected {names[0]} and {names[1]} of the same shape, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}; reshape one of them"
        )


def probabilities(
    values: Float[Tensor, "batch classes *positions"], name: str = "probabilities"
) -> Tensor:
    """Return `values` if they are probabilities that sum to one over the class axis.

    Raises:
        ValueError: a value is not finite or is negative, or a row does not sum to one.
    """
    finite(values, name)
    if values.ndim < 2:
        raise ValueError(
            f"expected {name} with axes (batch, classes, *positions), got shape "
            f"{tuple(values.shape)}; for a binary problem stack (1 - p, p)"
        )
    if values.min() < 0:
        raise ValueError(
            f"expected {name} of at least 0, got {float(values.min()):.4g}; "
            "pass logits through a softmax first"
        )
    gap = (values.sum(1, dtype=torch.float64) - 1).abs().max()
    if gap > SUM_TOLERANCE:
        raise ValueError(
            f"expected {name} that sum to 1 over the class axis, got a row that is off by "
            f"{float(gap):.4g}; pass logits through a softmax first"
        )
    return values


def labels(
    targets: Int[Tensor, "batch *positions"], classes: int, shape: tuple[int, ...]
) -> Tensor:
    """Return `targets` if they are class indices that fit predictions of `shape`.

    Raises:
        TypeError: they are not integers.
        ValueError: the shape differs, or a label is not in 0 .. classes - 1.
    """
    tensor(targets, "targets")
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(
            f"expected targets of an integer type, got {targets.dtype}; use targets.long()"
        )
    if tuple(targets.shape) != tuple(shape):
        raise ValueError(
            f"expected targets of shape {tuple(shape)}, got {tuple(targets.shape)}; "
            "give one class index for each prediction"
        )
    invalid = (targets < 0) | (targets >= classes)
    if invalid.any():
        first = tuple(int(i) for i in invalid.nonzero()[0])
        raise ValueError(
            f"expected labels from 0 to {classes - 1}, got {int(targets[first])} at index {first} "
            f"({int(invalid.sum())} such labels); give ignore_index= for what is not labelled, or "
            "remap the classes"
        )
    return targets


def vector(values: Tensor, name: str) -> Tensor:
    """Return `values` if it has one axis, of finite numbers.

    Raises:
        ValueError: it has another number of axes, or a value is not finite.
    """
    finite(values, name)
    if values.ndim != 1:
        raise ValueError(
            f"expected {name} with one axis, got shape {tuple(values.shape)}; "
            "flatten it, and the other arguments in the same way"
        )
    return values


def mask(values: Tensor, name: str, other: Tensor, other_name: str) -> Tensor:
    """Return `values` if it is a Boolean tensor of the same shape as `other`.

    Raises:
        TypeError: it is not Boolean, so what counts as true would be a guess.
        ValueError: the shapes differ.
    """
    tensor(values, name)
    if values.dtype != torch.bool:
        raise TypeError(
            f"expected {name} of type torch.bool, got {values.dtype}; compare it with what counts "
            "as true, for example `targets == 1`"
        )
    require_same_shape(values, other, (name, other_name))
    return values


def fraction(value: float, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1.

    Raises:
        ValueError: it does not.
    """
    if not 0 < value < 1:
        raise ValueError(
            f"expected {name} strictly between 0 and 1, got {value}; write 95% as 0.95"
        )
    return float(value)


def unit_interval(values: Tensor, name: str) -> Tensor:
    """Return `values` in float64 if it has one axis, of numbers from 0 to 1.

    Values that rounding has lifted just above 1 become 1.

    Raises:
        ValueError: it has another number of axes, or a value is not finite or not in [0, 1].
    """
    low, high = (float(end) for end in vector(values, name).aminmax())
    if low < 0 or high > 1 + PROBABILITY_TOLERANCE:
        raise ValueError(
            f"expected {name} from 0 to 1, got values from {low:.4g} to {high:.4g}; "
            "pass logits through a softmax or a sigmoid first"
        )
    return values.double().clamp(max=1)
