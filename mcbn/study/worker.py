"""What a worker does: train a network or score a cell, and commit what came of it.

Each is a pure function of its configuration, so it does not matter which process on which machine
does it, when, or how often.
"""

import math
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.nn import Module

from mcbn.network.isolation import as_found, derived_seed
from mcbn.study.cell import Cell, Network
from mcbn.study.measurement import measure
from mcbn.study.outcome import CONFIGURATION, COST, RESULT, Outcome, as_json, commit_failure
from mcbn.study.recipes import load_published, load_task, make_sampler, untrained
from mcbn.study.store import Kind, Store
from mcbn.tasks.datasets import Task
from mcbn.tasks.training import build, train

WEIGHTS = "weights.safetensors"

# Seeds and thread counts are those of the process, so that one process does one thing at a time.
_alone = threading.Lock()


def work(folder: str, job: Network | Cell) -> Outcome:
    """Do one job of the study in `folder`, unless it is done, and commit its result or its error.

    Raises:
        OSError: the result cannot be written.
    """
    store = Store(Path(folder))
    kind: Kind = "networks" if isinstance(job, Network) else "cells"
    if store.has(kind, job.key):
        return Outcome("", 0.0, {})
    threads = (job if isinstance(job, Network) else job.network).threads
    with _alone, store.running(job.key), _threads(threads):
        start = time.perf_counter()
        try:
            done = _trained(job) if isinstance(job, Network) else _scored(store, job)
        except Exception as error:  # whatever goes wrong belongs to this job alone
            reason = f"{type(error).__name__}: {error}"
            commit_failure(store, job, reason, traceback.format_exc())
            return Outcome(reason, time.perf_counter() - start, {})
        seconds = time.perf_counter() - start
        cost = as_json({**done.seconds, "total": seconds})
        configuration = as_json(asdict(job))
        store.commit(kind, job.key, {**done.files, COST: cost, CONFIGURATION: configuration})
        return Outcome("", seconds, done.scores)


@dataclass(frozen=True)
class _Done:
    files: Mapping[str, bytes]
    seconds: Mapping[str, float]
    scores: Mapping[str, float]


@as_found
def _trained(network: Network) -> _Done:
    start = time.perf_counter()
    task = load_task(network)
    own = derived_seed(network.seed, "member", network.member)
    model = build(partial(untrained, network, task), seed=own)
    train(
        model,
        task.train,
        epochs=network.epochs,
        batch_size=network.batch_size,
        learning_rate=network.learning_rate,
        weight_decay=network.weight_decay,
        seed=own,
        loss="cross_entropy" if task.classes else "mse",
    )
    # Cloned: the library refuses tensors that share memory.
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    cost = {"train": time.perf_counter() - start}
    return _Done({WEIGHTS: save(weights)}, cost, {})


@as_found
def _scored(store: Store, cell: Cell) -> _Done:
    task = load_task(cell)
    networks = [load_trained(store, network, task) for network in cell.networks]
    start = time.perf_counter()
    sampler = make_sampler(cell, networks, task)
    cost = {"collect": time.perf_counter() - start}
    measured = measure(sampler, task)
    cost["predict"] = measured.seconds
    scores = {name: value if math.isfinite(value) else None
              for name, value in measured.scores.items()}  # fmt: skip
    return _Done({RESULT: as_json(scores)}, cost, measured.scores)


def load_trained(store: Store, network: Network, task: Task) -> Module:
    """The trained network of a configuration, in eval mode.

    Raises:
        FileNotFoundError: it was not trained yet.
        ValueError: its file was damaged, or holds another network.
    """
    if network.published:
        return load_published()
    path = store.path("networks", network.key, WEIGHTS)
    model = build(partial(untrained, network, task), seed=0)
    content = path.read_bytes()
    try:
        model.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"expected the weights of {network} in {path}, got {type(error).__name__}: {error}; "
            f"remove the folder {path.parent} and run the study again"
        ) from error
    return model.eval()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
