"""Errors of the command line in one line: what was expected, what came, what to do."""

import sysconfig
import traceback
from pathlib import Path
from typing import NamedTuple

import mcbn
from mcbn.cli.messages import shown

OURS = Path(mcbn.__file__).parent
# Folders of code that users do not write: Python and installed packages.
LIBRARIES = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
INSTALLED = {"site-packages", "dist-packages"}
# Functions of mcbn that PyTorch calls for every operation of a network.
OBSERVERS = {"__torch_function__", "__torch_dispatch__"}
MODULE = ("torch", "nn", "modules", "module.py")  # which calls the forward of every network


class Place(NamedTuple):
    """A line of a user's file, and the function that it is in."""

    path: str
    line: int
    function: str


def is_refusal(error: Exception) -> bool:
    """Whether an error is about the user's command or machine, so that it is not a bug of mcbn.

    mcbn says what it expected in every error that it raises on purpose. The machine may lack a
    file, a package or memory.
    """
    if isinstance(error, (OSError, ImportError)):
        return True
    return _is_of_memory(error) or str(error).startswith("expected ")


def place_of(error: BaseException) -> Place | None:
    """The line of a user's file in which an error was raised; None if it is none of theirs.

    It is the last one that does not lie in mcbn or in a library. If mcbn was called after it, the
    error is not the user's.
    """
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return Place(error.filename, error.lineno or 0, "")
    frames = [each for each in _after_ours(error) if _is_users(each.filename)]
    if not frames:
        return None
    return Place(frames[-1].filename, frames[-1].lineno or 0, frames[-1].name)


def is_of_network(error: BaseException) -> bool:
    """Whether an error was raised by a network that mcbn called, such as by one of its layers."""
    return any(Path(each.filename).parts[-4:] == MODULE for each in _after_ours(error))


def _after_ours(error: BaseException) -> list[traceback.FrameSummary]:
    """The calls that led to an error after the last one in mcbn."""
    frames = list(traceback.extract_tb(error.__traceback__))
    ours = [
        index
        for index, each in enumerate(frames)
        if _is_ours(each.filename) and each.name not in OBSERVERS
    ]
    return frames[ours[-1] + 1 :] if ours else frames


def explained(error: Exception) -> str | None:
    """What is said of an error about the user's command, machine or code; None if it is a bug."""
    text = " ".join(str(error).split("\n"))
    if text.startswith("expected "):
        return text
    if _is_of_memory(error):
        return (
            f"expected enough memory, got too little ({text or 'no more'}); give fewer examples, "
            "or a smaller --batch-size or --chunk where there is one"
        )
    place = place_of(error)
    if place is not None:
        return _of_users(error, place)
    if is_of_network(error):
        return (
            f"expected a network that takes these inputs, got {_named(error)} from one of its "
            "layers; check --model and the shape and type of --data, or see --traceback"
        )
    return _of_machine(error, text) if is_refusal(error) else None


def _of_machine(error: Exception, text: str) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"expected to read or write {error.filename}, got: {error.strerror}; check the path, "
            "its permissions and the space on the disk"
        )
    if isinstance(error, ImportError):
        return f"expected modules that can be imported, got: {text}; check --model, or install it"
    return f"expected files that can be read and written, got: {text}; check their disk"


def _of_users(error: Exception, place: Place) -> str:
    """What is said of an error that a user's file raised."""
    function = f" ({place.function})" if place.function.isidentifier() else ""
    return (
        f"expected {_short(place.path)} to run, got {_named(error)} in line {place.line}{function}"
        "; correct it there, or see --traceback"
    )


def _named(error: Exception) -> str:
    """The type and the first line of an error that is not of mcbn."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = next(iter(text.splitlines()), "")
    return f"{type(error).__name__}: {shown(first)}" if first else type(error).__name__


def bug(error: Exception) -> str:
    """What is said of an error that is a bug of mcbn."""
    return (
        f"{type(error).__name__}: {error}\nThis is a bug of mcbn. Please report it with the "
        "command and the traceback."
    )


def _is_of_memory(error: Exception) -> bool:
    # Of torch, by its name: the command line does not import torch.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _is_ours(path: str) -> bool:
    return Path(path).is_relative_to(OURS)


def _is_users(path: str) -> bool:
    file = Path(path)
    if not file.is_file() or _is_ours(path) or INSTALLED & {*file.parts}:
        return False
    return not any(file.is_relative_to(folder) for folder in LIBRARIES)


def _short(path: str) -> str:
    """A path from the current folder, if it is in it."""
    return (
        str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
    )
