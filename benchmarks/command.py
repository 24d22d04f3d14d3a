"""Cost of the command: wall and CPU time, and modules imported, of processes that do little.

Run: python benchmarks/command.py    (2 minutes)

Writes command.json next to this file, and the table of docs/performance.md.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from page import put, table

from mcbn.cli.verbs import VERBS
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "command.json"
RUNS = 5
EXAMPLES = 500  # of three classes, in the file that is scored
MCBN = ("-m", "mcbn")
# What Python is given, by what the table calls it.
LINES: dict[str, Sequence[str]] = {
    "import mcbn": ("-c", "import mcbn"),
    "import torch": ("-c", "import torch"),
    **{f"mcbn {verb} --help": (*MCBN, *verb.split(), "--help") for verb in VERBS},
    "refused: a file that is not there": (*MCBN, "evaluate", "nowhere.npz"),
    "refused: a number": (*MCBN, "evaluate", "p.npz", "--resamples", "-1"),
    "refused: a misspelled option": (*MCBN, "evaluate", "p.npz", "--resample", "10"),
    "mcbn evaluate, without intervals": (*MCBN, "evaluate", "p.npz", "--resamples", "0"),
    "mcbn evaluate": (*MCBN, "evaluate", "p.npz"),
}


def main() -> None:
    """Measure every line, and write the results and the table."""
    with tempfile.TemporaryDirectory() as folder:
        _write_predictions(Path(folder) / "p.npz")
        for words in LINES.values():  # compiles modules, and fills the cache of the disk
            _run(words, folder)
        rounds = [{name: _cost(words, folder) for name, words in LINES.items()}
                  for _ in range(RUNS)]  # fmt: skip
        rows = [
            {
                "line": name,
                "wall_s": round(statistics.median(each[name][0] for each in rounds), 3),
                "cpu_s": round(statistics.median(each[name][1] for each in rounds), 3),
                "modules": _modules(words, folder),
            }
            for name, words in LINES.items()
        ]
    write_whole(RESULTS, (json.dumps(rows, indent=1) + "\n").encode())
    cells = [[f"`{row['line']}`" if "refused" not in str(row["line"]) else str(row["line"]),
              f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", f"{row['modules']:,}"]
             for row in rows]  # fmt: skip
    written = table(["process", "wall, s", "CPU, s", "modules"], cells)
    put("command", written)
    print(written)


def _write_predictions(path: Path) -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(3), EXAMPLES)
    np.savez(path, probabilities=probabilities, targets=generator.integers(0, 3, EXAMPLES))


def _cost(words: Sequence[str], folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _run(words, folder)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _modules(words: Sequence[str], folder: str) -> int:
    """How many modules a process imports."""
    said = _run(("-X", "importtime", *words), folder).stderr.splitlines()
    return sum(line.startswith("import time:") for line in said) - 1  # without the heading


def _run(words: Sequence[str], folder: str) -> "subprocess.CompletedProcess[str]":
    # One thread, since the work is small and CPU time would count those that wait; with the
    # bytecode that an installed package has.
    return subprocess.run(  # noqa: S603
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""},
    )  # fmt: skip


if __name__ == "__main__":
    main()
