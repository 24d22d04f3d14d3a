"""What the names in a study stand for: data sets, networks to train, samplers."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import Flatten, Module, Sequential

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.bank.minibatches import minibatches
from mcbn.bank.posteriors import FactorisedPosterior, JointPosterior
from mcbn.network.checkpoints import named_builder
from mcbn.network.isolation import own_warnings
from mcbn.predictive.predict import Sampler
from mcbn.samplers.samplers import DeepEnsemble, Deterministic, MCBatchNorm, MCDropout
from mcbn.study.cell import Cell, Network
from mcbn.study.names import is_regression
from mcbn.tasks.datasets import Task, cifar10, data_root, digits, mnist
from mcbn.tasks.networks import convnet, load_resnet20, mlp
from mcbn.tasks.tabular import uci

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
    return named_builder(network.architecture)()


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
        return FactorisedPosterior.from_bank(bank).sample(cell.draws, seed=cell.network.seed)
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
