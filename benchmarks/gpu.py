"""Time of T draws on one GPU, relative to T plain float32 forward passes: one run of 8 minutes.

Run: python benchmarks/gpu.py [--device cuda] [--quick] [--seconds 420] [--out FOLDER]

Measures each network in the order of CASES and each method in the order of METHODS, within a share
of the time. After each measurement it writes gpu.json next to this file, and the GPU section of
docs/performance.md. What no time was left for is named in both. With --out both files are written
into that folder instead; --quick runs tiny networks on any device, for a trial.
"""

import argparse
import gc
import json
import logging
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cases import CIFAR_STEM, Case, cifar_resnet18, made
from engines import LogRecorder, machine
from gpu_methods import COMPILED, METHODS, PLAIN, Method, Subject, checks, runner, tf32
from gpu_tables import section
from page import PAGE, with_part
from timing import best, copying, paired, seconds, work
from torch import nn
from torchvision.models import resnet50
from tqdm import tqdm

from mcbn.io.atomic import write_whole

HERE = Path(__file__).parent
ROUNDS, MIN_ROUNDS = 7, 2
# Plain forwards of a round take about this long: fewer draws are timed where T take longer.
ROUND_SECONDS, MIN_DRAWS = 0.5, 4
# Square matrix products, of which the fastest is the arithmetic rate, and bytes of a copy.
SIZES, QUICK_SIZES = (2048, 4096, 8192), (64, 128)
COPIED, QUICK_COPIED = 2**30, 2**20
PRECISIONS = {"float32": torch.float32, "TF32": torch.float32, "bfloat16": torch.bfloat16}


def tiny() -> nn.Module:
    """Return a network for trials of this script."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


# With the share of the time that has passed when each has to end; the rates have ended before.
RATES_END = 0.05
CASES = (
    (Case(CIFAR_STEM, cifar_resnet18, (3, 32, 32), 256, 64, 32), 0.25),
    (Case("ResNet-50, 224x224", resnet50, (3, 224, 224), 256, 64, 32), 0.55),
    (Case(CIFAR_STEM, cifar_resnet18, (3, 32, 32), 1, 64, 32), 0.65),
    (Case("ResNet-50, 224x224", resnet50, (3, 224, 224), 1, 64, 32), 0.80),
)
QUICK_CASES = tuple(
    (Case("tiny", tiny, (3, 8, 8), count, 8, 8), end) for count, end in ((5, 0.6), (1, 0.9))
)


@dataclass
class Run:
    """One run of the script: its time, its results so far, and where they are written.

    Attributes:
        device: where everything is measured.
        limit: seconds that the run may take.
        results_file: gpu.json.
        page: file of the page with the tables.
        quick: whether it is a trial.
        results: contents of gpu.json.
    """

    device: torch.device
    limit: float
    results_file: Path
    page: Path
    quick: bool
    results: dict[str, Any]
    start: float = field(default_factory=time.monotonic)

    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.start

    def write(self) -> None:
        """Write the results so far, and the page."""
        self.results["spent_seconds"] = round(self.spent(), 1)
        content = json.dumps(self.results, indent=1) + "\n"
        write_whole(self.results_file, content.encode())
        write_whole(self.page, with_part(PAGE.read_text(), "gpu", section(self.results)).encode())

    def attempt(self, name: str, end: float, call: Callable[[], Any]) -> Any:
        """The result of a call, unless its time has passed; an error is noted and goes by."""
        if self.spent() > end * self.limit:
            self.results["left"].append(name)
            return None
        try:
            return call()
        except Exception as error:  # a kernel, a compiler or the memory may fail in any way
            tqdm.write(traceback.format_exc())
            said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.results["failed"][name] = said
            return None
        finally:
            self.write()


def main() -> None:
    """Measure everything that there is time for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("expected a GPU, got none; give --device cpu --quick to try the script")
    about = machine(device) | {"quick": asked.quick, "cudnn": torch.backends.cudnn.version()}
    results = {"machine": about, "rates": {}, "cases": {}, "left": [], "failed": {}}
    page = asked.out / PAGE.name if asked.out else PAGE
    run = Run(device, asked.seconds, (asked.out or HERE) / "gpu.json", page, asked.quick, results)
    logging.getLogger("mcbn").setLevel(logging.DEBUG)  # says when an engine gives up
    measure(run)
    run.write()
    tqdm.write(f"{run.spent():.0f} s, left: {', '.join(run.results['left']) or 'nothing'}")


