"""The YAML file of a study: read into a plan with overrides on top, and written from one."""

import difflib
import os
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from jsonargparse import ArgumentParser

from mcbn.io.plain import matches_type
from mcbn.study.names import Architecture
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes

PARTS: Mapping[str, Any] = {
    "data": DataAxes,
    "network": NetworkAxes,
    "training": TrainingAxes,
    "inference": InferenceAxes,
}
LARGEST = 2**16  # bytes of a file
DEPTH = 3  # a key under a key, and a list
LENGTH = 500  # characters of the parser's errors that are told


def read(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, model: str | None = None
) -> Plan:
    """Read a declaration, with `--dotted.key value` arguments on top of it.

    Args:
        path: the YAML file.
        overrides: arguments as on a command line.
        model: module:function that builds the networks instead; its code is run. A file cannot
            name one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown key (names the nearest known one) or a value that does not fit.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a study at {path}, got no such file; check the path")
    plan = _read(path, overrides)
    if model is not None:
        return replace(plan, network=replace(plan.network, names=(model,)))
    for name in plan.network.names:
        _require_known_architecture(name)
    return plan


def read_stored(path: str | os.PathLike[str]) -> Plan:
    """Read the declaration that a study keeps in its folder; networks of one's own are only named.

    Raises:
        ValueError: an unknown key, or a value that does not fit.
    """
    return _read(path)


def written(plan: Plan) -> str:
    """The declaration as YAML text, every key in it."""
    text: str = yaml.safe_dump(_plain(asdict(plan)), sort_keys=False, allow_unicode=True)
    return text


def parser() -> ArgumentParser:
    """What reads a declaration; it knows the keys of a plan and no others."""
    made = ArgumentParser(exit_on_error=False, prog="mcbn study run", allow_abbrev=False)
    made.add_argument("--config", action="config", help="the study's YAML file")
    made.add_class_arguments(Plan)
    return made


def parsed(arguments: Sequence[str]) -> Plan:
    """The plan that arguments make, of `--config FILE` and dotted keys.

    Raises:
        ValueError: an unknown key (names the nearest known one) or a value that does not fit.
    """
    try:
        values = parser().parse_args(list(arguments)).as_dict()
    except (ArgumentError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unfit(str(error)) from error
    values.pop("config", None)
    return Plan(**{name: _part(name, value) for name, value in values.items()})


def known_keys() -> list[str]:
    """Every dotted key of a declaration."""
    found = []
    for name, value in asdict(Plan()).items():
        found += [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
    return found


def _read(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Plan:
    try:
        _require_plain(Path(path))
        return parsed(["--config", str(path), *overrides])
    except ValueError as error:
        raise ValueError(f"{error}; in {path}") from error


def _require_plain(path: Path) -> None:
    """Check that a file has the keys of a plan and plain values, nothing that leads further.

    The parser alone would import what `class_path` names, show the file that `config` names, and
    write out aliases of aliases until the memory is full.
    """
    if path.stat().st_size > LARGEST:
        raise _unfit(f"more than {LARGEST:,} bytes")
    try:
        text, depth = path.read_bytes().decode("utf-8-sig"), 0
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise yaml.YAMLError("an anchor, an alias, a tag or lists in lists")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise _unfit(str(error)) from error
    if not isinstance(values, dict):
        raise _unfit("no keys")
    for key, value in values.items():
        if key not in PARTS:
            _require_known_key(key, value)
        elif not isinstance(value, dict):
            raise _unfit(f"no keys under {key!r}")
        else:
            for inner in value:
                _require_known_key(f"{key}.{inner}", value[inner])


def _require_known_key(key: str, value: Any) -> None:
    words = value if isinstance(value, list) else [value]
    if key not in known_keys() or any(isinstance(word, (dict, list)) for word in words):
        raise _unfit(f"Option '{key}' is not accepted")
    # The parser reads text once more, as YAML, where it wants a number.
    text = "".join(word for word in words if isinstance(word, str))
    if key not in ("title", "network.names") and set("&*!") & set(text):
        raise _unfit(f"an anchor, an alias or a tag in {key}")


def _unfit(message: str) -> ValueError:
    line = " ".join(message.split())
    return ValueError(
        f"expected the keys and values of a study, got: {line[:LENGTH]}{_nearest(line)}"
    )


def _part(name: str, value: Any) -> Any:
    if name not in PARTS:
        return _typed(Plan, {name: value})[name]
    return PARTS[name](**_typed(PARTS[name], value))


def _typed(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a part with tuples for lists; the parser lets a list that is null pass."""
    kinds = {field.name: field.type for field in fields(kind)}
    found = {name: _frozen(value) for name, value in values.items()}
    for name, value in found.items():
        if not matches_type(value, kinds[name]):
            raise _unfit(f"{name} that is {value!r:.80}")
    return found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


# How the parser's errors name a key that it does not know.
UNKNOWN = re.compile(
    r"Group '(?P<group>[^']+)' does not accept option '(?P<inner>[^']+)'"
    r"|Option '(?P<key>[^']+)' is not accepted"
    r"|unrecognized arguments: --(?P<flag>[^\s=+]+)"
)


def _nearest(message: str) -> str:
    """A hint at the known key that is nearest to the unknown one of an error."""
    found = UNKNOWN.search(message)
    if found is None:
        return ""
    key = found["key"] or found["flag"] or f"{found['group']}.{found['inner']}"
    keys = known_keys()
    # A key may be right but for its group: `epochs` for `training.epochs`.
    ends = {name.rpartition(".")[2]: name for name in reversed(keys)}
    close = difflib.get_close_matches(key, keys, n=1) or [
        ends[end] for end in difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)
    ]
    return f"; did you mean {close[0]!r}?" if close else f"; the keys are {', '.join(keys)}"


def _require_known_architecture(name: str) -> None:
    known = get_args(Architecture)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "choose one"
    raise ValueError(
        f"expected network.names of {list(known)}, got {name!r}; {hint} A network of your own is "
        "given by --model module:function on the command line, never in the file"
    )
