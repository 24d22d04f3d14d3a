"""Effects of options, known before any work: those that have none, and files that would be lost."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mcbn.cli import messages
from mcbn.cli.declarations import Option, paths
from mcbn.cli.paths import split_name
from mcbn.io.atomic import require_place

# What is in every page of a report that mcbn wrote.
PAGES = {"report.html": "--series-0", "report.json": '"verdict": ['}
DECLARATION = "study.yaml"  # in the folder of every study, which is kept when it is resumed
OUTPUTS = ("output", "report", "demo", "resumed")


def say_without_effect(given: Iterable[Option], values: Mapping[str, Any]) -> None:
    """Print a note on each option that was given but has no effect with the other options."""
    for option in given:
        if option.only is None:
            continue
        other, *wanted = option.only
        value = values[other]
        if value not in wanted if wanted else value is None:
            name = f"--{other.replace('_', '-')}"
            messages.note(
                f"--{option.name} has no effect without {name} {' or '.join(wanted)}".rstrip(),
            )


def require_other_files(options: Iterable[Option], values: Mapping[str, Any]) -> None:
    """Check that no file to be written is one of those to be read, or another to be written.

    Raises:
        ValueError: one is; names both options.
    """
    files = [(option, path) for option in options if option.role for path in paths(option, values)]
    outputs = [(option, path) for option, path in files if option.role in OUTPUTS]
    for out, target in outputs:
        for option, path in files:
            if option != out and _is_same(target, path, written=option.role in OUTPUTS):
                raise ValueError(
                    f"expected another file in --{out.name} than in --{option.name}, got {target} "
                    f"for both, so that one would be lost; give --{out.name} another name"
                )


def require_places(options: Iterable[Option], values: Mapping[str, Any], *, force: bool) -> None:
    """Check that each file to be written can be, and replaces none that the user may want to keep.

    The demo replaces its own pages without being forced to.

    Raises:
        OSError: it is a folder, or a file stands for a folder.
        ValueError: a file would be lost.
    """
    for option in options:
        if option.role == "report" and not force:
            _require_no_figures(option, values)
        if option.role == "resumed":
            require_place(Path(values[option.field]) / DECLARATION)
        for path, mark in _files(option, values):
            require_place(path)
            if not path.exists() or force:
                continue
            if not mark:
                raise ValueError(
                    f"expected no file at {path} yet, got one, which would be lost; give --force "
                    f"to replace it, or another --{option.name}"
                )
            if mark not in path.read_text("utf-8", errors="replace"):
                raise ValueError(
                    f"expected no file at {path}, or one that mcbn wrote, got another, which would "
                    f"be lost; remove it or give another --{option.name}"
                )


def _require_no_figures(option: Option, values: Mapping[str, Any]) -> None:
    """Check that no file is in the folder of figures, of which each is named after its content."""
    folder = _folder(option, values) / messages.FIGURES
    if values.get("figures") and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"expected no files in {folder} yet, got some, which could be lost; give --force to "
            f"replace those of equal names, or another --{option.name}"
        )


def _folder(option: Option, values: Mapping[str, Any]) -> Path:
    """The folder of a report; of a study by default its own."""
    return Path(values[option.field] or values["study"])


def _files(option: Option, values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """The files that are written for an option, and what must be in one that is replaced."""
    if option.role == "output":
        yield from ((Path(path), "") for path in paths(option, values))
    if option.role in ("report", "demo"):
        for name, mark in PAGES.items():
            yield _folder(option, values) / name, mark if option.role == "demo" else ""


def _is_same(target: str, path: str, *, written: bool) -> bool:
    """Whether a file to write is an existing file to read, or another that is written."""
    if written and os.path.abspath(target) == os.path.abspath(path):
        return True
    # Of nets.py:build the file is before the colon, of NAME=FILE behind the sign.
    return os.path.isfile(target) and any(
        os.path.isfile(each) and os.path.samefile(target, each)
        for each in (path, path.rpartition(":")[0], split_name(path)[1])
    )
