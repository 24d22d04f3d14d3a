"""The data of a cell: a task of the package or of the user's, cut to what the cell uses."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from mcbn.study.cell import Cell, Network
from mcbn.study.own_code import given_task
from mcbn.tasks.datasets import cifar10, digits, mnist, uci
from mcbn.tasks.examples import count_of, rows_of
from mcbn.tasks.files import data_root, digest
from mcbn.tasks.names import is_regression
from mcbn.tasks.task import Task


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
