"""Values of options, from the texts that were given for them.

Values are read as they are written: only a list in brackets is YAML, so that "null" and "010" are
what they look like.
"""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from mcbn.cli.declarations import Option
from mcbn.cli.messages import shown
from mcbn.io.plain import to_json

SWITCH = ("true", "false")
INTEGER = re.compile(r"[+-]?[0-9]+")
REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def converted(option: Option, texts: Sequence[str]) -> Any:
    """The value of an option, from the texts that were given for it.

    Raises:
        ValueError: a text is not of its kind, a number is below its least, or an element of a
            list is there twice.
    """
    if option.is_list:
        return _different(option, [each for text in texts for each in _elements(option, text)])
    text = texts[0]
    if text in option.words:
        return text
    if option.kind is int and INTEGER.fullmatch(text):
        return _not_below_least(option, int(text))
    if option.kind is float and REAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if option.is_switch and text.lower() in SWITCH:
        return text.lower() == "true"
    if option.kind is str or text in option.choices:
        return text
    choices = option.choices or SWITCH
    kinds = {int: "a whole number", float: "a number"}
    wanted = " or ".join([kinds.get(option.kind) or " or ".join(choices), *option.words])
    raise ValueError(
        f"expected {wanted} for --{option.name}, got "
        f"{shown(text)}; {did_you_mean(text.lower(), choices) or 'give one'}"
    )


def _not_below_least(option: Option, number: int) -> int:
    if option.least is not None and number < option.least:
        raise ValueError(
            f"expected --{option.name} of at least {option.least}, got {number}; give such a "
            "number, or leave it out"
        )
    return number


def did_you_mean(word: str, known: Iterable[str], *, near: float = 0.6) -> str:
    """A question after the nearest of the known words; empty if none is as near as this."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=near)
    return f"did you mean {nearest[0]!r}?" if nearest else ""


def _different(option: Option, elements: list[str]) -> list[str]:
    for index, element in enumerate(elements):
        if not element or (element in elements[:index] and not option.repeats):
            raise ValueError(
                f"expected different values of --{option.name}, got {element!r} "
                f"{'twice' if element else 'among them'}; give each once"
            )
    return elements


def _elements(option: Option, text: str) -> list[str]:
    """The elements of a list: YAML in brackets, one text, or several with commas between them."""
    if not (text.startswith("[") and text.endswith("]")):
        return [each.strip() for each in text.split(",")] if option.commas else [text]
    try:
        return scalars(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"expected a list of texts for --{option.name}, got {shown(text)}; write --"
            f"{option.name} before each of its values"
        ) from error


def scalars(node: yaml.Node | None) -> list[str]:
    """The texts of a YAML scalar, or of a list of them, as they are written; of null none.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(node, yaml.SequenceNode) and all(
        isinstance(each, yaml.ScalarNode) for each in node.value
    ):
        return [each.value for each in node.value]
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("expected a text or a list of texts, got keys; write one of these")
    return [] if node.tag.endswith(":null") else [node.value]


def bracketed(texts: Iterable[str]) -> str:
    """A list in brackets, whose elements are read as they are."""
    return f"[{', '.join(to_json(text, ensure_ascii=False) for text in texts)}]"


def names_of(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names in a list, or in one text with commas between them."""
    return tuple(given.split(",")) if isinstance(given, str) else tuple(given or ())
