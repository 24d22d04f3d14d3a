"""Runs the matrix; writes results.json beside this file and docs/compatibility.md.

Given parts of names it runs those rows alone; the others keep what was found before.
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
SAVED = 10  # rows after which the files are written, so that little is lost to an interruption
# Modules with rows; a process imports what it runs.
SOURCES = ("holders", "published", "libraries")


def cases(source: str) -> dict[str, Case]:
    return {case.title: case for case in importlib.import_module(source).rows()}


def prepare() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def run(place: tuple[str, str]) -> Outcome:
    source, title = place
    return outcome(cases(source)[title])


def main(parts: list[str]) -> int:
    places = [(source, title) for source in SOURCES for title in cases(source)]
    chosen = [place for place in places if not parts or any(part in place[1] for part in parts)]
    found: dict[str, Outcome] = {}
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), prepare) as pool:
        for (_, title), result in zip(chosen, pool.map(run, chosen), strict=True):
            print(f"{title}: {result.status}; {result.detail}", flush=True)
            found[title] = result
            if len(found) % SAVED == 0:
                write([title for _, title in places], found)
    write([title for _, title in places], found)
    wrong = [title for title, result in found.items() if result.status == WRONG]
    print(f"{len(found)} rows, {len(wrong)} wrong: {wrong}")
    return 1 if wrong else 0


def write(titles: list[str], found: dict[str, Outcome]) -> None:
    """Put what was found among the results of the other rows, and write the page anew."""
    known = json.loads(RESULTS.read_text())["outcomes"] if RESULTS.exists() else {}
    outcomes = known | {title: asdict(result) for title, result in found.items()}
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
