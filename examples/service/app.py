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
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime
import uvicorn
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException, Request

NPY = ("application/octet-stream", "application/x-npy")
TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    **{f"tensor({name})": np.dtype(name).type for name in
       ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}  # fmt: skip
OUTPUTS = ("probabilities", "entropy", "mutual_information")
# Whole numbers above this may have been rounded when they came as floating-point numbers.
LARGEST_EXACT = 2**53
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
        ValueError: the file is not a classifier exported by mcbn, or cannot be served; the
            threshold is not a number, or the measure unknown.
    """
    if math.isnan(abstain_at) or measure not in get_args(Measure):
        raise ValueError(
            f"expected a threshold in nats of {' or '.join(get_args(Measure))}, got {abstain_at} "
            f"of {measure!r}; choose it with mcbn.choose_abstention"
        )
    session = _session(artifact, threads)
    about = _about(session)
    _require_running(session)
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
        outputs = await run_sync(_outputs, session, inputs, limiter=turn)
        return _answer(outputs, measure, abstain_at)

    return app


def _session(artifact: str | Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what a request is refused for is answered, not logged
    try:
        return onnxruntime.InferenceSession(
            str(artifact), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime raises errors of many types
        raise ValueError(
            f"expected an .onnx file of mcbn.export, got {artifact}: {_first_line(error)}; export "
            "the network again, to a name that ends in .onnx"
        ) from error


def _about(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the file says of itself."""
    try:
        header = json.loads(session.get_modelmeta().custom_metadata_map["mcbn"])
        about = {"model": str(header["model"]), "draws": int(header["draws"])}
    except (KeyError, TypeError, ValueError):
        about = {}
    outputs = [output.name for output in session.get_outputs()]
    inputs = session.get_inputs()
    if not about or not set(OUTPUTS) <= set(outputs) or len(inputs) != 1:
        raise ValueError(
            "expected a file of mcbn.export for classes with one input, got one with the inputs "
            f"{[each.name for each in inputs]} and the outputs {outputs}; export it again"
        )
    first, *shape = inputs[0].shape
    if inputs[0].type not in TYPES or isinstance(first, int) or not _known(shape):
        raise ValueError(
            "expected an input of numbers with any number of examples and other axes of known "
            f"size, got {inputs[0].type} of shape {inputs[0].shape}; export the network again"
        )
    return {**about, "shape": shape, "type": np.dtype(TYPES[inputs[0].type]).name}


def _known(shape: list[Any]) -> bool:
    return all(isinstance(size, int) and size > 0 for size in shape)


def _require_running(session: onnxruntime.InferenceSession) -> None:
    """Run the file once, on zeros: what cannot be run is not to be found by a request."""
    given = session.get_inputs()[0]
    zeros = np.zeros((2, *given.shape[1:]), TYPES[given.type])
    try:
        outputs = session.run(list(OUTPUTS), {given.name: zeros})
    except Exception as error:  # the runtime raises errors of many types
        raise ValueError(
            f"expected a file that runs, got {_first_line(error)}; export the network again"
        ) from error
    if any(len(values) != len(zeros) for values in outputs) or outputs[0].ndim < 2:
        raise ValueError(
            "expected outputs with one row per example, got the shapes "
            f"{[values.shape for values in outputs]} for 2; export the network again"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _outputs(session: onnxruntime.InferenceSession, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Run the file; what it refuses, as ids beyond its vocabulary, is the client's to mend."""
    try:
        rows = session.run(list(OUTPUTS), {session.get_inputs()[0].name: inputs})
    except Exception as error:  # the runtime raises errors of many types
        raise HTTPException(
            422,
            "expected values that the network takes, such as ids from 0 to the size of its "
            f"vocabulary less 1, got {_first_line(error)}",
        ) from error
    if not all(np.isfinite(values).all() for values in rows):
        raise HTTPException(
            422, "expected inputs with finite answers, got NaN or infinite ones of the network"
        )
    return dict(zip(OUTPUTS, rows, strict=True))


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
        if kind.lower() in NPY:
            return _npy(body)
        content = json.loads(body)
        rows = content["inputs"] if isinstance(content, Mapping) else content
    except Exception as error:  # a header of .npy is parsed as Python, with errors of many types
        raise HTTPException(
            400, f"expected a JSON list with one entry per example, or an .npy file; got {error!r}"
        ) from error
    try:
        array = np.asarray(rows)
    except (ValueError, OverflowError, RecursionError) as error:
        raise HTTPException(
            422, f"expected rows of one length, got ragged or too deeply nested lists: {error}"
        ) from error
    # NumPy takes true for 1 where a number stands beside it.
    if array.dtype != bool and (b"true" in body or b"false" in body):
        raise HTTPException(422, "expected numbers, got true or false among them")
    return array


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
        if not np.isfinite(array).all():
            raise HTTPException(422, "expected finite numbers, got NaN or infinite ones")
        if np.issubdtype(dtype, np.integer):
            _require_whole(array, dtype)
        fitting = np.ascontiguousarray(array, dtype)
    if not np.isfinite(fitting).all():
        raise HTTPException(
            422, f"expected finite numbers in {np.dtype(dtype).name}, got ones beyond its range"
        )
    return fitting


def _require_whole(array: np.ndarray, dtype: type) -> None:
    """Check that numbers can be ids of this type: a cast would cut fractions off, and wrap."""
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        raise HTTPException(422, "expected whole numbers, got fractions")
    low, high = int(array.min()), int(array.max())
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if array.dtype.kind == "f":
        least, most = max(least, -LARGEST_EXACT), min(most, LARGEST_EXACT)
    if low < least or high > most:
        raise HTTPException(
            422,
            f"expected whole numbers from {least} to {most}, got some from {low} to {high}",
        )


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
    try:
        app = build_app(
            given.artifact,
            abstain_at=given.abstain_at,
            measure=given.measure,
            threads=given.threads,
        )
    except ValueError as error:
        parser.error(str(error))
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
