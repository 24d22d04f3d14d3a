"""Running a study on any executor: networks, then the cells that need them; to be resumed."""

import os
import pkgutil
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcbn.study import declaration
from mcbn.study.cell import Cell, Network
from mcbn.study.executors import Executor, Processes
from mcbn.study.plan import Plan
from mcbn.study.progress import Progress
from mcbn.study.results import Study
from mcbn.study.store import Outcome, Store, commit_failure

# Looked up where the work is done: whoever only hands it out does not wait for torch.
WORK = "mcbn.study.worker:work"
# Calls in flight on an executor that does not say how many it runs at once.
WINDOW = 64


def run_study(
    plan: Plan | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    shard: tuple[int, int] | None = None,
    retry: bool = False,
    progress: bool = True,
) -> Study:
    """Train the networks of a study and score its cells; what is finished is not done again.

    Each network and cell is committed to the folder when it is done, so a run that ends early, in
    whatever way, is resumed by the same call. Results do not depend on the executor, the number of
    jobs, the shard or the order: equal to the last bit on one kind of processor.

    Args:
        plan: the declaration, or the path of its YAML file.
        folder: where results are kept; several runs may share it.
        jobs: processes on this machine; by default so many that jobs times `plan.threads` is the
            number of cores.
        executor: runs the work elsewhere; any `concurrent.futures.Executor`. It is not shut down.
        shard: (i, n), from 1: do only the i-th of n shares, without talking to the other shares.
        retry: do again what failed before.
        progress: say how far it is, on a live line or in plain lines.

    Returns:
        What is finished of the whole study, the work of other shards included.

    Raises:
        OSError: the folder cannot be written to; what was finished before stays.
        ValueError: the declaration or an argument is not as expected.
    """
    plan = plan if isinstance(plan, Plan) else declaration.read(plan)
    cells = _share(plan.cells(), shard)
    store = Store.create(Path(folder).absolute())
    store.declare(declaration.written(plan))
    queue = Queue.of(cells, store, retry=retry)
    if queue.waiting or queue.ready:
        ours = executor is None
        chosen = executor or Processes(jobs or default_jobs(plan))
        try:
            _work_off(queue, chosen, store, plan, progress=progress)
        except BaseException:
            if ours:
                chosen.shutdown(wait=False, cancel_futures=True)
            raise
        if ours:
            chosen.shutdown()
    return Study.from_store(store, plan)


def default_jobs(plan: Plan) -> int:
    """How many cells fill the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // plan.threads)


def _share(cells: Sequence[Cell], shard: tuple[int, int] | None) -> tuple[Cell, ...]:
    """The cells of one share; those that use the same networks fall into the same share.

    Raises:
        ValueError: there is no such share.
    """
    if shard is None:
        return tuple(cells)
    index, count = shard
    if not 1 <= index <= count:
        raise ValueError(f"expected a shard i/n with 1 <= i <= n, got {index}/{count}")
    families = list(dict.fromkeys(cell.network.family for cell in cells))
    mine = set(families[index - 1 :: count])
    return tuple(cell for cell in cells if cell.network.family in mine)


def _work_off(
    queue: "Queue", executor: Executor, store: Store, plan: Plan, *, progress: bool
) -> None:
    slots = getattr(executor, "slots", WINDOW)
    flying: dict[Future[Any], Network | Cell] = {}
    shown = Progress(queue.networks, queue.cells, plan.shown[0], slots, progress)
    try:
        with shown:
            while queue.ready or flying:
                while queue.ready and len(flying) < slots:
                    job = queue.ready.popleft()
                    flying[executor.submit(_work, str(store.folder), job)] = job
                    shown.started()
                shown.show()
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    job = flying.pop(future)
                    outcome = _outcome(future, job, store, isolated=isinstance(executor, Processes))
                    shown.ended(job, outcome.seconds, outcome.scores, failed=bool(outcome.error))
                    if isinstance(job, Network):
                        shown.skipped(_follow(job, outcome.error, queue, store))
    finally:
        for future in flying:
            future.cancel()


def _work(folder: str, job: Network | Cell) -> Outcome:
    outcome: Outcome = pkgutil.resolve_name(WORK)(folder, job)
    return outcome


def _outcome(
    future: "Future[Any]", job: Network | Cell, store: Store, *, isolated: bool
) -> Outcome:
    """What came of a job; if its process died, a failure that is committed here.

    Raises:
        OSError: the worker could not write.
        RuntimeError: the executor broke as a whole, and nobody can tell which job broke it.
    """
    try:
        outcome: Outcome = future.result()
        return outcome
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, (BrokenExecutor, CancelledError)) and not isolated:
            raise RuntimeError(
                f"expected the executor to live through the study, got {type(error).__name__}; "
                "what is finished is kept: run the study again, or leave the executor out, and "
                "only the job that kills its process is lost"
            ) from error
        died = isinstance(error, BrokenExecutor)
        what = "its process died, perhaps for want of memory" if died else "it came to no result"
        reason = f"{what} ({type(error).__name__}: {error})"
        commit_failure(store, job, reason)
        return Outcome(reason, 0.0, {})


def _follow(network: Network, error: str, queue: "Queue", store: Store) -> int:
    """Let start what waited for a network; if that failed, return how many cells fail with it."""
    if not error:
        queue.trained(network)
        return 0
    lost = queue.abandoned(network)
    for cell in lost:
        commit_failure(store, cell, f"its network failed: {error}")
    return len(lost)


@dataclass
class Queue:
    """Work that is left: what can start, and what waits for networks.

    Attributes:
        ready: jobs that can start, in order.
        waiting: cells with the keys of the networks that they still wait for.
        networks: how many networks are to be trained.
        cells: how many cells are to be scored.
    """

    ready: deque[Network | Cell] = field(default_factory=deque)
    waiting: dict[Cell, set[str]] = field(default_factory=dict)
    networks: int = 0
    cells: int = 0

    @classmethod
    def of(cls, cells: Iterable[Cell], store: Store, *, retry: bool) -> "Queue":
        """What of these cells is neither finished nor failed, and the networks that it needs."""
        done = {kind: store.keys(kind) for kind in ("networks", "cells", "failures")}
        queue = cls()
        trained: dict[str, Network] = {}
        for cell in cells:
            failed = cell.key in done["failures"]
            if cell.key in done["cells"] or (failed and not retry):
                continue
            if failed:
                store.discard("failures", cell.key)
            needed = {n.key: n for n in cell.networks if not n.published}
            needed = {key: n for key, n in needed.items() if key not in done["networks"]}
            for key, network in needed.items():
                if key not in trained and key in done["failures"]:
                    store.discard("failures", key)
                trained[key] = network
            queue.cells += 1
            if needed:
                queue.waiting[cell] = set(needed)
            else:
                queue.ready.append(cell)
        queue.networks = len(trained)
        queue.ready.extend(trained.values())
        return queue

    def trained(self, network: Network) -> None:
        """Let the cells start that waited for this network alone; they go first."""
        for needed in self.waiting.values():
            needed.discard(network.key)
        free = [cell for cell, needed in self.waiting.items() if not needed]
        for cell in free:
            del self.waiting[cell]
        self.ready.extendleft(reversed(free))

    def abandoned(self, network: Network) -> list[Cell]:
        """Take out the cells that need a network that could not be trained."""
        lost = [cell for cell, needed in self.waiting.items() if network.key in needed]
        for cell in lost:
            del self.waiting[cell]
        return lost
