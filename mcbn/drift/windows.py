"""Mini-batches of new data, and their statistics in every layer."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mcbn import validation
from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.bank.full_batches import Size
from mcbn.bank.minibatches import MiniBatches
from mcbn.network.collation import collated
from mcbn.network.inputs import Select, as_rows
from mcbn.network.isolation import derived_seed, own_warnings


def windows(data: Any, batch_size: int | None, bank: Bank, *, seed: int) -> Iterable[Any]:
    """Mini-batches of new data: as they are given, or cut from examples without a rest.

    Examples are cut in an order that `seed` shuffles, so that no example is in two of them, and an
    order of the file, as by class, is none of the mini-batches.

    Raises:
        ValueError: there are not enough examples for one, or M of the bank is no whole number and
            none is given; or one is given for mini-batches as they are.

    Warns:
        UserWarning: mini-batches share too many examples.
    """
    rows = as_rows(data)
    if isinstance(rows, Tensor) and rows.ndim > 0:
        rows = TensorDataset(rows)
    if not isinstance(rows, Dataset) or isinstance(rows, (MiniBatches, IterableDataset)):
        if isinstance(data, MiniBatches) and data.draws * data.batch_size > data.population:
            validation.warn(
                f"{data.draws} mini-batches of {data.batch_size} share the {data.population} "
                "examples that they are drawn from, so they are all off by what these are; give "
                "the data set itself, which is cut into mini-batches that share none"
            )
        if batch_size is not None:
            raise ValueError(
                f"expected batch_size= for examples to cut only, got {batch_size} for mini-batches "
                "that are made already; leave it out, or give a data set"
            )
        return data  # type: ignore[no-any-return]
    size = bank.size if batch_size is None else batch_size
    if size != int(size):
        raise ValueError(
            f"expected a whole number of examples in a mini-batch, got the {size:g} of a bank that "
            "was rescaled; give batch_size="
        )
    examples = len(rows)  # type: ignore[arg-type]
    if examples < size:
        raise ValueError(
            f"expected at least the {size:g} examples of one mini-batch, got {examples}; "
            f"wait for more, or give batch_size= of at most {examples}"
        )
    return DataLoader(
        rows, batch_size=int(size), shuffle=True, drop_last=True, collate_fn=collated,
        generator=torch.Generator().manual_seed(derived_seed(seed)),
    )  # fmt: skip


def batch_draws(
    model: Module,
    batches: Iterable[Any],
    *,
    select: Select | None,
    size: Size | None,
    seed: int = 0,
    progress: bool = False,
) -> Bank:
    """The statistics of each mini-batch, as `collect` draws them."""
    with own_warnings():
        # Of the network the bank has told; that new data differ from training is the question.
        warnings.simplefilter("ignore", InconsistentBankWarning)
        return collect(
            model, batches, select=select, size=size, limit=None, seed=seed, progress=progress
        )


def require_size(batch_size: int | None) -> None:
    """Check that a batch size is one, if there is one.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is below 1.
    """
    if batch_size is not None and validation.integer(batch_size, "batch_size") < 1:
        raise ValueError(
            f"expected batch_size of at least 1, got {batch_size}; leave it out for that of the "
            "bank"
        )
