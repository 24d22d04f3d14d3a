"""An HTTP service for predictions with uncertainty: ONNX Runtime, without PyTorch and mcbn.

    python app.py net.onnx --abstain-at 0.7

See README.md in this folder.
"""

import argparse
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import uvicorn
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException, Request

NPY = ("application/octet-stream", "application/x-npy")
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
}
Measure = Literal["entropy", "mutual_information"]


def build_app(
    artifact: str | Path,
    *,
    abstain_at: float = math.inf,
    measure: Measure = "entropy",
    largest_body: int = 16 * 2**20,
    most_examples: int = 64,
    threads: int = 0,
) -> FastAPI:
    """Make the service for a file written by `mcbn.export`.

    Args:
        artifact: an .onnx file of a classifier.
        abstain_at: abstain if the measure is at least this, in nats; see
            `mcbn.choose_abstention`.
        measure: uncertainty measure.
        largest_body: maximum size of a request in bytes.
        most_examples: maximum number of examples per request; memory grows with it, times the
            number of draws.
        threads: threads per pass; 0 means one per core.

    Raises:
        ValueError: the file is not a classifier exported by mcbn.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(artifact), options, providers=["CPUExecutionProvider"]
    )
    about = _about(session)
    app = FastAPI(title=f"{about['model']} with uncertainty")
    # One pass at a time: it uses all threads, and waiting requests hold no activations.
    turn = CapacityLimiter(1)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        threshold = abstain_at if math.isfinite(abstain_at) else None
        return {"status": "ok", **about, "measure": measure, "abstain_at": threshold}

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        body = await _body(request, largest_body)
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        given = session.get_inputs()[0]
        inputs = _checked(_read(body, kind), given.shape[1:], TYPES[given.type], most_examples)
        names = [output.name for output in session.get_outputs()]
        outputs = await run_sync(session.run, names, {given.name: inputs}, limiter=turn)
        return _answer(dict(zip(names, outputs, strict=True)), measure, abstain_at)

    return app


def _about(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the file says of itself."""
    entry = session.get_modelmeta().custom_metadata_map.get("mcbn")
    outputs = [output.name for output in session.get_outputs()]
    inputs = session.get_inputs()
    if entry is None or "probabilities" not in outputs or len(inputs) != 1:
        raise ValueError(
            "expected a file of mcbn.export for classes with one input, got one with the inputs "
            f"{[each.name for each in inputs]} and the outputs {outputs}; export it again"
        )
    header = json.loads(entry)
    return {"model": header["model"], "draws": header["draws"], "shape": inputs[0].shape[1:]}


async def _body(request: Request, largest: int) -> bytes:
    """Read the body up to the allowed size, whatever its header claims."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > largest:
            raise HTTPException(413, f"expected at most {largest} bytes, got more; send less")
        parts.append(part)
    return b"".join(parts)


def _read(body: bytes, kind: str) -> np.ndarray:
    """Read the array of a request from JSON or an .npy file, without unpickling."""
    try:
        if kind in NPY:
            return _npy(body)
        content = json.loads(body)
        return np.asarray(content["inputs"] if isinstance(content, Mapping) else content)
    except (ValueError, KeyError, OverflowError, RecursionError) as error:
        raise HTTPException(
            400, f"expected a JSON list with one entry per example, or an .npy file; got {error!r}"
        ) from error


def _npy(body: bytes) -> np.ndarray:
    # Not np.load, which opens zip files and allocates whatever size a header claims.
    file = io.BytesIO(body)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format")
    later = version == (2, 0)
    header = np.lib.format.read_array_header_2_0 if later else np.lib.format.read_array_header_1_0
    shape, columns_first, dtype = header(file)
    rest = body[file.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{len(rest)} bytes for an array {shape} of {dtype}")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if columns_first else "C")


def _checked(array: np.ndarray, shape: list[int], dtype: type, most: int) -> np.ndarray:
    """Check shape and values, and convert to the type of the network."""
    if array.dtype.kind not in "fiu":
        raise HTTPException(422, f"expected numbers in rows of one length, got {array.dtype}")
    if list(array.shape[1:]) != list(shape) or not 1 <= len(array) <= most:
        raise HTTPException(
            422, f"expected shape (1 to {most}, {', '.join(map(str, shape))}), got {array.shape}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # overflow gives infinity, rejected below
        fitting = np.ascontiguousarray(array, dtype)
    if not (np.isfinite(array).all() and np.isfinite(fitting).all()):
        raise HTTPException(422, "expected finite numbers, got NaN or infinite ones")
    return fitting


def _answer(
    outputs: Mapping[str, np.ndarray], measure: Measure, abstain_at: float
) -> dict[str, Any]:
    """Lists with one entry per example."""
    return {
        "prediction": outputs["probabilities"].argmax(1).tolist(),
        **{name: values.tolist() for name, values in outputs.items()},
        # Written as "not below", so that NaN abstains.
        "abstain": (~(outputs[measure] < abstain_at)).tolist(),
    }


def main() -> None:
    """Serve a file on the loopback address."""
    parser = argparse.ArgumentParser(description="Serve a file of mcbn.export.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument(
        "--abstain-at",
        type=float,
        default=math.inf,
        help="abstain from this uncertainty on, in nats",
    )
    parser.add_argument("--measure", choices=("entropy", "mutual_information"), default="entropy")
    parser.add_argument(
        "--threads", type=int, default=0, help="threads per pass; 0 means one per core"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    app = build_app(
        given.artifact,
        abstain_at=given.abstain_at,
        measure=given.measure,
        threads=given.threads,
    )
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
