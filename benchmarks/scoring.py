"""Cost of `mcbn evaluate` on large files, and of scores of shards: CPU seconds and peak memory.

Each row is measured in processes of its own, with one thread.

Run: python benchmarks/scoring.py [rows of all shards]    (5 minutes, 24 with 100,000,000 rows)
"""

import contextlib
import csv
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from page import judged, put, table

import mcbn
import mcbn.cli.evaluate  # what the verb imports, so that it is not counted
from mcbn.cli.main import main as command
from mcbn.evaluation.bootstrap import drawn_counts
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "scoring.json"
MB = 2**20
# Rows, classes, suffix, resamples; bars of CPU seconds and of MB over the import (and the file).
FILES = (
    (100_000, 10, ".csv", 100, None, None),
    (100_000, 10, ".csv", 1_000, 8.0, 600),
    (100_000, 10, ".csv", 10_000, None, None),
    (1_000_000, 10, ".csv", 1_000, 60.0, 1_536),
    (50_000, 1_000, ".npz", 1_000, 40.0, 1_536),
)
FLOOR_ROWS, FLOOR_RESAMPLES = 1_000_000, 20
SHARD_ROWS, BATCH, WORKERS = 10_000_000, 100_000, 2


def main() -> None:
    """Measure everything, and write the results and the table of the page."""
    if "--file" in sys.argv:
        print(json.dumps(scored_file(*sys.argv[sys.argv.index("--file") + 1 :])))
        return
    # Of NumPy too, in the processes that are begun here.
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else SHARD_ROWS
    results = {"files": file_results(), "floor": floor(), "shards": shards(rows)}
    write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    written = summary(results)
    put("scoring", written)
    print(written)


def file_results() -> list[dict[str, Any]]:
    """What `mcbn evaluate` costs on each of `FILES`, in a process of its own."""
    found = []
    for rows, classes, suffix, resamples, seconds, megabytes in FILES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"predictions{suffix}"
            write(path, rows, classes)
            words = [sys.executable, __file__, "--file", str(path), str(resamples)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603
            of_file = {"rows": rows, "classes": classes, "format": suffix[1:],
                       "resamples": resamples, "file_mb": path.stat().st_size // MB,
                       "bar_seconds": seconds, "bar_mb": megabytes}  # fmt: skip
            found.append({**of_file, **json.loads(done.stdout)})
    return found


def scored_file(path: str, resamples: str) -> dict[str, float]:
    """CPU seconds and memory of the verb over those of the import."""
    torch.set_num_threads(1)
    start, before = time.process_time(), peak()
    with contextlib.redirect_stdout(io.StringIO()):
        command(["--quiet", "evaluate", path, "--resamples", resamples, "--json"])
    return {"seconds": round(time.process_time() - start, 1), "mb": peak() - before}


def peak() -> int:
    """Peak memory of this program, in MB; that of `getrusage` includes who began it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


def forecasts(rows: int, classes: int, generator: torch.Generator) -> tuple[Any, Any]:
    """Logits, and labels drawn from them."""
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def write(path: Path, rows: int, classes: int) -> None:
    """A file of calibrated predictions."""
    logits, targets = forecasts(rows, classes, torch.Generator().manual_seed(0))
    probabilities = logits.softmax(1).numpy()
    if path.suffix == ".npz":
        np.savez(path, probabilities=probabilities, target=targets.numpy())
        return
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p_{k}" for k in range(classes)), "target"])
        for some, labels in zip(np.split(probabilities, 10), np.split(targets.numpy(), 10),
                                strict=True):  # fmt: skip
            lines = zip(some.tolist(), labels.tolist(), strict=True)
            writer.writerows([*each, label] for each, label in lines)


def floor() -> dict[str, float]:
    """Nanoseconds per count that drawing rows, and counting them, takes alone."""
    start = time.process_time()
    for _ in drawn_counts([FLOOR_ROWS], resamples=FLOOR_RESAMPLES, seed=0):
        pass
    seconds = time.process_time() - start
    return {"ns": round(1e9 * seconds / FLOOR_ROWS / FLOOR_RESAMPLES, 2)}


def shards(rows: int) -> dict[str, float]:
    """Scores of rows that are made where they are scored, by two processes, and their sum."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        parts = pool.map(shard, [(k, rows // WORKERS) for k in range(WORKERS)])
    joining = time.process_time()
    total = parts[0][0]
    for each, *_ in parts[1:]:
        total = total + each
    evaluation = total.evaluation()
    return {
        "rows": evaluation.examples,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "worker_seconds": round(max(seconds for _, seconds, _ in parts), 1),
        "worker_mb": max(memory for *_, memory in parts),
        "join_seconds": round(time.process_time() - joining, 1),
    }


def shard(given: tuple[int, int]) -> tuple[mcbn.ShardScores, float, int]:
    """One shard's sums, the CPU seconds of making and scoring its rows, and memory."""
    torch.set_num_threads(1)
    number, rows = given
    start, before = time.process_time(), peak()
    sums = mcbn.ShardScores.of(batches(number, rows), shard=number)
    return sums, time.process_time() - start, peak() - before


def batches(number: int, rows: int) -> Iterator[tuple[Any, Any]]:
    """Rows as a generator makes them, with their targets."""
    generator, likelihood = torch.Generator().manual_seed(number), mcbn.Categorical("logits")
    for _ in range(rows // BATCH):
        logits, targets = forecasts(BATCH, 10, generator)
        yield likelihood.summarize([logits]), targets


def summary(results: dict[str, Any]) -> str:
    """The table of the page."""
    rows = [
        [f"{each['rows']:,} x {each['classes']:,}, {each['format']}", f"{each['resamples']:,}",
         judged(each["seconds"], each["bar_seconds"]) if each["bar_seconds"]
         else f"{each['seconds']:.2f}", f"{each['file_mb']:,}",
         f"{each['mb']:,}" if each["bar_mb"] is None else judged_memory(each)]
        for each in results["files"]
    ]  # fmt: skip
    heads = ["`mcbn evaluate`", "resamples", "CPU seconds", "file, MB", "memory over import, MB"]
    shard, share = results["shards"], results["floor"]["ns"]
    return table(heads, rows) + (
        f"\nDrawing rows and counting them takes {share:.1f} ns per row and resample, "
        f"{share:.1f} s of a million rows and 1,000 resamples, which no bootstrap of rows "
        "is spared.\n\n"
        f"`ShardScores` of {shard['rows']:,} rows of 10 classes in two processes: "
        f"{shard['wall_seconds']:.0f} s, {shard['worker_seconds']:.0f} CPU seconds and "
        f"{shard['worker_mb']} MB over the import in each, rows made included; "
        f"{shard['join_seconds']:.0f} s to join them and for intervals.\n"
    )


def judged_memory(each: dict[str, Any]) -> str:
    """Memory over the import; of the largest file, over that as well."""
    over = each["format"] == "npz"
    used = each["mb"] - (each["file_mb"] if over else 0)
    met = "met" if used <= each["bar_mb"] else "not met"
    return f"{used:,}{' over the file' if over else ''}, bar {each['bar_mb']:,}: {met}"


if __name__ == "__main__":
    main()
