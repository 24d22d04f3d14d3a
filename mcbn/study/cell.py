"""The cells of a study and the networks they need, each identified by a digest of its fields."""

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, get_args

from mcbn.io.plain import matches_type, to_json
from mcbn.study.given import TRAINED
from mcbn.study.names import PUBLISHED, Architecture

# Increase it when equal configurations give new numbers, so that old results are not reused.
DATA_VERSION = 1


@dataclass(frozen=True)
class Network:
    """A network to train: everything that its weights depend on.

    Attributes:
        data: name of the data set, or the function that returns the user's own task.
        split: index of its training-test split.
        train_size: N, training examples used; all if None.
        architecture: name of the network, or the module:function that builds it.
        width: units or channels of a layer.
        depth: hidden layers of a dense network.
        dropout: rate of its dropout layers.
        batch_size: mini-batch size of training.
        epochs: passes over the training examples.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay.
        seed: seed of the weights, the order of the examples and the dropout masks.
        member: index in an ensemble, whose networks differ in their seeds only.
        threads: threads of the computation, on which the last bits depend.
        fit: function of the user's that trains it, or "trained" if it is given with its weights;
            empty for the training of this package.
        made_of: digest of the user's code and data that it is made of; empty without any.
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
    fit: str = ""
    made_of: str = ""

    @property
    def key(self) -> str:
        """A digest of the fields and of `DATA_VERSION`."""
        return _digest("network", as_fields(self))

    @property
    def published(self) -> bool:
        """Whether its published weights are loaded."""
        return self.architecture == PUBLISHED

    @property
    def trained(self) -> bool:
        """Whether its weights are there, so that the study does not train it."""
        return self.published or self.fit == TRAINED

    @property
    def own(self) -> bool:
        """Whether a function of the user's builds it."""
        return self.architecture not in get_args(Architecture) and self.fit != TRAINED

    @property
    def family(self) -> "Network":
        """The network that stands for all ensemble members and dropout rates of one shard."""
        return replace(self, member=0, dropout=0.0)

    def __str__(self) -> str:
        return (
            f"{self.architecture} on {self.data}, trained at {self.batch_size}, seed {self.seed}"
            + (f", member {self.member}" if self.member else "")
        )


@dataclass(frozen=True)
class Cell:
    """One method on one trained network: everything that its scores depend on.

    Attributes:
        network: the trained network; the first member of an ensemble.
        method: uncertainty method, or the name of a sampler that is given.
        batch_size: M at inference; None for methods without one.
        bank_batch_size: M of the mini-batches that the bank is collected from; None without a bank.
        draws: T; the number of networks of an ensemble.
        test_size: test examples used, evenly spaced; all if None.
        outside: names of the out-of-distribution sets.
        outside_size: examples used of each out-of-distribution set, evenly spaced; all if None.
    """

    network: Network
    method: str
    batch_size: int | None
    bank_batch_size: int | None
    draws: int
    test_size: int | None
    outside: tuple[str, ...]
    outside_size: int | None

    @property
    def key(self) -> str:
        """A digest of the fields and of `DATA_VERSION`."""
        return _digest("cell", as_fields(self))

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that the method needs."""
        count = self.draws if self.method == "Deep ensemble" else 1
        return tuple(replace(self.network, member=member) for member in range(count))

    @property
    def chosen_draws(self) -> int | None:
        """T, or None for methods whose number of draws is not an axis of the plan."""
        single = self.method in ("Deterministic", "Population BN", "Deep ensemble")
        return None if single else self.draws

    @property
    def label(self) -> str:
        """The method's name, with the dropout rate for MC Dropout."""
        if self.method == "MC Dropout" and self.network.dropout > 0:
            return f"MC Dropout, p = {self.network.dropout:g}"
        return self.method

    def __str__(self) -> str:
        size = "" if self.batch_size is None else f" M = {self.batch_size}"
        return f"{self.label}{size}, T = {self.draws}: {self.network}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cell":
        """Make a cell from the values of `asdict`, which may have been through JSON.

        Raises:
            ValueError: fields are missing, unknown or of the wrong type.
        """
        try:
            network = _from_fields(Network, values["network"])
            outside = tuple(values["outside"])
            cell: Cell = _from_fields(cls, {**values, "network": network, "outside": outside})
            return cell
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"expected the fields of a cell, got damaged values ({error!s:.80}); "
                "run its study again"
            ) from error


def as_fields(job: Network | Cell) -> dict[str, Any]:
    """The fields of a configuration; without those on a user's own code where there is none.

    So the keys of studies without it are those of earlier versions.
    """
    values = asdict(job)
    network = values if isinstance(job, Network) else values["network"]
    for name in ("fit", "made_of"):
        if not network[name]:
            del network[name]
    return values


def _from_fields(kind: Any, values: Mapping[str, Any]) -> Any:
    names = {field.name for field in fields(kind)}
    optional = {field.name for field in fields(kind) if field.default is not MISSING}
    if not names - optional <= set(values) <= names:
        raise ValueError(
            f"expected the fields {sorted(names)}, got {sorted(values)!s:.400}; use the version of "
            "mcbn that wrote them"
        )
    for field in (field for field in fields(kind) if field.name in values):
        value = values[field.name]
        if not (isinstance(value, Network) or matches_type(value, field.type)):
            raise ValueError(
                f"expected {field.name} of type {field.type}, got {value!r:.80}; the file is "
                "damaged, so run its study again"
            )
    return kind(**values)


def _digest(kind: str, values: Mapping[str, Any]) -> str:
    keyed = {"kind": kind, "version": DATA_VERSION, **values}
    text = to_json(keyed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
