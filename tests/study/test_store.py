"""The folder of a study: whole or not there, whatever happens to those who write to it."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import writers
from faults import FAULTS, Fault, faults_of

from mcbn.io.atomic import write_whole
from mcbn.study.store import Store

KEY, OTHER = "a" * 32, "b" * 32
FILES = {"scores.json": b'{"nll": 1}', "cost.json": b"{}"}
STEPS = writers.STEPS


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "study")


def test_what_is_committed_is_there_once_and_whole(store):
    assert store.commit("cells", KEY, FILES)
    assert store.keys("cells") == {KEY}
    assert store.has("cells", KEY)
    assert not store.has("networks", KEY)
    assert store.read_json("cells", KEY, "scores.json") == {"nll": 1}
    # The first stays: whoever comes later is told so, and leaves nothing behind.
    assert not store.commit("cells", KEY, {"scores.json": b'{"nll": 2}'})
    assert store.read_json("cells", KEY, "scores.json") == {"nll": 1}
    assert list((store.folder / "unfinished").iterdir()) == []


def test_an_ordinary_umask_lets_others_read(store):
    before = os.umask(0o022)
    try:
        store.commit("cells", KEY, FILES)
    finally:
        os.umask(before)
    assert (store.folder / "cells" / KEY).stat().st_mode & 0o777 == 0o755
    assert store.path("cells", KEY, "cost.json").stat().st_mode & 0o777 == 0o644


def test_discarding_takes_it_away(store, monkeypatch):
    store.commit("failures", KEY, FILES)
    store.discard("failures", KEY)
    store.discard("failures", KEY)
    assert store.keys("failures") == frozenset()
    assert list((store.folder / "unfinished").iterdir()) == []
    store.commit("failures", KEY, FILES)
    # The rename is what counts: files that cannot be removed now are swept later.
    with monkeypatch.context() as patch:
        Fault(patch, "rmdir", 1, OSError(errno.EIO, "broken"))
        store.discard("failures", KEY)
    assert store.keys("failures") == frozenset()
    assert store.sweep(older_than=0) == 1


def test_a_folder_without_the_store_s_own_folders_holds_nothing(tmp_path):
    assert Store(tmp_path).keys("cells") == frozenset()
    assert Store(tmp_path).running() == frozenset()


NO_STUDY = (
    r"expected a study in .*, got a folder without study\.yaml; give the folder that "
    r"`mcbn study run \.\.\. --out` wrote$"
)


def test_an_empty_folder_is_no_study(tmp_path):
    with pytest.raises(FileNotFoundError, match=NO_STUDY):
        Store.open(tmp_path)
    store = Store.create(tmp_path)
    store.declare("title: x\n")
    before = store.declaration.stat().st_mtime_ns
    store.declare("title: x\n")
    assert store.declaration.stat().st_mtime_ns == before
    assert Store.open(tmp_path) == store


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_damaged_later_is_named(store, content):
    store.commit("cells", KEY, {"scores.json": content})
    with pytest.raises(
        ValueError, match=rf"expected a JSON object in .*{KEY}.*run the study again"
    ):
        store.read_json("cells", KEY, "scores.json")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"nll": 1, "nll": 2}', "a repeated key"),
        (b'{"nll": NaN}', "NaN, which is not JSON"),
        (b'{"nll": -Infinity}', "-Infinity, which is not JSON"),
    ],
)
def test_json_that_is_not_ours_is_refused_with_the_reason(store, content, found):
    store.commit("cells", KEY, {"scores.json": content})
    with pytest.raises(ValueError, match=rf"scores\.json, got {found}; remove the folder"):
        store.read_json("cells", KEY, "scores.json")


def test_abandoned_work_is_swept_and_work_at_hand_is_not(store):
    old, new = store.folder / "unfinished" / "old", store.folder / "unfinished" / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    assert store.sweep() == 1
    assert [path.name for path in (store.folder / "unfinished").iterdir()] == ["new"]
    (store.folder / "unfinished" / "third").mkdir()
    assert store.sweep(older_than=0) == 2


def test_what_another_sweep_removes_first_is_left_to_it(store, monkeypatch):
    (store.folder / "unfinished" / "old").mkdir()
    with monkeypatch.context() as patch:
        Fault(patch, "rmdir", 1, FileNotFoundError(errno.ENOENT, "gone"))
        assert store.sweep(older_than=0) == 0
    marker = store.folder / "running" / f"{KEY}.{os.uname().nodename}.{gone()}"
    marker.touch()
    monkeypatch.setattr("mcbn.study.store._is_alive", lambda found: found.unlink() or False)
    assert store.sweep() == 0


def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_who_works_on_what_is_seen_until_they_are_gone(store):
    with store.mark_running(KEY):
        assert store.running() == {KEY}
    assert store.running() == frozenset()
    host, dead = os.uname().nodename, gone()
    (store.folder / "running" / f"{KEY}.{host}.{dead}").touch()
    (store.folder / "running" / f"{OTHER}.elsewhere.example.{dead}").touch()
    # Of a process on another machine nothing is known but what it says.
    assert store.running() == {OTHER}
    with store.mark_running(KEY):
        Store.create(store.folder)
        assert store.running() == {KEY, OTHER}
    assert len(list((store.folder / "running").iterdir())) == 1


def test_a_process_is_asked_whether_it_is_there_and_not_disturbed(store, monkeypatch):
    """By signal 0; one that may not be asked, of another user, is there."""
    asked = []

    def refused(process, signal):
        asked.append((process, signal))
        raise PermissionError

    monkeypatch.setattr(socket, "gethostname", lambda: "node.example.org")
    monkeypatch.setattr(os, "kill", refused)
    (store.folder / "running" / f"{KEY}.node.example.org.77").touch()
    assert store.running() == {KEY}
    assert asked == [(77, 0)]


def commits(store, monkeypatch, name, error):
    """Commit once for every place at which the step can fail; look at the store after each."""
    for _ in faults_of(lambda: store.commit("cells", KEY, FILES), monkeypatch, name, error):
        yield
        store.discard("cells", KEY)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_at_any_step_is_told_and_tears_nothing(store, monkeypatch, name, code):
    places = 0
    for _ in commits(store, monkeypatch, name, OSError(code, os.strerror(code))):
        places += 1
        # Only the last sync may fail after the rename: then the cell is there, and whole.
        if store.has("cells", KEY):
            assert name in ("fsync", "open")
            assert {p.name for p in (store.folder / "cells" / KEY).iterdir()} == set(FILES)
            assert store.path("cells", KEY, "scores.json").read_bytes() == FILES["scores.json"]
        assert list((store.folder / "unfinished").iterdir()) == []
    least = {"mkdir": 1, "open": 4, "write": 2, "fsync": 4, "rename": 1}
    assert places == least[name]
    # Nothing is in the way of doing it again.
    assert store.has("cells", KEY)


def test_a_fault_beside_a_finished_one_is_told(store, monkeypatch):
    store.commit("cells", KEY, FILES)
    Fault(monkeypatch, "rename", 1, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        store.commit("cells", KEY, FILES)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_went_wrong_first_is_told(store, monkeypatch, error):
    Fault(monkeypatch, "rename", 1, error)
    Fault(monkeypatch, "rmdir", 1, OSError(errno.EIO, "broken"))
    with pytest.raises(type(error), match="full" if isinstance(error, OSError) else None):
        store.commit("cells", KEY, FILES)


def test_a_system_that_opens_no_folder_still_writes(tmp_path, monkeypatch):
    opened = os.open

    def files_only(path, flags, *mode, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "a folder")
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", files_only)
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("name", STEPS)
def test_an_interrupt_at_any_step_tears_nothing(store, monkeypatch, name):
    for _ in commits(store, monkeypatch, name, KeyboardInterrupt()):
        if store.has("cells", KEY):
            assert {p.name for p in (store.folder / "cells" / KEY).iterdir()} == set(FILES)
        assert list((store.folder / "unfinished").iterdir()) == []


def test_every_file_and_folder_is_synced_before_the_rename_and_the_parent_after(store, monkeypatch):
    seen = []

    def sync(handle):
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")).split(".")[0])

    rename = os.rename
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", lambda a, b: (seen.append("rename"), rename(a, b)))
    store.commit("cells", KEY, FILES)
    assert seen == ["scores", "cost", KEY, "rename", "cells"]


def test_writing_in_many_small_pieces_writes_all(store, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:1]))
    store.commit("cells", KEY, FILES)
    assert store.path("cells", KEY, "scores.json").read_bytes() == FILES["scores.json"]


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_fault_keeps_the_old_file(tmp_path, monkeypatch, name):
    path = tmp_path / "file"
    write_whole(path, b"old")
    error = OSError(errno.ENOSPC, "full")
    with monkeypatch.context() as patch:
        Fault(patch, name, 1, error)
        with pytest.raises(OSError, match="full"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def run_writers(*words):
    path = Path(writers.__file__)
    done = subprocess.run([sys.executable, str(path), *map(str, words)], capture_output=True,
                          text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_power_lost_at_any_step_of_a_commit_tears_nothing(tmp_path):
    steps = run_writers("crash", tmp_path)
    assert steps >= 12
    whole = 0
    for step in range(1, steps + 1):
        store = Store(tmp_path / str(step))
        whole += store.has("cells", KEY)
        for key in store.keys("cells"):
            found = {p.name: p.read_bytes() for p in (store.folder / "cells" / key).iterdir()}
            assert found == writers.content(key)
        Store.create(store.folder).sweep(older_than=0)
        assert list((store.folder / "unfinished").iterdir()) == []
    # The steps after the rename, and no others, leave the cell there.
    assert whole == 2


def check_race(tmp_path, cells, kills, seed):
    found = run_writers("race", tmp_path, cells, kills, seed)
    assert found["kills"] >= kills
    assert found["running"] == []
    store = Store(tmp_path)
    assert len(store.keys("cells")) == cells
    for key in store.keys("cells"):
        parts = {p.name: p.read_bytes() for p in (store.folder / "cells" / key).iterdir()}
        assert parts == writers.content(key), "a torn cell"
    lines = (tmp_path / "log").read_text().split("\n")[:-1]
    words = Counter(tuple(line.split()) for line in lines)
    assert not any(kind == "again" for kind, _ in words), "a finished cell was done again"
    made = Counter({key: n for (kind, key), n in words.items() if kind == "made"})
    assert max(made.values()) == 1, "two writers were told that they finished one cell"
    assert set(made) <= store.keys("cells"), "a cell that was acknowledged is lost"
    store.sweep(older_than=0)
    assert list((store.folder / "unfinished").iterdir()) == []


@pytest.mark.unchecked
def test_a_hundred_kills_of_racing_writers_lose_tear_and_repeat_nothing(tmp_path):
    check_race(tmp_path, cells=3000, kills=100, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_thousand_kills_of_racing_writers_lose_tear_and_repeat_nothing(tmp_path, seed):
    check_race(tmp_path, cells=3000, kills=100, seed=seed)
