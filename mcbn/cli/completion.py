"""Completion of verbs, options and values in a shell, without torch."""

import os

from click.shell_completion import get_completion_class, shell_complete

from mcbn.cli import commands
from mcbn.cli.options.general import CompletionOptions

VARIABLE = "_MCBN_COMPLETE"  # by which a shell asks for completions


def completion(options: CompletionOptions) -> None:
    """Print the script that completes commands in a shell."""
    shell = get_completion_class(options.shell)
    if shell is not None:
        print(shell(commands.root(), {}, commands.PROGRAM, VARIABLE).source())


def complete() -> int | None:
    """Answer a shell that asks for completions; the exit code, or None if none asks."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return None
    return shell_complete(commands.root(), {}, commands.PROGRAM, VARIABLE, asked)
