"""Running a study: the same table from every executor, and what is left after a mishap."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import Here, smallest, tiny

from mcbn.study import cell as cell_module
from mcbn.study import declaration
from mcbn.study.executors import Processes, _shielded, named_executor
from mcbn.study.plan import NetworkAxes
from mcbn.study.results import Study, to_csv
from mcbn.study.run import default_jobs, run_study
from mcbn.study.store import Outcome, Store

CELLS = 48  # of the tiny study
NETWORKS = 8

NETS = """
import os, signal
from mcbn.tasks.networks import mlp
from torch import nn

def good():
    return nn.Sequential(nn.Flatten(), mlp(64, 10, width=8))

def bad():
    if os.path.exists(FLAG):
        raise MemoryError("there is no more of it")
    return good()

def deadly():
    if os.path.exists(FLAG):
        os.kill(os.getpid(), signal.SIGKILL)
    return good()
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The tiny study as one process does it, in order: what every other way must give."""
    folder = tmp_path_factory.mktemp("here")
    executor = Here()
    study = run_study(tiny(), folder, executor=executor, progress=False)
    return study, executor, folder


@pytest.fixture(scope="module")
def table(here):
    return to_csv(here[0])


@pytest.fixture
def nets(tmp_path):
    """Networks of one's own, some of which fail while a flag file is there."""
    flag = tmp_path / "flag"
    flag.touch()
    path = tmp_path / "nets.py"
    path.write_text(f"FLAG = {str(flag)!r}\n{NETS}")
    return path, flag


def own(path, *names):
    plan = smallest(network=NetworkAxes(names=tuple(f"{path}:{name}" for name in names)))
    return replace(plan, methods=("Deterministic",))


def test_every_cell_is_scored_once_and_every_network_trained_once(here):
    study, executor, folder = here
    assert (len(study.results), len(study.failures), study.missing) == (CELLS, 0, 0)
    jobs = [job for _, job, *_ in executor.calls]
    assert len(jobs) == len(set(jobs)) == CELLS + NETWORKS
    assert not executor.closed, "an executor that was given is not ours to shut down"
    store = Store(folder)
    assert len(store.keys("cells")) == CELLS
    assert len(store.keys("networks")) == NETWORKS
    assert list((folder / "unfinished").iterdir()) == list((folder / "running").iterdir()) == []


def test_a_cell_starts_as_soon_as_its_network_is_there(here):
    jobs = [job for _, job, *_ in here[1].calls]
    kinds = ["network" if job in {n for c in here[0].plan.cells() for n in c.networks} else "cell"
             for job in jobs]  # fmt: skip
    assert kinds[:2] == ["network", "cell"]


class Dispatched:
    """An executor that runs nothing: every call succeeds."""

    slots = 3

    def submit(self, fn, /, *args):
        future = Future()
        future.set_result(Outcome("", 0.0, {}))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


@pytest.mark.parametrize("seeds", [2, 8])
def test_dispatching_hashes_every_network_and_cell_once(tmp_path, monkeypatch, seeds):
    """Cells are hashed once more to read their results."""
    plan = replace(tiny(), seeds=tuple(range(seeds)))
    cells = plan.cells()
    networks = {network for cell in cells for network in cell.networks}
    hashed = Counter()

    def digest(kind, values):
        hashed[kind] += 1
        return original(kind, values)

    original = cell_module._digest
    monkeypatch.setattr(cell_module, "_digest", digest)
    run_study(plan, tmp_path, executor=Dispatched(), progress=False)
    assert hashed == {"cell": 2 * len(cells), "network": len(networks)}


def test_a_finished_study_is_not_done_again_and_gives_the_same(here, table):
    study, _, folder = here
    idle = Here()
    again = run_study(tiny(), folder, executor=idle, progress=False)
    assert idle.calls == []
    assert to_csv(again) == table
    assert to_csv(Study.load(folder)) == table
    assert Study.load(folder) == study


