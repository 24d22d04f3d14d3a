"""How the values of a declaration are written; what YAML reads otherwise than it looks is refused.

YAML 1.1 reads 032 as 26, 1:30 as 90, `yes` as true, and takes the last of two equal keys in
silence. A declaration has whole numbers, decimal numbers, null, texts, and lists of them.
"""

import math
import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args, get_origin

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"([-+]?(0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
NULL = re.compile(r"~|null|Null|NULL|")
NO_TEXTS = ("bool", "int", "float", "null")  # tags of YAML
MAX_SHOWN = 40  # characters of a value in an error


def compose(text: str) -> Node | None:
    """Parse YAML, without making values of it.

    Raises:
        YAMLError: it is not YAML.
    """
    node: Node | None = yaml.compose(text, yaml.SafeLoader)
    return node


def keys_and_values(node: Node, section: str = "") -> Iterator[tuple[str, Node]]:
    """The dotted key and the value of each line of a mapping.

    Raises:
        ValueError: it is no mapping, or has a key twice.
    """
    if not isinstance(node, MappingNode):
        name = f"under {section} " if section else ""
        raise ValueError(
            f"expected keys {name}with a value each, got {_shown(node)}{line(node)}; "
            "write them as in `seeds: [0, 1]`"
        )
    lines: dict[str, str] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode) or WHOLE.fullmatch(key.value):  # 0,1 is read as two
            raise ValueError(
                f"expected a word as a key, got {_shown(key)}{line(key)}; name a key, and write "
                "decimal numbers with a point"
            )
        name = f"{section}.{key.value}" if section else key.value
        if key.value in lines:
            raise ValueError(
                f"expected each key once, got {name!r:.80}{lines[key.value]} and again"
                f"{line(key)}; remove one of them"
            )
        lines[key.value] = line(key)
        yield name, value


def require_plain(key: str, node: Node, annotation: Any, *, place: str | None = None) -> None:
    """Check that a value is written as what it is read as.

    Args:
        key: dotted key of the value.
        node: the value as it is written.
        annotation: type of the value: int, float, str, a Literal, None, unions, tuples of these.
        place: where it is, in words; its line by default.

    Raises:
        ValueError: it is a list where one value is expected, or the reverse, or is not written
            plainly; says how to write it.
    """
    where = line(node) if place is None else place
    quote = "" if place is None else "'"  # brackets mean something to a shell
    if get_origin(annotation) is not tuple:
        if not isinstance(node, ScalarNode):
            items = node.value if isinstance(node, SequenceNode) else []
            write = _shown(items[0]) if items else "one"
            raise ValueError(
                f"expected {key} as one value, got {_shown(node)}{where}; write {write}"
            )
        _require_plain_scalar(key, node, annotation, where)
        return
    if not isinstance(node, SequenceNode):
        write, shown = "a list, or leave it out", _shown(node)
        if isinstance(node, ScalarNode) and not NULL.fullmatch(node.value):
            write = f"{quote}[{shown.strip('[]')}]{quote}"
        elif NoneType in get_args(get_args(annotation)[0]):
            write = f"{quote}[null]{quote}"
        raise ValueError(f"expected {key} as a list, got {shown}{where}; write {write}")
    for item in node.value:
        own = line(item) if place is None else place
        _require_plain_scalar(key, item, get_args(annotation)[0], own)


def line(node: Node) -> str:
    """The line of a value in its file, in words."""
    return f" in line {node.start_mark.line + 1}"


def _require_plain_scalar(key: str, node: Node, annotation: Any, where: str) -> None:
    if not isinstance(node, ScalarNode):
        raise ValueError(
            f"expected {key} as single values, got {_shown(node)}{where}; write them in one list"
        )
    kinds = set(get_args(annotation) or [annotation])
    if kinds & {int, float}:
        plain = (
            [NULL] * (NoneType in kinds) + [WHOLE] * (int in kinds) + [DECIMAL] * (float in kinds)
        )
        if not any(pattern.fullmatch(node.value) for pattern in plain):
            raise ValueError(_no_number(key, node, where, whole=float not in kinds))
        return
    read_as = node.tag.rpartition(":")[2]
    if node.style is None and (read_as in NO_TEXTS or DECIMAL.fullmatch(node.value)):
        raise ValueError(
            f"expected {key} as text, got {_shown(node)}{where}; put it in quotes, as in "
            f"'{node.value:.{MAX_SHOWN}}'"
        )


def _no_number(key: str, node: ScalarNode, where: str, *, whole: bool) -> str:
    """The error for what is not written as a number, with what YAML reads it as."""
    text = node.value
    read, write = "", "digits, as in 32" if whole else "digits, as in 0.01"
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = None
    if isinstance(value, bool):
        read = f", which YAML reads as {str(value).lower()}"
    elif DECIMAL.fullmatch(text):  # and not whole
        write = str(int(float(text))) if float(text).is_integer() else write
    elif isinstance(value, (int, float)) and math.isfinite(value):
        read, write = f", which YAML reads as {value}", str(value)
        digits = text.replace("_", "").lstrip("0")
        if WHOLE.fullmatch(digits) and digits != write:
            write += f" or {digits}, whichever is meant"
    kind = "a whole number" if whole else "a decimal number"
    return f"expected {key} as {kind}, got {_shown(node)}{where}{read}; write {write}"


def _shown(node: Node) -> str:
    """A value as it is written, for an error."""
    if not isinstance(node, ScalarNode):
        return "a list" if isinstance(node, SequenceNode) else "keys"
    shown = node.value if len(node.value) <= MAX_SHOWN else f"{node.value[:MAX_SHOWN]}..."
    return " ".join(shown.split()) or "nothing"
