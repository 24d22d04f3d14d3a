"""The jobs of a study: train a network or score a cell, and commit the result.

A result depends on the configuration of its job only, so any process on any machine may run it, at
any time and more than once.
"""

import math
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.nn import Flatten, Module, Sequential

from mcbn.network.isolation import derived_seed
from mcbn.study.cell import Cell, Network
from mcbn.study.cell_sampler import make_sampler
from mcbn.study.cell_task import load_task
from mcbn.study.fingerprints import build_own, fingerprint
from mcbn.study.given import Given
from mcbn.study.measurement import measure
from mcbn.study.names import Architecture
from mcbn.study.own_code import describe, fit_own, given_here, working_in
from mcbn.study.provenance import Fingerprint, Provenance
from mcbn.study.records import data_digests, make_record, require_same
from mcbn.study.store import (
    CONFIGURATION,
    COST,
    RESULT,
    Kind,
    Outcome,
    Store,
    as_json,
    commit_failure,
)
from mcbn.tasks.files import PUBLISHED_WEIGHTS, data_root
from mcbn.tasks.networks import convnet, load_resnet20, mlp
from mcbn.tasks.task import Task
from mcbn.tasks.training import build, train

WEIGHTS = "weights.safetensors"

NOTHING_KNOWN = Provenance()

# Random streams and thread counts belong to the process, so it runs one job at a time.
_process_lock = threading.Lock()


def work(
    folder: str, job: Network | Cell, known: Provenance = NOTHING_KNOWN, root: str = ""
) -> Outcome:
    """Run a job of the study in `folder`, unless it is finished; commit its result or its error.

    Args:
        folder: of the study.
        job: the network to train, or the cell to score.
        known: what the finished results were made from; a job that would be made from something
            else fails.
        root: folder that the user's files are named from; by default the working folder.

    Raises:
        OSError: the result cannot be written.
    """
    store = Store(Path(folder))
    kind: Kind = "networks" if isinstance(job, Network) else "cells"
    if store.has(kind, job.key):
        return Outcome("", 0.0, {})
    threads = (job if isinstance(job, Network) else job.network).threads
    with _process_lock, store.mark_running(job.key), _threads(threads), working_in(root):
        start = time.perf_counter()
        try:
            task = load_task(job)
            provenance = provenance_of(job, task)
            require_same(known, provenance, folder)
            result = _train(job, task) if isinstance(job, Network) else _score(store, job, task)
        except Exception as error:  # any error fails this job only
            reason = f"{type(error).__name__}: {error}"
            commit_failure(store, job, reason, traceback.format_exc())
            return Outcome(reason, time.perf_counter() - start, {})
        seconds = time.perf_counter() - start
        cost = as_json({**result.seconds, "total": seconds})
        record = make_record(job, provenance)
        store.commit(kind, job.key, {**result.files, COST: cost, CONFIGURATION: record})
        return Outcome("", seconds, result.scores, provenance)


def provenance_of(job: Network | Cell, task: Task) -> Provenance:
    """What a job is made from: the files of its data, and the network of a user's own.

    Raises:
        TypeError: the function returns no network.
    """
    network = job if isinstance(job, Network) else job.network
    networks = {}
    if network.own:
        networks[f"{network.architecture} on {network.data}"] = fingerprint(
            network.architecture, task.input_shape
        )
    return Provenance(data_digests(job), networks)


def own_fingerprint(name: str, input_shape: tuple[int, ...]) -> Fingerprint | str:
    """The fingerprint of a user's network, or the error of building it, in this process."""
    with _process_lock:
        try:
            return fingerprint(name, input_shape)
        except Exception as error:  # any error of the user's code
            return f"{type(error).__name__}: {error}"


def describe_own(names: Mapping[str, str], root: str) -> Given | str:
    """What a user's functions give to a study, or the error of calling them, in this process."""
    with _process_lock, working_in(root):
        try:
            return describe(*(names.get(role, "") for role in ("task", "model", "fit")))
        except Exception as error:  # any error of the user's code
            notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
            return f"{type(error).__name__}: {error}{notes}"


@dataclass(frozen=True)
class _Result:
    files: Mapping[str, bytes]
    seconds: Mapping[str, float]
    scores: Mapping[str, float]


def _train(network: Network, task: Task) -> _Result:
    start = time.perf_counter()
    seed = derived_seed(network.seed, "member", network.member)
    model = build(partial(untrained, network, task), seed=seed)
    if network.fit:
        model = fit_own(network, model, task, seed)
    else:
        train(
            model,
            task.train,
            epochs=network.epochs,
            batch_size=network.batch_size,
            learning_rate=network.learning_rate,
            weight_decay=network.weight_decay,
            seed=seed,
            loss="mse" if task.regression else "cross_entropy",
        )
    # Cloned, since safetensors refuses tensors that share memory.
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    cost = {"train": time.perf_counter() - start}
    return _Result({WEIGHTS: save(weights)}, cost, {})


def _score(store: Store, cell: Cell, task: Task) -> _Result:
    here = given_here(cell.network)
    if here is not None:
        networks = [here.model]
    else:
        networks = [load_trained(store, network, task) for network in cell.networks]
    start = time.perf_counter()
    own = {} if here is None else here.samplers
    sampler = own[cell.method] if cell.method in own else make_sampler(cell, networks, task)
    cost = {"collect": time.perf_counter() - start}
    measured = measure(sampler, task, None if here is None else here.likelihood)
    cost["predict"] = measured.seconds
    scores = {name: value if math.isfinite(value) else None
              for name, value in measured.scores.items()}  # fmt: skip
    return _Result({RESULT: as_json(scores)}, cost, measured.scores)


def load_trained(store: Store, network: Network, task: Task) -> Module:
    """The trained network of a configuration, in eval mode.

    Raises:
        ValueError: its file is missing, damaged, or has the weights of another network.
    """
    if network.published:
        return load_published()
    path = store.path("networks", network.key, WEIGHTS)
    model = build(partial(untrained, network, task), seed=0)
    try:
        model.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
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


def untrained(network: Network, task: Task) -> Module:
    """Build the network of a configuration, with weights from the global random stream."""
    if network.architecture not in get_args(Architecture):
        return build_own(network.architecture)
    shape, outputs = task.input_shape, task.output_count
    if network.architecture == "mlp":
        model = mlp(math.prod(shape), outputs, width=network.width, depth=network.depth,
                    dropout=network.dropout)  # fmt: skip
        return Sequential(Flatten(), model)
    return convnet(shape[0], outputs, width=network.width, dropout=network.dropout)


def load_published() -> Module:
    """The published ResNet20 with its weights from the data root."""
    return load_resnet20(data_root() / PUBLISHED_WEIGHTS)
