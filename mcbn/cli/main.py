"""The command line: runs a verb, and prints errors in one line.

The code of a verb is imported when the verb runs, so that help, errors in options and `mcbn study
status` do not wait for torch. Exit codes: 0 for success, 1 for what a verb found (a network to
which MCBN cannot be applied, cells that failed, an issue of `mcbn check`), 2 for an error, 70 for a
bug of mcbn, 130 for Ctrl-C.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from mcbn.cli import commands, errors, messages
from mcbn.cli.completion import complete
from mcbn.cli.verbs import VERBS

__all__ = ["VERBS", "main"]

BUG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h, an internal software error
QUIET, TRACEBACK = "--quiet", "--traceback"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; errors are printed in one line and exit with a code other than 0."""
    if arguments is None:  # this process is the command
        if (code := complete()) is not None:
            sys.exit(code)
        warnings.showwarning = messages.warn
    words, general = _split(sys.argv[1:] if arguments is None else arguments)
    try:
        with messages.silence(QUIET in general):
            _run(words)
            sys.stdout.flush()
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except BrokenPipeError:  # whoever reads the output, such as `head`, wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        _fail(error, with_traceback=TRACEBACK in general)
    except KeyboardInterrupt:
        messages.interrupted("no incomplete file was left behind")
        sys.exit(130)


def _run(words: list[str]) -> None:
    command = commands.root()
    try:
        with command.make_context(commands.PROGRAM, words) as context:
            command.invoke(context)
    except click.exceptions.NoArgsIsHelpError as asked:
        print(asked.format_message())
        sys.exit(2)


def _split(arguments: Sequence[str]) -> tuple[list[str], set[str]]:
    """The words of a command without --quiet and --traceback, which may stand anywhere, and those.

    `help VERB` is `VERB --help`.
    """
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    general = {QUIET, TRACEBACK} & set(words[:end])
    words = [each for each in words[:end] if each not in general] + words[end:]
    return [*words[1:], "--help"] if words[:1] == ["help"] else words, general


def _fail(error: Exception, *, with_traceback: bool) -> NoReturn:
    """Print an error, and end the process with its exit code."""
    text = errors.explained(error)
    if text is None or with_traceback:
        traceback.print_exception(error)
    messages.error(errors.bug(error) if text is None else text)
    sys.exit(BUG_EXIT_CODE if text is None else 2)