def test_more_seeds_add_cells_and_keep_the_old(here, tmp_path):
    plan = smallest()
    run_study(plan, tmp_path, executor=Here(), progress=False)
    executor = Here()
    more = run_study(replace(plan, seeds=(0, 1)), tmp_path, executor=executor, progress=False)
    assert len(more.results) == 4
    assert {job.seed if hasattr(job, "seed") else job.network.seed
            for _, job, *_ in executor.calls} == {1}  # fmt: skip
    assert Study.load(tmp_path).plan.seeds == (0, 1)


def test_the_order_of_the_work_does_not_show(table, tmp_path):
    plan = replace(tiny(), seeds=(1, 0), methods=tiny().methods[::-1])
    run_study(plan, tmp_path, executor=Here(slots=100), progress=False)
    assert to_csv(run_study(tiny(), tmp_path, executor=Here(), progress=False)) == table


def test_threads_of_the_process_are_left_as_they_were(tmp_path):
    before = torch.get_num_threads()
    plan = replace(smallest(), threads=2)
    run_study(plan, tmp_path, executor=Here(), progress=False)
    assert torch.get_num_threads() == before
    assert default_jobs(replace(plan, threads=10_000)) == 1


def test_threads_are_part_of_what_a_result_is_of():
    assert {c.key for c in tiny().cells()}.isdisjoint(
        c.key for c in replace(tiny(), threads=2).cells()
    )


# The bit-identity matrix: the same bytes, whoever does the work.


def test_threads_give_the_same_table(table, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        assert to_csv(run_study(tiny(), tmp_path, executor=pool, progress=False)) == table


def test_processes_give_the_same_table(table, tmp_path):
    assert to_csv(run_study(tiny(), tmp_path, jobs=2, progress=False)) == table


def test_shards_on_one_folder_give_the_same_table_and_share_the_work(table, tmp_path):
    done = []
    for index in (3, 1, 2):
        executor = Here()
        study = run_study(tiny(), tmp_path, shard=(index, 3), executor=executor, progress=False)
        done += [job for _, job, *_ in executor.calls]
        # Four pairs of training size and seed: one share has two of them.
        assert len(executor.calls) == (28 if index == 1 else 14)
    assert to_csv(study) == table
    assert len(done) == len(set(done)) == CELLS + NETWORKS


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0)])
def test_a_shard_that_is_none_is_refused(tmp_path, shard):
    with pytest.raises(ValueError, match="expected a shard i/n"):
        run_study(tiny(), tmp_path, shard=shard, progress=False)


def test_an_unknown_executor_is_refused():
    with pytest.raises(ValueError, match="expected the executor processes, ray"):
        named_executor("slurm", 1)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'mcbn\[ray\]'"):
        named_executor("ray", 1)


# Mishaps.


def test_a_cell_that_fails_is_told_and_the_rest_goes_on_until_it_is_retried(tmp_path):
    plan = replace(tiny(), methods=("Deterministic", "MCBN"), seeds=(0,),
                   data=replace(tiny().data, train_sizes=(None,)),
                   inference=replace(tiny().inference, batch_sizes=(8, 5000)))  # fmt: skip
    study = run_study(plan, tmp_path, executor=Here(), progress=False)
    assert (len(study.results), len(study.failures), study.missing) == (4, 2, 0)
    for cell, error in study.failures.items():
        assert cell.batch_size == 5000
        assert "expected batch_size of at most the 1078 training examples, got 5000" in error
    idle, busy = Here(), Here()
    run_study(plan, tmp_path, executor=idle, progress=False)
    assert idle.calls == [], "a failure is not tried again by itself"
    again = run_study(plan, tmp_path, executor=busy, retry=True, progress=False)
    assert len(busy.calls) == 2
    assert len(again.failures) == 2
    assert "Traceback" in Store(tmp_path).read_json("failures", cell.key, "error.json")["traceback"]


