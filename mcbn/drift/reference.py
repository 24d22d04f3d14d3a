"""How far mini-batches are from the draws of a bank, in all layers and in each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.coordinates import to_coordinates
from mcbn.network.batchnorm import MEAN, VARIANCE

# Ten standard deviations: further off no coordinate counts for more, so that one channel that
# wakes from the dead does not decide alone.
MAX_SQUARE = 100.0


@dataclass(frozen=True, eq=False)
class Distances:
    """Mean squared z of mini-batches: about 1 for those that are like the draws of the bank.

    Attributes:
        whole: over the coordinates of all layers.
        layers: over those of each layer, by its name.
    """

    whole: Float[Tensor, " batches"]
    layers: Mapping[str, Float[Tensor, " batches"]]


@dataclass(frozen=True, eq=False)
class Reference:
    """Where the draws of a bank lie, from the first half of them, and how far off the others are.

    The others took no part in the fit. So their distances and those of new mini-batches are
    exchangeable if the mini-batches are, whatever the fit.

    Attributes:
        center: mean of each coordinate over the first half, by buffer name.
        scale: their unbiased standard deviation.
        epsilon: what each layer adds to the variance, by the name of the variance.
        calibration: distances of the other draws.
    """

    center: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]
    epsilon: Mapping[str, float]
    calibration: Distances

    @classmethod
    def from_bank(cls, bank: Bank) -> "Reference":
        """Fit the first half of the draws, and measure the others.

        Raises:
            ValueError: there are fewer than 4 draws.
        """
        if len(bank) < 4:
            raise ValueError(
                f"expected a bank of at least 4 draws, got {len(bank)}, of which half are for the "
                "scale and half to compare with; collect 128 or so"
            )
        rows = {name: values.detach().cpu() for name, values in bank.coordinates().items()}
        half = len(bank) // 2
        center = {name: values[:half].mean(0) for name, values in rows.items()}
        scale = {name: values[:half].std(0) for name, values in rows.items()}
        others = {name: values[half:] for name, values in rows.items()}
        return cls(center, scale, bank.epsilon, _distances(others, center, scale))

    def distances(self, statistics: Mapping[str, Tensor]) -> Distances:
        """Distances of mini-batches.

        Args:
            statistics: means and variances by buffer name, with a leading axis of mini-batches.

        Raises:
            ValueError: they are of other layers than the draws of the bank.
        """
        if statistics.keys() != self.center.keys():
            name = min(statistics.keys() ^ self.center.keys())
            which = "reach" if name in self.center else "leave out"
            raise ValueError(
                f"expected mini-batches that {which} {_layer(name)!r}, as those of the bank do, "
                "got others; give inputs that take the same path through the network"
            )
        rows = to_coordinates(statistics, self.epsilon)
        on_cpu = {name: values.detach().cpu() for name, values in rows.items()}
        return _distances(on_cpu, self.center, self.scale)


def reference_at(model: Module, bank: Bank, batch_size: float) -> Reference:
    """The reference for mini-batches of `batch_size` examples, from the draws of a bank.

    Draws of another size are rescaled, where nothing in them speaks against it.

    Raises:
        TypeError: `bank` is not one.
        ValueError: it is of another model, has too few draws, or cannot be rescaled so far.
    """
    require_bank(bank)
    bank.require_model(model)
    if batch_size != bank.size:
        for doubt in bank.doubts(batch_size):
            reason = doubt.partition(": ")[2].rpartition("; ")[0]
            raise ValueError(
                f"expected mini-batches of about the {bank.size:g} examples of the bank, got "
                f"{batch_size:g}, for which its draws cannot be rescaled: {reason}; give "
                f"mini-batches of {bank.size:g}, or a bank that was collected at {batch_size:g}"
            )
        bank = bank.rescale(batch_size, warn=False)
    return Reference.from_bank(bank)


def _distances(
    rows: Mapping[str, Tensor], center: Mapping[str, Tensor], scale: Mapping[str, Tensor]
) -> Distances:
    squares: dict[str, list[Tensor]] = {}
    for name, values in rows.items():
        off = values - center[name]
        # Where nothing moved in the fit, as in a dead channel, any move is as far as can be.
        square = torch.where(off == 0, 0.0, (off / scale[name]).square().clamp_max(MAX_SQUARE))
        squares.setdefault(_layer(name), []).append(square.reshape(len(values), -1))
    joined = {name: torch.cat(parts, 1) for name, parts in squares.items()}
    return Distances(
        torch.cat(list(joined.values()), 1).mean(1),
        {name: values.mean(1) for name, values in joined.items()},
    )


def _layer(buffer: str) -> str:
    """The name of the layer that has a buffer."""
    return buffer.removesuffix(MEAN).removesuffix(VARIANCE).removesuffix(".")
