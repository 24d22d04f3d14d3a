"""The jobs of a study: train a network or score a cell, and commit the result.

A result depends on the configuration of its job only, so any process on any machine may run it, at
any time and more than once.
"""

import math
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import Flatten, Module, Sequential
from torch.utils.data import default_collate

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.bank.minibatches import MiniBatches, minibatches
from mcbn.bank.posteriors import FactorizedPosterior, JointPosterior
from mcbn.evaluation.evaluate import evaluate, out_of_distribution
from mcbn.network.isolation import derived_seed, own_warnings
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, fit_precision
from mcbn.predictive.labelled import labelled_positions
from mcbn.predictive.predict import predict
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.sampler import Sampler
from mcbn.study.cell import Cell, Network
from mcbn.study.fingerprints import build_own, fingerprint
from mcbn.study.given import Given
from mcbn.study.names import Architecture
from mcbn.study.own_code import describe, fit_own, given_here, given_task, working_in
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
from mcbn.tasks.datasets import Task, cifar10, digits, mnist, uci
from mcbn.tasks.examples import count_of, rows_of
from mcbn.tasks.files import PUBLISHED_WEIGHTS, data_root, digest
from mcbn.tasks.names import is_regression
from mcbn.tasks.networks import convnet, load_resnet20, mlp
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
    measured = measure(sampler, task)
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


@dataclass(frozen=True)
class Measurement:
    """Scores by name, and the wall time of predicting the test examples."""

    scores: dict[str, float]
    seconds: float


def measure(sampler: Sampler, task: Task) -> Measurement:
    """Predict and score the test examples, and detect the out-of-distribution sets.

    Besides the scores of `evaluate`: `epistemic_sd`, the mean over examples (and classes) of the
    standard deviation over draws of the probability or of the predicted target, and, for classes,
    the mean `mutual_information`; both also for each out-of-distribution set, as
    `mutual_information_NAME`; and `auroc_NAME_by_mutual_information` and `..._by_entropy`. The
    noise of a regression is fitted on the validation examples; its scores are in the original units
    of the targets.
    """
    return _regression(sampler, task) if task.regression else _classification(sampler, task)


def _classification(sampler: Sampler, task: Task) -> Measurement:
    start = time.perf_counter()
    known = predict(sampler, task.test.inputs, progress=False)
    seconds = time.perf_counter() - start
    known, targets = labelled_positions(known, task.test.targets, task.ignore_index)
    evaluation = evaluate(known, targets, resamples=0, progress=False)
    values = {name: score.value for name, score in evaluation.items()}
    values |= _spreads(known, "")
    for name, inputs in task.outside.items():
        outside = predict(sampler, inputs, progress=False)
        values |= _spreads(outside, f"_{name}")
        for kind in ("mutual_information", "entropy"):
            # With a single draw the mutual information is 0 everywhere: an AUROC of 0.5.
            detection = out_of_distribution(known, outside, uncertainty=kind, resamples=0)
            values[f"auroc_{name}_by_{kind}"] = detection["auroc_out_of_distribution"].value
    return Measurement(values, seconds)


def _spreads(predictive: CategoricalPredictive, suffix: str) -> dict[str, float]:
    return {
        f"mutual_information{suffix}": float(predictive.mutual_information.mean()),
        f"epistemic_sd{suffix}": float(predictive.variance.sqrt().mean()),
    }


def _regression(sampler: Sampler, task: Task) -> Measurement:
    held_out = predict(sampler, task.validation.inputs, Gaussian(1.0), progress=False)
    likelihood = fit_precision(held_out, task.validation.targets)
    start = time.perf_counter()
    standardised = predict(sampler, task.test.inputs, likelihood, progress=False)
    seconds = time.perf_counter() - start
    predictive: GaussianPredictive = standardised.in_units(task.target_mean, task.target_scale)
    targets = task.target_mean + task.target_scale * task.test.targets.double()
    evaluation = evaluate(predictive, targets, resamples=0, progress=False)
    values = {name: score.value for name, score in evaluation.items()}
    values["epistemic_sd"] = float(predictive.epistemic_variance.sqrt().mean())
    return Measurement(values, seconds)


# At least so many mini-batches are collected to fit a parametric posterior.
POSTERIOR_BATCHES = 64
# Population statistics are pooled over mini-batches of at most so many examples.
POPULATION_BATCH_SIZE = 4096


def load_task(cell_or_network: Cell | Network) -> Task:
    """The data of a network, or of a cell with its part of the test and OOD examples."""
    if isinstance(cell_or_network, Network):
        network = cell_or_network
        if (task := given_task(network)) is not None:
            return _first_examples(task, network.train_size)
        root = str(data_root().absolute())
        # A file that is edited makes another data set, also within one process.
        content = digest(network.data, root)
        return _cached_task(
            root, content, network.data, network.split, network.train_size, network.published
        )
    cell = cell_or_network
    task = load_task(cell.network)
    if missing := [name for name in cell.outside if name not in task.outside]:
        raise ValueError(
            f"expected the out-of-distribution set {missing[0]!r} of {task.name}, got "
            f"{list(task.outside)} in {data_root().absolute()}; put it there or remove it from "
            "data.outside"
        )
    outside = {}
    for name in cell.outside:
        inputs = task.outside[name]
        outside[name] = rows_of(inputs, _evenly_spaced(count_of(inputs), cell.outside_size))
    return replace(
        task, test=task.test.rows(_evenly_spaced(len(task.test), cell.test_size)), outside=outside
    )


