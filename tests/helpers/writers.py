"""A program that writes to a study's folder and is killed at it; run by the tests of the store.

Usage: writers.py race FOLDER CELLS KILLS SEED | crash FOLDER

It imports nothing heavy, so that processes are forked in milliseconds.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from mcbn.study.store import Store

WRITERS = 4
STEPS = ("mkdir", "open", "write", "fsync", "rename")


def content(key: str) -> dict[str, bytes]:
    """What the cell of a key must hold to the last byte."""
    return {"scores.json": json.dumps({"key": key}).encode(), "cost.json": key.encode() * 500}


def write_all(store: Store, keys: list[str], log: int, seed: int) -> None:
    """Finish every cell that is not finished, in an order of one's own."""
    finished = store.keys("cells")  # what a resumed run finds must not be done again
    order = keys[:]
    random.Random(seed).shuffle(order)
    for key in order:
        if store.has("cells", key):
            continue
        if key in finished:
            os.write(log, f"again {key}\n".encode())
        with store.mark_running(key):
            made = store.commit("cells", key, content(key))
        os.write(log, f"{'made' if made else 'late'} {key}\n".encode())


def race(folder: str, cells: int, kills: int, seed: int) -> None:
    """Four writers, one of them killed at a random instant, again and again; then they finish."""
    store = Store.create(folder)
    keys = [f"{index:032d}" for index in range(cells)]
    log = os.open(Path(folder) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance = random.Random(seed)
    forked = 0

    def fork() -> int:
        nonlocal forked
        forked += 1
        child = os.fork()
        if child == 0:
            write_all(store, keys, log, 1000 * seed + forked)
            os._exit(0)
        return child

    running = [fork() for _ in range(WRITERS)]
    killed = 0
    while killed < kills:
        time.sleep(chance.random() * 0.02)
        place = chance.randrange(WRITERS)
        os.kill(running[place], signal.SIGKILL)
        _, status = os.waitpid(running[place], 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status) and len(store.keys("cells")) == cells:
            break  # all is done: there is nothing left to be killed at
        running[place] = fork()
    for child in running:
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            continue
    print(json.dumps({"kills": killed, "running": sorted(store.running())}))


def crash(folder: str) -> None:
    """End at the first, the second, ... step of a commit, as a machine that loses its power."""
    steps = 0
    while True:
        steps += 1
        root = Path(folder) / str(steps)
        store = Store.create(root)
        child = os.fork()
        if child == 0:
            _exit_at(steps)
            store.commit("cells", "a" * 32, content("a" * 32))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WEXITSTATUS(status) == 0:
            break
    print(steps - 1)


def _exit_at(step: int) -> None:
    count = 0

    def wrapped(call):
        def counted(*args, **options):
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
            return call(*args, **options)

        return counted

    for name in STEPS:
        setattr(os, name, wrapped(getattr(os, name)))


if __name__ == "__main__":
    if sys.argv[1] == "race":
        race(sys.argv[2], *(int(word) for word in sys.argv[3:]))
    else:
        crash(sys.argv[2])
