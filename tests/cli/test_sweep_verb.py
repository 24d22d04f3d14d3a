"""A sweep from the command line: results, a report, a recommendation, and what is refused."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from own_study import write_own_files
from reports import figures_below

import mcbn
from mcbn.cli.main import main
from mcbn.network.checkpoints import load_network
from mcbn.study.own_code import load_own_task
from mcbn.study.results import Study

WORDS = [
    "sweep",
    "--model",
    "mine.py:build",
    "--weights",
    "w.pt",
    "--task",
    "mine.py:task",
    "--out",
    "out",
]
FEW = ["--batch-sizes", "4,8", "--draws", "3", "--trained-at", "8"]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write_own_files(tmp_path)
    torch.save(load_network("mine.py:build", None).state_dict(), "w.pt")
    yield tmp_path
    sys.modules.pop("parts", None)


def test_it_writes_results_and_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    main([*WORDS, *FEW, "--json"])
    told = capsys.readouterr()
    numbers = json.loads(told.out)
    assert "passes of an example through the network" in told.err
    assert "weights read from" in told.err
    study = Study.load("out")
    assert numbers["cells"] == len(study.results) == 7
    assert numbers["recommendation"] == json.loads(Path("out/recommendation.json").read_text())
    assert 'id="recommended"' in Path("out/report.html").read_text()
    network = load_network("mine.py:build", "w.pt")
    sys.modules.pop("parts", None)
    task = load_own_task("mine.py:task")
    predictive = mcbn.predict(mcbn.Deterministic(network), task.test.inputs, progress=False)
    nll = mcbn.evaluate(predictive, task.test.targets, resamples=0)["nll"].value
    (found,) = study.values("nll", "Deterministic", training_batch_size=8).values()
    assert found == pytest.approx(nll)


def test_figures_are_files_and_other_formats_are_refused_before_the_sweep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main([*WORDS, *FEW, "--figures", "gif"])
    assert "expected figures as pdf, svg or png, got 'gif'" in capsys.readouterr().err
    assert not Path("out").exists()
    main([*WORDS, *FEW, "--figures", "png"])
    drawn = {path.name for path in Path("out/figures").glob("*.png")}
    assert "batch-size.png" in drawn
    assert len(drawn) == figures_below(Path("out/report.html").read_text())
    main([*WORDS, *FEW, "--figures", "png"])  # which renews what the sweep itself wrote
    assert {path.name for path in Path("out/figures").glob("*.png")} == drawn


def test_the_same_command_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    main([*WORDS, *FEW])
    first = Study.load("out")
    main([*WORDS, *FEW, "--quiet"])
    assert Study.load("out") == first
    assert capsys.readouterr().err.count("sweep:") == 1


def test_a_folder_of_pictures_is_a_task() -> None:
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6), ("test", 6)):
        for kind in ("cat", "dog"):
            place = Path("photos", part, kind)
            place.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                image.fromarray(pixels).save(place / f"{index}.png")
    Path("nets.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),\n"
        "                         nn.Linear(16, 2))\n"
    )
    torch.save(load_network("nets.py:build", None).state_dict(), "nets.pt")
    own = {"mine.py:build": "nets.py:build", "w.pt": "nets.pt", "mine.py:task": "photos"}
    main([*(own.get(word, word) for word in WORDS), *FEW])
    assert len(Study.load("out").results) == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch-sizes", "8,many"], "whole numbers from 2"),
        (["--batch-sizes", "1,8"], "whole numbers from 2"),
        (["--task", "mine.py:nothing"], "to return an mcbn.Task"),
        (["--transform", "mine.py:nothing"], "with a folder of pictures only"),
        (["--task", "absent"], "absent"),
    ],
)
def test_what_cannot_be_swept_is_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for word in WORDS if words[0] != "--task" or word not in ("--task", WORDS[6])]
    with pytest.raises(SystemExit) as stop:
        main([*given, *words])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
