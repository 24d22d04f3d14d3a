"""Prediction of a million small rows on Ray Data by two workers and by one.

Run: python benchmarks/ray_data.py [--quick]    (3 minutes on 2 cores that do nothing else)

Each worker has one thread. Writes ray_data.json next to this file: seconds, rows per second and
memory of one worker, of two, and of two of which one is killed on the way; whether the rows are
the same bits; and the throughput of two plain processes by that of one, which the machine allows.

On a machine that others use too, RAY_process_group_cleanup_enabled=0 keeps the workers in the
process group of this script.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from engines import machine
from ray.data import ActorPoolStrategy, DataContext, Dataset
from torch import nn

import mcbn
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "ray_data.json"
ROWS, QUICK_ROWS, BLOCK = 1_000_000, 100_000, 10_000
FEATURES, WIDTH, CLASSES, DRAWS, BATCH = 16, 128, 10, 64, 1_000
PLAIN_BLOCKS = 12
STORE = 500 * 2**20  # bytes of shared memory
MEGABYTE = 2**20


class Worker(mcbn.Predictor):
    """A predictor that also says which process it is, and how much memory it has."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the predictions of a block."""
        start = time.time()
        found = super().__call__(batch)
        # Without the pages of the object store, which it shares.
        status = Path("/proc/self/status").read_text()
        own_pages = next(line for line in status.splitlines() if line.startswith("RssAnon"))
        rows = len(found["id"])
        own = {
            "process": os.getpid(), "memory_mb": int(own_pages.split()[1]) / 1024,
            "threads": torch.get_num_threads(), "start": start, "end": time.time(),
        }  # fmt: skip
        return found | {name: np.full(rows, value) for name, value in own.items()}


def main() -> None:
    """Measure one worker, two, and two of which one is killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    rows = QUICK_ROWS if parser.parse_args().quick else ROWS
    torch.set_num_threads(1)
    sampler = small()
    plain = [plain_seconds(count) for count in (1, 2)]
    ray.init(
        num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=STORE,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    DataContext.get_current().enable_progress_bars = False
    try:
        data = table(rows)
        runs = {
            "one worker": measured(data, sampler, workers=1),
            "two workers": measured(data, sampler, workers=2),
            "two workers, one killed": measured(
                data.limit(rows * 3 // 10), sampler, workers=2, kill=True
            ),
        }
    finally:
        ray.shutdown()
    one, two, killed = (run.pop("digests") for run in runs.values())
    results = {
        "machine": machine(torch.device("cpu")), "rows": rows, "draws": DRAWS,
        "sent_bytes": len(ray.cloudpickle.dumps(sampler)), "runs": runs,
        "throughput_ratio": runs["one worker"]["seconds"] / runs["two workers"]["seconds"],
        "plain_processes_ratio": 2 * plain[0] / plain[1],
        "same_bits": one == two and killed == one[: len(killed)],
    }  # fmt: skip
    write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    print(json.dumps(results, indent=1))


def plain_seconds(count: int) -> float:
    """Mean seconds in which each of so many processes predicts some blocks, without Ray."""
    context = multiprocessing.get_context("fork")
    barrier, times = context.Barrier(count), context.Queue()
    made = [context.Process(target=plain, args=(barrier, times)) for _ in range(count)]
    for process in made:
        process.start()
    total: float = sum(times.get() for _ in made)
    for process in made:
        process.join()
    return total / count


def plain(barrier: Any, times: Any) -> None:
    """Predict some blocks at the same time as others do."""
    torch.set_num_threads(1)
    predictor = mcbn.Predictor(small(), inputs="x", batch_size=BATCH)
    block = rows_of({"id": np.arange(BLOCK)})
    predictor(block)
    barrier.wait()
    start = time.perf_counter()
    for _ in range(PLAIN_BLOCKS):
        predictor(block)
    times.put(time.perf_counter() - start)


def small() -> mcbn.MCBatchNorm:
    """A sampler of a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES),
    ).eval()  # fmt: skip
    with warnings.catch_warnings():
        # It is untrained, so its running statistics are meaningless.
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        training = torch.randn(5_000, FEATURES)
        batches = mcbn.minibatches(training, batch_size=32, draws=DRAWS, seed=0)
        return mcbn.MCBatchNorm(model, mcbn.collect(model, batches))


def table(rows: int) -> Dataset:
    """Rows in blocks, held in shared memory before anything is timed."""
    blocks = ray.data.range(rows, override_num_blocks=rows // BLOCK)
    return blocks.map_batches(rows_of, batch_size=None).materialize()


def rows_of(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of rows, which depend on the first number alone."""
    random = np.random.default_rng(int(batch["id"][0]))
    x = random.standard_normal((len(batch["id"]), FEATURES), dtype=np.float32)
    return {"id": batch["id"], "x": x}


def measured(
    data: Dataset, sampler: mcbn.MCBatchNorm, *, workers: int, kill: bool = False
) -> dict[str, Any]:
    """Seconds from the first block that is begun until the last is done, and what was found.

    The time in which the workers start and import is not counted.
    """
    predicted = data.map_batches(
        Worker, fn_constructor_args=(sampler,),
        fn_constructor_kwargs={"inputs": "x", "batch_size": BATCH}, batch_size=None,
        compute=ActorPoolStrategy(size=workers),
    )  # fmt: skip
    rows, begun, spent = data.count(), time.perf_counter(), os.times()
    found = list(blocks(predicted, rows // 2 if kill else None))
    wall, after = time.perf_counter() - begun, os.times()
    found.sort(key=lambda block: block["end"])
    of_worker: dict[int, list[dict[str, Any]]] = {}
    for block in found:
        of_worker.setdefault(block["process"], []).append(block)
    seconds = found[-1]["end"] - min(block["start"] for block in found)
    return {
        "seconds": seconds, "rows_per_second": rows / seconds, "seconds_with_start": wall,
        "driver_cpu_seconds": after.user + after.system - spent.user - spent.system,
        "processes": len(of_worker), "threads": found[0]["threads"],
        "busy_seconds": [
            sum(block["end"] - block["start"] for block in each) for each in of_worker.values()
        ],
        # After the first block of each, the most, and at the end.
        "worker_mb": [
            [round(each[0]["memory_mb"]), round(max(block["memory_mb"] for block in each)),
             round(each[-1]["memory_mb"])]
            for each in of_worker.values()
        ],
        "rows": sum(block["rows"] for block in found),
        "digests": [block["digest"] for block in sorted(found, key=lambda block: block["id"])],
    }  # fmt: skip


def blocks(predicted: Dataset, kill_after: int | None) -> Iterator[dict[str, Any]]:
    """Yield what is kept of each block; none is held."""
    done = 0
    for batch in predicted.iter_batches(batch_size=None, prefetch_batches=0):
        done += len(batch["id"])
        if kill_after is not None and done >= kill_after:
            os.kill(int(batch["process"][0]), signal.SIGKILL)
            kill_after = None
        names = ("id", "probabilities", "mutual_information", "entropy")
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(batch[n]).tobytes() for n in names))
        yield {
            "id": int(batch["id"][0]), "rows": len(batch["id"]), "digest": digest.hexdigest(),
            **{n: batch[n][0].item() for n in ("process", "memory_mb", "threads", "start", "end")},
        }  # fmt: skip


if __name__ == "__main__":
    main()
