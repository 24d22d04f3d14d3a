"""Check networks of many libraries; write results.json beside this file and docs/compatibility.md.

usage: python tests/networks/matrix.py [PART ...]

With parts of names, only those rows are run; the others keep their last results.
"""

import importlib
import json
import os
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing import get_context

# No package may ask the network, or leave its settings in the home directory.
os.environ |= {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

import torch
from case import TOLERANCE, Case
from identity import WRONG, Outcome, outcome
from page import PAGE, RESULTS, rendered

PROCESSES = os.cpu_count() or 1
SAVE_EVERY = 10  # rows after which the files are written, so that little is lost to an interruption
# Modules with rows; a process imports what it runs.
SOURCES = ("wrappers", "published", "libraries")


def cases(source: str) -> dict[str, Case]:
    return {case.title: case for case in importlib.import_module(source).rows()}


def prepare() -> None:
    """Set up a process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def run(place: tuple[str, str]) -> Outcome:
    source, title = place
    return outcome(cases(source)[title])


def main(parts: list[str]) -> int:
    if {"-h", "--help"} & {*parts}:
        print(__doc__)
        return 0
    places = [(source, title) for source in SOURCES for title in cases(source)]
    chosen = [place for place in places if not parts or any(part in place[1] for part in parts)]
    outcomes: dict[str, Outcome] = {}
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), prepare) as pool:
        for (_, title), result in zip(chosen, pool.map(run, chosen), strict=True):
            print(f"{title}: {result.status}; {result.detail}", flush=True)
            outcomes[title] = result
            if len(outcomes) % SAVE_EVERY == 0:
                write([title for _, title in places], outcomes)
    write([title for _, title in places], outcomes)
    wrong = [title for title, result in outcomes.items() if result.status == WRONG]
    print(f"{len(outcomes)} rows, {len(wrong)} wrong: {wrong}")
    return 1 if wrong else 0


def write(titles: list[str], new: dict[str, Outcome]) -> None:
    """Merge new outcomes into the results of the other rows, and write the page."""
    known = json.loads(RESULTS.read_text())["outcomes"] if RESULTS.exists() else {}
    outcomes = known | {title: asdict(result) for title, result in new.items()}
    outcomes = {title: outcomes[title] for title in titles if title in outcomes}
    packages = dict.fromkeys(outcome["package"] for outcome in outcomes.values())
    versions = {name: version(name).split("+")[0] for name in packages}
    record = {
        "versions": versions,
        "tolerance": TOLERANCE,
        "modules_without": len(importlib.import_module("published").TIMM_WITHOUT),
        "outcomes": outcomes,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(rendered(record))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
