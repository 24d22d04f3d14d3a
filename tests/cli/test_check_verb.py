"""The verb that checks: its lines, exit codes, JSON and ignored codes, of files and of a study."""

import json
import re
import shlex
from dataclasses import asdict

import pytest
from command_lines import failing, run
from forecasters import forecaster
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.cli import messages
from mcbn.cli import report as report_verb
from mcbn.cli.main import main
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import write_predictions
from mcbn.report.report import Report
from mcbn.study.results import Study
from mcbn.study.store import Store

HOSTILE = "\x1b[31mred\nMCBN002 passed"


def write(path, *, sharpness=1.0, seed=0, draws=1, examples=300, method=None):
    predictive, targets = forecaster(batch=examples, sharpness=sharpness, seed=seed, draws=draws)
    write_predictions(path, Predictions(method or path.stem, predictive, targets, path.stem))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of an over-confident method, of a right one, and of held-out examples of both."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sharp.st", sharpness=3.0)
    write(tmp_path / "right.st")
    for name, sharpness in (("sharp", 3.0), ("right", 1.0)):
        path = tmp_path / f"{name}_held.st"
        write(path, sharpness=sharpness, seed=9, method=name)
    return tmp_path


def code_of(line):
    """The exit code of a command."""
    try:
        run(line)
    except SystemExit as ended:
        return ended.code
    return 0


def checked(line, capsys):
    """The exit code of a command and its lines, of JSON its object."""
    capsys.readouterr()
    code, out = code_of(line), None
    out = capsys.readouterr().out
    return code, json.loads(out) if "--json" in line else out.splitlines()


def test_an_issue_exits_with_1_and_says_what_to_do(folder, capsys):
    code, lines = checked("check sharp.st right.st --resamples 30", capsys)
    assert code == 1
    assert lines[0].startswith("MCBN002 issue  sharp is over-confident")
    assert "-> Fit a temperature" in lines[1]
    claims = [line for line in lines if re.match(r"MCBN\d{3} (issue |tip   |passed) ", line)]
    order = [("issue", "tip", "passed").index(line.split()[1]) for line in claims]
    assert order == sorted(order)
    assert re.fullmatch(r"1 issue, \d+ tips?, \d+ passed, \d+ not applicable", lines[-1])


def test_files_without_an_issue_exit_with_0_but_for_tips_where_these_count(folder, capsys):
    code, lines = checked("check right.st --resamples 30", capsys)
    assert code == 0
    tips = re.findall(r"^(MCBN\d{3}) tip", "\n".join(lines), flags=re.MULTILINE)
    assert lines[-1].startswith(f"0 issues, {len(tips)} tips, ")
    assert code_of("check right.st --resamples 30 --strict") == 1
    assert code_of(f"check right.st --resamples 30 --strict --ignore {','.join(tips)}") == 0


def test_what_is_ignored_changes_the_lines_the_numbers_and_the_exit_code(folder, capsys):
    line = "check sharp.st right.st --resamples 30"
    _, before = checked(f"{line} --json", capsys)
    code, lines = checked(f"{line} --ignore MCBN002,MCBN003", capsys)
    assert code == 0
    assert not [each for each in lines if each.startswith(("MCBN002", "MCBN003"))]
    assert lines[-1].endswith(", 2 ignored")
    code, after = checked(f"{line} --ignore MCBN002 --ignore MCBN003 --json", capsys)
    assert code == 0
    assert after["passed"]
    assert not before["passed"]
    assert after["ignored"] == ["MCBN002", "MCBN003"]
    kept = [each for each in before["checks"] if each["code"] not in after["ignored"]]
    assert after["checks"] == kept
    assert sum(after["counts"].values()) == len(kept) == sum(before["counts"].values()) - 2


