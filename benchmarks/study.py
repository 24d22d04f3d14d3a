"""Overhead of running a study: time beyond the work itself, two jobs against one, resuming.

Run: python benchmarks/study.py [overhead|jobs|longer|resume ...]    (25 minutes on 2 cores)
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from mcbn.io.atomic import write_whole
from mcbn.study import declaration
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.study.store import CONFIGURATION, COST, RESULT, Store, as_json

RESULTS = Path(__file__).parent / "study.json"
PAIRS = 3  # of runs with one job and with two
RESUMES = 5  # repetitions
JOBS = 2

# 1,000 cells: 10 networks, 100 cells each; a cell takes about a second.
MANY = Plan(
    title="1,000 cells",
    data=DataAxes(outside=("rotated",)),
    network=NetworkAxes(width=16),
    training=TrainingAxes(batch_sizes=(32,), epochs=5),
    inference=InferenceAxes(batch_sizes=tuple(range(4, 104)), draws=(64,)),
    methods=("MCBN",),
    seeds=tuple(range(10)),
)
# Almost all of the time is training.
TRAINING = Plan(
    title="training-bound",
    network=NetworkAxes(width=32),
    training=TrainingAxes(batch_sizes=(32,), epochs=60),
    methods=("Deterministic",),
    seeds=tuple(range(8)),
)
# 10,000 finished cells.
FINISHED = Plan(
    title="10,000 cells",
    inference=InferenceAxes(batch_sizes=tuple(range(4, 1004))),
    training=TrainingAxes(batch_sizes=(32,)),
    methods=("MCBN",),
    seeds=tuple(range(10)),
)


def main() -> None:
    """Run the named measurements, all by default; other results are kept."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    measures = {"overhead": overhead, "jobs": two_jobs, "longer": longer, "resume": resume}
    for name in sys.argv[1:] or measures:
        with tempfile.TemporaryDirectory() as place:
            results[name] = measures[name](Path(place))
        print(name, json.dumps(results[name], indent=1), flush=True)
        write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())


def overhead(place: Path) -> dict[str, float]:
    """Share of the wall time of all jobs that is not spent on cells and networks."""
    wall = run(MANY, place, JOBS)
    costs = [json.loads(path.read_text()) for path in place.glob(f"study/*/*/{COST}")]
    work = sum(cost["total"] for cost in costs)
    core = sum(seconds for cost in costs for part, seconds in cost.items() if part != "total")
    return {
        "cells": len(MANY.cells()),
        "jobs": JOBS,
        "wall_seconds": wall,
        "work_seconds": work,
        "overhead_share": 1 - work / (JOBS * wall),
        # Everything except training, drawing mini-batches and passes of the test examples. So this
        # includes reading data and weights, passes of the OOD sets, and computing scores.
        "not_train_collect_predict_share": 1 - core / (JOBS * wall),
    }


def two_jobs(place: Path) -> dict[str, object]:
    """Wall time of two jobs relative to one, alternating, each from scratch."""
    pairs = []
    for pair in range(PAIRS):
        one = run(TRAINING, place / f"one{pair}", 1)
        two = run(TRAINING, place / f"two{pair}", 2)
        pairs.append({"one_job_seconds": one, "two_jobs_seconds": two, "ratio": two / one})
    return {
        "pairs": pairs,
        "median_ratio": statistics.median(p["ratio"] for p in pairs),
        "floor": statistics.median(floor() for _ in range(PAIRS)),
    }


def longer(place: Path) -> dict[str, float]:
    """The same once with twice the networks, for which starting processes matters less."""
    plan = replace(TRAINING, seeds=tuple(range(2 * len(TRAINING.seeds))))
    one, two = run(plan, place / "one", 1), run(plan, place / "two", 2)
    return {"one_job_seconds": one, "two_jobs_seconds": two, "ratio": two / one}


def floor() -> float:
    """Half the time of training a network beside another one, relative to training it alone.

    Two jobs on two cores could reach this without any overhead: 0.5 if the cores share nothing.
    """
    code = (
        "import time\nfrom mcbn.study.cell_task import load_task\n"
        "from mcbn.study.worker import untrained\n"
        "from mcbn.tasks.training import build, train\nfrom mcbn.study.cell import Network\n"
        "import torch\ntorch.set_num_threads(1)\n"
        f"network = {TRAINING.cells()[0].network!r}\ntask = load_task(network)\n"
        "model = build(lambda: untrained(network, task), seed=0)\nstart = time.perf_counter()\n"
        "train(model, task.train, epochs=40, batch_size=32)\nprint(time.perf_counter() - start)\n"
    )

    def started() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    alone = float(started().communicate()[0])
    pair = [started(), started()]
    beside = statistics.fmean(float(process.communicate()[0]) for process in pair)
    return beside / alone / 2


def resume(place: Path) -> dict[str, object]:
    """Wall time of the command on a finished study: process start, checks, summary."""
    store = Store.create(place / "study")
    store.declare(declaration.to_yaml(FINISHED))
    scores = {f"score_{index}": index / 7 for index in range(20)} | {"nll": 0.5}
    for cell in FINISHED.cells():
        folder = store.folder / "cells" / cell.key  # as after a commit, without syncing
        folder.mkdir()
        for name, values in ((RESULT, scores), (COST, {"predict": 1.0, "total": 1.0}),
                             (CONFIGURATION, asdict(cell))):  # fmt: skip
            (folder / name).write_bytes(as_json(values))
    times = [run(FINISHED, place, 1) for _ in range(RESUMES)]
    return {"cells": len(FINISHED.cells()), "seconds": times, "median": statistics.median(times)}


def run(plan: Plan, place: Path, jobs: int) -> float:
    """Wall time of the command in seconds."""
    place.mkdir(exist_ok=True)
    file = place / "study.yaml"
    file.write_text(declaration.to_yaml(plan))
    start = time.perf_counter()
    subprocess.run(
        [Path(sys.executable).with_name("mcbn"), "study", "run", file, "--out", place / "study",
         "--jobs", str(jobs)], check=True, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
