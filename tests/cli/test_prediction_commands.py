"""The verbs that score files of predictions: every file and option counts, and is told apart."""

import csv
import json
import re
import shlex
import shutil

import pytest
import torch
from command_lines import failing, run
from forecasters import forecaster
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.cli import evaluate, network, report
from mcbn.predictive.predictions import Predictions
from mcbn.report import prediction_contents
from mcbn.report.report import Report
from mcbn.study.plan import NetworkAxes


def write_table(path, *, seed=0, sites="ab", columns=None, examples=60):
    """A table of predictions of three classes."""
    predictive, targets = forecaster(batch=examples, classes=3, seed=seed)
    rows = {f"p_{k}": predictive.probabilities[:, k].tolist() for k in range(3)}
    rows["label"] = targets.tolist()
    rows["distance"] = predictive.entropy.square().tolist()
    rows["site"] = [sites[k % len(sites)] for k in range(examples)]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tables of two methods, in which commands run."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b c"):
        write_table(tmp_path / f"{name}.csv")
        write_table(tmp_path / "far" / f"{name}.csv", seed=5)
    for name in ("far", "near/far"):
        write_table(tmp_path / f"{name}.csv", seed=8)
    for name in ("a", "b c"):
        write_table(tmp_path / "near" / f"{name}.csv", seed=6)
        write_table(tmp_path / "held" / f"{name}.csv", seed=7)
    return tmp_path


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


REPORTS = [
    "report a.csv 'b c.csv' --out r --resamples 3",
    "report --resamples 3 --predictions '[a.csv, b c.csv]' --by site --title 'It''s $HOME; \"x\"'",
    "report a.csv --outside far/a.csv --outside near/a.csv --resamples 3 --out 'r 2'",
    "report a.csv 'b c.csv' --outside far/a.csv --outside 'far/b c.csv' --resamples 3",
    "report a.csv --held_out held/a.csv --recalibrate temperature --target label --resamples 3",
    "report a.csv --figures svg,png --figures pdf --resamples 3",
    "report a.csv 'b c.csv' --uncertainty margin,distance --uncertainty=entropy --resamples 3",
    "report a.csv --probabilities p_0,p_1,p_2 --by=site,target --resamples 3 --target=label",
]


@pytest.mark.parametrize("line", REPORTS)
def test_the_command_in_a_report_repeats_it(folder, capsys, line):
    run(line)
    (page,) = re.findall(r"^Report: (.*)$", capsys.readouterr().out, flags=re.MULTILINE)
    out = page.rpartition("/")[0]
    first = (folder / out / "report.json").read_bytes(), (folder / out / "report.html").read_bytes()
    repeat = report_of(folder / out)["provenance"]["Repeat"]
    shutil.rmtree(folder / out)
    assert repeat.startswith("mcbn report ")
    run(repeat.removeprefix("mcbn "))
    assert (folder / out / "report.json").read_bytes() == first[0]
    assert (folder / out / "report.html").read_bytes() == first[1]


def test_the_command_of_a_study_names_its_network(tmp_path):
    for name, words in (("convnet", []), ("my nets.py:build", ["--model", "my nets.py:build"])):
        plan = classification_plan(network=NetworkAxes(names=(name,)), seeds=(0,))
        page = Report.from_study(made_study(plan, classification_scores))
        wanted = ["mcbn", "study", "run", "study.yaml", "--out", "DIR", *words]
        assert shlex.split(page.to_dict()["repeat"]) == wanted
    several = classification_plan(network=NetworkAxes(names=("a:b", "c:d")), seeds=(0,))
    page = Report.from_study(made_study(several, classification_scores))
    assert page.to_dict()["repeat"] is None
    assert "mcbn.run_study" in page.to_html()


def test_the_command_of_a_demo_has_its_options(monkeypatch):
    given = {}
    monkeypatch.setattr(network, "run_demo", lambda out, **options: given.update(options))
    monkeypatch.setenv("MCBN_DATA", "before")
    threads = torch.get_num_threads()
    run("demo --data mnist --out 'a b' --root x")
    torch.set_num_threads(threads)
    assert shlex.split(given["repeat"]) == [
        "mcbn", "demo", "--out=a b", "--data=mnist", "--root=x",
    ]  # fmt: skip


