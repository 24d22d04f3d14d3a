"""The demo, at a size that takes seconds."""

import json

import pytest
import torch
from tiny import Here

import mcbn
from mcbn.cli.demo import DemoSettings, run_demo
from mcbn.study.results import Study

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def test_the_demo_writes_a_report_of_real_data(tmp_path, monkeypatch):
    monkeypatch.setattr("mcbn.study.run.Processes", Here)
    lines = []
    settings = DemoSettings(training_batch_sizes=(128,), batch_sizes=(8, 64), seeds=(0,), members=2,
                        epochs=2, width=4, draws=8, study_draws=4, resamples=10)  # fmt: skip
    page = run_demo(tmp_path, settings=settings, say=lines.append)
    assert page.name == "report.html"
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert list(numbers["comparison"]["methods"]) == [
        "Deterministic", "MCBN", "MC Dropout", "Deep ensemble",
    ]  # fmt: skip
    assert len(mcbn.Bank.load(tmp_path / "bank.safetensors")) == 8
    assert len(Study.load(tmp_path / "study").results) == 5
    assert lines[0].startswith("Data: Handwritten digits")
    assert lines[-1] == f"Report: {page}"
    assert torch.get_num_threads() == 1
    with pytest.raises(ValueError, match="expected data of"):
        run_demo(tmp_path, data="cats")
