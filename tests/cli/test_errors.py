"""Errors of a user's own code: told with the line of their file, and never as bugs of mcbn."""

import numpy as np
import pytest

from mcbn.cli import messages
from mcbn.cli.main import main

NETS = """\
from torch import nn
import mcbn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 3)
    def forward(self, x):
        return self.last(self.norm(x)).reshape(7, 7)

def fails():
    return {}["width"]

def narrow():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))

def asks():
    return mcbn.Bank.load("nowhere.st")
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "typo.py").write_text("x = 1\ndef build(:\n    pass\n")
    (tmp_path / "needs.py").write_text("\nimport a_package_that_is_not_there\n")
    (tmp_path / "opens.py").write_text("open('settings.ini')\n")
    np.savez(tmp_path / "train.npz", inputs=np.zeros((64, 4), "float32"))
    return tmp_path


def error_of(model, capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(["collect", "--model", model, "--data", "train.npz", "--out", "bank.st", *words])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nets.py:fails", ["nets.py", "KeyError", "'width'", "line 13 (fails)"]),
        ("nets.py:Net", ["nets.py", "RuntimeError", "line 10 (forward)"]),
        ("typo.py:build", ["typo.py", "SyntaxError", "line 2"]),
        ("needs.py:build", ["needs.py", "a_package_that_is_not_there", "line 2"]),
        ("opens.py:build", ["opens.py", "settings.ini", "line 1"]),
        ("nets.py:narrow", ["a network that takes these inputs", "--data"]),
        ("nets.py:asks", ["file at nowhere.st, got none"]),
    ],
)
@pytest.mark.usefixtures("files")
def test_an_error_of_the_users_code_names_its_line(model, said, capsys):
    error = error_of(model, capsys)
    assert error.startswith("mcbn: error: expected ")
    assert error.count("\n") == 1
    assert "bug" not in error
    for each in said:
        assert each in error


@pytest.mark.usefixtures("files")
def test_its_traceback_is_printed_on_request(capsys):
    error = error_of("nets.py:fails", capsys, "--traceback")
    assert error.startswith("Traceback (most recent call last)")
    assert error.splitlines()[-1].startswith("mcbn: error: expected nets.py to run")


def test_a_long_value_ends_at_a_word():
    text = messages.shown(" ".join(["word"] * 40))
    assert len(text) < 100
    assert set(text.strip("'").split()) == {"word", "..."}
    assert messages.shown("short") == "'short'"
