"""Run a study on any executor: train its networks, then score the cells that need them."""

import os
import pkgutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mcbn.study import declaration
from mcbn.study.cell import Cell, Network
from mcbn.study.executors import Executor, Processes
from mcbn.study.given import Given, reference
from mcbn.study.plan import Plan
from mcbn.study.progress import Progress
from mcbn.study.provenance import Fingerprint, Provenance
from mcbn.study.records import Item, present_digests, require_same, shared_provenance
from mcbn.study.results import Study
from mcbn.study.store import Outcome, Store, commit_failure

# Imported in the worker, so that the process that only dispatches does not wait for torch.
WORK = "mcbn.study.worker:work"
FINGERPRINT = "mcbn.study.worker:own_fingerprint"
DESCRIBE = "mcbn.study.worker:describe_own"
# Calls submitted at once to an executor without `slots`.
DEFAULT_SLOTS = 64


def run_study(
    plan: Plan | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    task: Callable[[], Any] | str | None = None,
    model: Callable[[], Any] | str | None = None,
    fit: Callable[..., Any] | str | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    shard: tuple[int, int] | None = None,
    retry: bool = False,
    progress: bool = True,
) -> Study:
    """Train the networks of a study and score its cells, except those that are finished.

    Each network and cell is committed to the folder as soon as it is finished, so the same call
    resumes a run that ended early for whatever reason. Results do not depend on the executor, the
    number of jobs, the shard or the order: they are equal to the last bit on one type of processor.

    Args:
        plan: the declaration, or the path of its YAML file.
        folder: folder of the results; several runs may share it.
        task: function that returns the user's own `Task`, instead of `plan.data.names`. It, `model`
            and `fit` are functions of a .py file, or such names as "mine.py:task": other processes
            import them.
        model: function that builds the network, instead of `plan.network.names`.
        fit: function that trains it, in any way, called as `fit(model, task, batch_size=..,
            seed=..)`, and with `epochs`, `learning_rate` and `weight_decay` of the plan if it takes
            them. It trains the network in place or returns it.
        jobs: processes on this machine; by default the number of cores divided by `plan.threads`.
        executor: runs the jobs elsewhere; any `concurrent.futures.Executor`. It is not shut down.
        shard: (i, n), from 1: run only the i-th of n shares of the cells.
        retry: run failed networks and cells again.
        progress: show progress, on a live line or in plain lines.

    Returns:
        Everything that is finished in the folder, including the cells of other shards.

    Raises:
        OSError: the folder cannot be written to; results that were finished before stay.
        TypeError: `task` returns no `Task`.
        ValueError: the declaration or an argument is invalid; or the finished results in the
            folder were made from another network or data set of the same name.

    Warns:
        UserWarning: the user's code or data have changed since the finished results, which are left
            aside.
    """
    plan = plan if isinstance(plan, Plan) else declaration.read(plan)
    used = executor or Processes(jobs or default_jobs(plan))
    try:
        plan = _with_own_code(plan, used, task, model, fit)
        study = _run(plan, folder, used, shard=shard, retry=retry, progress=progress)
    except BaseException:
        if executor is None:
            used.shutdown(wait=False, cancel_futures=True)
        raise
    if executor is None:
        used.shutdown()
    return study


def _run(
    plan: Plan,
    folder: str | os.PathLike[str],
    executor: Executor,
    *,
    shard: tuple[int, int] | None,
    retry: bool,
    progress: bool,
) -> Study:
    cells = plan.cells()
    keys = {cell: cell.key for cell in cells}
    store = Store.create(Path(folder).absolute())
    queue = Queue.of(_share(cells, shard), keys, store, retry=retry)
    done = store.keys("cells")
    finished: list[Item] = [("cells", keys[cell], cell) for cell in cells if keys[cell] in done]
    known = shared_provenance(store, [*finished, *queue.trained_before], resume=True)
    require_same(known, Provenance(present_digests(known.data)), store.folder)
    _require_same_networks(known, executor, store)
    _warn_of_other_code(plan, store)
    queue.begin(store)
    store.declare(declaration.to_yaml(plan), plan.given)
    if queue.waiting or queue.ready:
        _run_queue(queue, executor, store, plan, known, progress=progress)
    return Study.from_store(store, plan)


