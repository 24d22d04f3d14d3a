"""Options of every verb, and of the verb that completes words."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class GeneralOptions:
    """Options of every verb.

    Attributes:
        quiet: print no notes and no progress, only errors and what a program reads.
        traceback: print where an error was raised.
    """

    quiet: bool = False
    traceback: bool = False


@dataclass(frozen=True)
class FileOptions:
    """Options of every verb whose options can be written to a file.

    Attributes:
        config: YAML file of these options; those of the command line replace them.
        print_config: print these options as such a file, and exit.
    """

    config: str | None = field(
        default=None, metadata={"role": "input", "noun": "a file of options"}
    )
    print_config: bool = False


@dataclass(frozen=True)
class ForceOptions:
    """Options of every verb that writes files.

    Attributes:
        force: replace files that are there already.
    """

    force: bool = False


@dataclass(frozen=True)
class CompletionOptions:
    """Print the script that completes verbs, options and their values in a shell.

    Example: mcbn completion bash >> ~/.bashrc

    Attributes:
        shell: bash, zsh or fish; the script of fish belongs into
            ~/.config/fish/completions/mcbn.fish.
    """

    shell: Literal["bash", "zsh", "fish"]
