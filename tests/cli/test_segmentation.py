"""Masks with void pixels on the command line: predictions, scores, a report and maps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_lines import failing, run

import mcbn
from mcbn.predictive.predictions import Predictions

MINE = """
import torch, mcbn
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.Conv2d(6, 4, 1))

def part(count, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 8, 6, generator=generator)
    y = x.argmax(1)
    y[torch.rand(y.shape, generator=generator) < 0.2] = 4
    return x, y

def task():
    return mcbn.Task(part(24, 0), part(8, 1), part(10, 2), classes=("a", "b", "c", "d"),
                     ignore_index=4, name="masks")

def pairs():
    return part(10, 2)
"""
NETWORK = "--model mine.py:build --weights w.pt"
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(namespace["build"]().state_dict(), "w.pt")
    return tmp_path


def test_from_masks_to_maps(folder, capsys):
    run(f"collect {NETWORK} --data mine.py:task --batch-size 8 --draws 4 --out bank.st")
    run(f"predict {NETWORK} --bank bank.st --data mine.py:task --out mcbn.st")
    run(f"predict {NETWORK} --method deterministic --data mine.py:task --out plain.npz")
    given = Predictions.load("mcbn.st")
    assert (given.ignore_index, len(given.predictive)) == (4, 10)
    given.save("whole.st")
    run(f"predict {NETWORK} --bank bank.st --data mine.py:task --batch-size 3 --out thirds.st")
    # Written batch by batch, the file is that of the whole.
    assert Path("mcbn.st").read_bytes() == Path("whole.st").read_bytes()
    thirds = Predictions.load("thirds.st")
    assert torch.equal(thirds.targets, given.targets)
    torch.testing.assert_close(
        thirds.predictive.log_probabilities, given.predictive.log_probabilities, rtol=0, atol=1e-5
    )
    capsys.readouterr()
    run("evaluate mcbn.st --resamples 10 --json")
    expected = mcbn.evaluate(given.scored, given.targets, ignore_index=4, resamples=10)
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"] == expected.to_dict()["scores"]
    assert printed["clusters"] == 10
    run("evaluate plain.npz --resamples 10")
    assert "of 10 whole examples or groups" in capsys.readouterr().out
    run("report plain.npz mcbn.st --resamples 10 --images mine.py:task --maps maps")
    said = capsys.readouterr()
    assert "50 maps written to maps/MCBN" in said.err
    assert len(list((folder / "maps" / "MCBN").iterdir())) == 50
    assert len(list((folder / "maps" / "plain").iterdir())) == 40
    page = (folder / "report" / "report.html").read_text()
    assert page.count('alt="Input of example') == 6
    assert json.loads((folder / "report" / "report.json").read_text())["maps"]["method"] == "MCBN"


def test_maps_stay_in_their_folder_whatever_a_method_is_called(folder):
    run(f"predict {NETWORK} --method deterministic --data mine.py:task --out plain.st")
    given = Predictions.load("plain.st")
    for number, name in enumerate(("../../etc", "..", "a b/c")):
        replace(given, method=name).save(f"{number}.st")
    run("report 0.st 1.st 2.st --resamples 2 --maps inside/maps --out inside/report")
    assert sorted(path.name for path in (folder / "inside" / "maps").iterdir()) == [
        "a-b-c", "etc", "method-2",
    ]  # fmt: skip
    assert not (folder / "etc").exists()


def test_the_label_of_void_may_be_given(folder, capsys):
    run(f"predict {NETWORK} --method deterministic --data mine.py:pairs --ignore-index 4 "
        "--out plain.st")  # fmt: skip
    assert Predictions.load("plain.st").ignore_index == 4
    run(f"predict {NETWORK} --method deterministic --data mine.py:task --out task.st")
    for name in ("plain", "task"):
        capsys.readouterr()
        run(f"evaluate {name}.st --resamples 5 --json")
        assert json.loads(capsys.readouterr().out)["clusters"] == 10


def test_groups_by_a_column(folder, capsys):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 3, generator=generator)
    rows = ["patient,target,p_a,p_b,p_c"]
    for k, row in enumerate(logits.softmax(1).tolist()):
        rows.append(f"p{k // 6},{'abc'[k % 3]},{','.join(map(str, row))}")
    (folder / "m.csv").write_text("\n".join(rows) + "\n")
    run("evaluate m.csv --resamples 20")
    said = capsys.readouterr()
    assert "values of 'patient' in m.csv repeat" in said.err
    assert "give --group patient for right intervals" in said.err
    run("evaluate m.csv --resamples 20 --group patient --json")
    printed = json.loads(capsys.readouterr().out)
    given = mcbn.read_predictions("m.csv")
    expected = mcbn.evaluate(
        given.scored, given.targets, group=[k // 6 for k in range(60)], resamples=20
    )
    assert printed["scores"] == expected.to_dict()["scores"]
    assert printed["clusters"] == 10
    run("report m.csv --resamples 20 --group patient")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["comparison"]["methods"]["m"]["scores"] == printed["scores"]
    assert "'doctor'" in failing("evaluate m.csv --group doctor", capsys)


def test_masks_with_void_pixels_are_recalibrated(folder, capsys):
    run(f"collect {NETWORK} --data mine.py:task --batch-size 8 --draws 4 --out bank.st")
    for part, out in (("test", "mcbn.st"), ("validation", "held.st")):
        run(f"predict {NETWORK} --bank bank.st --data mine.py:task --part {part} --out {out}")
    run("report mcbn.st --held-out held.st --recalibrate temperature --resamples 10 --out report")
    told = capsys.readouterr().err
    said = failing("report mcbn.st --held-out held.st --out sets", capsys)
    assert "not exchangeable" in said
    given, held = (Predictions.load(path) for path in ("mcbn.st", "held.st"))
    known = held.targets != 4
    rows = replace(
        held.predictive,
        log_probabilities=held.predictive.log_probabilities.movedim(1, -1)[known],
        expected_entropy=held.predictive.expected_entropy[known],
        variance=held.predictive.variance.movedim(1, -1)[known],
        variation_ratio=held.predictive.variation_ratio[known],
        energy=None,
        max_logit=None,
    )
    # The prior counts images, not their pixels.
    pixels = int(known.sum()) / len(known)
    scaled = mcbn.TemperatureScaling.fit(rows, held.targets[known], prior=pixels)(given.predictive)
    expected = mcbn.evaluate(scaled, given.targets, ignore_index=4, resamples=0)["nll"].value
    methods = json.loads((folder / "report" / "report.json").read_text())["comparison"]["methods"]
    found = methods["MCBN + temperature"]["scores"]["nll"]["value"]
    assert found == pytest.approx(expected)
    assert "not all draws of 'MCBN' were kept, so the temperature is of their average" in told


def test_masks_with_void_pixels_have_a_temperature_of_each_draw(folder, capsys):
    run(f"collect {NETWORK} --data mine.py:task --batch-size 8 --draws 4 --out bank.st")
    for part, out in (("test", "mcbn.st"), ("validation", "held.st")):
        run(f"predict {NETWORK} --bank bank.st --data mine.py:task --part {part} --out {out} "
            "--keep-draws")  # fmt: skip
    capsys.readouterr()
    run("report mcbn.st --held-out held.st --recalibrate temperature --resamples 10 --out report")
    said = capsys.readouterr()
    assert "were kept" not in said.err
    given, held = (Predictions.load(path) for path in ("mcbn.st", "held.st"))
    known = held.targets != 4
    rows = mcbn.Categorical("logits").summarize(
        held.predictive.draws.movedim(2, -1)[:, known], keep_draws=True
    )
    pixels = int(known.sum()) / len(known)
    fitted = mcbn.TemperedCategorical.fit(rows, held.targets[known], prior=pixels)
    text = f"T = {fitted.temperature:.3g} of each draw, fitted on {len(known)} labels"
    assert f"Recalibration of MCBN: {text}\n" in said.out
    report = json.loads((folder / "report" / "report.json").read_text())
    expected = mcbn.evaluate(
        fitted(given.predictive), given.targets, ignore_index=4, resamples=0
    )["nll"].value  # fmt: skip
    found = report["comparison"]["methods"]["MCBN + temperature"]["scores"]["nll"]["value"]
    assert found == pytest.approx(expected)
    assert report["recalibration"]["MCBN"] == {
        "method": "TemperedCategorical", "labels": len(known), "at_bound": None,
        "temperature": pytest.approx(fitted.temperature, rel=1e-9),
    }  # fmt: skip
    assert text in (folder / "report" / "report.html").read_text()
