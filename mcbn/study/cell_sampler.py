"""The sampler of a cell: its method, on trained networks, with the bank that it needs."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch.nn import Module
from torch.utils.data import default_collate

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.bank.minibatches import MiniBatches, minibatches
from mcbn.bank.posteriors import FactorizedPosterior, JointPosterior
from mcbn.network.isolation import own_warnings
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.sampler import Sampler
from mcbn.study.cell import Cell
from mcbn.study.own_code import given_here
from mcbn.tasks.task import Task

# At least so many mini-batches are collected to fit a parametric posterior.
POSTERIOR_BATCHES = 64
# Population statistics are pooled over mini-batches of at most so many examples.
POPULATION_BATCH_SIZE = 4096
# Examples that tell a bank what larger batches come to.
LARGER_BATCH = 512


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
    limit = LARGER_BATCH if cell.method == "MCBN rescaled" else None
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