def test_it_says_what_the_report_of_the_same_files_says(folder, capsys):
    options = "sharp.st right.st --held-out sharp_held.st --held-out right_held.st --resamples 30"
    _, found = checked(f"check {options} --recalibrate temperature --json", capsys)
    run(f"report {options} --recalibrate temperature --out r")
    verdict = json.loads((folder / "r" / "report.json").read_text())["verdict"]
    said = [
        (each["code"], claim["topic"], claim["sentence"], claim["remedy"])
        for each in found["checks"]
        for claim in each["claims"]
    ]
    assert said == [(each["code"], each["topic"], each["sentence"], each["remedy"])
                    for each in verdict]  # fmt: skip
    assert {"MCBN010", "MCBN013"} <= {each[0] for each in said}


def test_a_report_leaves_out_what_is_ignored(folder):
    line = "report sharp.st right.st --resamples 30"
    run(f"{line} --out all")
    run(f"{line} --out fewer --ignore MCBN002,MCBN003")
    every, fewer = (
        json.loads((folder / name / "report.json").read_text())["verdict"]
        for name in ("all", "fewer")
    )
    assert fewer == [each for each in every if each["code"] not in ("MCBN002", "MCBN003")]
    assert len(fewer) == len(every) - 2


def test_a_study_is_checked_as_its_report_is(tmp_path, monkeypatch, capsys):
    study = made_study(classification_plan(seeds=(0, 1, 2)), classification_scores)
    monkeypatch.setattr(Study, "load", lambda _: study)
    monkeypatch.setattr(Store, "open", lambda _: None)
    folder = shlex.quote(str(tmp_path))
    code, found = checked(f"check {folder} --json", capsys)
    verdict = [asdict(each) for each in Report.from_study(study).verdict]
    said = [claim["sentence"] for each in found["checks"] for claim in each["claims"]]
    assert said == [each["sentence"] for each in verdict]
    assert code == (1 if found["counts"]["issue"] else 0)
    status = {each["code"]: each["status"] for each in found["checks"]}
    assert (status["MCBN015"], status["MCBN016"]) == ("passed", "tip")
    _, found = checked(f"check {folder} --json --ignore MCBN016", capsys)
    assert "MCBN016" not in {each["code"] for each in found["checks"]}
    run(f"report {folder} --ignore MCBN016 --out {folder}/r")
    written = json.loads((tmp_path / "r" / "report.json").read_text())["verdict"]
    assert [each["sentence"] for each in written] == [
        each["sentence"] for each in verdict if each["code"] != "MCBN016"
    ]


def test_unknown_codes_and_files_are_errors_of_their_own(folder, capsys, monkeypatch):
    assert "['X1']" in failing("check right.st --ignore MCBN001,X1", capsys)
    assert "nowhere.st" in failing("check nowhere.st", capsys)
    assert "once" in failing("check right.st right.st", capsys)
    monkeypatch.setattr(report_verb, "named_predictions", lambda *_, **__: pytest.fail("work"))
    for verb in ("check", "report"):
        failing(f"{verb} right.st --ignore MCBN9999", capsys)


def test_names_of_files_print_in_their_line(folder, capsys):
    write(folder / "named.st", sharpness=3.0, method=HOSTILE)
    _, lines = checked("check named.st --resamples 30", capsys)
    assert all("\x1b" not in line for line in lines)
    assert not [line for line in lines if line.startswith("MCBN002 passed")]
    assert lines[0].startswith(r"MCBN002 issue  \x1b[31mred MCBN002 passed is over-confident")
    code, found = checked("check named.st --resamples 30 --json", capsys)
    (claims,) = [each["claims"] for each in found["checks"] if each["code"] == "MCBN002"]
    assert claims[0]["sentence"].startswith(HOSTILE)
    assert code == 1


def test_status_is_coloured_on_a_terminal_only(folder, capsys, monkeypatch):
    _, plain = checked("check sharp.st --resamples 30", capsys)
    monkeypatch.setattr(messages, "_has_colour", lambda _: True)
    _, coloured = checked("check sharp.st --resamples 30", capsys)
    assert coloured[0].startswith("MCBN002 \x1b[1;31missue \x1b[0m sharp")
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured] == plain


def test_quiet_leaves_the_exit_code(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", "sharp.st", "--resamples", "30", "--quiet"])
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", "")
