"""Measure throughput and latency of the service on the loopback address.

    python load.py net.onnx --requests 200 --concurrency 4

Starts app.py in a separate process on a free port, and stops it at the end. Request times include
HTTP, reading an .npy body and writing JSON.
"""

import argparse
import http.client
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HOST = "127.0.0.1"
START_SECONDS = 60.0  # maximum time until the service has started


@dataclass(frozen=True)
class Load:
    """Throughput in requests per second, and latency percentiles in milliseconds."""

    throughput: float
    p50: float
    p95: float
    p99: float


@contextmanager
def service(artifact: Path, threads: int) -> Iterator[int]:
    """Run the service of `artifact` during a with block; yields its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    app = Path(__file__).with_name("app.py")
    command = [sys.executable, str(app), str(artifact), "--port", str(port)]
    process = subprocess.Popen([*command, "--threads", str(threads)])  # noqa: S603
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"expected the service of {artifact} to start, got none")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def _healthy(port: int) -> bool:
    try:
        return _health(port)["status"] == "ok"
    except OSError:
        return False


def _health(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection(HOST, port)
    connection.request("GET", "/health")
    health: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return health


def load(port: int, *, requests: int, concurrency: int, batch: int) -> Load:
    """Send requests from concurrent clients, each of which waits for its response."""
    health = _health(port)
    inputs = np.random.default_rng(0).standard_normal((batch, *health["shape"]), np.float32)
    # For ids all are 0, which every vocabulary has.
    inputs = (inputs if "float" in health["type"] else 0 * inputs).astype(health["type"])
    file = io.BytesIO()
    np.save(file, inputs)

    def client(number: int) -> list[float]:
        connection = http.client.HTTPConnection(HOST, port)
        times = []
        for _ in range(number):
            start = time.perf_counter()
            connection.request(
                "POST", "/predict", file.getvalue(), {"Content-Type": "application/x-npy"}
            )
            answer = connection.getresponse()
            content = answer.read()
            times.append(time.perf_counter() - start)
            if answer.status != 200:
                raise RuntimeError(f"expected an answer, got {answer.status}: {content[:200]!r}")
        connection.close()
        return times

    client(3)  # warm-up: the first passes allocate memory
    each = -(-requests // concurrency)
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as clients:
        times = [t for part in clients.map(client, [each] * concurrency) for t in part]
    throughput = len(times) / (time.perf_counter() - start)
    return Load(throughput, *(float(np.percentile(times, q)) * 1e3 for q in (50, 95, 99)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the service, send requests, print the summary."""
    parser = argparse.ArgumentParser(description="Load the service of a file of mcbn.export.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="examples per request")
    parser.add_argument(
        "--threads", type=int, default=0, help="threads per pass; 0 means one per core"
    )
    given = parser.parse_args(arguments)
    with service(given.artifact, given.threads) as port:
        summary = load(
            port, requests=given.requests, concurrency=given.concurrency, batch=given.batch
        )
    print(
        f"{given.artifact.name}: {summary.throughput:.1f} requests/s of {given.batch}, "
        f"p50 {summary.p50:.1f} ms, p95 {summary.p95:.1f} ms, p99 {summary.p99:.1f} ms"
    )


if __name__ == "__main__":
    main()
