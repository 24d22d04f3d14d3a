"""The verbs for studies: from a file to a table and a page."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from reports import figures_below
from synthetic_studies import classification_study
from tiny import Here, smallest, tiny

from mcbn.cli import study_run
from mcbn.cli.main import main
from mcbn.study import declaration
from mcbn.study.results import Study
from mcbn.study.run import run_study
from mcbn.study.store import Store


@pytest.fixture
def here(monkeypatch):
    """Run the cells of the command line in this process."""
    executor = Here()
    monkeypatch.setattr(study_run, "named_executor", lambda *_: executor)
    return executor


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(declaration.to_yaml(smallest()))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run_study(smallest(), folder, executor=Here(), progress=False)
    return folder


def run(*words):
    main([str(word) for word in words])


def failing(*words):
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    return stopped.value.code


def test_a_study_goes_from_its_file_to_a_table(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mcbn.study.run.Processes", Here)
    out = tmp_path / "out"
    run("study", "run", file, "--out", out, "--jobs", "1", "--seeds", "[0, 1]")
    assert "4 of 4 cells done, 0 failed" in capsys.readouterr().out
    assert Study.load(out).plan.seeds == (0, 1)
    run("study", "status", out)
    said = capsys.readouterr().out
    assert "cells     4 of 4 done, 0 failed, 0 to do" in said
    assert "networks  2 of 2 trained" in said
    assert "running   0" in said
    run("study", "table", out)
    assert capsys.readouterr().out.startswith("data,split,train_size,network,training_batch_size")
    run("study", "table", out, "--format", "md", "--out", out / "table.md", "--cost", "true")
    assert "predict_seconds" in (out / "table.md").read_text()


def test_a_study_that_stands_gives_its_page(finished, tmp_path, capsys):
    run("report", finished, "--out", tmp_path)
    assert f"Report: {tmp_path / 'report.html'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())
    capsys.readouterr()
    run("report", finished, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == str(finished / "report.html")
    assert printed["verdict"] == json.loads((tmp_path / "report.json").read_text())["verdict"]


def test_the_figures_of_a_study_are_files_beside_its_page(finished, tmp_path, capsys, monkeypatch):
    run("report", finished, "--out", tmp_path / "few", "--figures", "svg")
    assert list((tmp_path / "few" / "figures").iterdir()) == []  # of cells without an M
    capsys.readouterr()
    monkeypatch.setattr(Study, "load", lambda _: classification_study(seeds=(0,)))
    run("report", finished, "--out", tmp_path, "--figures", "svg", "--json")
    figures = tmp_path / "figures"
    assert json.loads(capsys.readouterr().out)["figures"] == str(figures)
    names = {path.name for path in figures.glob("*.svg")}
    assert "heat-map-nll-of-mcbn.svg" in names
    page = (tmp_path / "report.html").read_text("utf-8")
    assert len(names) == figures_below(page)


@pytest.mark.parametrize("option", ["--print-config", "--print_config"])
def test_the_printed_declaration_is_one(file, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        run("study", "run", file, "--out", tmp_path / "out", option, "--threads", "2")
    assert stopped.value.code == 0
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out)
    assert declaration.read(again) == declaration.read(file, ["--threads", "2"])
    assert not (tmp_path / "out").exists()


def test_an_executor_and_a_shard_are_passed_on(file, tmp_path, here, capsys):
    words = ("study", "run", file, "--out", tmp_path / "out", "--executor", "ray",
             "--seeds", "[0, 1]")  # fmt: skip
    run(*words, "--shard", "2/2")
    assert "2 of 4 cells done, 0 failed, 2 left to other shards" in capsys.readouterr().out
    assert here.closed
    run(*words, "--shard", "1/2")
    assert "4 of 4 cells done" in capsys.readouterr().out


def test_failed_cells_are_told_with_a_failing_exit_and_tried_again_on_request(
    file, tmp_path, here, capsys
):
    words = ("study", "run", file, "--out", tmp_path / "out", "--executor", "ray",
             "--data.train_sizes", "[null]", "--methods", "[Deterministic, MCBN]",
             "--inference.batch_sizes", "[5000]")  # fmt: skip
    assert failing(*words) == 1
    said = capsys.readouterr()
    assert "1 of 2 cells done, 1 failed" in said.out
    assert "M = 5000" in said.err
    assert "--retry" in said.err
    count = len(here.calls)
    assert failing(*words) == 1
    assert len(here.calls) == count
    assert failing(*words, "--retry") == 1
    assert len(here.calls) == count + 1
    run("study", "status", tmp_path / "out")
    assert "failed    MCBN M = 5000" in capsys.readouterr().out


def test_a_network_of_ones_own_comes_from_the_command_line_alone(file, tmp_path, here):
    nets = tmp_path / "nets.py"
    nets.write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(),"
        " nn.Linear(64, 9), nn.BatchNorm1d(9), nn.Dropout(0.2), nn.Linear(9, 10))\n"
    )
    out = tmp_path / "out"
    words = ("study", "run", file, "--out", out, "--executor", "ray")
    run(*words, "--model", f"{nets}:build")
    assert Study.load(out).results[0].cell.network.architecture == f"{nets}:build"
    # The folder's own file names code now, and is no way round the rule.
    assert failing("study", "run", out / "study.yaml", "--out", out, "--executor", "ray") == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--sedes", "[1]"), "did you mean 'seeds'?"),
        (("--training.epoch", "1"), "did you mean 'training.epochs'?"),
        (("--methods", "[MCBNN]"), "MCBN"),
        (("--executor", "slurm"), "expected the executor processes, ray"),
    ],
)
def test_mistakes_end_in_one_line_before_any_work(file, tmp_path, capsys, words, reason):
    assert failing("study", "run", file, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("mcbn: error: expected")
    assert error.count("\n") == 1
    assert reason in error
    assert not list(tmp_path.glob("out/cells/*"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--shard", "3/2"), "expected i/n with 1 <= i <= n for --shard, got '3/2'"),
        (("--shard", "1"), "expected i/n"),
        (("--jobs", "0"), "expected --jobs of at least 1, got 0"),
        (("--jobs", "two"), "expected a whole number for --jobs, got 'two'"),
        ((), "expected --out of mcbn study run, got none"),
    ],
)
def test_options_out_of_range_are_refused(file, tmp_path, capsys, words, reason):
    out = ("--out", str(tmp_path / "out")) if words else ()
    assert failing("study", "run", file, *out, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("mcbn: error: expected ")
    assert reason in error
    assert error.count("\n") == 1


def test_a_place_that_cannot_be_written_to_is_one_line(file, tmp_path, capsys):
    (tmp_path / "out").write_text("a file, not a folder")
    assert failing("study", "run", file, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("mcbn: error: expected a folder to write study.yaml in, got the file ")
    assert error.count("\n") == 1


def test_a_full_disk_is_one_line_and_says_how_to_go_on(file, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "create", full)
    assert failing("study", "run", file, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    wanted = f"mcbn: error: expected to write to {tmp_path / 'out'}, got No space left on device"
    assert error.startswith(f"{wanted}; free space or choose another folder")
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", [("study", "status"), ("study", "table"), ("report",)])
def test_a_folder_without_a_study_is_named(verb, tmp_path, capsys):
    assert failing(*verb, tmp_path) == 2
    assert f"expected a study in {tmp_path}" in capsys.readouterr().err


def test_parquet_needs_a_file(finished, tmp_path, capsys):
    assert failing("study", "table", finished, "--format", "parquet") == 2
    assert "--out FILE" in capsys.readouterr().err
    run("study", "table", finished, "--format", "parquet", "--out", tmp_path / "table.parquet")
    assert (tmp_path / "table.parquet").read_bytes()[:4] == b"PAR1"


def test_the_status_of_a_damaged_study_is_an_error(finished, tmp_path, capsys):
    store = Store.create(tmp_path)
    store.declare("title: [\n")
    assert failing("study", "status", tmp_path) == 2
    assert "expected the keys and values of a study" in capsys.readouterr().err


def test_what_needs_no_network_does_not_wait_for_torch(finished):
    code = (
        "import sys\nfrom mcbn.cli.main import main\n"
        f"main(['study', 'status', {str(finished)!r}])\n"
        f"main(['study', 'run', {str(finished / 'study.yaml')!r}, '--out', {str(finished)!r}])\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("words", "verb"), [((), "evaluate"), (("study",), "table")])
def test_no_verb_is_told_what_there_is(words, verb, capsys):
    assert failing(*words) == 2
    said = capsys.readouterr()
    assert verb in said.out
    assert not said.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("stduy",), "expected a verb of mcbn, got 'stduy'; did you mean 'study'?"),
        (("evalaute", "x.st"), "got 'evalaute'; did you mean 'evaluate'?"),
        (
            ("study", "stauts"),
            "expected a verb of mcbn study, got 'stauts'; did you mean 'status'?",
        ),
        (("study", "go"), "the verbs are run, status, table"),
    ],
)
def test_the_nearest_verb_is_told_in_one_line(words, reason, capsys):
    assert failing(*words) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_every_key_of_a_declaration_is_in_the_help(capsys):
    failing("study", "run", "--help")
    said = capsys.readouterr().out
    for key in declaration.known_keys():
        assert f"--{key}" in said


def test_the_ready_studies_are_declarations():
    ready = sorted((Path(__file__).parents[2] / "experiments" / "studies").glob("*.yaml"))
    assert [path.stem for path in ready] == ["cifar10", "digits", "mnist", "mnist_size", "uci"]
    for path in ready:
        assert len(declaration.read(path).cells()) > 10
    assert tiny().cells()


MINE = """
import torch
from torch import nn

