"""Time of T draws by each engine relative to T plain forward passes, and of building a bank.

Run: python benchmarks/engines.py [--quick] [NETWORK ...]    (about 25 minutes on 2 cores)

Writes results.json next to this file, and the picture and tables of docs/performance.md. Results of
networks that are not named are kept. --quick runs few draws and two rounds, and writes nothing.
"""

import contextlib
import copy
import json
import logging
import os
import platform
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cases import BANKS, CASES, SAMPLERS, Case, made, quick_bank, random
from contenders import OTHER, builders, consume, plain
from page import put
from picture import draw
from tables import tables
from timing import floors, interleaved, paired, seconds
from torch import Tensor, fx, nn
from tqdm import tqdm

import mcbn
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "results.json"
CPU = torch.device("cpu")  # a GPU has a script of its own, gpu.py
ROUNDS, QUICK_ROUNDS, QUICK_DRAWS = 7, 2, 2
CHOOSING_DRAWS = 8


def main() -> None:
    """Measure the named networks, all by default; other results are kept."""
    logging.getLogger("mcbn").setLevel(logging.DEBUG)
    quick = "--quick" in sys.argv
    asked = [word for word in sys.argv[1:] if word != "--quick"]
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() and not quick else {}
    before = results.get("cases", {})
    kept = results["cases"] = {c.name: before[c.name] for c in (*CASES, *BANKS) if c.name in before}
    results["machine"] = machine(CPU)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    for case in tqdm(named((*CASES, *BANKS), asked), desc="networks", unit="network"):
        measure = bank_figures if case in BANKS else figures
        kept[case.name] = measure(replace(case, draws=QUICK_DRAWS) if quick else case, rounds)
        if not quick:
            store(results)
    if named([SAMPLERS], asked):
        results["samplers"] = {SAMPLERS.name: sampler_figures(SAMPLERS, rounds)}
    if quick:
        tqdm.write(tables(results))
    else:
        store(results)
        put("tables", tables(results))
        draw(results["cases"])


def named(cases: Sequence[Case], asked: list[str]) -> list[Case]:
    """Those whose name has one of the words; all without any."""
    return [case for case in cases if not asked or any(word in case.name for word in asked)]


def store(results: dict[str, Any]) -> None:
    """Write the results so far."""
    write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())


def machine(device: torch.device) -> dict[str, object]:
    """Description of the machine."""
    gpu = device.type == "cuda"
    return {
        "name": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def figures(case: Case, rounds: int) -> dict[str, Any]:
    """Ratios of every method to T plain forward passes, the floors, and the cost of choosing."""
    model = made(case, CPU)
    bank = quick_bank(model, case, CPU)
    inputs = random(case, case.examples, CPU)
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


def sampler_figures(case: Case, rounds: int) -> dict[str, float]:
    """Other samplers in bfloat16 relative to themselves in float32, each with T draws."""
    model, inputs = made(case, CPU), random(case, case.examples, CPU)
    members = [model, *(copy.deepcopy(model) for _ in range(case.draws - 1))]
    dropout = {"insert": 0.1, "at": "layer4", "draws": case.draws}
    makers: dict[str, Callable[[Any], Any]] = {
        "MCDropout": lambda kind: mcbn.MCDropout(model, precision=kind, **dropout),
        "DeepEnsemble": lambda kind: mcbn.DeepEnsemble(members, precision=kind),
        "Augmented": lambda kind: mcbn.Augmented(
            mcbn.Deterministic(model), mcbn.RandomFlip(), draws=case.draws, precision=kind
        ),
    }
    ratios = {}
    for name, make in makers.items():
        kinds = {kind: make(kind) for kind in ("float32", "bfloat16")}
        runs = {kind: (lambda each=each: consume(each.passes(inputs)))
                for kind, each in kinds.items()}  # fmt: skip
        for run in runs.values():
            run()  # includes everything that is done only once
        times = interleaved(runs, rounds, name)
        ratios[name] = paired(times["bfloat16"], times["float32"])
    return ratios


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
        traces.append(seconds(lambda: trace(fresh)) / one)  # noqa: B023
    return {
        "forwards": statistics.median(extra),
        "each": extra,
        "tracing alone": statistics.median(traces),
    }


def trace(model: nn.Module) -> None:
    """Trace a network as far as that goes."""
    with contextlib.suppress(fx.proxy.TraceError):  # it branches by what it is given
        fx.symbolic_trace(model)


def bank_figures(case: Case, rounds: int) -> dict[str, Any]:
    """Time of building a bank relative to T train-mode forward passes of the same mini-batches."""
    model = made(case, CPU)
    data = random(case, case.examples, CPU)
    drawn = mcbn.minibatches(data, batch_size=case.size, draws=case.draws)
    ready = list(drawn)

    def collect(batches: Iterable[Tensor], limit: int | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
            mcbn.collect(model, batches, limit=limit, progress=False)

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
        "collect with a limit": lambda: collect(ready, 512),
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
