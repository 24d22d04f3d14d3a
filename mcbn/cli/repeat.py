"""The command line that repeats what was done."""

import shlex
from typing import Any

from mcbn.cli.declarations import Option, options_of, values_of
from mcbn.cli.values import bracketed


def command(program: str, options: Any, *, positional: str = "") -> str:
    """The command that gives these options, as a shell reads it; defaults are left out."""
    values = values_of(options)
    words, files = program.split(), []
    for name, option in options_of(type(options)).items():
        value = values[option.field]
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


def _is_option(word: str) -> bool:
    return word.startswith("-")


def _needs_brackets(option: Option, text: str) -> bool:
    """Whether a text is an element of a list that would be read as several."""
    return option.is_list and (
        (option.commas and ("," in text or text != text.strip())) or text[:1] + text[-1:] == "[]"
    )