import mcbn


def rows(count, seed):
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long()


def task():
    return mcbn.Task(rows(64, 0), rows(20, 1), rows(30, 2), name="mine", classes=("low", "high"))


def build():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def fit(model, task, batch_size, seed):
    with torch.no_grad(), open("fits.txt", "a") as file:
        print(batch_size, file=file)
        for parameter in model.parameters():
            parameter.mul_(1.1)
"""


def test_a_study_of_ones_own_data_network_and_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mcbn.study.run.Processes", Here)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "study.yaml").write_text(
        "seeds: [0]\nmethods: [Deterministic]\ntraining: {batch_sizes: [8, 16]}\n"
    )
    own = ("--task", "mine.py:task", "--model", "mine.py:build", "--fit", "mine.py:fit")
    for _ in range(2):  # a finished study is not run again
        run("study", "run", "study.yaml", *own, "--out", "out")
        assert "2 of 2 cells done, 0 failed" in capsys.readouterr().out
    assert sorted((tmp_path / "fits.txt").read_text().split("\n")) == ["", "16", "8"]
    run("study", "table", "out")
    assert "mine" in capsys.readouterr().out
    run("report", "out")
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--task", "mine"), "--task module:function or file.py:function, got 'mine'; add the name "
                             "of the function that returns the task"),
        (("--fit", "no.py:fit"), "expected a Python file in --fit, got 'no.py'"),
        (("--task", "mine.py:build"), "expected mine.py:build to return an mcbn.Task, got"),
    ],
)  # fmt: skip
def test_code_of_ones_own_that_does_not_fit_is_refused(
    tmp_path, monkeypatch, capsys, words, reason
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mcbn.study.run.Processes", Here)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "study.yaml").write_text("seeds: [0]\n")
    assert failing("study", "run", "study.yaml", *words, "--out", "out") == 2
    assert reason in capsys.readouterr().err
