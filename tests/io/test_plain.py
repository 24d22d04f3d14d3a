"""JSON: every text of it is strict, and is written by one function."""

import ast
import json
import math

import numpy as np
import pytest
from source import MODULES, PACKAGE, dotted

from mcbn.io.plain import parse_object, to_json, to_plain
from mcbn.io.tensors import read_tensors, write_tensors

WRITER = PACKAGE / "io" / "plain.py"
INFINITE = [math.nan, math.inf, -math.inf, np.float64("nan"), np.float64("-inf")]


@pytest.mark.parametrize("number", INFINITE)
def test_what_json_does_not_have_is_null(number):
    value = {"a": number, "b": [number, 1.5, (number, "NaN")], "c": {"d": {"e": number}}}
    text = to_json(value, indent=1)
    assert parse_object(text.encode()) == {
        "a": None, "b": [None, 1.5, [None, "NaN"]], "c": {"d": {"e": None}},
    }  # fmt: skip
    assert to_plain(number) is None


def test_what_json_has_comes_back():
    value = {"a": [1, 1e308, -0.0, 5e-324, "é", None, True], "b": {}}
    assert json.loads(to_json(value)) == value
    assert to_json({"b": 1, "a": 2}, sort_keys=True, separators=(",", ":")) == '{"a":2,"b":1}'


def names(tree):
    """Dotted names of all that is called or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_other_function_writes_json(path):
    writers = {"json.dump", "json.dumps", "json.JSONEncoder", "orjson.dumps", "ujson.dumps"}
    written = set(names(ast.parse(path.read_text("utf-8"))))
    assert bool(written & writers) == (path == WRITER)
    others = {name for name in written if name.endswith(".to_json")}
    assert others <= {"mcbn.io.plain.to_json"}


@pytest.mark.parametrize("number", INFINITE)
def test_a_header_that_would_not_come_back_is_refused(tmp_path, number):
    path = tmp_path / "x.st"
    with pytest.raises(ValueError, match=r"expected finite numbers in the header .* for 'size'"):
        write_tensors(path, {}, kind="test", header={"size": number})
    assert not path.exists()
    write_tensors(path, {}, kind="test", header={"size": 2.5, "none": None})
    assert read_tensors(path, kind="test")[1]["size"] == 2.5
