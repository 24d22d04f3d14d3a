"""The YAML file of a study: read into a plan with overrides, and written from a plan."""

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

from mcbn.study import notation
from mcbn.study.given import Given
from mcbn.study.names import Architecture
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes

SECTIONS: Mapping[str, Any] = {
    "data": DataAxes,
    "network": NetworkAxes,
    "training": TrainingAxes,
    "inference": InferenceAxes,
}
GIVEN = "given"  # the one part of a plan that no file has
MAX_BYTES = 2**16  # of a file
MAX_DEPTH = 3  # nested collections: a mapping, a mapping in it, and a list
MAX_ERROR_CHARACTERS = 500  # of an error of the parser that are shown


def read(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, model: str | None = None
) -> Plan:
    """Read a plan from a file, with `--dotted.key value` arguments that override it.

    Args:
        path: the YAML file.
        overrides: arguments as on a command line.
        model: module:function that builds the networks, instead of network.names; its code is
            run, so a file cannot name one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown key (names the nearest known one) or an invalid value.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a study at {path}, got no such file; check the path")
    _require_plain_overrides(overrides)
    plan = _read(path, overrides)
    if model is not None:
        return replace(plan, network=replace(plan.network, names=(model,)))
    for name in plan.network.names:
        _require_known_architecture(name)
    return plan


def read_stored(path: str | os.PathLike[str], given: Given | None = None) -> Plan:
    """Read the plan in the folder of a study; a user's own code is named, not imported.

    Args:
        path: its file.
        given: what is recorded of that code; None without any.

    Raises:
        ValueError: an unknown key or an invalid value.
    """
    return _read(path, given=given)


def to_yaml(plan: Plan) -> str:
    """A plan as YAML text with every key of a file, which says nothing of a user's own code."""
    keys = asdict(plan)
    del keys[GIVEN]
    text: str = yaml.safe_dump(_with_lists(keys), sort_keys=False, allow_unicode=True)
    return text


def make_parser() -> ArgumentParser:
    """The parser of a plan, which accepts the keys of a plan and no others."""
    parser = ArgumentParser(
        exit_on_error=False, prog="mcbn study run", allow_abbrev=False,
        print_config="--print-config",
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="the study's YAML file")
    parser.add_class_arguments(Plan, skip={GIVEN})
    # Help shows keys as in the file; the command line spells them with hyphens as well.
    words = parser._option_string_actions
    words |= {word.replace("_", "-"): action for word, action in words.items()}
    return parser


def parse(arguments: Sequence[str], given: Given | None = None) -> Plan:
    """Parse a plan from arguments: `--config FILE` and dotted keys.

    Args:
        arguments: as on a command line.
        given: code of the user's that it is the plan of.

    Raises:
        ValueError: an unknown key (names the nearest known one) or an invalid value.
    """
    try:
        values = make_parser().parse_args(list(arguments)).as_dict()
    except (ArgumentError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(str(error)) from error
    values.pop("config", None)
    sections = {name: _section(name, value) for name, value in values.items()}
    return Plan(**sections, given=given or Given())


def known_keys() -> list[str]:
    """Every dotted key of a plan."""
    keys = []
    for name, value in asdict(Plan()).items():
        if name == GIVEN:  # no file may name code
            continue
        keys += [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
    return keys


def _read(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), given: Given | None = None
) -> Plan:
    try:
        _require_plain_values(Path(path))
        return parse(["--config", str(path), *overrides], given)
    except ValueError as error:
        raise ValueError(f"{error}; in {path}") from error


def _require_plain_values(path: Path) -> None:
    """Check that a file has only the keys of a plan, with plain values.

    The parser alone would import the class that `class_path` names, show the file that `config`
    names, expand aliases of aliases until memory is full, and take the last of two equal keys.
    """
    if path.stat().st_size > MAX_BYTES:
        raise _invalid(f"more than {MAX_BYTES:,} bytes")
    try:
        text, depth = path.read_bytes().decode("utf-8-sig"), 0
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise yaml.YAMLError("an anchor, an alias, a tag or lists in lists")
        node = notation.compose(text)
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(str(error)) from error
    if node is None:
        raise _invalid("no keys")
    for key, value in notation.keys_and_values(node):
        inner = notation.keys_and_values(value, key) if key in SECTIONS else [(key, value)]
        for name, each in inner:
            _require_plain_value(name, each)


def _require_plain_overrides(overrides: Sequence[str]) -> None:
    """Check that each argument names a key of a plan, once, with a value that is written plainly.

    The parser alone would also take files, whole sections and items of lists.
    """
    given: set[str] = set()
    for index, word in enumerate(overrides):
        if not word.startswith("--") or word.replace("-", "_").startswith("__print_config"):
            continue
        option, _, value = word.partition("=")
        key = option[2:].replace("-", "_")
        if key in given:
            raise ValueError(
                f"expected {option} once, got it twice; give all its values in one list, or remove "
                "one of them"
            )
        given.add(key)
        value = value if "=" in word else "".join(overrides[index + 1 : index + 2])
        try:
            node = notation.compose(value) if key in known_keys() and key != "title" else None
        except yaml.YAMLError as error:
            raise ValueError(
                f"expected a value of {option}, got {value!r:.80}; write a list as in '[0, 1]'"
            ) from error
        if node is not None or key not in known_keys():
            _require_plain_value(key, node, place=f" for {option}")


def _require_plain_value(key: str, node: Any, *, place: str | None = None) -> None:
    section, _, name = key.rpartition(".")
    types = {field.name: field.type for field in fields(SECTIONS.get(section, Plan))}
    if key not in known_keys() or section not in ("", *SECTIONS):
        raise _invalid(f"Option '{key}' is not accepted")
    notation.require_plain(key, node, types[name], place=place)
    # Where it expects a number, the parser reads a text as YAML once more.
    words = node.value if isinstance(node.value, list) else [node]
    if key not in ("title", "network.names") and any(set("&*!") & set(w.value) for w in words):
        raise _invalid(f"an anchor, an alias or a tag in {key}")


def _invalid(message: str) -> ValueError:
    line = " ".join(message.split())
    return ValueError(
        f"expected the keys and values of a study, got: {line[:MAX_ERROR_CHARACTERS]}"
        f"{_nearest(line)}"
    )


def _section(name: str, value: Any) -> Any:
    return SECTIONS[name](**value) if name in SECTIONS else value


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


# How the errors of the parser name an unknown key.
UNKNOWN = re.compile(
    r"Group '(?P<group>[^']+)' does not accept option '(?P<inner>[^']+)'"
    r"|Option '(?P<key>[^']+)' is not accepted"
    r"|unrecognized arguments: --(?P<flag>[^\s=+]+)"
)


def _nearest(message: str) -> str:
    """Suggest the known key that is nearest to the unknown one that an error names."""
    match = UNKNOWN.search(message)
    if match is None:
        return ""
    key = match["key"] or match["flag"] or f"{match['group']}.{match['inner']}"
    keys = known_keys()
    # The section may be missing: `epochs` for `training.epochs`.
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
    hint = f"did you mean {near[0]!r}?" if near else "choose one."
    raise ValueError(
        f"expected network.names of {list(known)}, got {name!r}; {hint} Name your own "
        "network by --model module:function on the command line, never in the file"
    )
