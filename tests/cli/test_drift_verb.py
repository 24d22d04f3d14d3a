"""The verb that tests data for drift: its numbers are those of the library, its exit code tells."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import failing, run
from torch import nn

import mcbn

NETS = """
import torch
from torch import nn
def build():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False))
def pairs():
    return torch.utils.data.TensorDataset(torch.load("new.pt"), torch.zeros(200).long())
"""
LINE = "drift --model nets.py:build --weights w.pt --bank bank.st"


def values(count, seed):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    with torch.random.fork_rng():
        network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False)).eval()
    torch.save(network.state_dict(), "w.pt")
    bank = mcbn.collect(network, mcbn.minibatches(values(2000, 0), batch_size=16, draws=80))
    bank.save("bank.st")
    torch.save(values(200, 1), "new.pt")
    np.savez("new.npz", inputs=values(200, 1).numpy())
    np.savez("far.npz", inputs=values(200, 1).numpy() + 0.7)
    return network, bank


def test_data_without_drift(folder, capsys):
    run(f"{LINE} --data new.npz --json")
    printed = json.loads(capsys.readouterr().out)
    network, bank = folder
    expected = mcbn.drift_test(network, bank, values(200, 1))
    assert printed["p_value"] == pytest.approx(expected.p_value)
    assert printed["distances"] == pytest.approx(list(expected.distances), rel=1e-4)
    assert printed["drifted"] is False
    run(f"{LINE} --data nets.py:pairs --json")
    assert json.loads(capsys.readouterr().out) == printed


def test_drift_is_exit_code_1_and_names_the_layer(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(f"{LINE} --data far.npz --seed 3")
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert said.out.startswith("Drift test: p = ")
    assert "12 mini-batches of 16" in said.out
    assert "drift is first seen in the layer 0" in said.err


def test_options_count(folder, capsys):
    run(f"{LINE} --data new.npz --json --batch-size 32 --alpha 0.2 --seed 5")
    printed = json.loads(capsys.readouterr().out)
    network, bank = folder
    expected = mcbn.drift_test(network, bank, values(200, 1), batch_size=32, alpha=0.2, seed=5)
    assert (printed["batch_size"], printed["alpha"]) == (32, 0.2)
    assert printed["distances"] == pytest.approx(list(expected.distances), rel=1e-4)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--data new.npz --batch-size 300", "batch"),
        ("--data new.npz --batch-size 4", "cannot be rescaled"),
        ("--data new.npz --batch-size 0", "--batch-size of at least 1"),
        ("--data new.npz --alpha 2", "--alpha strictly between 0 and 1"),
        ("--data none.npz", "none.npz"),
    ],
)
def test_errors(folder, capsys, line, reason):
    assert reason in failing(f"{LINE} {line}", capsys)


def test_a_report_has_the_tests_of_other_data(folder, capsys):
    network, _ = folder
    predictive = mcbn.predict(mcbn.Deterministic(network), values(60, 3))
    mcbn.Predictions("plain", predictive, predictive.prediction, "d").save("plain.st")
    for name in ("new", "far"):
        with suppress(SystemExit):
            run(f"{LINE} --data {name}.npz --seed 3 --json")
        Path(f"{name}.json").write_text(capsys.readouterr().out)
    run("report plain.st --drift near=new.json --drift far.json --resamples 20 --out page --json")
    claims = [each for each in json.loads(capsys.readouterr().out)["verdict"]
              if each["topic"] == "Drift"]  # fmt: skip
    assert [each["mark"] for each in claims] == ["good", "bad"]
    assert claims[0]["sentence"].startswith("No drift was found in near (p = ")
    assert claims[1]["sentence"].startswith(
        "far is not drawn from what the bank was drawn from, first in the layer 0 (p "
    )
    numbers = json.loads(Path("page/report.json").read_text())
    assert numbers["drift"] == {
        name: json.loads(Path(f"{file}.json").read_text())
        for name, file in (("near", "new"), ("far", "far"))
    }
    page = Path("page/report.html").read_text()
    assert '<section id="drift">' in page
    assert '<a href="#drift">' in page


@pytest.mark.parametrize(
    ("text", "option", "reason"),
    [
        ("{}", "broken.json", "got something else"),
        ("no", "broken.json", "write it again"),
    ],
)
def test_what_is_no_test_for_drift_is_refused(folder, capsys, text, option, reason):
    network, _ = folder
    predictive = mcbn.predict(mcbn.Deterministic(network), values(60, 3))
    mcbn.Predictions("plain", predictive, predictive.prediction, "d").save("plain.st")
    Path("broken.json").write_text(text)
    assert reason in failing(f"report plain.st --drift {option}", capsys)