def test_a_network_that_fails_takes_along_its_cells_and_no_others(tmp_path, nets):
    path, flag = nets
    plan = own(path, "good", "bad")
    study = run_study(plan, tmp_path / "out", executor=Here(), progress=False)
    assert len(study.results) == 1
    (error,) = study.failures.values()
    assert error == "its network failed: MemoryError: there is no more of it"
    flag.unlink()
    again = run_study(plan, tmp_path / "out", executor=Here(), retry=True, progress=False)
    assert (len(again.results), len(again.failures)) == (2, 0)


def test_a_process_that_is_killed_costs_only_what_it_was_at(tmp_path, nets):
    path, flag = nets
    plan = own(path, "deadly", "good")
    plan = replace(plan, seeds=(0, 1))
    study = run_study(plan, tmp_path / "out", jobs=2, progress=False)
    assert len(study.results) == 2
    assert len(study.failures) == 2
    for cell, error in study.failures.items():
        assert cell.network.architecture.endswith(":deadly")
        assert "its process died, perhaps for lack of memory" in error
    flag.unlink()
    again = run_study(plan, tmp_path / "out", executor=Here(), retry=True, progress=False)
    assert (len(again.results), len(again.failures)) == (4, 0)


def test_an_executor_that_breaks_as_a_whole_blames_no_cell(tmp_path, nets):
    plan = own(nets[0], "deadly")
    with ProcessPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="keeps finished cells"):
        run_study(plan, tmp_path / "out", executor=pool, progress=False)
    found = Study.load(tmp_path / "out")
    assert (len(found.failures), found.missing) == (0, 1)


def test_a_cluster_that_goes_away_blames_no_cell(tmp_path):
    class Gone(Here):
        def submit(self, fn, /, *args):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(RuntimeError, match="keeps finished cells"):
        run_study(smallest(), tmp_path, executor=Gone(), progress=False)
    assert not Study.load(tmp_path).failures


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    plan = smallest()
    commit = Store.commit
    count = 0

    def full(store, kind, key, files):
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return commit(store, kind, key, files)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", full)
        with pytest.raises(OSError, match="No space left"):
            run_study(plan, tmp_path, executor=Here(), progress=False)
    executor = Here()
    study = run_study(plan, tmp_path, executor=executor, progress=False)
    assert len(study.results) == 2
    assert len(executor.calls) == 2, "the network was finished before"


