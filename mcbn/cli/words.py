"""Words of a command, as click reads them: every option with its value, given once.

Click alone would take the last of two values, the next option for a missing value, and no value for
a switch.
"""

from collections.abc import Mapping, Sequence

from mcbn.cli.declarations import Option
from mcbn.cli.values import REAL, SWITCH

HELP = ("-h", "--help")


def spelled(
    words: Sequence[str], options: Mapping[str, Option], *, positional: str, others: bool
) -> tuple[list[str], list[str]]:
    """Options as --name=value, with hyphens in their names; and words that belong to none.

    Args:
        words: the arguments of a verb.
        options: the options of the verb, by name.
        positional: the option of which other words are values, if there is one.
        others: whether options that are not among these have values as well.

    Raises:
        ValueError: a value is missing or given twice, or may be a file of another option.
    """
    found: list[str] = []
    bare: list[str] = []
    first: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        option = options.get(name) if word.startswith("--") else None
        if option is None and not (others and word.startswith("--")):
            # If it is an unknown option, click says so.
            (found if is_option(word) else bare).append(word)
            continue
        value = value if equals else _next_value(name, option, rest, positional)
        _require_value(f"a value of --{name}", value)
        if name == positional:
            bare.append(value)
            continue
        if name in first and not (option and option.is_list):
            raise ValueError(
                f"expected --{name} once, got {first[name]!r} and {value!r}; give one of them"
            )
        first[name] = value
        found.append(f"--{name}={value}")
    bare += rest[1:]
    for word in bare:
        _require_value("names of files", word)
    return found, bare


def _require_value(what: str, value: str) -> None:
    if not value:
        raise ValueError(f"expected {what}, got an empty text; give one, or leave it out")


def _next_value(name: str, option: Option | None, rest: list[str], positional: str) -> str:
    """Take the value of an option from the words after it."""
    if option and option.is_switch:
        return rest.pop(0).lower() if rest and rest[0].lower() in SWITCH else "true"
    if not rest or is_option(rest[0]):
        raise ValueError(f"expected a value of --{name}, got none; give one, or leave it out")
    value = rest.pop(0)
    is_files = option is not None and option.is_list and option.role and name != positional
    if is_files and rest and not is_option(rest[0]):
        raise ValueError(
            f"expected one value after --{name}, got {value!r} and {rest[0]!r}; write --{name} "
            f"before each of its values, and {positional} before all options"
        )
    return value


def is_option(word: str) -> bool:
    """Whether a word begins like an option, and is no number."""
    return word.startswith("-") and word != "-" and not REAL.fullmatch(word)


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether a help option is among the words, before two dashes."""
    end = words.index("--") if "--" in words else len(words)
    return any(word in HELP for word in words[:end])
