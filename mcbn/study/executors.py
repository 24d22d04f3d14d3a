"""Where the cells of a study run: processes of this machine, or a cluster that the user has.

All have the two methods that a study needs of a `concurrent.futures.Executor`: `submit` and
`shutdown`. Those here also say in `slots` how many calls they run at once.
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
    """Runs calls elsewhere; every `concurrent.futures.Executor` is one."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call, and return what will hold its result."""
        ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Free what it holds."""
        ...


class Processes:
    """Spawned processes of this machine, each in a pool of its own.

    A pool breaks as a whole when one of its processes dies; so a process that crashes, or that the
    system kills for its memory, here costs only the call that it was at. Processes end with this
    one, however it ends, and leave Ctrl-C and SIGTERM to it.

    Args:
        jobs: how many processes.
    """

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self._context = multiprocessing.get_context("spawn")
        # Whoever holds the reading end sees it close when this process is gone.
        self._alive, self._held = self._context.Pipe(duplex=False)
        self._pools: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(jobs):
            self._pools.put(self._pool())

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call in a process that is free; wait for one if none is."""
        pool = self._pools.get()
        try:
            with _apart():
                future = pool.submit(fn, *args)
        except BaseException:
            self._pools.put(pool)
            raise
        future.add_done_callback(partial(self._release, pool))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with `cancel_futures` at once, whatever they are at."""
        if cancel_futures:
            self._held.close()
        for _ in range(self.slots):  # a busy one comes back when its process is done, or gone
            self._pools.get().shutdown(wait=wait)
        self._held.close()
        self._alive.close()

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_live_and_die_with, initargs=(self._alive,)
        )

    def _release(self, pool: ProcessPoolExecutor, future: "Future[Any]") -> None:
        if not future.cancelled() and isinstance(future.exception(), BrokenExecutor):
            pool.shutdown(wait=False)
            pool = self._pool()
        self._pools.put(pool)


def _live_and_die_with(alive: Connection) -> None:
    """End this process as soon as the one that started it is gone or says so."""

    def watch() -> None:
        wait([alive])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Else it takes a semaphore of the system, and a process that ends at once gives none back.
    tqdm.set_lock(threading.RLock())


@contextmanager
def _apart() -> Iterator[None]:
    """Start processes in the block that leave signals to this one and do not run its script.

    Ctrl-C and SIGTERM are blocked for them, and for us only meanwhile. A new process would run the
    user's script once more to find functions in it; ours are all in this package, and a script
    that calls us outside `if __name__ == "__main__"` would call us again.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Ray:
    """A Ray cluster, joined by its address or started here for this study.

    Args:
        address: of a running cluster ("auto" finds one); None starts one on this machine, on
            loopback, without a dashboard.
        jobs: how many processes a cluster of our own has; None leaves it to Ray.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, address: str | None, jobs: int | None) -> None:
        self._ray = optional("ray", extra="ray")
        self._ours = not self._ray.is_initialized()
        if self._ours and address is not None:
            self._ray.init(address=address, log_to_driver=False)
        elif self._ours:
            self._ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False,
                           _node_ip_address="127.0.0.1")  # fmt: skip
        self.slots = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """Start a call on one processor of the cluster; it is not tried again if it dies."""
        remote = self._ray.remote(num_cpus=1, max_retries=0)(fn)
        future: Future[Any] = remote.remote(*args).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Leave the cluster, or end it if it is ours."""
        if self._ours:
            self._ray.shutdown()


class Dask:
    """A running Dask cluster.

    Args:
        address: of its scheduler, such as tcp://host:8786.

    Raises:
        ImportError: Dask is not installed.
    """

    def __init__(self, address: str) -> None:
        distributed = optional("distributed", extra="dask")
        self._client = distributed.Client(address, set_as_default=False)
        # Not pure: the same call may be made again after a failure. Each worker does one at a time.
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
    """The executor that a command line names.

    Args:
        name: "processes"; "ray", or "ray://host:port" or "ray:auto" to join a cluster; or
            "dask://host:port".
        jobs: how many processes, where that is ours to say.

    Raises:
        ImportError: the package is not installed.
        ValueError: another name.
    """
    if name == "processes":
        return Processes(jobs)
    if name == "ray":
        return Ray(None, jobs)
    if name.startswith("ray:"):
        return Ray("auto" if name == "ray:auto" else name, None)
    if name.startswith("dask://"):
        return Dask(f"tcp://{name.removeprefix('dask://')}")
    raise ValueError(
        "expected the executor processes, ray, ray://host:port, ray:auto or dask://host:port, "
        f"got {name!r}; leave it out for processes"
    )
