"""Command lines as a user types them, run in this process."""

import shlex

import pytest

from mcbn.cli.main import main


def run(line):
    """Run a command line that works."""
    main(shlex.split(line))


def failing(line, capsys, *, notes=True):
    """Run a command line that fails, and return its one line of an error.

    Args:
        line: the command line.
        capsys: of pytest.
        notes: whether notes may stand before the error.
    """
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(line)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    (said,) = [each for each in lines if "error" in each]
    assert said.startswith("mcbn: error: expected ")
    assert notes or lines == [said]
    return said
