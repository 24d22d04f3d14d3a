"""The plan of a study: the axes of its grid, and the cells they make."""

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import product
from typing import Any, get_args, get_origin

from mcbn.evaluation.glossary import ScoreName
from mcbn.io.display import Display, Displayed
from mcbn.io.plain import matches_type
from mcbn.study.cell import Cell, Network
from mcbn.study.given import TRAINED, Given
from mcbn.study.names import (
    CLASSIFICATION_SCORES,
    LABEL_SCORES,
    OVER_BATCH_SIZES,
    PUBLISHED,
    PUBLISHED_BATCH_SIZE,
    REGRESSION_SCORES,
    Architecture,
    Method,
)
from mcbn.tasks.names import OUTSIDE, DataName, is_regression

DATA_NAMES: tuple[str, ...] = get_args(DataName)
# A file of a few lines may declare more cells than fit into memory.
MAX_CELLS, MAX_MEMBERS = 100_000, 1_000
LAST_SPLIT = 4  # the UCI sets have five 80/20 splits


def _settle(axes: Any, section: str = "") -> None:
    """Take lists and ranges as tuples, and check the types of all values."""
    for each in fields(axes):
        value = getattr(axes, each.name)
        if isinstance(value, (list, range)):
            value = tuple(value)
            object.__setattr__(axes, each.name, value)
        if matches_type(value, each.type):
            continue
        # A tuple has the name "tuple", and says more as a text.
        kind = str(each.type) if get_args(each.type) else getattr(each.type, "__name__", "")
        alone = get_origin(each.type) is tuple and matches_type((value,), each.type)
        raise ValueError(
            f"expected {section}{each.name} of type {kind.replace('typing.', ''):.300}, got "
            f"{value!r:.80}; give {(value,) if alone else 'one of that type'}"
        )


@dataclass(frozen=True)
class DataAxes:
    """The data sets of a study.

    Attributes:
        names: digits, mnist, cifar10 or UCI sets, an axis; or the name of the user's own task.
        splits: indices of the training-test splits of each data set, an axis.
        train_sizes: N, training examples used, an axis; null for all.
        test_size: test examples used, evenly spaced; null for all.
        outside: out-of-distribution sets for every data set.
        outside_size: examples used of each out-of-distribution set, evenly spaced; null for all.
    """

    names: tuple[str, ...] = ("digits",)
    splits: tuple[int, ...] = (0,)
    train_sizes: tuple[int | None, ...] = (None,)
    test_size: int | None = None
    outside: tuple[str, ...] = ()
    outside_size: int | None = None

    def __post_init__(self) -> None:
        _settle(self, "data.")


@dataclass(frozen=True)
class NetworkAxes:
    """The networks of a study.

    Attributes:
        names: mlp, convnet, or resnet20 (its published weights are loaded), an axis.
        width: units or channels of a layer.
        depth: hidden layers of an mlp.
        dropout: dropout rate of the networks of all methods but MC Dropout.
    """

    names: tuple[str, ...] = ("convnet",)
    width: int = 16
    depth: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _settle(self, "network.")


@dataclass(frozen=True)
class TrainingAxes:
    """How the networks of a study are trained.

    Attributes:
        batch_sizes: mini-batch sizes of training, an axis.
        epochs: passes over the training examples.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay.
    """

    batch_sizes: tuple[int, ...] = (32, 64, 256)
    epochs: int = 15
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        _settle(self, "training.")


@dataclass(frozen=True)
class InferenceAxes:
    """How the methods of a study predict.

    Attributes:
        batch_sizes: M, mini-batch sizes at inference, an axis.
        draws: T, an axis.
        bank_batch_size: M of the bank that MCBN rescaled starts from; null for that of training.
        dropout_rates: rates of MC Dropout, an axis; a network is trained with each.
        members: networks of a deep ensemble.
    """

    batch_sizes: tuple[int, ...] = (4, 16, 64, 256)
    draws: tuple[int, ...] = (32,)
    bank_batch_size: int | None = None
    dropout_rates: tuple[float, ...] = (0.1,)
    members: int = 3

    def __post_init__(self) -> None:
        _settle(self, "inference.")


