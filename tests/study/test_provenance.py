"""Nothing that another network or other data made is reused or mixed in silence."""

import json
import shutil
from dataclasses import replace

import pytest
from tiny import Here, smallest

from mcbn.cli.main import main
from mcbn.study import worker
from mcbn.study.fingerprints import fingerprint
from mcbn.study.plan import DataAxes, NetworkAxes
from mcbn.study.results import Study, to_csv
from mcbn.study.run import run_study

NET = """
import os
import numpy as np
from torch import nn

WIDTH, SLOPE = 16, 0.1
VARIABLE = os.environ.get("VARIABLE", "0.1")

def layers(*more):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, WIDTH), nn.BatchNorm1d(WIDTH), nn.LeakyReLU(SLOPE), *more,
        nn.Linear(WIDTH, 10))

def build():
    return layers()

def with_dropout():
    return layers(nn.Dropout(float(VARIABLE)))

def with_weights():
    network = layers()
    nn.init.constant_(network[1].bias, float(VARIABLE))
    return network

class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.layers = layers()
        self.text = scale
    def forward(self, values):
        return self.layers(values) * float(self.text)

def with_outputs():
    return Scaled(VARIABLE)

class InTraining(Scaled):
    def forward(self, values):
        return self.layers(values) * (float(self.text) if self.training else 1)

def with_training():
    return InTraining(VARIABLE)

class Clipped(Scaled):
    def forward(self, values):
        return self.layers(values.clamp(max=50 * float(self.text)))

def with_threshold():
    return Clipped(VARIABLE)

def at_random():
    network = layers()
    nn.init.constant_(network[1].bias, float(np.random.default_rng().normal()))
    network.made_at = float(np.random.default_rng().normal())
    return network

def no_network():
    return 3
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def plan(path, name="build", **change):
    own = smallest(network=NetworkAxes(names=(f"{path}:{name}",)))
    return replace(own, methods=("Deterministic",), **change)


def run(a_plan, folder, **options):
    executor = Here()
    study = run_study(a_plan, folder, executor=executor, progress=False, **options)
    return study, [job for _, job, *more in executor.calls if more]  # and no fingerprint


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file()}  # fmt: skip


def refused(a_plan, folder, told):
    """Refuse, change nothing, and let each remedy end well."""
    before = snapshot(folder)
    with pytest.raises(ValueError, match="expected") as raised:
        run(a_plan, folder)
    assert told in str(raised.value)
    assert f"give another folder, or remove {folder} to discard its results" in str(raised.value)
    assert snapshot(folder) == before
    fresh, _ = run(a_plan, folder.parent / "another")
    assert not fresh.failures
    shutil.rmtree(folder)
    again, jobs = run(a_plan, folder)
    assert len(jobs) > 1
    assert to_csv(again) == to_csv(fresh)


@pytest.mark.parametrize("more", [(0,), (0, 1)], ids=["nothing to do", "more seeds"])
def test_an_edited_network_is_refused_before_any_work(net, tmp_path, more):
    run(plan(net), tmp_path / "out")
    edit(net, "LeakyReLU(SLOPE)", "Tanh()")
    refused(plan(net, seeds=more), tmp_path / "out", "the source of net.py differs")


def test_an_edited_network_is_refused_where_only_its_weights_are_left(net, tmp_path):
    run(plan(net), tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "cells")
    edit(net, "LeakyReLU(SLOPE)", "Tanh()")
    refused(plan(net), tmp_path / "out", "the source of net.py differs")


def test_a_comment_another_thread_count_and_more_seeds_resume(net, tmp_path):
    run(plan(net), tmp_path / "out")
    edit(net, "WIDTH, SLOPE = 16, 0.1", "WIDTH, SLOPE = 16, 0.1  # of the first layer")
    study, jobs = run(plan(net, seeds=(1, 0)), tmp_path / "out")
    assert (len(study.results), len(jobs)) == (2, 2)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("with_dropout", "its layers or their settings differ"),
        ("with_weights", "the weights that it is built with differ"),
        ("with_outputs", "its outputs differ"),
        ("with_training", "its outputs differ"),
        ("with_threshold", "its outputs differ"),
    ],
)
def test_what_the_source_does_not_show_is_seen_in_what_was_built(net, monkeypatch, name, told):
    """As a file that the builder reads, or a package that was updated."""
    before = fingerprint(f"{net}:{name}", (1, 8, 8))
    assert before.difference(fingerprint(f"{net}:{name}", (1, 8, 8))) == ""
    monkeypatch.setenv("VARIABLE", "0.101")
    assert told in before.difference(fingerprint(f"{net}:{name}", (1, 8, 8)))


def test_what_two_builds_do_not_share_says_nothing(net):
    first = fingerprint(f"{net}:at_random", (1, 8, 8))
    assert (first.weights, first.outputs, first.structure) == (None, None, "")
    assert first.difference(fingerprint(f"{net}:at_random", (1, 8, 8))) == ""


@pytest.mark.unchecked
def test_a_network_that_fails_on_the_data_is_told_by_its_job(net, tmp_path):
    edit(net, "nn.Linear(64,", "nn.Linear(65,")
    study, _ = run(plan(net), tmp_path / "out")
    (error,) = study.failures.values()
    assert "its network failed: RuntimeError" in error
    study, _ = run(plan(net, "no_network"), tmp_path / "other")
    (error,) = study.failures.values()
    assert "to return a torch.nn.Module, got int; return the network" in error


def test_a_network_that_is_gone_is_named(net, tmp_path):
    run(plan(net), tmp_path / "out")
    net.unlink()
    with pytest.raises(ValueError, match=r"got ValueError: expected a Python file.*; mend it,"):
        run(plan(net), tmp_path / "out")
    assert len(Study.load(tmp_path / "out").results) == 1


def test_a_network_that_is_edited_while_the_study_runs_fails_the_rest(net, tmp_path, monkeypatch):
    train = worker.train

    def train_and_edit(*arguments, **options):
        train(*arguments, **options)
        if "Tanh" not in net.read_text():
            edit(net, "LeakyReLU(SLOPE)", "Tanh()")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", train_and_edit)
        study, _ = run(plan(net, seeds=(0, 1)), tmp_path / "out")
    assert len(study.failures) == 2
    assert all("the source of net.py differs" in error for error in study.failures.values())
    edit(net, "Tanh()", "LeakyReLU(SLOPE)")
    study, _ = run(plan(net, seeds=(0, 1)), tmp_path / "out", retry=True)
    assert (len(study.results), len(study.failures)) == (2, 0)


@pytest.fixture
def yacht(tmp_path, monkeypatch):
    """A study of a table of one's own, and the file of the table."""
    for root, scale in (("one", 1), ("two", 10)):
        folder = tmp_path / root / "uci" / "yacht"
        folder.mkdir(parents=True)
        rows = [f"{scale * (row % 11)} {row % 7} {row % 5}\n" for row in range(200)]
        (folder / "data.txt").write_text("".join(rows))
        (folder / "index_features.txt").write_text("1\n2\n")
        (folder / "index_target.txt").write_text("0\n")
    monkeypatch.setenv("MCBN_DATA", str(tmp_path / "one"))
    of_yachts = smallest(data=DataAxes(names=("yacht",)), methods=("Deterministic",))
    return of_yachts, tmp_path / "one" / "uci" / "yacht" / "data.txt"