@lru_cache(maxsize=2)
def _cached_task(
    root: str,
    content: str | None,  # noqa: ARG001
    name: str,
    split: int,
    train_size: int | None,
    augment: bool,
) -> Task:
    if is_regression(name):
        task = uci(name, root, split=split, protocol="teye")  # type: ignore[arg-type]
    elif name == "digits":
        task = digits(seed=split)
    elif name == "mnist":
        return mnist(root, seed=split, train_size=train_size)
    else:
        return cifar10(root, seed=split, train_size=train_size, augment=augment)
    return _first_examples(task, train_size)


def _first_examples(task: Task, train_size: int | None) -> Task:
    """The task with its first training examples; all if None."""
    if train_size is None:
        return task
    if train_size > len(task.train):
        raise ValueError(
            f"expected data.train_sizes of at most the {len(task.train)} training examples of "
            f"{task.name}, got {train_size}; null takes all"
        )
    return replace(task, train=task.train.rows(torch.arange(train_size)))


def _evenly_spaced(count: int, size: int | None) -> Tensor:
    """Indices of `size` of `count` examples; the first ones would lack classes in sorted files."""
    return torch.linspace(0, count - 1, min(size or count, count)).round().long()


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


def make_sampler(cell: Cell, networks: Sequence[Module], task: Task) -> Sampler:
    """Make the sampler of a cell's method from its trained networks."""
    model, seed = networks[0], cell.network.seed
    if cell.method == "Deterministic":
        return Deterministic(model)
    if cell.method == "MC Dropout":
        return MCDropout(model, draws=cell.draws, seed=seed)
    if cell.method == "Deep ensemble":
        return DeepEnsemble(networks)
    return MCBatchNorm(model, _bank(cell, model, task))


def _bank(cell: Cell, model: Module, task: Task) -> Bank:
    if cell.method == "Population BN":
        return _population_bank(model, cell, task)
    if cell.bank_batch_size is None or cell.batch_size is None:
        raise ValueError(f"expected a batch size for {cell.method}, got none; declare one")
    fitted = cell.method in ("MCBN joint", "Stochastic BN")
    draws = max(cell.draws, POSTERIOR_BATCHES) if fitted else cell.draws
    bank = _collect(model, cell, task, batch_size=cell.bank_batch_size, draws=draws)
    if cell.method == "MCBN rescaled":
        return bank.rescale(batch_size=cell.batch_size, warn=False)
    if cell.method == "MCBN joint":
        return JointPosterior.from_bank(bank).sample(cell.draws, seed=cell.network.seed)
    if cell.method == "Stochastic BN":
        return FactorizedPosterior.from_bank(bank).sample(cell.draws, seed=cell.network.seed)
    return bank


def _population_bank(model: Module, cell: Cell, task: Task) -> Bank:
    """A bank of one draw: statistics of the training set, pooled over a few large mini-batches."""
    count = len(task.train)
    size = min(count, POPULATION_BATCH_SIZE)
    bank = _collect(model, cell, task, batch_size=size, draws=-(-count // size))
    rows = {name: value[None].to(bank.statistics[name]) for name, value in bank.pooled().items()}
    return replace(bank, statistics=rows, batch_size=count)


def _collect(model: Module, cell: Cell, task: Task, *, batch_size: int, draws: int) -> Bank:
    limit = 512 if cell.method == "MCBN rescaled" else None
    here = given_here(cell.network)
    if here is None:
        return collected(model, task, batch_size, draws, cell.network.seed, limit)
    key = batch_size, draws, limit
    if key not in here.banks:
        here.banks[key] = collected(model, task, batch_size, draws, cell.network.seed, limit)
    return here.banks[key]


def collected(
    model: Module, task: Task, batch_size: int, draws: int, seed: int, limit: int | None
) -> Bank:
    """A bank of mini-batches of the training examples."""
    with own_warnings():
        # A study has small sizes and few draws on purpose, for which the check is unreliable.
        warnings.simplefilter("ignore", InconsistentBankWarning)
        batches = training_batches(task, batch_size, draws, seed)
        return collect(model, batches, limit=limit, progress=False)


def training_batches(task: Task, batch_size: int, draws: int, seed: int) -> MiniBatches:
    """Mini-batches of the training examples of a task."""
    return minibatches(
        task.train.dataset(),
        batch_size=batch_size,
        draws=draws,
        seed=seed,
        collate=getattr(task.train, "collate", default_collate),
    )
