"""The example service: answers as the network does, and refuses what it should."""

import importlib.util
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from models import randomized, without_seed
from torch import nn

import mcbn

SERVICE = Path(__file__).parents[2] / "examples" / "service"
NPY = {"Content-Type": "application/x-npy"}
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def script(name):
    spec = importlib.util.spec_from_file_location(f"service_{name}", SERVICE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sampler():
    model = without_seed(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    )
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    bank = mcbn.collect(randomized(model).eval(), mcbn.minibatches(data, batch_size=8, draws=4))
    return mcbn.MCBatchNorm(model, bank)


@pytest.fixture(scope="module")
def artifact(sampler, tmp_path_factory):
    path = tmp_path_factory.mktemp("service") / "net.onnx"
    return mcbn.export(sampler, torch.zeros(1, 4), path).path


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def build_app():
    return script("app").build_app


@pytest.fixture(scope="module")
def client(build_app, artifact, sampler, inputs):
    middle = float(mcbn.predict(sampler, inputs).entropy.median())
    return TestClient(
        build_app(artifact, abstain_at=middle, largest_body=2000, most_examples=10, threads=1)
    )


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("way", ["list", "object", "npy", "columns first"])
def test_answers_are_those_of_the_library(client, sampler, inputs, way):
    rows = inputs.tolist()
    request = {
        "list": {"json": rows},
        "object": {"json": {"inputs": rows}},
        "npy": {"content": npy(inputs.numpy()), "headers": NPY},
        "columns first": {"content": npy(np.asfortranarray(inputs.numpy())), "headers": NPY},
    }[way]
    answer = client.post("/predict", **request)
    assert answer.status_code == 200
    found, expected = answer.json(), mcbn.predict(sampler, inputs)
    assert found["prediction"] == expected.prediction.tolist()
    for name in ("probabilities", "entropy", "mutual_information"):
        values = torch.tensor(found[name], dtype=torch.float64)
        torch.testing.assert_close(values, getattr(expected, name), rtol=0, atol=2e-6)
    # The threshold is the median of nine: four answers, unless rounding lifts one over it.
    below = expected.entropy < expected.entropy.median()
    others = expected.entropy != expected.entropy.median()
    assert [a for a, o in zip(found["abstain"], others, strict=True) if o] == (
        ~below[others]
    ).tolist()


def test_health_says_what_is_served(client):
    found = client.get("/health").json()
    assert (found["status"], found["draws"], found["shape"]) == ("ok", 4, [4])


def test_nothing_is_abstained_from_unless_asked(build_app, artifact, inputs):
    client = TestClient(build_app(artifact, threads=1))
    assert client.get("/health").json()["abstain_at"] is None
    assert client.post("/predict", json=inputs.tolist()).json()["abstain"] == [False] * 9


def claiming(shape):
    """An .npy file whose header claims more than there is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + bytes(16)


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", npy(np.zeros((1, 4), np.float32)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"no JSON", {}, 400, "JSON list"),
        (b"", {}, 400, "JSON list"),
        (json.dumps({"rows": []}).encode(), {}, 400, "inputs"),
        (b"[" * 1900, {}, 400, "JSON list"),
        (b"[[1, 2], [3]]", {}, 400, "JSON list"),
        (b'[["a", "b", "c", "d"]]', {}, 422, "numbers"),
        (b"[[1, 2, 3]]", {}, 422, "shape"),
        (b"[]", {}, 422, "shape"),
        (b"3", {}, 422, "shape"),
        (json.dumps([[0] * 4] * 11).encode(), {}, 422, "1 to 10"),
        (b"[[1, 2, 3, NaN]]", {}, 422, "finite"),
        (b"[[1, 2, 3, 1e60]]", {}, 422, "finite"),
        (b" " * 2001, {}, 413, "at most 2000"),
        (npy(np.array([["code"]], object)), NPY, 400, "npy"),
        (npy(np.zeros((1, 3), np.float32)), NPY, 422, "shape"),
        (claiming((2**40, 4)), NPY, 400, "npy"),
        (claiming((-1, 4)), NPY, 400, "npy"),
        (zipped(), NPY, 400, "npy"),
    ],
)
def test_what_is_refused_and_why(client, body, headers, status, reason):
    answer = client.post("/predict", content=body, headers=headers)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]


def test_a_file_for_another_task_is_refused(build_app, tmp_path):
    model = without_seed(lambda: nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1))).eval()
    likelihood = mcbn.Gaussian(precision=1.0)
    path = tmp_path / "net.onnx"
    mcbn.export(mcbn.Deterministic(model), torch.zeros(1, 4), path, likelihood=likelihood)
    with pytest.raises(ValueError, match="for classes"):
        build_app(path)


def test_the_load_script_over_the_loopback(artifact, capsys):
    script("load").main([str(artifact), "--requests", "6", "--concurrency", "2", "--batch", "3"])
    printed = capsys.readouterr().out
    assert printed.startswith("net.onnx: ")
    assert "requests/s of 3, p50 " in printed
