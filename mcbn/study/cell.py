"""Cells of a study and the networks they need: plain values, each with a key of its content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mcbn.io.plain import matches_type
from mcbn.study.names import PUBLISHED, Method

# Raise it when the same configuration would give other figures: old results are then not reused.
DATA_VERSION = 1


@dataclass(frozen=True)
class Network:
    """A network to train, by everything that its weights depend on.

    Attributes:
        data: name of the data set.
        split: which of its splits.
        train_size: N, training examples used; all if None.
        architecture: name of the network, or the module:function that builds it.
        width: units or channels of a layer.
        depth: hidden layers of a dense network.
        dropout: rate of its dropout layers.
        batch_size: mini-batch size of training.
        epochs: passes over the training examples.
        learning_rate: its largest value.
        weight_decay: decoupled.
        seed: of the weights, the order of the examples and the masks.
        member: place in an ensemble of networks that differ in their randomness alone.
        threads: of the arithmetic, which decide about the last bits.
    """

    data: str
    split: int
    train_size: int | None
    architecture: str
    width: int
    depth: int
    dropout: float
    batch_size: int
    epochs: int
    learning_rate: float
    weight_decay: float
    seed: int
    member: int
    threads: int

    @property
    def key(self) -> str:
        """A digest of the configuration and of the version of the code's data."""
        return _digest("network", asdict(self))

    @property
    def published(self) -> bool:
        """Whether it is loaded as others trained it, so that there is nothing to train."""
        return self.architecture == PUBLISHED

    @property
    def family(self) -> "Network":
        """What is trained and scored in one place: ensemble members and dropout rates together."""
        return replace(self, member=0, dropout=0.0)

    def __str__(self) -> str:
        return (
            f"{self.architecture} on {self.data}, trained at {self.batch_size}, seed {self.seed}"
            + (f", member {self.member}" if self.member else "")
        )


@dataclass(frozen=True)
class Cell:
    """One method on one trained network, by everything that its scores depend on.

    Attributes:
        network: the trained network; of an ensemble, its first member.
        method: how it is made stochastic.
        batch_size: M at inference, where the method has one.
        bank_batch_size: M of the mini-batches that are really drawn, where the method draws any.
        draws: T; the number of networks of an ensemble.
        test_size: test examples used, evenly spaced; all if None.
        outside: names of the out-of-distribution sets.
        outside_size: examples of each of them used, evenly spaced; all if None.
    """

    network: Network
    method: Method
    batch_size: int | None
    bank_batch_size: int | None
    draws: int
    test_size: int | None
    outside: tuple[str, ...]
    outside_size: int | None

    @property
    def key(self) -> str:
        """A digest of the configuration and of the version of the code's data."""
        return _digest("cell", asdict(self))

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network that the method needs."""
        count = self.draws if self.method == "Deep ensemble" else 1
        return tuple(replace(self.network, member=member) for member in range(count))

    @property
    def chosen_draws(self) -> int | None:
        """T where it is a choice: not of a single pass, nor of an ensemble."""
        single = self.method in ("Deterministic", "Population BN", "Deep ensemble")
        return None if single else self.draws

    @property
    def label(self) -> str:
        """The method, with the dropout rate where that is a part of it."""
        if self.method == "MC Dropout":
            return f"MC Dropout, p = {self.network.dropout:g}"
        return self.method

    def __str__(self) -> str:
        size = "" if self.batch_size is None else f" M = {self.batch_size}"
        return f"{self.label}{size}, T = {self.draws}: {self.network}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cell":
        """The cell that `asdict` made `values` of, also after JSON.

        Raises:
            ValueError: fields are missing or unknown.
        """
        try:
            network = _made(Network, values["network"])
            outside = tuple(values["outside"])
            made: Cell = _made(cls, {**values, "network": network, "outside": outside})
            return made
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected the fields of a cell, got {error!s:.80} amiss") from error


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    names = {field.name for field in fields(kind)}
    if set(values) != names:
        raise ValueError(
            f"expected the fields {sorted(names)}, got {sorted(values)!s:.400}; it is of another "
            "version"
        )
    for field in fields(kind):
        value = values[field.name]
        if not (isinstance(value, Network) or matches_type(value, field.type)):
            raise ValueError(
                f"expected the fields of a cell, got {field.name} {value!r:.80}; it is damaged"
            )
    return kind(**values)


def canonical(values: Mapping[str, Any]) -> str:
    """The one JSON text of these values, whatever order they came in."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(kind: str, values: Mapping[str, Any]) -> str:
    text = canonical({"kind": kind, "version": DATA_VERSION, **values})
    return hashlib.sha256(text.encode()).hexdigest()[:32]
