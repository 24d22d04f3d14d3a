"""Help of the verbs of the command line, made from the classes of their options."""

import inspect
import shutil
import textwrap
from dataclasses import MISSING
from typing import Any

from mcbn.cli.arguments import Option, options_of

COLUMN = 24  # where the text on an option begins
GENERAL = {
    "--config FILE": "YAML file of these options; those of the command line replace them",
    "--print-config": "print these options as such a file, and exit",
    "--traceback": "print where an error was raised",
    "-h, --help": "show this help and exit",
}


def usage(program: str, kind: Any, *, positional: str = "", metavar: str = "") -> str:
    """The help of a verb: how it is called, what it does, an example and its options.

    Args:
        program: the command and the verb.
        kind: class of its options.
        positional: name of the option that needs no name.
        metavar: what stands for its value.
    """
    summary, example = inspect.cleandoc(kind.__doc__).split("\n\n")[:2]
    options = options_of(kind)
    required = [
        f"--{name} {_metavar(option)}"
        for name, option in options.items()
        if option.default is MISSING and name != positional
    ]
    width = max(60, min(100, shutil.get_terminal_size().columns))
    call = " ".join(["usage:", program, *([metavar] if metavar else []), *required, "[options]"])
    lines = {
        metavar if name == positional else f"--{name} {_metavar(option)}".rstrip(): _text(option)
        for name, option in options.items()
    }
    return "\n".join(
        [
            textwrap.fill(call, width, subsequent_indent="    ", break_on_hyphens=False),
            "",
            textwrap.fill(summary, width),
            "",
            *(_line(*each, width) for each in (lines | GENERAL).items()),
            "",
            example,
        ]
    )


def _metavar(option: Option) -> str:
    if isinstance(option.kind, tuple):
        return "{" + ",".join(option.kind) + "}"
    return "" if option.kind is bool else option.name.rpartition("-")[2].upper()


def _text(option: Option) -> str:
    text = option.help.rstrip(".")
    if any(option.default is each for each in (MISSING, None, False)):
        return text
    return f"{text} (default: {option.default})"


def _line(name: str, text: str, width: int) -> str:
    indent = " " * COLUMN
    first = f"  {name}".ljust(COLUMN)
    first = first if len(f"  {name}") < COLUMN else f"  {name}\n{indent}"
    body = textwrap.fill(text, width - COLUMN, break_on_hyphens=False).replace("\n", f"\n{indent}")
    return first + body
