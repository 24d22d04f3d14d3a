"""What a user gives a study in code: a task, a network and its training, by name and digest."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mcbn.io.plain import matches_type

TRAINED = "trained"  # stands for the training of a network that is given with its weights


@dataclass(frozen=True)
class Given:
    """Code and data of the user's that the results of a study are made from.

    Attributes:
        task: function that returns the task, or the name of one that is given itself; empty for a
            built-in data set.
        fit: function that trains a network, or "trained"; empty for the built-in training.
        digest: of the sources and the data, and part of the key of every result, so that a result
            is only used for what it was made from.
        regression: whether the targets of the task are real values.
        outside: names of its out-of-distribution sets.
        samplers: names of further methods that are given as samplers.
        sampler_draws: the number of draws of each.
        multilabel: whether an example of the task has several labels.
    """

    task: str = ""
    fit: str = ""
    digest: str = ""
    regression: bool = False
    outside: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    sampler_draws: tuple[int, ...] = ()
    multilabel: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not matches_type(value, each.type):
                raise ValueError(
                    f"expected given.{each.name} of type {each.type}, got {value!r:.80}; run the "
                    "study again"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Given":
        """Make it from the values of `asdict`, which may have been through JSON.

        Raises:
            TypeError: a value has another name.
            ValueError: a value is of another type.
        """
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)


def reference(function: Callable[..., Any] | str | os.PathLike[str], role: str) -> str:
    """The name by which another process finds a user's function.

    Args:
        function: a function of a module or a file, or such a name itself.
        role: which argument it is, for errors.

    Returns:
        `module:function`, or `file.py:function` of what was run as a script.

    Raises:
        ValueError: no other process can find it, as a lambda or what a notebook defines.
    """
    if isinstance(function, (str, os.PathLike)):
        name = os.fspath(function)
        if ":" not in name:
            raise ValueError(
                f"expected {role} as file.py:function or module:function, got {name!r}; add the "
                "function's name after a colon"
            )
        return name
    module = sys.modules.get(getattr(function, "__module__", ""))
    name = getattr(function, "__qualname__", "")
    if module is None or getattr(module, name, None) is not function:
        raise ValueError(
            f"expected {role} as a function that other processes can import, got {function!r:.80}; "
            "define it at the top level of a .py file, and give that function, or file.py:function"
        )
    if module.__name__ != "__main__":
        return f"{module.__name__}:{name}"
    path = getattr(module, "__file__", None)
    if path is None or not path.endswith(".py"):
        raise ValueError(
            f"expected {role} in a .py file, got a function of this session; write it to a file, "
            "and give file.py:function"
        )
    return f"{_relative(path)}:{name}"


def _relative(path: str) -> str:
    """A path from the working folder, where it is inside, so that a study can be moved with it."""
    full = Path(path).absolute()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def accepted(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Those of some keyword arguments that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return offered
    names = {each.name for each in parameters}
    return {name: value for name, value in offered.items() if name in names}
