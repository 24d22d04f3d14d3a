"""Executors of a study: processes of this machine, or a cluster of the user's.

All have the two methods of a `concurrent.futures.Executor` that a study calls: `submit` and
`shutdown`. Those here also have `slots`, the number of calls that they run at once.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from mcbn.io.extras import optional


@runtime_checkable
class Executor(Protocol):
    """Runs calls elsewhere, as every `concurrent.futures.Executor` does."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call, and return the future of its result."""
        ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Release its resources."""
        ...


class ThisProcess:
    """Runs each call at once, in this process; what the call raises is in its future."""

    slots = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Run a call, and return the future of its result."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:  # as every executor does
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing, since there is nothing to release."""


class Processes:
    """Spawned processes of this machine, each in a pool of its own.

    A pool breaks as a whole when one of its processes dies. With one pool per process, a process
    that crashes, or that the system kills for lack of memory, costs only its current call. The
    processes end with this one, however it ends, and leave Ctrl-C and SIGTERM to it.

    Args:
        jobs: number of processes.
    """

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self._context = multiprocessing.get_context("spawn")
        # Children wait at the reading end, which closes when this process ends.
        self._alive, self._alive_end = self._context.Pipe(duplex=False)
        self._pools: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        self._broken: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(jobs):
            self._pools.put(self._pool())

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call in an idle process; wait for one if there is none."""
        pool = self._pools.get()
        self._end_broken()
        try:
            with _shielded():
                future = pool.submit(fn, *args)
        except BaseException:
            self._pools.put(pool)
            raise
        future.add_done_callback(partial(self._release, pool))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with `cancel_futures` at once, in the middle of their calls."""
        if cancel_futures:
            self._alive_end.close()
        for _ in range(self.slots):  # a busy pool comes back when its call or its process ends
            # What ends at once is waited for: a pool that is still ending when Python does may
            # write to a pipe that it has closed, and print a traceback.
            self._pools.get().shutdown(wait=wait or cancel_futures)
        self._end_broken()
        self._alive_end.close()
        self._alive.close()

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_exit_with_parent, initargs=(self._alive,)
        )

    def _release(self, pool: ProcessPoolExecutor, future: "Future[Any]") -> None:
        if not future.cancelled() and isinstance(future.exception(), BrokenExecutor):
            # Its own thread calls this, and cannot wait for itself.
            self._broken.put(pool)
            pool = self._pool()
        self._pools.put(pool)

    def _end_broken(self) -> None:
        """Wait until the pools whose process has died have ended."""
        while not self._broken.empty():
            self._broken.get().shutdown()


def _exit_with_parent(alive: Connection) -> None:
    """End this process when the one that started it ends or closes the pipe."""

    def watch() -> None:
        wait([alive])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # The default lock is a semaphore of the system, which `os._exit` would leak.
    tqdm.set_lock(threading.RLock())


@contextmanager
def _shielded() -> Iterator[None]:
    """Start processes in the block that ignore Ctrl-C and SIGTERM and do not import the script.

    A terminal sends Ctrl-C to all processes, and one that is still starting would print a
    traceback; so both signals are blocked in it from its first instant, where the system can. A
    spawned process also imports the user's script to find functions in it. Those of a study are in
    this package, and a script without `if __name__ == "__main__"` would run the study once more.
    """
    main = sys.modules["__main__"]
    mask = getattr(signal, "pthread_sigmask", None)  # Windows has none
    before = mask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}) if mask else set()
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if mask:
            mask(signal.SIG_SETMASK, before)


class Ray:
    """A Ray cluster, joined by its address or started here for this study.

    Args:
        address: address of a running cluster ("auto" finds one); None starts one on this machine,
            on loopback, without a dashboard.
        jobs: number of processes of a cluster that is started here; None leaves it to Ray.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, address: str | None, jobs: int | None) -> None:
        self._ray = optional("ray", extra="ray")
        self._started_here = not self._ray.is_initialized()
        if self._started_here and address is not None:
            self._ray.init(address=address, log_to_driver=False)
        elif self._started_here:
            self._ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False,
                           _node_ip_address="127.0.0.1")  # fmt: skip
        self.slots = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call on one processor of the cluster; it is not retried if it dies."""
        remote = self._ray.remote(num_cpus=1, max_retries=0)(fn)
        future: Future[Any] = remote.remote(*args).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Leave the cluster, or end it if it was started here."""
        if self._started_here:
            self._ray.shutdown()


class Dask:
    """A running Dask cluster.

    Args:
        address: address of its scheduler, such as tcp://host:8786.

    Raises:
        ImportError: Dask is not installed.
    """

    def __init__(self, address: str) -> None:
        distributed = optional("distributed", extra="dask")
        self._client = distributed.Client(address, set_as_default=False)
        # Not pure: the same call may be submitted again after a failure. A worker runs one call.
        self._executor = self._client.get_executor(pure=False, retries=0)
        self.slots = max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call on the cluster."""
        future: Future[Any] = self._executor.submit(fn, *args)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def named_executor(name: str, jobs: int) -> Processes | Ray | Dask:
    """The executor of this name, as the command line takes it.

    Args:
        name: "processes"; "ray", or "ray://host:port" or "ray:auto" to join a cluster; or
            "dask://host:port".
        jobs: number of processes, for "processes" and "ray".

    Raises:
        ImportError: the package is not installed.
        ValueError: the name is unknown.
    """
    require_executor(name)
    if name == "processes":
        return Processes(jobs)
    if name == "ray":
        return Ray(None, jobs)
    if name.startswith("ray:"):
        return Ray("auto" if name == "ray:auto" else name, None)
    return Dask(f"tcp://{name.removeprefix('dask://')}")


def require_executor(name: str) -> None:
    """Check the name of an executor, before anything is loaded that it would run.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ("processes", "ray") and not name.startswith(("ray:", "dask://")):
        raise ValueError(
            "expected the executor processes, ray, ray://host:port, ray:auto or dask://host:port, "
            f"got {name!r}; leave --executor out for processes"
        )