def test_figures_are_files_of_the_formats_asked_for(folder, capsys):
    run("report a.csv --out one --resamples 2 --figures pdf,svg")
    headline, *places = capsys.readouterr().out.splitlines()
    assert headline == report_of(folder / "one")["headline"]
    assert places == ["Report: one/report.html", "Figures: one/figures"]
    run("report a.csv --out two --resamples 2 --figures pdf --figures svg --json")
    assert json.loads(capsys.readouterr().out)["figures"] == "two/figures"
    one, two = (
        {path.name: path.read_bytes() for path in (folder / name / "figures").iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert set(one) == {f"{stem}.{suffix}" for stem in ("reliability-a", "risk-coverage")
                        for suffix in ("pdf", "svg", "csv")}  # fmt: skip


def test_figures_of_others_are_replaced_only_if_asked_for(folder, capsys):
    mine = folder / "r" / "figures" / "reliability-a.svg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    line = "report a.csv --out r --resamples 2 --figures svg"
    assert "expected no files in r/figures yet" in failing(line, capsys)
    assert mine.read_text() == "mine"
    assert not (folder / "r" / "report.html").exists()
    run("report a.csv --out r --resamples 2")  # which has no figures to write
    assert mine.read_text() == "mine"
    run(f"{line} --force")
    assert mine.read_text().startswith("<?xml")


def test_one_file_needs_no_list(folder):
    run("report a.csv --outside far/a.csv --out one --resamples 2")
    run("report --predictions '[a.csv]' --outside '[far/a.csv]' --out list --resamples 2")
    one, listed = report_of(folder / "one"), report_of(folder / "list")
    assert one["comparison"] == listed["comparison"]
    assert list(one["comparison"]["methods"]["a"]["outside"]) == ["far"]


def test_every_set_out_of_distribution_is_in_the_report(folder):
    files = " ".join(f"--outside '{place}/{name}.csv'" for place in ("far", "near")
                     for name in ("a", "b c"))  # fmt: skip
    run(f"report a.csv 'b c.csv' {files} --out r --resamples 2")
    methods = report_of(folder / "r")["comparison"]["methods"]
    assert {name: list(each["outside"]) for name, each in methods.items()} == {
        "a": ["far", "near"], "b c": ["far", "near"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("report a.csv --outside far.csv --outside near/far.csv", "got 'far' twice"),
        ("report a.csv 'b c.csv' --outside far/a.csv", "set 'far' by every method, got none by"),
        ("report a.csv 'b c.csv' --outside 'far/b c.csv'", "by every method, got none by ['a']"),
        ("report a.csv --held-out held/a.csv --held-out 'held/b c.csv'", "in --held-out by one of"),
        ("report a.csv far", "got the folder far"),
        ("evaluate far", "got the folder far"),
        ("report nowhere", "a file of predictions at nowhere, got none"),
        ("report nowhere.csv", "a file of predictions at nowhere.csv, got none"),
        ("report a.csv --by site --by sites", "did you mean 'site'"),
        ("report a.csv --figures pdf,jpg", "figures as pdf, svg or png, got 'jpg'"),
    ],
)
def test_no_file_is_dropped_or_taken_for_another(folder, capsys, monkeypatch, line, reason):
    nothing_is_scored(monkeypatch)
    assert reason in failing(line, capsys, notes=False)
    assert not (folder / "report").exists()


def nothing_is_scored(monkeypatch):
    """Fail where anything is scored before all is checked."""

    def scored(*_, **__):
        pytest.fail("scored before the arguments were checked")

    for place, name in ((prediction_contents, "entry"), (prediction_contents, "subgroups"),
                        (evaluate, "evaluate_predictive"), (report, "fitted"),
                        (report, "set_coverages")):  # fmt: skip
        monkeypatch.setattr(place, name, scored)


@pytest.mark.parametrize("verb", ["evaluate", "report"])
def test_too_many_groups_are_refused_before_the_scoring(folder, capsys, monkeypatch, verb):
    nothing_is_scored(monkeypatch)
    write_table(folder / "many.csv", sites=[str(k) for k in range(51)], examples=102)
    error = failing(f"{verb} many.csv --by target --by site", capsys, notes=False)
    assert "expected a group by 'site'" in error
    assert "at most 50 groups, got 102 values of which 51 differ" in error


def test_scores_without_a_number_are_null_in_the_file(folder, capsys):
    rows = list(csv.reader((folder / "a.csv").read_text().splitlines()))
    rows[1][:4] = ["0", "1", "0", "0"]
    with (folder / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    run("evaluate a.csv --out scores.json --by site --resamples 20")
    assert "nll              inf [" in capsys.readouterr().out
    text = (folder / "scores.json").read_text()
    numbers = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert numbers["scores"]["nll"]["value"] is None
    assert numbers["groups"]["site"]["a"]["scores"]["nll"]["high"] is None


def test_a_report_from_python_checks_the_groups_before_the_scoring(monkeypatch):
    nothing_is_scored(monkeypatch)
    predictive, targets = forecaster(batch=102, classes=3)
    given = [Predictions("m", predictive, targets, "data")]
    groups = {"few": ["a"] * 102, "many": [str(k) for k in range(102)]}
    with pytest.raises(ValueError, match=r"expected a group by 'many' .* at most 50 groups"):
        Report.from_predictions(given, groups=groups)


def test_errors_and_sets_are_detected_by_scores_and_by_columns(folder):
    run("report a.csv --outside far/a.csv --uncertainty entropy,distance --out r --resamples 3")
    method = report_of(folder / "r")["comparison"]["methods"]["a"]
    assert list(method["errors"]) == list(method["outside"]["far"]["by"]) == ["entropy", "distance"]
    # The column is the square of the entropy, which ranks alike.
    for found in (method["errors"], method["outside"]["far"]["by"]):
        numbers = [{key: score["value"] for key, score in each.items()} for each in found.values()]
        assert numbers[0] == pytest.approx(numbers[1])
    assert "distance" in (folder / "r" / "report.html").read_text()


def test_evaluate_prints_how_well_scores_detect_errors(folder, capsys):
    run("evaluate a.csv --uncertainty max_softmax,distance --resamples 3 --out scores.json")
    printed = capsys.readouterr().out
    assert "Errors detected by one minus max softmax:" in printed
    assert "Errors detected by distance:" in printed
    numbers = json.loads((folder / "scores.json").read_text())
    assert numbers["errors"]["max_softmax"]["aurc"]["value"] == pytest.approx(
        numbers["scores"]["aurc"]["value"]
    )
    run("evaluate a.csv --resamples 3")
    assert "Errors detected by" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("report a.csv --uncertainty distanse", "or columns of every file of predictions, got"),
        ("report a.csv --uncertainty energy", "predictions with their logits for the score"),
        ("report a.csv --uncertainty site", "numbers"),
        ("report a.csv --uncertainty distance,distance", "give each once"),
        ("evaluate a.csv --uncertainty nothing", "among"),
        ("evaluate a.csv --uncertainty variation_ratio", "with their variation ratio"),
    ],
)
def test_scores_that_a_file_does_not_have_are_refused(folder, capsys, line, message):
    assert message in failing(f"{line} --resamples 3", capsys)
