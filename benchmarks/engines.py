"""Time of T draws by each engine relative to T plain forward passes, and of building a bank.

Run: python benchmarks/engines.py [--quick] [NETWORK ...]    (about 25 minutes on 2 cores)

Writes results.json next to this file, and the tables of docs/performance.md. Results of networks
that are not named are kept. --quick runs few draws and two rounds, and writes nothing.
"""

import copy
import json
import logging
import os
import platform
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cases import BANKS, CASES, Case, made, quick_bank, random
from contenders import OTHER, builders, consume, plain
from tables import tables
from timing import floors, interleaved, paired, seconds
from torch import Tensor, fx, nn
from tqdm import tqdm

import mcbn
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
ROUNDS, QUICK_ROUNDS, QUICK_DRAWS = 7, 2, 2
CHOOSING_DRAWS = 8


def main() -> None:
    """Measure the named networks, all by default, on each device; other results are kept."""
    logging.getLogger("mcbn").setLevel(logging.DEBUG)
    quick = "--quick" in sys.argv
    asked = [word for word in sys.argv[1:] if word != "--quick"]
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() and not quick else {}
    results.setdefault("gpu", "not measured")
    cases = [c for c in (*CASES, *BANKS) if not asked or any(word in c.name for word in asked)]
    for place, device in places():
        kept = results[place]["cases"] if isinstance(results.get(place), dict) else {}
        results[place] = {"machine": machine(device), "cases": kept}
        for case in tqdm(cases, desc=place, unit="network"):
            measure = bank_figures if case in BANKS else figures
            rounds = QUICK_ROUNDS if quick else ROUNDS
            seen = replace(case, draws=QUICK_DRAWS) if quick else case
            kept[case.name] = measure(seen, device, rounds)
            if not quick:
                write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    written = tables(results)
    if quick:
        tqdm.write(written)
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    page = f"{before}{BEGIN}\n\n{written}\n{END}{rest.partition(END)[2]}"
    write_whole(PAGE, page.encode())


def places() -> list[tuple[str, torch.device]]:
    """The CPU, and the GPU if there is one."""
    gpu = [("gpu", torch.device("cuda"))] if torch.cuda.is_available() else []
    return [("cpu", torch.device("cpu")), *gpu]


def machine(device: torch.device) -> dict[str, object]:
    """Description of the machine."""
    gpu = device.type == "cuda"
    return {
        "name": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def figures(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Ratios of every method to T plain forward passes, the floors, and the cost of choosing."""
    model = made(case, device)
    bank = quick_bank(model, case, device)
    inputs = random(case, case.examples, device)
    contenders = {"plain": lambda: plain(model, inputs, case.draws)}
    reasons: dict[str, Any] = {}
    for name, build in builders(case, model, bank, inputs).items():
        with LogRecorder() as log:
            try:
                run = build()
                run()  # includes everything that is done only once
                contenders[name] = run
            except Exception as error:  # an engine or a library may fail in any way
                reasons[name] = f"not available: {error}".splitlines()[0]
        if log.lines and name in contenders:
            reasons[name] = {"gave up": log.lines}
    times = interleaved(contenders, rounds, case.name)
    entry: dict[str, Any] = {
        "draws": case.draws,
        "plain_seconds": statistics.median(times["plain"]),
        "ratios": {name: paired(times[name], times["plain"]) for name in times if name != "plain"},
        "notes": reasons,
        "floor": floors(case, model, inputs, statistics.median(times["plain"])),
        "choosing": choosing(case, model, bank, inputs, rounds),
    }
    if OTHER in times:
        entry["auto_to_other"] = paired(times["auto"], times[OTHER])
    return entry


class LogRecorder(logging.Handler):
    """Records debug messages of the package, which report a fallback to another engine."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line of a message."""
        self.lines.append(record.getMessage().splitlines()[0][:200])

    def __enter__(self) -> "LogRecorder":
        logging.getLogger("mcbn").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mcbn").removeHandler(self)


def choosing(
    case: Case, model: nn.Module, bank: mcbn.Bank, inputs: Tensor, rounds: int
) -> dict[str, Any]:
    """Time of the first call of a network minus that of a later one, in plain forward passes.

    Uses a few draws only, since the choice does not depend on their number. The time of PyTorch's
    tracing is measured too: an engine that folds cannot be chosen in less.
    """
    bank, extra, traces = bank.first(min(CHOOSING_DRAWS, case.draws)), [], []
    for _ in range(rounds):
        fresh = copy.deepcopy(model)
        plain(fresh, inputs, 1)
        one = seconds(lambda: plain(fresh, inputs, 1))  # noqa: B023
        sampler = mcbn.MCBatchNorm(fresh, bank)
        first, later = (seconds(lambda: consume(sampler.passes(inputs))) for _ in range(2))  # noqa: B023
        extra.append((first - later) / one)
        traces.append(seconds(lambda: fx.symbolic_trace(fresh)) / one)  # noqa: B023
    return {
        "forwards": statistics.median(extra),
        "each": extra,
        "tracing alone": statistics.median(traces),
    }


def bank_figures(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Time of building a bank relative to T train-mode forward passes of the same mini-batches."""
    model = made(case, device)
    data = random(case, case.examples, device)
    drawn = mcbn.minibatches(data, batch_size=case.size, draws=case.draws)
    ready = list(drawn)

    def collect(batches: Iterable[Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
            mcbn.collect(model, batches, progress=False)

    twin = copy.deepcopy(model).train()
    for layer in twin.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()

    def trained(batches: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for batch in batches:
                twin(batch)

    contenders: dict[str, Callable[[], Any]] = {
        "plain": lambda: trained(ready),
        "collect": lambda: collect(ready),
        "drawing and forwards": lambda: trained(drawn),
        "drawing and collect": lambda: collect(drawn),
    }
    for run in contenders.values():
        run()
    times = interleaved(contenders, rounds, case.name)
    return {
        "draws": case.draws,
        "plain_seconds": statistics.median(times["plain"]),
        "ratios": {name: paired(times[name], times["plain"]) for name in times if name != "plain"},
        "drawn": paired(times["drawing and collect"], times["drawing and forwards"]),
    }


if __name__ == "__main__":
    main()
