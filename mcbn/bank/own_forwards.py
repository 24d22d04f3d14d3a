"""Layers with a forward of their own, and where their statistics come from."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch.nn import Module

from mcbn.network.batchnorm import MEAN, frozen_layers
from mcbn.network.inputs import tensors
from mcbn.network.isolation import FRAMEWORK
from mcbn.network.train_mode import (
    Call,
    Statistics,
    agrees,
    moments,
    nearly_agrees,
    train_mode_statistics,
)

# Where the statistics of a layer come from: the moments of its activations, what its train mode
# stores, or nowhere.
Source = Literal["moments", "train mode", "left out"]


@dataclass(frozen=True, eq=False)
class OwnForwards:
    """Where the statistics of each layer with a forward of its own come from.

    Attributes:
        sources: by layer; decided when a layer is first called.
        rewrites: whether a pass writes into the network itself, so that it gets copies of weights.
        random: whether the network answers at random in eval mode, so that passes differ.
        calls: how often each layer was called.
        masked: layers that are given, or hold, more tensors than their activations.
        assumed: layers whose moments were not compared with train mode in some mini-batch.
    """

    sources: dict[str, Source] = field(default_factory=dict)
    rewrites: bool = False
    random: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    masked: set[str] = field(default_factory=set)
    assumed: set[str] = field(default_factory=set)

    @property
    def left_out(self) -> list[str]:
        """Layers whose train mode does something else than normalise by a mean and a variance."""
        return [name for name, source in self.sources.items() if source == "left out"]

    @property
    def by_moments(self) -> bool:
        """Whether moments are the statistics of every layer, whatever the mini-batch."""
        return not self.masked and all(each == "moments" for each in self.sources.values())

    def statistics(self, name: str, layer: Module, call: Call) -> Statistics | None:
        """The statistics of a call; None for a layer that is left out.

        Raises:
            ValueError: earlier mini-batches had statistics, and this one has none, or others than
                the moments that earlier ones were taken to have.
        """
        source = self.sources.get(name)
        if source == "left out":
            return None
        if source != "train mode":
            found = _moments(layer, call)
            settled = found is not None and self._settled(name, layer, call, found)
            if found is not None and (settled or agrees(layer, call, found)):
                self.sources[name] = source or "moments"
                return found
        found = train_mode_statistics(layer, call)
        if found is not None and name in self.assumed:
            raise ValueError(
                f"expected the statistics of {name!r} ({type(layer).__name__}) to be the mean and "
                "variance of its input, as in earlier mini-batches, got others in train mode: it "
                "uses a mask or the like that it neither is given nor holds; give it as an "
                "argument of the layer"
            )
        if found is None and source is not None:
            raise ValueError(
                f"expected every mini-batch to have statistics of {name!r} "
                f"({type(layer).__name__}), got one whose train mode they do not explain; leave "
                "such mini-batches out"
            )
        self.sources[name] = "left out" if found is None else "train mode"
        return found

    def _settled(self, name: str, layer: Module, call: Call, found: Statistics) -> bool:
        """Whether its moments are taken for the statistics without asking its train mode."""
        if frozen_layers({name: layer}):  # it has none to compare with
            return True
        number = self.calls[name] = self.calls.get(name, 0) + 1
        # A mask or lengths may not matter before the first mini-batch that is ragged.
        if _count(call) + _held(layer) > 1:
            self.masked.add(name)
        if name in self.masked or self.sources.get(name) != "moments":
            return False
        # Nor may one that is not seen here, so the comparison is repeated, ever more seldom.
        if number & (number - 1) == 0:
            return nearly_agrees(layer, call, found)
        self.assumed.add(name)
        return True


def _count(values: Any) -> int:
    return sum(1 for _ in tensors(values))


def _held(layer: Module) -> int:
    """The number of tensors that are attributes of a layer, neither parameters nor buffers."""
    return sum(
        _count(value)
        for module in layer.modules()
        for name, value in vars(module).items()
        if name not in FRAMEWORK
    )


def _moments(layer: Module, call: Call) -> Statistics | None:
    """The moments of the activations, if they can be the layer's statistics."""
    try:
        found = moments(*call)
    except (IndexError, AttributeError, RuntimeError):  # not of the form of activations
        return None
    return found if found[0].shape == layer.get_buffer(MEAN).shape else None