@dataclass(frozen=True, repr=False)
class Plan(Displayed):
    """The plan of a batch-size study: every combination of its axes is a cell.

    Attributes:
        title: title of the report.
        data: the data sets.
        network: the networks.
        training: how the networks are trained.
        inference: how the methods predict.
        methods: uncertainty methods, an axis.
        seeds: seeds of training, mini-batches and dropout masks, an axis.
        scores: scores that the table and the report show, of those that are computed; empty for
            the usual ones.
        threads: threads of the computation of one cell. The last bits depend on them, so they are
            part of the plan and results do not depend on how many cells run at once.
        given: code and data of the user's, which `run_study` and `sweep` fill in.

    Raises:
        ValueError: a value is out of range, or axes are incompatible.
    """

    title: str = "Batch-size study"
    data: DataAxes = field(default_factory=DataAxes)
    network: NetworkAxes = field(default_factory=NetworkAxes)
    training: TrainingAxes = field(default_factory=TrainingAxes)
    inference: InferenceAxes = field(default_factory=InferenceAxes)
    methods: tuple[Method, ...] = ("Deterministic", "MCBN", "MC Dropout", "Deep ensemble")
    seeds: tuple[int, ...] = (0, 1, 2)
    scores: tuple[ScoreName, ...] = ()
    threads: int = 1
    given: Given = field(default_factory=Given)

    def __post_init__(self) -> None:
        _settle(self)
        _require_positive(self)
        _require_countable(self)
        _require_compatible(self)

    def display(self) -> Display:
        """Its title, and the values of its axes."""
        values = {
            "data": self.data.names, "splits": self.data.splits, "N": self.data.train_sizes,
            "networks": self.network.names, "trained at": self.training.batch_sizes,
            "M": self.inference.batch_sizes, "T": self.inference.draws, "methods": self.methods,
            "seeds": self.seeds, "outside": self.data.outside,
        }  # fmt: skip
        rows = [
            (name, ", ".join("all" if each is None else str(each) for each in several))
            for name, several in values.items()
            if several not in ((0,), (None,), ())
        ]
        return Display(f"Plan {self.title!r}", ("axis", "values"), rows, words=2)

    @property
    def shown(self) -> tuple[ScoreName, ...]:
        """The scores that the table and the report show."""
        usual: dict[ScoreName, None] = {}
        for name in self.data.names:
            own = name == self.given.task
            usual |= dict.fromkeys(
                REGRESSION_SCORES if self.has_real_targets(name)
                else LABEL_SCORES if own and self.given.multilabel
                else CLASSIFICATION_SCORES
            )  # fmt: skip
        return self.scores or tuple(usual)

    def has_real_targets(self, name: str) -> bool:
        """Whether the targets of a data set are real values."""
        return self.given.regression if name == self.given.task else is_regression(name)

    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, in the order of the table: the cells of a trained network together."""
        return tuple(dict.fromkeys(self._product()))

    def _product(self) -> Iterator[Cell]:
        for name, architecture, train_size, split, seed, size in product(
            self.data.names, self.network.names, self.data.train_sizes, self.data.splits,
            self.seeds, self._training_sizes(),
        ):  # fmt: skip
            network = Network(
                data=name,
                split=split,
                train_size=train_size,
                architecture=architecture,
                width=self.network.width,
                depth=self.network.depth,
                dropout=0.0 if self._is_users(architecture) else self.network.dropout,
                batch_size=PUBLISHED_BATCH_SIZE if architecture == PUBLISHED else size,
                epochs=self.training.epochs,
                learning_rate=self.training.learning_rate,
                weight_decay=self.training.weight_decay,
                seed=seed,
                member=0,
                threads=self.threads,
                fit=self.given.fit,
                made_of=self.given.digest,
            )
            for method in self.methods:
                yield from self._cells_of(network, method)
            for sampler, draws in zip(self.given.samplers, self.given.sampler_draws, strict=True):
                yield self._cell(network, sampler, None, None, draws)

    def _is_users(self, architecture: str) -> bool:
        """Whether a network is the user's, in a study of the user's code."""
        return bool(self.given.digest) and architecture not in get_args(Architecture)

    def _training_sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self.training.batch_sizes))

    def _cell(
        self,
        network: Network,
        method: str,
        batch_size: int | None,
        bank_batch_size: int | None,
        draws: int,
    ) -> Cell:
        data = self.data
        return Cell(network, method, batch_size, bank_batch_size, draws,
                    data.test_size, data.outside, data.outside_size)  # fmt: skip

    def _cells_of(self, network: Network, method: Method) -> Iterator[Cell]:
        cell = partial(self._cell, network, method)
        if method in ("Deterministic", "Population BN"):
            yield cell(None, None, 1)
        elif method == "Deep ensemble":
            yield cell(None, None, self.inference.members)
        elif method == "MC Dropout":
            # The rates of a network of the user's are its own.
            users = self._is_users(network.architecture)
            rates = (0.0,) if users else self.inference.dropout_rates
            for rate, draws in product(rates, self.inference.draws):
                own = replace(network, dropout=rate)
                yield self._cell(own, method, None, None, draws)
        else:
            rescaled = self.inference.bank_batch_size or network.batch_size
            for size, draws in product(sorted(self.inference.batch_sizes), self.inference.draws):
                yield cell(size, rescaled if method == "MCBN rescaled" else size, draws)


def _require_compatible(plan: Plan) -> None:
    """Check that data sets, networks, methods and sizes are compatible."""
    for name, architecture in product(plan.data.names, plan.network.names):
        _require_compatible_network(name, architecture, plan)
    sizes = [size for size in plan.data.train_sizes if size is not None]
    largest = max(plan.training.batch_sizes)
    if any(method in OVER_BATCH_SIZES for method in plan.methods):
        largest = max(largest, *plan.inference.batch_sizes)
    if sizes and largest > min(sizes):
        raise ValueError(
            f"expected batch sizes of at most the {min(sizes)} training examples, got {largest}; "
            "lower it or raise data.train_sizes"
        )


def _require_countable(plan: Plan) -> None:
    data, inference = plan.data, plan.inference
    axes = (data.names, data.train_sizes, data.splits, plan.network.names,
            plan.training.batch_sizes, plan.seeds, plan.methods, inference.draws)  # fmt: skip
    longest = max(len(inference.batch_sizes), len(inference.dropout_rates), 1)
    count = longest * math.prod(len(axis) for axis in axes)
    if count > MAX_CELLS or inference.members > MAX_MEMBERS:
        raise ValueError(
            f"expected at most {MAX_CELLS:,} cells, of ensembles of at most {MAX_MEMBERS:,} "
            f"members, got axes for up to {count:,} and {inference.members:,}; split the study"
        )


def _require_compatible_network(name: str, architecture: str, plan: Plan) -> None:
    if name == plan.given.task:
        _require_given(plan)
    elif name not in DATA_NAMES:
        near = difflib.get_close_matches(name, DATA_NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one, or give your own task"
        raise ValueError(f"expected data.names of {list(DATA_NAMES)}, got {name!r:.80}; {hint}")
    known = plan.given.outside if name == plan.given.task else OUTSIDE.get(name, ())
    for other in plan.data.outside:
        if other not in known:
            raise ValueError(
                f"expected data.outside of {list(known)} for {name}, got "
                f"{other!r}; choose among them or leave it out"
            )
    if plan.has_real_targets(name) and architecture == "convnet" and name != plan.given.task:
        raise ValueError(
            f"expected network.names [mlp] for the tabular data {name}, got convnet; choose mlp"
        )
    if is_regression(name) and max(plan.data.splits) > LAST_SPLIT:
        raise ValueError(
            f"expected data.splits from 0 to {LAST_SPLIT} for {name}, got "
            f"{max(plan.data.splits)}; leave it out"
        )
    if architecture == PUBLISHED:
        if name != "cifar10":
            raise ValueError(
                f"expected data.names [cifar10] for resnet20, got {name!r}; choose another network"
            )
        for method in ("MC Dropout", "Deep ensemble"):
            if method in plan.methods:
                raise ValueError(
                    "expected methods that need one network and no dropout for the published "
                    f"resnet20, got {method}; leave it out"
                )


def _require_given(plan: Plan) -> None:
    """Check that the axes of a study of a user's own task are those that it has."""
    if plan.data.splits != (0,):
        raise ValueError(
            f"expected data.splits (0,) for {plan.given.task}, whose split is its own, got "
            f"{plan.data.splits}; leave it out"
        )
    if plan.given.fit == TRAINED and "Deep ensemble" in plan.methods:
        raise ValueError(
            "expected methods that need one network for a trained one, got Deep ensemble; leave it "
            "out"
        )


