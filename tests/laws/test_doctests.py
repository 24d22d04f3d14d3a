"""Every example in a docstring of the package prints what it shows."""

import doctest
import importlib
import re

import pytest
import torch
from source import MODULES, module_name

import mcbn

WITH_EXAMPLES = [path for path in MODULES if ">>>" in path.read_text("utf-8")]


def test_some_modules_have_examples():
    assert len(WITH_EXAMPLES) >= 5


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples_of_a_module_print_what_they_show(path):
    name = "mcbn." + module_name(path).replace("/", ".")
    written = len(re.findall(r"^\s*>>> ", path.read_text("utf-8"), flags=re.MULTILINE))
    result = doctest.testmod(
        importlib.import_module(name), extraglobs={"mcbn": mcbn, "torch": torch}
    )
    assert result.failed == 0
    assert result.attempted == written, "expected every example to be found by doctest"
