"""The tracker recipes run exactly as on the page, and the logged values are read back."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
# Code by heading; blocks marked with another language are not run here.
BLOCKS = {
    section.splitlines()[0]: re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    for section in re.split(r"^#+ ", PAGE, flags=re.MULTILINE)
    if "```python" in section
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
    pytest.mark.filterwarnings("default::DeprecationWarning"),
]


def run(section, names):
    (block,) = BLOCKS[section]
    exec(compile(block, f"docs/tracking.md, {section}", "exec"), names)
    return names


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Run the first block of the page; return its names and the folder it ran in."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("example")
    os.chdir(folder)
    try:
        with torch.random.fork_rng():
            return run("Experiment tracking and model cards", {}), folder
    finally:
        os.chdir(before)


@pytest.fixture
def names(example, monkeypatch):
    defined, folder = example
    monkeypatch.chdir(folder)
    return dict(defined)


def test_the_page_has_these_recipes():
    assert list(BLOCKS) == [
        "Experiment tracking and model cards", "MLflow", "TensorBoard", "Weights & Biases",
        "A model card",
    ]  # fmt: skip


def test_mlflow_logs_scores_intervals_and_report(names, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # The small package has no database.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    mlflow = pytest.importorskip("mlflow")
    names = run("MLflow", names)
    logged = mlflow.last_active_run()
    assert logged.data.metrics == pytest.approx(names["evaluation"].to_metrics(), rel=1e-12)
    assert {"nll", "nll_low", "nll_high"} <= logged.data.metrics.keys()
    assert logged.data.params == {"method": "MCBN", "M": "16", "T": "20"}
    (logged_report,) = tmp_path.rglob("report.html")
    assert logged_report.read_bytes() == names["page"].read_bytes()


def test_tensorboard_logs_scores_and_intervals(names):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    names = run("TensorBoard", names)
    events = reading.EventAccumulator("runs/mcbn").Reload()
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    wanted = {f"test/{name}": value for name, value in names["evaluation"].to_metrics().items()}
    assert scalars == pytest.approx(wanted, rel=1e-6)  # stored in single precision


def test_wandb_logs_scores_intervals_and_report(names, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip("wandb")
    names = run("Weights & Biases", names)
    (log,) = {path.resolve() for path in Path("wandb").rglob("*.wandb")}
    content = log.read_bytes()
    for name, value in names["evaluation"].to_metrics().items():
        assert name.encode() in content
        assert repr(value).encode() in content
    (logged_report,) = {path.resolve() for path in Path("wandb").rglob("report_*.html")}
    assert logged_report.read_text() == names["page"].read_text()


def test_model_card_is_a_readme_with_metadata(names):
    names = run("A model card", names)
    _, head, text = Path("README.md").read_text().split("---\n", 2)
    (model,) = yaml.safe_load(head)["model-index"]
    assert model["name"] == "my network"
    numbers = json.loads(Path("report/report.json").read_text())["comparison"]["methods"]
    for metric in model["results"][0]["metrics"]:
        known = numbers[metric["args"]["method"]]["scores"][metric["type"]]
        assert metric["value"] == known["value"]
        assert metric["args"]["high"] == known["high"]
    assert "| MCBN | 20 |" in text
    assert names["card"] == Path("README.md").read_text()
