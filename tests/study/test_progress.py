"""What a running study says of itself."""

import math
import re

import pytest
from tiny import smallest

from mcbn.study import progress
from mcbn.study.progress import Progress

CELLS = smallest().cells()
NETWORK = CELLS[0].network


def test_the_line_counts_and_knows_the_best():
    with Progress(1, 2, "nll", jobs=1, shown=False) as shown:
        assert shown.line() == "0/2 cells done, 0 running, 0 failed"
        shown.started()
        assert "1 running" in shown.line()
        shown.ended(NETWORK, 4.0, {}, failed=False)
        shown.started()
        shown.ended(CELLS[0], 2.0, {"nll": 0.5}, failed=False)
        assert "1/2 cells done, 0 running" in shown.line()
        # One cell is left, at the mean time of cells, not of networks.
        assert "about 00:02 left" in shown.line()
        shown.started()
        shown.ended(CELLS[1], 2.0, {"nll": 0.4}, failed=False)
    assert "best nll 0.4 (MC Dropout" in shown.line()
    assert "2/2 cells done" in shown.line()


def test_the_best_of_a_score_that_is_better_higher_is_the_highest_and_nan_is_never_best():
    with Progress(0, 3, "accuracy", jobs=2, shown=False) as shown:
        for value in (math.nan, 0.5, 0.9, math.nan, 0.7):
            shown.ended(CELLS[0], 1.0, {"accuracy": value}, failed=False)
    assert shown.best is not None
    assert shown.best[0] == 0.9


def test_a_spread_has_no_best():
    with Progress(0, 1, "epistemic_sd", jobs=1, shown=False) as shown:
        shown.ended(CELLS[0], 1.0, {"epistemic_sd": 0.5}, failed=False)
    assert "best" not in shown.line()


def test_failures_and_what_fell_with_them_are_counted():
    with Progress(1, 2, "nll", jobs=1, shown=False) as shown:
        shown.started()
        shown.ended(NETWORK, 1.0, {}, failed=True)
        shown.skipped(2)
    assert "0/2 cells done, 0 running, 3 failed" in shown.line()


@pytest.mark.parametrize("quiet", [0.0, 1e9])
def test_plain_lines_come_now_and_then_where_there_is_no_terminal(capsys, monkeypatch, quiet):
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", quiet)
    with Progress(0, 2, "nll", jobs=1) as shown:
        for cell in CELLS:
            shown.ended(cell, 1.0, {"nll": 0.5}, failed=False)
            shown.show()
            shown.show()  # nothing new: nothing said
    lines = capsys.readouterr().err.splitlines()
    assert [re.findall(r"\d/\d", line)[0] for line in lines] == ["1/2", "2/2"]
    assert "\r" not in "".join(lines)


def test_nothing_is_said_where_it_is_not_wanted_or_there_is_nothing_to_do(capsys):
    for shown in (Progress(0, 2, "nll", jobs=1, shown=False), Progress(0, 0, "nll", jobs=1)):
        with shown:
            shown.show()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_one_live_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress(0, 2, "nll", jobs=1) as shown:
        shown.ended(CELLS[0], 1.0, {"nll": 0.5}, failed=False)
        shown.show()
    said = capsys.readouterr().err
    assert "1/2 cells done" in said
    assert said.count("\n") == 1
