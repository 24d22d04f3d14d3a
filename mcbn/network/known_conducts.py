"""How networks were seen to treat their inputs, remembered for as long as they stay as they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch.nn import Module

from mcbn.network.isolation import model_lock
from mcbn.network.signature import signature

# Kinds of inputs that are remembered for a state of a network.
MAX_KINDS = 64


class State:
    """Stands for the state that a network is in: what is remembered of it is forgotten with it."""


@dataclass(frozen=True)
class Conduct:
    """How a network treats one kind of inputs in eval mode.

    Attributes:
        separable: whether there is one output per example, the same with and without the others,
            so that a pass may be cut along the first axis.
        mixes: whether there is one output per example, and it depends on the other examples.
        random: whether the same inputs get other outputs when asked again.
        hides_writes: whether it writes into its inputs in a way that tensors do not count.
        ends_in_sigmoid: whether its outputs are those of a sigmoid.
        decides: whether it takes a path by the values that it is given.
        changes: attributes and buffers that a pass changes in the network itself, by name.
        engines: whether other engines than the loop gave the numbers of the loop.
        channels_last: whether images may lie so in memory; asked in half precision alone, where it
            takes much less time, since it changes the last bits.
        state: the same object as long as the network stays in the state that this was seen in.
    """

    separable: bool = False
    mixes: bool = False
    random: bool = False
    hides_writes: bool = False
    ends_in_sigmoid: bool = False
    decides: bool = False
    changes: tuple[str, ...] = ()
    engines: bool = True
    channels_last: bool = False
    state: State | None = None

    def notes(self) -> Iterator[tuple[str, str]]:
        """What a user has to know of it: the code of the check, and a sentence."""
        if self.random:
            yield (
                "MCBN121",
                "The network's outputs are random in eval mode: the same inputs get other outputs "
                "when asked again, so dropout, noise or stochastic depth is left on, or it keeps a "
                "state; switch that off in eval mode, or its noise is taken for uncertainty",
            )
        if self.mixes:
            yield (
                "MCBN122",
                "The network's output for an example depends on the other examples of its batch, "
                "so predictions depend on how the data are cut into batches; each batch is passed "
                "whole, as it was given",
            )


STEADY = Conduct()


# Remembered for as long as the network lives, by the precision of a pass, each for the network's
# present state alone: its signature, what stands for it, and the conduct by kind of inputs.
_Known = tuple[Any, State, dict[Any, Conduct]]
_known: WeakKeyDictionary[Module, dict[Any, _Known]] = WeakKeyDictionary()


def conducts_of(model: Module) -> tuple[State, dict[Any, Conduct]]:
    """What stands for the network's present state, and what is remembered of it."""
    with model_lock(model):  # another thread may have hooked it, or swapped its tensors
        present = signature(model)
        by_precision = _known.setdefault(model, {})
        known = by_precision.get(present[-1])
        if known is None or known[0] != present:
            known = by_precision[present[-1]] = (present, State(), {})
        return known[1:]


def remember(conducts: dict[Any, Conduct], kind: Any, conduct: Conduct) -> None:
    """Keep how the network treats inputs of a kind; with too many kinds all others go."""
    if len(conducts) >= MAX_KINDS:
        conducts.clear()
    conducts[kind] = conduct


def seen(model: Module) -> Iterator[Conduct]:
    """How the network was seen to treat inputs of any kind in its present state."""
    with model_lock(model):
        known, present = list(_known.get(model, {}).values()), signature(model)
    for state, _, conducts in known:
        if state[:-1] == present[:-1]:  # in either precision
            yield from conducts.values()