def measure(run: Run) -> None:
    """Fill the results: the rates, then each network, then what has to be compiled."""
    run.results["rates"] = (
        run.attempt("rates", RATES_END, lambda: rates(run.device, run.quick)) or {}
    )
    cases = QUICK_CASES if run.quick else CASES
    begin = RATES_END
    for case, end in tqdm(cases, desc="networks"):
        measure_case(run, case, METHODS, (begin, end))
        begin = end
    if run.quick:
        run.results["left"] += [each.name for each in COMPILED]
        return
    # One after the other, so that each network has one before any has a second.
    for method in COMPILED:
        for case, _ in cases:
            measure_case(run, case, (method,), (begin, 1.0))


def measure_case(
    run: Run, case: Case, methods: tuple[Method, ...], part: tuple[float, float]
) -> None:
    """Measure a network by some methods within a part of the time of the run."""
    begin, end = part
    key = f"{case.network}, N = {case.examples}"
    subject = run.attempt(
        f"{key}: all", end, lambda: Subject.of(case, made(case, run.device), run.device)
    )
    if subject is None:
        return
    if key not in run.results["cases"]:
        entry = run.attempt(f"{key}: plain", end, lambda: plain_entry(run, case, subject))
        if entry is None:
            return
        run.results["cases"][key] = entry
        entry["checks"] |= run.attempt(f"{key}: checks", end, lambda: checks(subject)) or {}
    entry = run.results["cases"][key]
    timed = subject.first(entry["timed_draws"])
    each = (end - begin) * run.limit / len(methods)
    for method in tqdm(methods, desc=key, leave=False):
        found = run.attempt(
            f"{key}: {method.name}", end, lambda method=method: ratio(timed, method, each)
        )
        if found is not None:
            entry["methods"][method.name] = found
        if run.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def plain_entry(run: Run, case: Case, subject: Subject) -> dict[str, Any]:
    """Time of a plain float32 forward, how many draws are timed, and the floors."""
    one = subject.first(1)
    forward = runner(one, PLAIN)
    forward()
    took = statistics.median(seconds(forward) for _ in range(5))
    timed = min(case.draws, max(MIN_DRAWS, int(ROUND_SECONDS / took)))
    needed, found = work(subject.model, subject.inputs, case.draws), run.results["rates"]
    base = took * case.draws
    floors = {
        name: {
            "arithmetic": needed.operations / found[name] / base,
            "bytes": needed.bytes * kind.itemsize / 4 / found["bytes"] / base,
        }
        for name, kind in PRECISIONS.items() if found
    }  # fmt: skip
    return {
        "draws": case.draws, "timed_draws": timed, "plain_seconds": took, "floors": floors,
        "checks": {}, "methods": {},
    }  # fmt: skip


def ratio(subject: Subject, method: Method, share: float) -> dict[str, Any]:
    """Median over rounds of a method's time to that of the plain forwards in the same round."""
    start = time.monotonic()
    base, run = runner(subject, PLAIN), runner(subject, method)
    with LogRecorder() as log:
        first = seconds(run)  # with all that is done only once, such as choosing and compiling
        seconds(base)
        peak = peak_bytes(run, subject.inputs.device)
    times: list[tuple[float, float]] = []
    for _ in rounds(start + share):
        times.append((seconds(base), seconds(run)))
    others, own = zip(*times, strict=True)
    return {
        "ratio": paired(list(own), list(others)), "rounds": len(times), "first_seconds": first,
        "each": [one / other for other, one in times], "peak_bytes": peak, "gave_up": log.lines,
    }  # fmt: skip


def rounds(end: float) -> Iterator[int]:
    """Count rounds until the time has come, but some at least and not too many."""
    for count in range(ROUNDS):
        if count >= MIN_ROUNDS and time.monotonic() > end:
            return
        yield count


def peak_bytes(run: Callable[[], None], device: torch.device) -> int | None:
    """Most memory of the device while it runs, with weights, inputs and bank; None elsewhere."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def rates(device: torch.device, quick: bool) -> dict[str, Any]:
    """Operations per second of the fastest matrix product, and bytes per second of a copy."""
    found: dict[str, Any] = {"bytes": copying(QUICK_COPIED if quick else COPIED, device)}
    for name, kind in PRECISIONS.items():
        best_rate = 0.0
        for size in QUICK_SIZES if quick else SIZES:
            matrix = torch.randn(size, size, device=device).to(kind)
            with tf32(name == "TF32"):
                took = best(lambda: matrix @ matrix)  # noqa: B023
            best_rate = max(best_rate, 2 * size**3 / took)
        found[name] = best_rate
    return found


if __name__ == "__main__":
    main()