@pytest.mark.parametrize("change", ["a value", "the targets", "another root"])
def test_other_data_are_refused(yacht, tmp_path, monkeypatch, change):
    of_yachts, table = yacht
    run(of_yachts, tmp_path / "out")
    if change == "a value":
        table.write_bytes(table.read_bytes()[:-2] + b"3\n")
    elif change == "the targets":
        shutil.copy(tmp_path / "two" / "uci" / "yacht" / "data.txt", table)
    else:
        monkeypatch.setenv("MCBN_DATA", str(tmp_path / "two"))
    more = replace(of_yachts, methods=("Deterministic", "Population BN"))
    refused(more, tmp_path / "out", "another data set yacht (its files differ)")


def test_the_same_data_elsewhere_or_nowhere_resume(yacht, tmp_path, monkeypatch):
    of_yachts, _ = yacht
    run(of_yachts, tmp_path / "out")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    for root in ("copy", "nowhere"):
        monkeypatch.setenv("MCBN_DATA", str(tmp_path / root))
        study, jobs = run(of_yachts, tmp_path / "out")
        assert (len(study.results), jobs) == (1, [])


def test_results_of_earlier_versions_are_read_and_not_added_to(net, tmp_path):
    study, _ = run(plan(net), tmp_path / "out")
    for path in (tmp_path / "out").glob("*/*/config.json"):
        values = json.loads(path.read_text())
        del values["provenance"]
        path.write_text(json.dumps(values))
    assert to_csv(Study.load(tmp_path / "out")) == to_csv(study)
    refused(plan(net), tmp_path / "out", "of an earlier version of mcbn")


