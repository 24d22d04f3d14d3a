"""Messages of the command line: results on its output, notes and errors beside it."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

from mcbn.io.plain import to_json

RED, YELLOW, GREEN, PLAIN = "\x1b[1;31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
COLOURS = {"issue": RED, "tip": YELLOW, "passed": GREEN}  # of the status of a check
FIGURES = "figures"  # the folder of their files, beside the page of a report
MAX_VALUE_CHARACTERS = 80  # of what a user gave, as an error shows it

# Where errors go while everything else is silent; None while it is not.
_errors: ContextVar[TextIO | None] = ContextVar("errors", default=None)


@contextlib.contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """Print no notes, warnings and progress in a `with` block, only results and errors."""
    if not quiet:
        yield
        return
    token = _errors.set(sys.stderr)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        _errors.reset(token)


def say(text: str) -> None:
    """Print what a verb has done, for people."""
    if _errors.get() is None:
        print(text)


def show(text: str, numbers: Any, *, json: bool) -> None:
    """Print what a verb has done in words for people, or else in numbers for programs."""
    if json:
        print(to_json(numbers, indent=2))
    else:
        say(text)


def show_report(
    path: Path,
    report: Any,
    *,
    figures: bool,
    json: bool,
    recalibrations: Mapping[str, str] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> None:
    """Print what a report says in one sentence, and where it is; for programs its verdict.

    Args:
        path: of the page.
        report: with its headline and its verdict.
        figures: whether each figure has files of its own, which are beside the page.
        json: for programs.
        recalibrations: what was fitted, in words, by method.
        numbers: what programs are told besides.
    """
    lines = [on_a_line(report.headline), f"Report: {path}"]
    plain = {
        "report": str(path), "headline": report.headline,
        "verdict": [claim.to_dict() for claim in report.verdict], **(numbers or {}),
    }  # fmt: skip
    if figures:
        folder = path.with_name(FIGURES)
        lines.append(f"Figures: {folder}")
        plain["figures"] = str(folder)
    lines += [f"Recalibration of {name}: {text}" for name, text in (recalibrations or {}).items()]
    show("\n".join(lines), plain, json=json)


def note(text: str) -> None:
    """Print what a user should know of a command that works."""
    print(f"mcbn: note: {text}", file=sys.stderr)


def tell(text: str) -> None:
    """Print beside the results what a verb does, for people."""
    print(f"mcbn: {text}", file=sys.stderr)


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning in one line; takes the place of `warnings.showwarning`."""
    print("mcbn: warning:", " ".join(str(message).split()), file=sys.stderr)


def error(text: str) -> None:
    """Print why a command does not work; "mcbn: error:" is red on a terminal."""
    stream = _errors.get() or sys.stderr
    label = "mcbn: error:"
    print(coloured(label, RED, stream), _plain(text), file=stream)


def interrupted(text: str) -> None:
    """Print what is left of work that was interrupted."""
    print(f"mcbn: interrupted; {text}", file=_errors.get() or sys.stderr)


def shown(value: str) -> str:
    """What a user gave, in quotes; a long text ends at a word."""
    if len(value) > MAX_VALUE_CHARACTERS:
        start = value[:MAX_VALUE_CHARACTERS]
        value = f"{start.rpartition(' ')[0] or start} ..."
    return repr(value)


def on_a_line(text: str) -> str:
    """A text in one line, whose characters only print."""
    return _plain(" ".join(text.split()))


def coloured(text: str, colour: str, stream: Any) -> str:
    """A text in a colour, where a stream shows colours."""
    return f"{colour}{text}{PLAIN}" if _has_colour(stream) else text


def _has_colour(stream: Any) -> bool:
    """Whether a stream is a terminal of a user who has not asked for no colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def _plain(text: str) -> str:
    """A text whose characters only print: a file's name may hold codes for the terminal."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )
