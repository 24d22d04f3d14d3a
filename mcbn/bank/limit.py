"""The limit of large batches: how far the statistics of mini-batches are off it, in the mean."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.bank.coordinates import to_coordinates
from mcbn.bank.draws import batch_statistics
from mcbn.bank.full_batches import CountedBatch
from mcbn.bank.own_forwards import OwnForwards
from mcbn.network.batchnorm import statistics_names
from mcbn.network.inputs import can_be_cut, concatenate, count, map_inputs

logger = logging.getLogger(__name__)


class LargerBatch:
    """The first mini-batches of a bank, to be passed once more, put together.

    Both have the same examples, so their difference has little noise: it is what the network makes
    of normalising by fewer examples at a time.

    Args:
        limit: the number of examples, rounded to whole mini-batches, of which there are two at
            least; "all", or None for none.

    Raises:
        ValueError: it is below 1.
    """

    def __init__(self, limit: int | Literal["all"] | None) -> None:
        if isinstance(limit, str) and limit != "all":
            raise ValueError(f'expected limit to be a number, "all" or None, got {limit!r:.80}')
        if not isinstance(limit, str) and limit is not None and limit < 1:
            raise ValueError(
                f"expected limit of at least 1 example, got {limit}; give None to leave it out"
            )
        self.limit = limit
        self.kept: list[CountedBatch] = []

    def keep(self, batch: CountedBatch) -> CountedBatch:
        """Keep a copy of a mini-batch if it is one of the first, and return it."""
        if self._wants(batch):
            self.kept.append(replace(batch, inputs=map_inputs(torch.clone, batch.inputs)))
        return batch

    def _wants(self, batch: CountedBatch) -> bool:
        if self.limit is None or batch.examples != count(batch.inputs):
            return False
        after = (len(self.kept) + 1) * batch.examples
        return self.limit == "all" or after <= max(self.limit, 2 * batch.examples)

    def bias(
        self,
        model: Module,
        layers: Mapping[str, Module],
        own: OwnForwards,
        statistics: Mapping[str, Tensor],
        epsilon: Mapping[str, float],
    ) -> dict[str, Tensor]:
        """The mean of the mini-batches minus their limit, in coordinates, by buffer name.

        For k of them together the scale u is 1/k of that of one, and a bias is proportional to it.

        Args:
            model: the network.
            layers: its batch-norm layers.
            own: where the statistics of layers with a forward of their own come from.
            statistics: of all draws; the first are those of the mini-batches that were kept.
            epsilon: by the name of the variance.

        Returns:
            Empty where the mini-batches cannot be put together, or the network does not take them.
        """
        together = len(self.kept)
        inputs = [batch.inputs for batch in self.kept]
        if together < 2 or not all(can_be_cut(each) for each in inputs):
            return {}
        examples = sum(batch.examples for batch in self.kept)
        try:
            whole = CountedBatch(concatenate(inputs), examples, self.kept[0].source)
            row = batch_statistics(model, layers, whole, own)
        except (ValueError, TypeError, RuntimeError) as error:  # or memory is full
            logger.debug("%s takes no %d examples: %r", type(model).__name__, examples, error)
            return {}
        if row.keys() != statistics.keys() or not all(
            bool(v.isfinite().all()) for v in row.values()
        ):
            return {}
        large = to_coordinates(row, epsilon)
        first = {name: rows[:together] for name, rows in statistics.items()}
        small = to_coordinates(first, epsilon)
        return {
            name: (small[name].mean(0) - large[name]) * together / (together - 1) for name in large
        }


def known_epsilon(
    layers: Mapping[str, Module], statistics: Mapping[str, Tensor]
) -> dict[str, float]:
    """What each layer adds to the variance, by the name of the variance, where it says so."""
    found = {}
    for name, (_, variance) in statistics_names(layers).items():
        epsilon = getattr(layers[name], "eps", None)
        if variance in statistics and isinstance(epsilon, (int, float)):
            found[variance] = float(epsilon)
    return found
