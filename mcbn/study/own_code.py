"""A user's own code in the process that runs a job: a task, a network and its training."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch.nn import Module

from mcbn.bank.bank import Bank
from mcbn.io.plain import to_json
from mcbn.network.batchnorm import unwrapped
from mcbn.network.builders import call_own, own_function
from mcbn.network.isolation import random_streams
from mcbn.network.sources import source_digests
from mcbn.samplers.sampler import Sampler
from mcbn.study.cell import Network
from mcbn.study.fingerprints import build_own
from mcbn.study.given import Given, accepted
from mcbn.study.measurement import ClassLikelihood
from mcbn.tasks.digests import digest_of
from mcbn.tasks.task import Task

SEEDS = 2**32  # of NumPy, to which a user may pass the seed on


@dataclass(frozen=True, eq=False)
class Here:
    """What is given to this process itself, rather than by name.

    Attributes:
        task: its data.
        model: its trained network.
        samplers: further methods by name.
        banks: collected already, by batch size, draws and limit.
        likelihood: of the task, where it is not the usual one.
    """

    task: Task
    model: Module
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    banks: dict[tuple[int, int, int | None], Bank] = field(default_factory=dict)
    likelihood: ClassLikelihood | None = None


_here: dict[str, Here] = {}


@contextmanager
def held_here(digest: str, here: Here) -> Iterator[None]:
    """Let the jobs of this digest find a task, a network and samplers in this process."""
    _here[digest] = here
    try:
        yield
    finally:
        del _here[digest]


def given_here(network: Network) -> Here | None:
    """What the digest of a network stands for in this process."""
    return _here.get(network.made_of)


@contextmanager
def working_in(root: str) -> Iterator[None]:
    """Work in the folder that the user's files are named from, where it is another."""
    before = os.getcwd()
    if not root or root == before or not os.path.isdir(root):
        yield
        return
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(before)


def describe(task: str, model: str, fit: str, *, progress: bool = False) -> Given:
    """Import a user's functions, and say what they give, with a digest of all they depend on.

    Args:
        task: reference of the function that returns the task; empty for a built-in data set.
        model: reference of the function that builds the network; empty for a built-in one.
        fit: reference of the function that trains it; empty for the built-in training.
        progress: show a bar while examples are loaded.

    Raises:
        TypeError: the function returns no task, or the data hold what has no digest.
    """
    data = load_own_task(task) if task else None
    digest = _digest(data, (task, model, fit), progress=progress)
    if data is None:
        return Given(fit=fit, digest=digest)
    outside, several = tuple(data.outside), data.multilabel
    return Given(task, fit, digest, data.regression, outside, multilabel=several)


def _digest(data: Task | None, names: tuple[str, str, str], *, progress: bool = False) -> str:
    """A digest of the sources of a user's functions, and of the examples of the task."""
    _, model, fit = names
    if model:
        with random_streams(0, "describe"):
            build_own(model)  # loads what it imports
    if fit:
        with own_function(fit):  # which loads what it imports
            pass
    sources = {name: source_digests(name) for name in names if name}
    examples = None if data is None else digest_of(data, progress=progress)
    text = to_json({"sources": sources, "data": examples}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_own_task(name: str) -> Task:
    """The task that a user's function returns.

    Raises:
        TypeError: it returns something else.
    """
    with random_streams(0, "task"):
        task = call_own(name)
    if not isinstance(task, Task):
        raise TypeError(
            f"expected {name} to return an mcbn.Task, got {type(task).__name__}; return "
            "mcbn.Task(train=..., validation=..., test=...)"
        )
    return task


def given_task(network: Network) -> Task | None:
    """The user's task of a network; None if its data set is a built-in one.

    Raises:
        ValueError: its code or data are no longer what the results of the study are made from.
    """
    here = given_here(network)
    if here is not None:
        return here.task
    if not network.made_of:
        return None
    task = network.data if ":" in network.data else ""
    model = network.architecture if network.own else ""
    return _checked_task((task, model, network.fit), network.made_of)


@lru_cache(maxsize=1)
def _checked_task(names: tuple[str, str, str], made_of: str) -> Task | None:
    """The task of these functions, which are held to what the study is made of, once a process."""
    data = load_own_task(names[0]) if names[0] else None
    if _digest(data, names) != made_of:
        raise ValueError(
            f"expected {' and '.join(filter(None, names))}, and the data, as they were when the "
            "run began, got others; run the study again, which keeps what was made from them apart"
        )
    return data


def fit_own(network: Network, model: Module, task: Task, seed: int) -> Module:
    """Train a network by the user's function, in any way; return it in eval mode.

    The function is called as `fit(model, task, batch_size=..., seed=...)`, with `epochs`,
    `learning_rate` and `weight_decay` as well if it takes them. It trains the network in place or
    returns it.

    Raises:
        TypeError: it returns something else.
        ValueError: weights are not finite, or are those of another network.
    """
    offered = {
        "epochs": network.epochs,
        "learning_rate": network.learning_rate,
        "weight_decay": network.weight_decay,
    }
    names = set(model.state_dict())
    with random_streams(seed, "training"), own_function(network.fit) as function:
        every = {"batch_size": network.batch_size, "seed": seed % SEEDS, **offered}
        returned = function(model, task, **accepted(function, every))
    trained = model if returned is None else returned
    if not isinstance(trained, Module):
        raise TypeError(
            f"expected {network.fit} to return the network or nothing, got "
            f"{type(trained).__name__}; return the network"
        )
    trained = unwrapped(trained)
    state = trained.state_dict()
    if set(state) != names:
        raise ValueError(
            f"expected {network.fit} to return the network that it was given, got one with other "
            "weights; train that one in place"
        )
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        raise ValueError(
            f"expected finite weights from {network.fit}, got NaN or infinity; lower its learning "
            "rate"
        )
    return trained.eval()
