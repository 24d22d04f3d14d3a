"""The example service: answers as the network does, and refuses what it should."""

import importlib.util
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
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
        (b"[[1, 2], [3]]", {}, 422, "rows of one length"),
        (b"[[1, 2, 3, true]]", {}, 422, "true or false"),
        (b"[[1, 2, 3, null]]", {}, 422, "numbers"),
        (b"[[1, 2, 3, Infinity]]", {}, 422, "finite"),
        (b'{"inputs": null}', {}, 422, "numbers"),
        (npy(np.zeros((1, 4), bool)), NPY, 422, "numbers"),
        (npy(np.zeros((1, 4), complex)), NPY, 422, "numbers"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a': (", NPY, 400, "npy"),
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


class Words(nn.Module):
    """Rows of ids, of any integer type."""

    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(9, 4), nn.BatchNorm1d(4)

    def forward(self, ids):
        return self.norm(self.table(ids.long()).mean(1))


@pytest.fixture(scope="module", params=[torch.int64, torch.int32], ids=str)
def words(request, build_app, tmp_path_factory):
    model = randomized(without_seed(Words)).eval()
    path = tmp_path_factory.mktemp("words") / "net.onnx"
    ids = torch.arange(18).reshape(6, 3) % 9
    sampler = mcbn.Deterministic(model)
    mcbn.export(sampler, ids.to(request.param), path)
    return TestClient(build_app(path, threads=1)), sampler, ids.to(request.param)


def test_ids_of_any_type_that_holds_them_are_answered(words):
    client, sampler, ids = words
    expected = mcbn.predict(sampler, ids).probabilities
    for kind in (np.int64, np.int32, np.uint64, np.float32, np.uint8):
        answer = client.post("/predict", content=npy(ids.numpy().astype(kind)), headers=NPY)
        found = torch.tensor(answer.json()["probabilities"], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        ([[1.0, 2.5, 3.0]], "fractions"),
        ([[1, 2, -1]], "values that the network takes"),
        ([[1, 2, 9]], "values that the network takes"),
        (np.array([[1, 2, 2**64 - 1]], np.uint64), "whole numbers from"),
        (np.array([[1, 2, 2.0**60]]), "whole numbers from"),
        ([[1, 2, 2**62]], "(values that|whole numbers)"),
        (np.array([[1, 2, np.nan]]), "finite"),
    ],
)
def test_ids_are_never_taken_for_others(words, array, reason):
    answer = words[0].post("/predict", content=npy(np.asarray(array)), headers=NPY)
    assert answer.status_code == 422
    assert re.search(reason, answer.json()["detail"])


def test_an_input_in_half_precision(build_app, tmp_path):
    model = nn.Sequential(nn.Flatten(1)).half()
    path = mcbn.export(mcbn.Deterministic(model), torch.ones(2, 3).half(), tmp_path / "n.onnx").path
    client = TestClient(build_app(path, threads=1))
    found = client.post("/predict", json=[[0.0, 0.0, 0.0]]).json()
    assert found["probabilities"] == [[pytest.approx(1 / 3)] * 3]
    answer = client.post("/predict", json=[[0.0, 0.0, 7e4]])
    assert answer.status_code == 422
    assert "float16" in answer.json()["detail"]


def test_an_answer_that_is_not_finite_is_refused(build_app, tmp_path):
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    path = mcbn.export(mcbn.Deterministic(Root()), torch.ones(2, 3), tmp_path / "net.onnx").path
    answer = TestClient(build_app(path, threads=1)).post("/predict", json=[[1, -1, 1]])
    assert answer.status_code == 422
    assert "finite answers" in answer.json()["detail"]


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_a_file_that_is_no_network_is_refused_at_the_start(content, build_app, tmp_path):
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an .onnx file of mcbn.export, got .*net\.onnx"):
        build_app(path)


@pytest.mark.parametrize("options", [{"abstain_at": float("nan")}, {"measure": "variance"}])
def test_a_threshold_that_is_none_is_refused_at_the_start(options, build_app, artifact):
    with pytest.raises(ValueError, match="expected a threshold in nats of entropy or mutual"):
        build_app(artifact, **options)


def changed(artifact, path, change):
    """The file with a change to its graph."""
    model = onnx.load_model_from_string(artifact.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.graph.input[0].type.tensor_type.shape.dim[0].__setattr__(
            "dim_value", 1),
        lambda model: model.graph.input[0].type.tensor_type.shape.dim[1].__setattr__(
            "dim_param", "features"),
        lambda model: model.metadata_props.pop(),
        lambda model: model.metadata_props[0].__setattr__("value", "{"),
    ],
    ids=["one example", "any features", "no header", "half a header"],
)  # fmt: skip
def test_a_file_that_cannot_be_served_is_refused_at_the_start(
    change, build_app, artifact, tmp_path
):
    with pytest.raises(ValueError, match="export"):
        build_app(changed(artifact, tmp_path / "net.onnx", change))


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
