"""The example service that watches for drift."""

import importlib.util
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from torch import nn

import mcbn

APP = Path(__file__).parents[2] / "examples" / "drift" / "app.py"


def values(count, seed):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def client():
    spec = importlib.util.spec_from_file_location("drift_service", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    bank = mcbn.collect(model, mcbn.minibatches(values(2000, 0), batch_size=8, draws=80))
    return TestClient(module.build_app(model, bank, most_examples=100))


def test_it_alarms_after_a_drift_and_not_before(client):
    for k in range(10):
        client.post("/observe", json=values(5, k).tolist())
    state = client.get("/drift").json()
    assert (state["alarm"], state["mini_batches"], state["waiting"]) == (False, 6, 2)
    answers = [client.post("/observe", json=(2 + values(20, k)).tolist()) for k in range(10)]
    assert answers[-1].json()["alarm"] is True
    assert 6 < answers[-1].json()["alarm_at"] < 20


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([[1.0, 2.0], [3.0]], "one shape"),
        ([], "1 to 100 examples"),
        ([1.0], "1 to 100 examples"),
        ([["a"] * 3], "rows of numbers"),
        ([[1e300] * 3], "finite"),
        ([[1.0, 2.0]] * 8, "inputs of the network"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_what_is_refused_is_told_and_changes_nothing(client, body, reason):
    before = client.get("/drift").json()
    answer = client.post("/observe", json=body)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert client.get("/drift").json() == before
    assert client.post("/observe", json=values(3, 0).tolist()).json()["waiting"] == 3
