"""Plain values, as JSON has them: whether they are of a declared type."""

import sys
from types import UnionType
from typing import Any, Literal, TypeGuard, get_args, get_origin


def is_of(value: object, kind: Any) -> bool:
    """Whether a plain value, of JSON, is of a declared type, and a number is finite.

    Args:
        value: of any kind; a list stands for a tuple.
        kind: float, int, str, None, a tuple of one type, a choice of literals, or a union.
    """
    if get_origin(kind) is UnionType:
        return any(is_of(value, each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, (list, tuple)) and all(
            is_of(each, get_args(kind)[0]) for each in value
        )
    if kind is float:
        largest = sys.float_info.max
        return _is_plain(value, (int, float)) and -largest <= value <= largest
    if kind is int:
        return _is_plain(value, int) and abs(value) < 2**63
    return isinstance(value, kind)


def _is_plain(value: Any, kinds: Any) -> TypeGuard[Any]:
    return isinstance(value, kinds) and not isinstance(value, bool)
