"""Options of a verb from its arguments and a YAML file of options, and as such a file."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from mcbn.cli.declarations import Option
from mcbn.cli.values import bracketed, did_you_mean, scalars

MAX_BYTES = 2**16


def read_texts(path: str, options: Mapping[str, Option], program: str) -> dict[str, list[str]]:
    """The texts given for each option by a YAML file of options.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML of these options, each once.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a file of options at {path}, got none; check --config")
    try:
        content = Path(path).read_bytes()[: MAX_BYTES + 1]
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        root = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise ValueError("no keys")
        given = [("".join(scalars(key)), value, scalars(value)) for key, value in root.value]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise ValueError(
            f"expected YAML of the options of {program} in {path}, got: {line:.300}; write one "
            "'name: value' per line"
        ) from error
    texts: dict[str, list[str]] = {}
    for key, node, values in given:
        name = key.replace("_", "-")
        if name not in options:
            hint = did_you_mean(name, options) or f"{program} --help lists them"
            raise ValueError(f"expected options of {program} in {path}, got {key!r}; {hint}")
        if name in texts:
            raise ValueError(f"expected {key!r} once in {path}, got it twice; keep one of them")
        is_list = isinstance(node, yaml.SequenceNode)
        if is_list and not options[name].is_list:
            raise ValueError(f"expected one value of {key!r} in {path}, got {values}; keep one")
        texts[name] = [bracketed(values)] if is_list else values
    return {name: values for name, values in texts.items() if values}


def print_options(values: Mapping[str, Any]) -> None:
    """Print the values of options as YAML that `read_texts` reads as the same values."""
    known = {name: None if value is MISSING else value for name, value in values.items()}
    sys.stdout.write(yaml.safe_dump(known, sort_keys=False, allow_unicode=True))
