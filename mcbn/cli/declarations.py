"""Options of the command line, made from the fields of the classes that declare them."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

Role = Literal["", "input", "data", "model", "study", "output", "report", "demo", "resumed"]


@dataclass(frozen=True)
class Option:
    """An option of a verb, made from a field of the class of its options.

    Attributes:
        field: name of the field.
        kind: str, int, float, bool or list (of texts), or the texts that may be chosen.
        default: its value where it is not given; MISSING if it is required.
        help: what it is, in words.
        commas: whether a text is a list with commas between its elements.
        repeats: whether an element of a list may be there twice.
        words: texts that stand for a value of another kind.
        least: the smallest number that it may be.
        role: what it names, if it is a path: a file to read (input), examples to read (data: a
            file, a folder of pictures or code), code of the user's (model) or the folder of a study
            to read; a file to write (output), or the folder of a report, of the demo or of a study
            that is resumed, to write to.
        noun: what a file to read is, or what the function of some code does, in words.
        forms: what examples may be given as, in words.
        named: whether NAME= may stand before a path.
        only: the option without which this one has no effect, and the values that it has to have,
            if not any.
        others: whether its value is all options that are not declared.
    """

    field: str
    kind: Any
    default: Any
    help: str
    commas: bool = False
    repeats: bool = False
    words: tuple[str, ...] = ()
    least: int | None = None
    role: Role = ""
    noun: str = ""
    forms: str = ""
    named: bool = False
    only: tuple[str, ...] | None = None
    others: bool = False

    @property
    def name(self) -> str:
        """How it is spelled on the command line, without the dashes."""
        return self.field.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether there is no verb without it."""
        return self.default is MISSING

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return self.kind is list

    @property
    def is_switch(self) -> bool:
        """Whether it needs no value."""
        return self.kind is bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that may be chosen, if there are only some."""
        return self.kind if isinstance(self.kind, tuple) else ()


def options_of(kind: Any) -> dict[str, Option]:
    """The options of a class of options and of its parts, by their names on the command line."""
    attributes = textwrap.dedent(kind.__doc__.partition("Attributes:\n")[2])
    help_texts = dict(re.findall(r"^(\w+): (.*(?:\n[ ]+.*)*)", attributes, re.MULTILINE))
    found: dict[str, Option] = {}
    for field in fields(kind):
        if is_dataclass(field.type):
            found |= options_of(field.type)
            continue
        option = Option(
            field.name, _kind(field.type),
            field.default if field.default_factory is MISSING else field.default_factory(),
            " ".join(help_texts[field.name].split()), **field.metadata,
        )  # fmt: skip
        found[option.name] = option
    return found


def made(kind: Any, values: Mapping[str, Any]) -> Any:
    """An instance of a class of options, with its parts, from the values of all their fields."""
    arguments = {
        field.name: made(field.type, values) if is_dataclass(field.type) else values[field.name]
        for field in fields(kind)
    }
    return kind(**arguments)


def values_of(options: Any) -> dict[str, Any]:
    """The values of all options, of the parts as well, by field."""
    values: dict[str, Any] = {}
    for name, value in vars(options).items():
        values |= values_of(value) if is_dataclass(value) else {name: value}
    return values


def check(options: Any) -> None:
    """Check that the options, and those of each part, are compatible with each other.

    Raises:
        ValueError: they are not.
    """
    for part in filter(is_dataclass, vars(options).values()):
        check(part)
    if hasattr(options, "check"):
        options.check()


def paths(option: Option, values: Mapping[str, Any]) -> list[str]:
    """The texts of an option that names files, as a list."""
    value = values[option.field]
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _kind(annotation: Any) -> Any:
    """The kind of the values of an annotated field, of which one may be None."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is list:
        return list
    kinds = [_kind(each) for each in get_args(annotation) if each is not NoneType]
    return kinds[0] if kinds else annotation
