"""Load the service on the loopback address and print how many requests it answers, how fast.

    python load.py net.onnx --requests 200 --concurrency 4

Starts app.py in a process of its own, on a free port, and ends it. Request times include HTTP, the
reading of an .npy body and the writing of JSON.
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

import numpy as np

HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds that the service may take to start


@dataclass(frozen=True)
class Load:
    """What the requests took: per second, and in milliseconds a request."""

    throughput: float
    p50: float
    p95: float
    p99: float


@contextmanager
def service(artifact: Path, threads: int) -> Iterator[int]:
    """Run the service of `artifact` for the block; gives its port."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port = int(found.getsockname()[1])
    app = Path(__file__).with_name("app.py")
    command = [sys.executable, str(app), str(artifact), "--port", str(port)]
    process = subprocess.Popen([*command, "--threads", str(threads)])  # noqa: S603
    try:
        deadline = time.monotonic() + PATIENCE
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
        return len(_shape(port)) > 0
    except OSError:
        return False


def _shape(port: int) -> list[int]:
    connection = http.client.HTTPConnection(HOST, port)
    connection.request("GET", "/health")
    shape: list[int] = json.loads(connection.getresponse().read())["shape"]
    connection.close()
    return shape


def load(port: int, *, requests: int, concurrency: int, batch: int) -> Load:
    """Send requests from so many clients, each of which waits for its answer."""
    inputs = np.random.default_rng(0).standard_normal((batch, *_shape(port)), np.float32)
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

    client(3)  # the first passes reserve memory
    each = -(-requests // concurrency)
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as clients:
        times = [t for part in clients.map(client, [each] * concurrency) for t in part]
    throughput = len(times) / (time.perf_counter() - start)
    return Load(throughput, *(float(np.percentile(times, q)) * 1e3 for q in (50, 95, 99)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Start, load, print."""
    parser = argparse.ArgumentParser(description="Load the service of a file of mcbn.export.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="examples in a request")
    parser.add_argument("--threads", type=int, default=0, help="of one pass; 0: one for each core")
    given = parser.parse_args(arguments)
    with service(given.artifact, given.threads) as port:
        found = load(
            port, requests=given.requests, concurrency=given.concurrency, batch=given.batch
        )
    print(
        f"{given.artifact.name}: {found.throughput:.1f} requests/s of {given.batch}, "
        f"p50 {found.p50:.1f} ms, p95 {found.p95:.1f} ms, p99 {found.p99:.1f} ms"
    )


if __name__ == "__main__":
    main()
