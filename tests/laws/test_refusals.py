"""Arguments of a wrong kind are refused in words, where no type checker stands before them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import refusals


@pytest.fixture(scope="module")
def told():
    done = subprocess.run(
        [sys.executable, refusals.__file__], capture_output=True, text=True, check=True,
        cwd=Path(refusals.__file__).parent.parent,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", refusals.CASES)
def test_a_wrong_argument_is_refused_in_words(told, name):
    _, error, words = refusals.CASES[name]
    kind, message = told[name]
    assert kind == error.__name__, message
    assert message.startswith("expected ")
    assert words in message