def test_weights_damaged_later_fail_their_cells_by_name(tmp_path):
    plan = replace(smallest(), methods=("Deterministic",))
    run_study(plan, tmp_path, executor=Here(), progress=False)
    store = Store(tmp_path)
    (key,) = store.keys("networks")
    store.path("networks", key, "weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    for cell in store.keys("cells"):
        store.discard("cells", cell)
    (error,) = run_study(plan, tmp_path, executor=Here(), progress=False).failures.values()
    assert f"remove the folder {tmp_path / 'networks' / key}" in error


# Ends of the process that runs it.

MCBN = [sys.executable, "-m", "mcbn", "study", "run"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(declaration.to_yaml(tiny()))
    return path


def start(file, folder, *more):
    return subprocess.Popen(
        [*MCBN, str(file), "--out", str(folder), "--jobs", "2", *more],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "MCBN_TEST_MARK": str(folder)},
        # Where the tests run in the background of a shell, an interrupt is ignored from there on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def left_over(folder):
    """Processes that were started for this folder and still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"MCBN_TEST_MARK={folder}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(
    file, tmp_path, table, number, code
):
    folder = tmp_path / "out"
    process = start(file, folder)
    store = Store(folder)
    wait_for(lambda: len(store.keys("cells")) >= 3)
    # A terminal sends it to the whole group; Slurm does, too.
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"of {CELLS} cells are finished and kept in {folder}" in error
    assert "Run the same command again to resume." in error
    assert "Traceback" not in error
    assert "leaked" not in error
    wait_for(lambda: left_over(folder) == [], 20)
    done = store.keys("cells")
    assert 3 <= len(done) < CELLS
    assert not store.keys("failures"), "an interrupt is nobody's failure"
    executor = Here()
    assert to_csv(run_study(tiny(), folder, executor=executor, progress=False)) == table
    assert done.isdisjoint(job.key for _, job, *_ in executor.calls)


def check_kill(file, folder, table, chance):
    process = start(file, folder)
    store = Store(folder)
    before = len(store.keys("cells"))
    wait_for(lambda: len(store.keys("cells")) > before or process.poll() is not None)
    time.sleep(chance.random() * 0.5)
    process.kill()
    process.wait()  # not communicate: processes left over would hold the pipe open
    wait_for(lambda: left_over(folder) == [], 20)
    process.stderr.close()


def test_a_run_that_is_killed_takes_its_processes_along_and_goes_on(file, tmp_path, table):
    folder = tmp_path / "out"
    check_kill(file, folder, table, random.Random(0))
    store = Store(folder)
    done = store.keys("cells")
    assert 0 < len(done) < CELLS
    assert not store.keys("failures")
    executor = Here()
    assert to_csv(run_study(tiny(), folder, executor=executor, progress=False)) == table
    assert done.isdisjoint(job.key for _, job, *_ in executor.calls)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_gives_the_same_table(file, tmp_path, table):
    folder = tmp_path / "out"
    for seed in range(6):
        check_kill(file, folder, table, random.Random(seed))
    assert to_csv(run_study(tiny(), folder, executor=Here(), progress=False)) == table


@pytest.mark.parametrize("now", [True, False])
def test_the_pools_of_processes_that_died_are_waited_for(monkeypatch, now):
    """One that is still ending when Python does may print a traceback."""
    waited = []
    shutdown = ProcessPoolExecutor.shutdown

    def noted(pool, wait=True, **options):
        waited.append((pool, wait))
        shutdown(pool, wait, **options)

    monkeypatch.setattr(ProcessPoolExecutor, "shutdown", noted)
    before = set(threading.enumerate())
    executor = Processes(1)
    with pytest.raises(BrokenExecutor):
        executor.submit(os._exit, 1).result(timeout=60)
    assert executor.submit(os.getpid).result(timeout=60) != os.getpid()
    with pytest.raises(BrokenExecutor):
        executor.submit(os._exit, 1).result(timeout=60)
    executor.shutdown(cancel_futures=now)
    assert len({id(pool) for pool, _ in waited}) == 3
    assert all(wait for _, wait in waited)
    assert set(threading.enumerate()) <= before


def test_signals_are_left_to_the_process_that_runs_the_study():
    executor = Processes(1)
    try:
        worker = executor.submit(os.getpid).result(timeout=60)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, number)
        assert executor.submit(os.getpid).result(timeout=60) == worker
    finally:
        executor.shutdown()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "they stay blocked for us"


def test_processes_start_where_the_system_has_no_signal_masks(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")
    before = sys.modules["__main__"]
    with _shielded():
        assert sys.modules["__main__"] is not before
    assert sys.modules["__main__"] is before


def test_a_script_needs_no_guard(tmp_path, file):
    script = tmp_path / "script.py"
    script.write_text(
        "import mcbn\n"
        f"study = mcbn.run_study({str(file)!r}, {str(tmp_path / 'out')!r}, jobs=1)\n"
        "print(len(study.results), len(study.failures))\n"
    )
    file.write_text(declaration.to_yaml(smallest()))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.stdout == "2 0\n", done.stderr
    assert "Traceback" not in done.stderr


def test_processes_run_at_once_and_wait_for_a_free_one():
    executor = Processes(2)
    try:
        begin = time.monotonic()
        futures = [executor.submit(time.sleep, 0.3) for _ in range(4)]
        for future in futures:
            future.result(timeout=60)
        assert executor.slots == 2
        assert time.monotonic() - begin >= 0.6
    finally:
        executor.shutdown()
