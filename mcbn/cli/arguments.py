"""Arguments of the command line: words into options and their values; every word counts.

An option is given once, but for a list, to which each time adds. Values are read as they are
written: only a list in brackets is YAML, so that "null" and "010" are what they look like.
"""

import difflib
import math
import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml

from mcbn.io.plain import to_json

SWITCH = ("true", "false")
INTEGER = re.compile(r"[+-]?[0-9]+")
REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# An option and its value, None where none was given; a word that belongs to no option has no name.
Pair = tuple[str, str | None]


@dataclass(frozen=True)
class Option:
    """An option of a verb, made from a field of the class of its options.

    Attributes:
        field: name of the field.
        kind: str, int, float, bool or list (of texts), or the texts that may be chosen.
        default: its value where it is not given; MISSING if it is required.
        help: what it is, in words.
        commas: whether a text is a list with commas between its elements.
        folder: whether it is the folder that a report is written to.
        mark: what is in every file that mcbn writes there.
        only: the option without which, or without whose value, this one has no effect.
    """

    field: str
    kind: Any
    default: Any
    help: str
    commas: bool = False
    folder: bool = False
    mark: str = ""
    only: tuple[str, str | None] | None = None

    @property
    def name(self) -> str:
        """How it is spelled on the command line, without the dashes."""
        return self.field.replace("_", "-")


def options_of(kind: Any) -> dict[str, Option]:
    """The options of a class of options, by their names on the command line."""
    attributes = textwrap.dedent(kind.__doc__.partition("Attributes:\n")[2])
    help_texts = dict(re.findall(r"^(\w+): (.*(?:\n[ ]+.*)*)", attributes, re.MULTILINE))
    options = [
        Option(
            field.name, _kind(field.type), field.default,
            " ".join(help_texts[field.name].split()), **field.metadata,
        )
        for field in fields(kind)
    ]  # fmt: skip
    return {option.name: option for option in options}


