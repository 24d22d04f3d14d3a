"""Effects of options, known before any work: those that have none, and files that would be lost."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcbn.cli.arguments import Option
from mcbn.io.atomic import require_place

# What is in every file of a report that mcbn wrote.
PAGES = {"report.html": "--series-0", "report.json": '"verdict": ['}


def say_without_effect(given: Iterable[Option], values: Mapping[str, Any]) -> None:
    """Print a note on each option that was given but has no effect with the other options."""
    for option in given:
        if option.only is None:
            continue
        other, wanted = option.only
        value = values[other]
        if value is None if wanted is None else value != wanted:
            name = f"--{other.replace('_', '-')}"
            print(
                f"mcbn: note: --{option.name} has no effect without {name} {wanted or ''}".rstrip(),
                file=sys.stderr,
            )


def require_other_files(options: Iterable[Option], values: Mapping[str, Any]) -> None:
    """Check that no file to be written is one of those to be read, or another to be written.

    Raises:
        ValueError: one is; names both options.
    """
    files = [
        (option.name, path)
        for option in options
        if option.kind in (str, list)
        for path in _texts(values[option.field])
    ]
    outputs = [(name, path) for name, path in files if name == "out" or name.endswith("-out")]
    for out, target in outputs:
        for name, path in files:
            if name != out and _is_same(target, path, written=(name, path) in outputs):
                raise ValueError(
                    f"expected another file in --{out} than in --{name}, got {target} for both, so "
                    f"that one would be lost; give --{out} another name"
                )


def require_places(options: Iterable[Option], values: Mapping[str, Any]) -> None:
    """Check that each file to be written can be, and replaces none that mcbn did not write.

    Raises:
        OSError: it is a folder, or a file stands for a folder.
        ValueError: a report or scores of something else would be lost.
    """
    for option in options:
        if option.folder and values[option.field] is not None:
            for name, mark in PAGES.items():
                _require_ours(Path(values[option.field]) / name, mark)
        elif option.name == "out" or option.name.endswith("-out"):
            for path in _texts(values[option.field]):
                require_place(path)
                if option.mark:
                    _require_ours(Path(path), option.mark)


def _require_ours(path: Path, mark: str) -> None:
    """Check that a file is not there yet, or has in it what mcbn writes there."""
    require_place(path)
    if path.exists() and mark not in path.read_text("utf-8", errors="replace"):
        raise ValueError(
            f"expected no file at {path}, or one that mcbn wrote, got another, which would be "
            "lost; remove it or give another --out"
        )


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _is_same(target: str, path: str, *, written: bool) -> bool:
    """Whether a file to write is an existing file to read, or another that is written."""
    if written and os.path.abspath(target) == os.path.abspath(path):
        return True
    # Of nets.py:build the file is before the colon.
    return os.path.isfile(target) and any(
        os.path.isfile(each) and os.path.samefile(target, each)
        for each in (path, path.rpartition(":")[0])
    )