def _require_positive(plan: Plan) -> None:
    minima: dict[str, tuple[Sequence[float | None], float]] = {
        "data.splits": (plan.data.splits, 0),
        "data.train_sizes": (plan.data.train_sizes, 2),
        "data.test_size": ([plan.data.test_size], 1),
        "data.outside_size": ([plan.data.outside_size], 1),
        "network.width": ([plan.network.width], 1),
        "network.depth": ([plan.network.depth], 1),
        "network.dropout": ([plan.network.dropout], 0),
        "training.batch_sizes": (plan.training.batch_sizes, 2),
        "training.epochs": ([plan.training.epochs], 1),
        "training.weight_decay": ([plan.training.weight_decay], 0),
        "inference.batch_sizes": (plan.inference.batch_sizes, 2),
        "inference.draws": (plan.inference.draws, 1),
        "inference.bank_batch_size": ([plan.inference.bank_batch_size], 2),
        "inference.members": ([plan.inference.members], 1),
        "seeds": (plan.seeds, 0),
        "threads": ([plan.threads], 1),
    }
    for key, (values, minimum) in minima.items():
        if not values or any(value is not None and not value >= minimum for value in values):
            raise ValueError(f"expected {key} of at least {minimum}, got {list(values)}; change it")
    rates = (plan.network.dropout, *plan.inference.dropout_rates)
    if not all(0 <= rate < 1 for rate in rates) or 0 in plan.inference.dropout_rates:
        raise ValueError(
            f"expected dropout rates in [0, 1), and above 0 for MC Dropout, got {list(rates)}; "
            "change them"
        )
    if not plan.training.learning_rate > 0:
        raise ValueError(
            f"expected training.learning_rate above 0, got {plan.training.learning_rate}; raise it"
        )
    for key, axis in (("data.names", plan.data.names), ("methods", plan.methods),
                      ("network.names", plan.network.names)):  # fmt: skip
        if not axis:
            raise ValueError(f"expected at least one of {key}, got none; name one")
