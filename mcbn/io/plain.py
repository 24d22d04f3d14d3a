"""Plain values as JSON, and from it: written and parsed strictly, checked by annotated types."""

import json
import math
import sys
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, NoReturn, TypeGuard, get_args, get_origin


def to_json(value: Any, **layout: Any) -> str:
    """Text of JSON, in which a number that is not finite is null, since JSON has no other.

    Args:
        value: numbers, texts, None, and lists and mappings of them.
        **layout: of `json.dumps`, such as `indent`.
    """
    return json.dumps(to_plain(value), allow_nan=False, **layout)


def to_plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None, and tuples by lists."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object with unique keys and finite numbers.

    Raises:
        ValueError: the text is something else; says what.
    """
    try:
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("too many levels") from error
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("a repeated key")
    return unique


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word}, which is not JSON")


def matches_type(value: object, annotation: Any) -> bool:
    """Whether a value from JSON is of an annotated type and, if it is a number, finite.

    Args:
        value: of any type; a list stands for a tuple.
        annotation: float, int, str, None, a tuple of one type, a Literal, or a union.
    """
    if get_origin(annotation) is UnionType:
        return any(matches_type(value, each) for each in get_args(annotation))
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if get_origin(annotation) is tuple:
        return isinstance(value, (list, tuple)) and all(
            matches_type(each, get_args(annotation)[0]) for each in value
        )
    if annotation is float:
        largest = sys.float_info.max
        return _is_number(value, (int, float)) and -largest <= value <= largest
    if annotation is int:
        return _is_number(value, int) and abs(value) < 2**63
    return isinstance(value, annotation)


def _is_number(value: Any, types: Any) -> TypeGuard[Any]:
    return isinstance(value, types) and not isinstance(value, bool)
