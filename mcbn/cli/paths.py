"""Paths that a command is given: patterns, names of methods, and files that are not there."""

import glob
import os
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from mcbn.cli.declarations import Option, paths
from mcbn.cli.options.metadata import PREDICTIONS
from mcbn.io.suffixes import require_predictions


def split_name(text: str) -> tuple[str | None, str]:
    """The name and the path of NAME=PATH; the name is None if there is none.

    A path whose first folder has an equals sign has no name: ./a=b.st is the file a=b.st.
    """
    name, equals, path = text.partition("=")
    if equals and name and path and not set(name) & {"/", os.sep}:
        return name, path
    return None, text


def expanded(option: Option, value: Any) -> Any:
    """The value of an option with the files that match its patterns, in order.

    Raises:
        ValueError: several match where one is asked for.
    """
    if option.role not in ("input", "data"):
        return value
    if isinstance(value, list):
        return [path for text in value for path in _matches(option, text)]
    if isinstance(value, str):
        found = _matches(option, value)
        if len(found) > 1:
            raise ValueError(f"expected one file to match {value!r}, got {len(found)}; name one")
        return found[0]
    return value


def require_inputs(options: Iterable[Option], values: Mapping[str, Any], positional: str) -> None:
    """Check that all files to read are there, before any code is loaded that would read them.

    Raises:
        OSError: one is not.
        ValueError: the code of a network is not.
    """
    for option in options:
        remedy = "check the path" if option.name == positional else f"check --{option.name}"
        for text in paths(option, values):
            if option.role == "data" and is_code(text):
                _require_source(option, text)
            elif option.role == "data" and text.endswith(".py"):
                raise ValueError(
                    f"expected data in --{option.name}, got the code {text}; add the name of its "
                    "function that returns them after a colon"
                )
            elif option.role == "input" or (option.role == "data" and not os.path.isdir(text)):
                _require_file(option, text, remedy)
                if option.noun == PREDICTIONS["noun"]:
                    require_predictions(split_name(text)[1] if option.named else text)
            elif option.role == "model":
                _require_source(option, text)
            elif option.role == "study":
                pkgutil.resolve_name("mcbn.study.store:Store").open(text)


def _matches(option: Option, text: str) -> list[str]:
    name, path = split_name(text) if option.named else (None, text)
    if os.path.exists(path) or not glob.has_magic(path):
        return [text]
    found = sorted(glob.glob(path, recursive=True))
    if name is None:
        # Of a file a=b.st, a is no name.
        return [each if split_name(each)[0] is None else f"./{each}" for each in found] or [text]
    if len(found) > 1:
        raise ValueError(f"expected one file for {name}={path}, got {len(found)}; name one")
    return [f"{name}={found[0]}" if found else text]


def _require_file(option: Option, text: str, remedy: str) -> None:
    name, path = split_name(text) if option.named else (None, text)
    if os.path.isdir(path):
        raise IsADirectoryError(f"expected {option.noun}, got the folder {path}; {remedy}")
    if os.path.exists(path):
        return
    if name is not None and os.path.exists(text):
        remedy = f"write ./{text} for the file of this name"
    if glob.has_magic(path):
        raise FileNotFoundError(f"expected {option.noun} that matches {path!r}, got none; {remedy}")
    raise FileNotFoundError(f"expected {option.noun} at {path}, got none; {remedy}")


def is_code(text: str) -> bool:
    """Whether a text is module:function or file.py:function, rather than a file of such a name."""
    source, colon, function = text.rpartition(":")
    named = source.endswith(".py") or all(each.isidentifier() for each in source.split("."))
    return bool(colon) and named and function.isidentifier() and not os.path.exists(text)


def _require_source(option: Option, text: str) -> None:
    source, colon, _ = text.rpartition(":")
    if text.endswith(".pt2"):  # which is told what is wrong with it when it is read
        return
    if not colon:
        raise ValueError(
            f"expected --{option.name} module:function or file.py:function, got {text!r}; add the "
            f"name of the function that {option.noun} after a colon"
        )
    if source.endswith(".py") and not os.path.isfile(source):
        raise ValueError(
            f"expected a Python file in --{option.name}, got {source!r}; check the path"
        )