def test_results_of_two_versions_are_not_mixed(net, tmp_path):
    run(plan(net, seeds=(0, 1)), tmp_path / "out")
    path = sorted((tmp_path / "out").glob("cells/*/config.json"))[0]
    values = json.loads(path.read_text())
    del values["provenance"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="results of one version of mcbn"):
        Study.load(tmp_path / "out")


def failing(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert stopped.value.code == 2
    return capsys.readouterr().err


DAMAGES = {
    "two networks": ("config.json", '"net.py": "', '"net.py": "0', "the source of net.py differs"),
    "two versions": ("config.json", '"provenance"', '"provenence"', "got another; remove"),
    "another cell": ("config.json", '"draws": 1', '"draws": 2', "got another; remove"),
    "no record": ("config.json", "", None, "expected a JSON object in"),
    "damaged record": ("config.json", '"structure": "', '"structure": 1, "x": "', "got no values"),
    "no scores": ("scores.json", "", None, "expected a JSON object in"),
    "damaged scores": ("scores.json", '"nll": ', '"nll": "x', "expected a JSON object in"),
    "scores of text": ("scores.json", '"nll": ', '"nll": true, "other": ', "expected a number"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_status_table_and_a_run_say_the_same_of_a_damaged_cell(net, tmp_path, capsys, damage):
    file, old, new, told = DAMAGES[damage]
    folder = tmp_path / "out"
    of_two = plan(net, seeds=(0, 1))
    run(of_two, folder)
    path = sorted(folder.glob(f"cells/*/{file}"))[0]
    if new is None:
        path.unlink()
    else:
        edit(path, old, new)
    said = {failing(capsys, "study", verb, folder) for verb in ("status", "table")}
    assert len(said) == 1
    assert told in said.pop()
    with pytest.raises(ValueError, match="expected") as raised:
        run(of_two, folder)
    assert told in str(raised.value)
    if "remove the folder" in str(raised.value):
        shutil.rmtree(path.parent)
        study, jobs = run(of_two, folder)
        assert (len(study.results), len(jobs)) == (2, 1)


def test_weights_that_are_gone_are_named_with_what_to_do(net, tmp_path):
    run(plan(net), tmp_path / "out")
    (weights,) = (tmp_path / "out").glob("networks/*/weights.safetensors")
    weights.unlink()
    both = replace(plan(net), methods=("Deterministic", "Population BN"))
    study, _ = run(both, tmp_path / "out")
    (error,) = study.failures.values()
    assert f"remove the folder {weights.parent} and run the study again" in error
    shutil.rmtree(weights.parent)
    study, _ = run(both, tmp_path / "out", retry=True)
    assert (len(study.results), len(study.failures)) == (2, 0)
