"""Files of a command: patterns, names of methods, and what is overwritten only by force."""

import json

import pytest
from command_lines import failing, run

from mcbn.cli.paths import split_name

ROWS = "p_0,p_1,label\n" + "0.9,0.1,0\n0.2,0.8,1\n0.6,0.4,1\n0.7,0.3,0\n" * 10


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "lr=0.1.csv", "far/a.csv", "far/b.csv", "runs/x=1/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROWS)
    return tmp_path


def methods(folder, name="report"):
    report = json.loads((folder / name / "report.json").read_text())
    return report["comparison"]["methods"]


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("a.st", None, "a.st"),
        ("M32=a.st", "M32", "a.st"),
        ("M 32=far/a=b.st", "M 32", "far/a=b.st"),
        ("./a=b.st", None, "./a=b.st"),
        ("runs/lr=1/a.st", None, "runs/lr=1/a.st"),
        ("=a.st", None, "=a.st"),
        ("a=", None, "a="),
    ],
)
def test_a_name_stands_before_a_path(text, name, path):
    assert split_name(text) == (name, path)


def test_names_of_methods_are_those_that_are_given(folder, capsys):
    run("report M32=a.csv M128=b.csv --resamples 2")
    assert list(methods(folder)) == ["M32", "M128"]
    run("evaluate M8=runs/x=1/c.csv --resamples 2")
    assert "M8 on c" in capsys.readouterr().out


def test_files_of_other_options_are_named_as_well(folder):
    run("report M32=a.csv M128=b.csv --outside M32=far/a.csv --outside M128=far/b.csv "
        "--resamples 2")  # fmt: skip
    assert {name: list(each["outside"]) for name, each in methods(folder).items()} == {
        "M32": ["far"], "M128": ["far"],
    }  # fmt: skip


def test_a_file_with_an_equals_sign_can_be_read(folder, capsys):
    run("evaluate ./lr=0.1.csv --resamples 2")
    assert "lr=0.1 on lr=0.1" in capsys.readouterr().out
    assert "write ./lr=0.1.csv" in failing("evaluate lr=0.1.csv", capsys, notes=False)
    assert "predictions at c.csv, got none; check the path" in failing(
        "evaluate a=c.csv", capsys, notes=False
    )


def test_patterns_are_expanded(folder, capsys):
    run("report [ab].csv --resamples 2")
    assert list(methods(folder)) == ["a", "b"]
    run("report *.csv --resamples 2 --out all")
    assert list(methods(folder, "all")) == ["a", "b", "lr=0.1"]
    run("evaluate M=b*.csv --resamples 2")
    assert "M on b" in capsys.readouterr().out
    assert "that matches 'c*.csv', got none" in failing("evaluate c*.csv", capsys, notes=False)
    assert "one file to match '*.csv', got 3" in failing("evaluate *.csv", capsys, notes=False)
    assert "one file for M=*.csv, got 3" in failing("report M=*.csv", capsys, notes=False)


def test_the_command_in_a_report_names_methods_and_files(folder):
    run("report X=a.csv b*.csv --resamples 2")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["provenance"]["Repeat"] == "mcbn report --resamples=2 X=a.csv b.csv"


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("evaluate a.csv --resamples 2 --out out.json", "out.json"),
        ("report a.csv --resamples 2 --out out", "out/report.html"),
    ],
)
def test_nothing_is_overwritten_but_by_force(folder, capsys, line, path):
    run(line)
    (folder / path).write_text("a file of the user")
    said = failing(line, capsys, notes=False)
    assert path in said
    assert "--force" in said
    assert (folder / path).read_text() == "a file of the user"
    run(f"{line} --force")
    assert (folder / path).read_text() != "a file of the user"


def test_force_does_not_overwrite_what_is_read(folder, capsys):
    assert "would be lost" in failing("evaluate M=a.csv --out a.csv --force", capsys, notes=False)
    assert (folder / "a.csv").read_text() == ROWS


@pytest.mark.parametrize(
    "words",
    ["--json", "--json true", "--json=true", "--quiet --json"],
)
def test_scores_for_programs_are_those_of_the_file(folder, capsys, words):
    run(f"evaluate a.csv --resamples 20 --out out.json {words}")
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((folder / "out.json").read_text())
    assert not said.err


def test_quiet_prints_no_notes_but_errors_and_results(folder, capsys):
    run("--quiet report a.csv --resamples 2")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert failing("--quiet report a.csv --resamples 2", capsys, notes=False)
    run("evaluate a.csv --resamples 2 --quiet")
    assert "a on a: 40 examples" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("predict --quiet --model m:f --data none.npz --out o --draws 8")
    assert capsys.readouterr().err.startswith("mcbn: error: expected a data file")
