"""What a worker does: train a network or score a cell, and commit what came of it.

Each is a pure function of its configuration, so it does not matter which process on which machine
does it, when, or how often.
"""

import math
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import Flatten, Module, Sequential

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.bank.minibatches import minibatches
from mcbn.bank.posteriors import FactorizedPosterior, JointPosterior
from mcbn.evaluation.evaluate import evaluate, out_of_distribution
from mcbn.network.checkpoints import import_builder
from mcbn.network.isolation import derived_seed, own_warnings
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, fit_precision
from mcbn.predictive.predict import predict
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.sampler import Sampler
from mcbn.study.cell import Cell, Network
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
from mcbn.tasks.datasets import Task, cifar10, data_root, digits, mnist, uci
from mcbn.tasks.names import is_regression
from mcbn.tasks.networks import convnet, load_resnet20, mlp
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


@dataclass(frozen=True)
class Measurement:
    """Figures by name, and the wall time of predicting the test examples."""

    scores: dict[str, float]
    seconds: float


def measure(sampler: Sampler, task: Task) -> Measurement:
    """Predict and score the test examples, and tell the outside sets from them.

    Besides the scores of `evaluate`: `epistemic_sd`, the mean over examples (and classes) of the
    standard deviation over draws of the probability or of the predicted target, and, for classes,
    the mean `mutual_information`; both also of each outside set, as `mutual_information_NAME`; and
    `auroc_NAME_by_mutual_information` and `..._by_entropy`. The noise of real targets is fitted on
    the validation examples; scores are in the targets' original units.
    """
    return _regression(sampler, task) if not task.classes else _classification(sampler, task)


def _classification(sampler: Sampler, task: Task) -> Measurement:
    start = time.perf_counter()
    inside = predict(sampler, task.test.inputs, progress=False)
    seconds = time.perf_counter() - start
    evaluation = evaluate(inside, task.test.targets, resamples=0, progress=False)
    found = {name: score.value for name, score in evaluation.items()}
    found |= _spread(inside, "")
    for name, inputs in task.outside.items():
        outside = predict(sampler, inputs, progress=False)
        found |= _spread(outside, f"_{name}")
        for kind in ("mutual_information", "entropy"):
            # One draw has no mutual information: nothing but ties to tell apart by.
            separation = out_of_distribution(inside, outside, uncertainty=kind, resamples=0)
            found[f"auroc_{name}_by_{kind}"] = separation["auroc_out_of_distribution"].value
    return Measurement(found, seconds)


def _spread(predictive: CategoricalPredictive, place: str) -> dict[str, float]:
    return {
        f"mutual_information{place}": float(predictive.mutual_information.mean()),
        f"epistemic_sd{place}": float(predictive.variance.sqrt().mean()),
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
    found = {name: score.value for name, score in evaluation.items()}
    found["epistemic_sd"] = float(predictive.epistemic_variance.sqrt().mean())
    return Measurement(found, seconds)


PUBLISHED_WEIGHTS = "cifar10_resnet_weights/resnet20-12fca82f.th"
# Mini-batches that a parametric posterior is fitted on, whatever the number of its draws.
FITTED_ON = 64
# Examples in one pass for population statistics; they differ from those of N by about 1 / this.
POPULATION_CHUNK = 4096


def load_task(cell_or_network: Cell | Network) -> Task:
    """The data of a network, or of a cell with its test and outside sets thinned."""
    if isinstance(cell_or_network, Network):
        network = cell_or_network
        return _task(network.data, network.split, network.train_size)
    cell = cell_or_network
    task = load_task(cell.network)
    if missing := [name for name in cell.outside if name not in task.outside]:
        raise ValueError(
            f"expected the outside set {missing[0]!r} beside {task.name}, got {list(task.outside)} "
            f"under {data_root().absolute()}; put it there or take it out of data.outside"
        )
    outside = {
        name: task.outside[name][_spaced(len(task.outside[name]), cell.outside_size)]
        for name in cell.outside
    }
    return replace(
        task, test=task.test.rows(_spaced(len(task.test), cell.test_size)), outside=outside
    )


@lru_cache(maxsize=2)
def _task(name: str, split: int, train_size: int | None) -> Task:
    if is_regression(name):
        task = uci(name, split=split, protocol="teye")  # type: ignore[arg-type]
    elif name == "digits":
        task = digits(seed=split)
    else:
        return {"mnist": mnist, "cifar10": cifar10}[name](seed=split, train_size=train_size)
    if train_size is None:
        return task
    if train_size > len(task.train):
        raise ValueError(
            f"expected data.train_sizes of at most the {len(task.train)} training examples of "
            f"{name}, got {train_size}; null takes all"
        )
    return replace(task, train=task.train.rows(torch.arange(train_size)))


def _spaced(count: int, wanted: int | None) -> Tensor:
    """Indices evenly spaced, since some files are sorted by class."""
    return torch.linspace(0, count - 1, min(wanted or count, count)).round().long()


def untrained(network: Network, task: Task) -> Module:
    """The network of a configuration, to be built under its seed."""
    shape = task.train.inputs.shape[1:]
    outputs = len(task.classes) or task.train.targets.shape[1]
    if network.architecture == "mlp":
        dense = mlp(shape.numel(), outputs, width=network.width, depth=network.depth,
                    dropout=network.dropout)  # fmt: skip
        return Sequential(Flatten(), dense)
    if network.architecture == "convnet":
        return convnet(shape[0], outputs, width=network.width, dropout=network.dropout)
    return import_builder(network.architecture)()


def load_published() -> Module:
    """The published ResNet20, from the data root."""
    return load_resnet20(data_root() / PUBLISHED_WEIGHTS)


def make_sampler(cell: Cell, networks: Sequence[Module], task: Task) -> Sampler:
    """The sampler of a cell's method on its trained networks."""
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
        return _population(model, cell, task)
    if cell.bank_batch_size is None or cell.batch_size is None:
        raise ValueError(f"expected a batch size of {cell.method}, got none; declare one")
    fitted = cell.method in ("MCBN joint", "Stochastic BN")
    draws = max(cell.draws, FITTED_ON) if fitted else cell.draws
    bank = _collected(model, cell, task, batch_size=cell.bank_batch_size, draws=draws)
    if cell.method == "MCBN rescaled":
        return bank.rescale(batch_size=cell.batch_size)
    if cell.method == "MCBN joint":
        return JointPosterior.from_bank(bank).sample(cell.draws, seed=cell.network.seed)
    if cell.method == "Stochastic BN":
        return FactorizedPosterior.from_bank(bank).sample(cell.draws, seed=cell.network.seed)
    return bank


def _population(model: Module, cell: Cell, task: Task) -> Bank:
    """One draw: the statistics of the training set, pooled over a few large mini-batches."""
    count = len(task.train)
    size = min(count, POPULATION_CHUNK)
    bank = _collected(model, cell, task, batch_size=size, draws=-(-count // size))
    rows = {name: value[None].to(bank.statistics[name]) for name, value in bank.pooled().items()}
    return replace(bank, statistics=rows, batch_size=count)


def _collected(model: Module, cell: Cell, task: Task, *, batch_size: int, draws: int) -> Bank:
    augmented = task.augmented if cell.network.published else None
    examples = augmented if augmented is not None else task.train.dataset()
    batches = minibatches(examples, batch_size=batch_size, draws=draws, seed=cell.network.seed)
    with own_warnings():
        # A study goes to sizes and draws on purpose where the check has little to say.
        warnings.simplefilter("ignore", InconsistentBankWarning)
        return collect(model, batches, progress=False)