def _with_own_code(plan: Plan, executor: Executor, task: Any, model: Any, fit: Any) -> Plan:
    """The plan of a study of the user's own code, which is described where the jobs run."""
    given = {"task": task, "model": model, "fit": fit}
    names = {role: reference(each, role) for role, each in given.items() if each is not None}
    if "model" in names:
        plan = replace(plan, network=replace(plan.network, names=(names["model"],)))
    if not {"task", "fit"} & names.keys():
        return plan
    if "model" not in names and any(":" in each for each in plan.network.names):
        raise ValueError(
            f"expected model= beside task= and fit= for a network of your own, got it in the plan: "
            f"{', '.join(plan.network.names)}; give that function as model="
        )
    described = executor.submit(_describe, names, str(Path.cwd())).result()
    if isinstance(described, str):
        raise ValueError(
            f"expected {' and '.join(names.values())} to give what a study needs, got {described}; "
            "mend it"
        )
    data = plan.data
    if described.task:
        outside = data.outside or described.outside
        data = replace(data, names=(described.task,), outside=outside)
    return replace(plan, data=data, given=described)


def _warn_of_other_code(plan: Plan, store: Store) -> None:
    """Say that results in the folder were made from other code or data, if they were."""
    before = store.given().digest
    count = len(store.keys("cells"))
    if before and before != plan.given.digest and count:
        warnings.warn(
            f"the code or the data that the {count} finished results in {store.folder} were made "
            "from have changed: cells are run anew, and those results are left aside",
            stacklevel=4,
        )


def _require_same_networks(known: Provenance, executor: Executor, store: Store) -> None:
    """Check that a user's functions still build the networks of the finished results.

    They run where the jobs run, since a function may end the process that it runs in.
    """
    for name, expected in known.networks.items():
        builder = name.rpartition(" on ")[0]
        try:
            found = executor.submit(_fingerprint, builder, expected.input_shape).result()
        except Exception as error:  # of the executor, or of a process that died
            found = f"{type(error).__name__}: {error}"
        if isinstance(found, str):
            raise ValueError(
                f"expected {builder} to build the network of the finished results in "
                f"{store.folder}, got {found}; mend it, give another folder, or remove "
                f"{store.folder} to discard its results"
            )
        require_same(known, Provenance(networks={name: found}), store.folder)