def _kind(annotation: Any) -> Any:
    """The kind of the values of an annotated field, of which one may be None."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is list:
        return list
    kinds = [_kind(each) for each in get_args(annotation) if each is not NoneType]
    return kinds[0] if kinds else annotation


def pairs(words: Sequence[str], switches: Sequence[str] = ()) -> list[Pair]:
    """Cut words into options with their values, in order; underscores in names are hyphens.

    Args:
        words: the arguments of a verb.
        switches: names of options that need no value.
    """
    found: list[Pair] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return found + [("", each) for each in rest]
        if not _is_option(word):
            found.append(("", word))
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("_", "-")
        if equals:
            found.append((name, value))
        elif name in switches:
            found.append(
                (name, rest.pop(0).lower() if rest and rest[0].lower() in SWITCH else "true")
            )
        else:
            found.append((name, rest.pop(0) if rest and not _is_option(rest[0]) else None))
    return found


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not REAL.fullmatch(word)


def require_once(given: Iterable[Pair], lists: Sequence[str] = ()) -> None:
    """Check that every option has a value, and is given once if it is not one of the lists.

    Raises:
        ValueError: one is not; names it.
    """
    first: dict[str, str] = {}
    for name, value in given:
        if not value:
            what = f"a value of --{name}" if name else "names of files"
            raise ValueError(
                f"expected {what}, got {'none' if value is None else 'an empty text'}; give one, "
                "or leave it out"
            )
        if name in first:
            raise ValueError(
                f"expected --{name} once, got {first[name]!r} and {value!r}; give one of them"
            )
        if name and name not in lists:
            first[name] = value


def require_known(word: str, known: Iterable[str], program: str) -> None:
    """Check that an option, or a key, is one of the known.

    Raises:
        ValueError: it is not; suggests the nearest.
    """
    names = list(known)
    if word in names:
        return
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"{program} --help lists them"
    raise ValueError(f"expected options of {program}, got {word!r}; {hint}")


def require_clear(
    words: Sequence[str], options: Mapping[str, Option], positional: str, program: str
) -> None:
    """Check that words without a name are wanted, and are not the second value of an option.

    Raises:
        ValueError: they are not, or may be; says how to write it.
    """
    switches = [name for name, option in options.items() if option.kind is bool]
    given = pairs(words, switches)
    bare = [value for name, value in given if not name]
    if bare and not positional:
        raise ValueError(
            f"expected options of {program}, got {bare[0]!r}; write its --name before each value"
        )
    if positional and options[positional].kind is not list:
        files = [value for name, value in given if name in ("", positional)]
        if len(files) > 1:
            raise ValueError(
                f"expected one {positional} of {program}, got {files}; give one, and write its "
                "--name before each value of an option"
            )
        return
    for option, value, word in zip(words, words[1:], words[2:], strict=False):
        name = option.lstrip("-").replace("_", "-")
        is_list = option.startswith("--") and name in options and options[name].kind is list
        if is_list and name != positional and not (_is_option(word) or word == "--"):
            raise ValueError(
                f"expected one value after --{name}, got {value!r} and {word!r}; write --{name} "
                f"before each of its values, and {positional} before all options"
            )


def converted(option: Option, texts: Sequence[str]) -> Any:
    """The value of an option, from the texts that were given for it.

    Raises:
        ValueError: a text is not of its kind, or an element of a list is there twice.
    """
    if option.kind is list:
        elements = [each for text in texts for each in _elements(option, text)]
        for index, element in enumerate(elements):
            if not element or element in elements[:index]:
                raise ValueError(
                    f"expected different values of --{option.name}, got {element!r} "
                    f"{'twice' if element else 'among them'}; give each once"
                )
        return elements
    text = texts[0]
    if option.kind is int and INTEGER.fullmatch(text):
        return int(text)
    if option.kind is float and REAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if option.kind is bool and text.lower() in SWITCH:
        return text.lower() == "true"
    if option.kind is str or (isinstance(option.kind, tuple) and text in option.kind):
        return text
    choices = option.kind if isinstance(option.kind, tuple) else SWITCH
    kinds = {int: "a whole number", float: "a number"}
    near = difflib.get_close_matches(text.lower(), choices, n=1)
    raise ValueError(
        f"expected {kinds.get(option.kind) or ' or '.join(choices)} for --{option.name}, got "
        f"{text!r:.80}; {f'did you mean {near[0]!r}?' if near else 'give one'}"
    )


def _elements(option: Option, text: str) -> list[str]:
    """The elements of a list: YAML in brackets, one text, or several with commas between them."""
    if not (text.startswith("[") and text.endswith("]")):
        return [each.strip() for each in text.split(",")] if option.commas else [text]
    try:
        return scalars(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"expected a list of texts for --{option.name}, got {text!r:.80}; write --"
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


def command(program: str, options: Any, *, positional: str = "") -> str:
    """The command that gives these options, as a shell reads it; defaults are left out."""
    words, files = program.split(), []
    for name, option in options_of(type(options)).items():
        value = getattr(options, option.field)
        if value is None or value == option.default:
            continue
        given = value if isinstance(value, list) else [value]
        texts = [str(each).lower() if isinstance(each, bool) else str(each) for each in given]
        if isinstance(value, list) and any(_needs_brackets(option, text) for text in texts):
            texts = [bracketed(texts)]
        if name == positional:
            files = texts
        else:
            words += [f"--{name}={text}" for text in texts]
    # After two dashes a word is never an option.
    return shlex.join([*words, *(["--"] if any(map(_is_option, files)) else []), *files])


def _needs_brackets(option: Option, text: str) -> bool:
    """Whether a text is an element of a list that would be read as several."""
    return option.kind is list and (
        (option.commas and ("," in text or text != text.strip())) or text[:1] + text[-1:] == "[]"
    )