def default_jobs(plan: Plan) -> int:
    """How many cells to run at once on the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // plan.threads)


def _share(cells: Sequence[Cell], shard: tuple[int, int] | None) -> tuple[Cell, ...]:
    """The cells of one share; cells that use the same networks are in the same share.

    Raises:
        ValueError: there is no such share.
    """
    if shard is None:
        return tuple(cells)
    index, count = shard
    if not 1 <= index <= count:
        raise ValueError(
            f"expected a shard i/n with 1 <= i <= n, got {index}/{count}; number the shards from 1"
        )
    families = list(dict.fromkeys(cell.network.family for cell in cells))
    chosen = set(families[index - 1 :: count])
    return tuple(cell for cell in cells if cell.network.family in chosen)


def _run_queue(
    queue: "Queue",
    executor: Executor,
    store: Store,
    plan: Plan,
    known: Provenance,
    *,
    progress: bool,
) -> None:
    slots = getattr(executor, "slots", DEFAULT_SLOTS)
    jobs: dict[Future[Any], Network | Cell] = {}
    display = Progress(queue.networks, queue.cells, plan.shown[0], slots, progress)
    try:
        with display:
            while queue.ready or jobs:
                while queue.ready and len(jobs) < slots:
                    job = queue.ready.popleft()
                    root = str(Path.cwd())
                    jobs[executor.submit(_work, str(store.folder), job, known, root)] = job
                    display.started()
                display.show()
                for future in wait(jobs, return_when=FIRST_COMPLETED).done:
                    job = jobs.pop(future)
                    outcome = _outcome(future, job, store, isolated=isinstance(executor, Processes))
                    known = known.merged(outcome.provenance)
                    display.ended(job, outcome.seconds, outcome.scores, failed=bool(outcome.error))
                    if isinstance(job, Network):
                        display.skipped(_release_cells(job, outcome.error, queue, store))
    finally:
        for future in jobs:
            future.cancel()


def _work(folder: str, job: Network | Cell, known: Provenance, root: str) -> Outcome:
    outcome: Outcome = pkgutil.resolve_name(WORK)(folder, job, known, root)
    return outcome


def _describe(names: Mapping[str, str], root: str) -> Given | str:
    found: Given | str = pkgutil.resolve_name(DESCRIBE)(names, root)
    return found


def _fingerprint(builder: str, input_shape: tuple[int, ...]) -> Fingerprint | str:
    found: Fingerprint | str = pkgutil.resolve_name(FINGERPRINT)(builder, input_shape)
    return found


def _outcome(
    future: "Future[Any]", job: Network | Cell, store: Store, *, isolated: bool
) -> Outcome:
    """The outcome of a job; if its process died, commit the failure here.

    Raises:
        OSError: the worker could not write.
        RuntimeError: the executor broke as a whole, so it is unknown which job broke it.
    """
    try:
        outcome: Outcome = future.result()
        return outcome
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, (BrokenExecutor, CancelledError)) and not isolated:
            raise RuntimeError(
                f"expected the executor to run until the study ends, got {type(error).__name__}; "
                "run the study again, which keeps finished cells, or leave the executor out, so "
                "that a process that dies costs only its own job"
            ) from error
        died = isinstance(error, BrokenExecutor)
        what = "its process died, perhaps for lack of memory" if died else "it had no result"
        reason = f"{what} ({type(error).__name__}: {error})"
        commit_failure(store, job, reason)
        return Outcome(reason, 0.0, {})


def _release_cells(network: Network, error: str, queue: "Queue", store: Store) -> int:
    """Start the cells that waited for a network or, if it failed, fail them and count them."""
    if not error:
        queue.trained(network)
        return 0
    failed = queue.abandoned(network)
    for cell in failed:
        commit_failure(store, cell, f"its network failed: {error}")
    return len(failed)


@dataclass
class Queue:
    """The jobs that are left: those that can start, and the cells that wait for networks.

    Dispatching a study is linear in its cells: each key is hashed once, and a network that is
    trained is looked up among those that cells wait for.

    Attributes:
        ready: jobs that can start, in order.
        waiting: the networks that each cell still waits for.
        trained_before: the trained networks that cells to be scored use.
        failed_before: keys of failures of what is run again.
        networks: how many networks are to be trained.
        cells: how many cells are to be scored.
    """

    ready: deque[Network | Cell] = field(default_factory=deque)
    waiting: dict[Cell, set[Network]] = field(default_factory=dict)
    trained_before: list[Item] = field(default_factory=list)
    failed_before: list[str] = field(default_factory=list)
    networks: int = 0
    cells: int = 0
    _cells_of: dict[Network, list[Cell]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, cells: Iterable[Cell], keys: Mapping[Cell, str], store: Store, *, retry: bool
    ) -> "Queue":
        """The jobs of these cells that are neither finished nor, unless `retry`, failed."""
        finished, failures = store.keys("cells"), store.keys("failures")
        trained, queue = store.keys("networks"), cls()
        network_keys: dict[Network, str] = {}
        for cell in cells:
            key = keys[cell]
            if key in finished or (key in failures and not retry):
                continue
            if key in failures:
                queue.failed_before.append(key)
            queue.cells += 1
            needed = {network for network in cell.networks if not network.trained}
            for network in needed - network_keys.keys():
                network_keys[network] = network.key
            queue._add(cell, {each for each in needed if network_keys[each] not in trained})
        for network, key in network_keys.items():
            if key in trained:
                queue.trained_before.append(("networks", key, network))
            elif key in failures:
                queue.failed_before.append(key)
        queue.networks = len(queue._cells_of)
        queue.ready.extend(queue._cells_of)
        return queue

    def begin(self, store: Store) -> None:
        """Remove the failures of what is run again."""
        for key in self.failed_before:
            store.discard("failures", key)

    def _add(self, cell: Cell, needed: set[Network]) -> None:
        if not needed:
            self.ready.append(cell)
            return
        self.waiting[cell] = needed
        for network in cell.networks:  # in order, and the set is not
            if network in needed:
                self._cells_of.setdefault(network, []).append(cell)

    def trained(self, network: Network) -> None:
        """Make the cells ready that waited for this network only; they go first."""
        ready = []
        for cell in self._waiting_for(network):
            self.waiting[cell].discard(network)
            if not self.waiting[cell]:
                del self.waiting[cell]
                ready.append(cell)
        self.ready.extendleft(reversed(ready))

    def abandoned(self, network: Network) -> list[Cell]:
        """Remove the cells that need a network that could not be trained, and return them."""
        cells = self._waiting_for(network)
        for cell in cells:
            del self.waiting[cell]
        return cells

    def _waiting_for(self, network: Network) -> list[Cell]:
        return [cell for cell in self._cells_of.pop(network, []) if cell in self.waiting]
