"""One network for one question: fresh, trained a little, with its bank and the right answers."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from zoo.stranger import Stranger

import mcbn
from mcbn.network.batchnorm import batch_norm_layers, statistics_names, unwrapped
from mcbn.network.isolation import random_streams

DRAWS, EXAMPLES, FEW = 4, 21, 7
TRAINING_PASSES = 3
TRAINING, TESTING = 100, 1  # seeds of examples


def states(bank: mcbn.Bank, layers: str = "all") -> list[dict[str, Tensor]]:
    """The draws of all layers, or of the last alone."""
    drawn = [bank.state(draw) for draw in range(len(bank))]
    return drawn if layers == "all" else [{k: s[k] for k in list(s)[-2:]} for s in drawn]


# Computed once for all questions about a network, which come one after another.
@lru_cache(maxsize=2)
def _bank(stranger: Stranger) -> mcbn.Bank:
    return Guest(stranger).collected_bank()


@lru_cache(maxsize=4)
def _right(stranger: Stranger, layers: str) -> Tensor:
    guest = Guest(stranger)
    drawn = [{}] if layers == "none" else states(_bank(stranger), layers)
    return guest.answers(guest.inputs(), drawn)


@lru_cache(maxsize=1)
def _right_in_batches(stranger: Stranger, sizes: tuple[int, ...]) -> Tensor:
    guest, examples = Guest(stranger), stranger.examples(sum(sizes), TESTING)
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    parts = [examples[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    drawn = states(_bank(stranger))
    return torch.cat([guest.answers(stranger.collate(part), drawn) for part in parts], 1)


class WrongError(Exception):
    """An answer that is wrong in silence, or a user's object that is not as found."""


class AbsentError(Exception):
    """There is no sense in asking this of the network."""


class RefusedError(Exception):
    """A refusal that is not raised but said, as `inspect` does."""


def pristine(inputs: Any) -> Any:
    """A deep copy of inputs: whoever writes into it writes into nothing else."""
    if isinstance(inputs, Tensor):
        return inputs.clone()
    if isinstance(inputs, Mapping):
        return {key: pristine(value) for key, value in inputs.items()}
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*map(pristine, inputs))
    return type(inputs)(map(pristine, inputs)) if isinstance(inputs, (tuple, list)) else inputs


def called(network: nn.Module, inputs: Any) -> Any:
    """The network's answer for inputs, which it may write into."""
    if isinstance(inputs, dict):
        return network(**inputs)
    return network(*inputs) if is_several(inputs) else network(inputs)


def is_several(inputs: Any) -> bool:
    """Whether inputs are several arguments; a named tuple, such as a packed sequence, is one."""
    return isinstance(inputs, tuple) and not hasattr(inputs, "_fields")


@dataclass(frozen=True, eq=False)
class Guest:
    """A stranger's network in one question; networks are built anew, so none knows another's past.

    Everything that is right here is computed by PyTorch alone, on copies.
    """

    stranger: Stranger

    def fresh(self) -> nn.Module:
        """The network, always the same, after a few passes in train mode."""
        stranger = self.stranger
        with random_streams(0, "zoo"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = stranger.build()
            for step in range(TRAINING_PASSES):
                network.train()
                called(network, self.batch(stranger.batch_size, TRAINING + step))
        return network.eval()

    def batch(self, count: int, seed: int) -> Any:
        return self.stranger.collate(self.stranger.examples(count, seed))

    def inputs(self, count: int = EXAMPLES) -> Any:
        """What the samplers are asked: the first of the test examples."""
        return self.batch(count, TESTING)

    @cached_property
    def bank(self) -> mcbn.Bank:
        """A bank of its own: no question sees what another did to one."""
        found = _bank(self.stranger)
        copies = {name: rows.clone() for name, rows in found.statistics.items()}
        return replace(found, statistics=copies)

    def collected_bank(self) -> mcbn.Bank:
        """A bank that was collected, or one by hand where `collect` refuses or fails."""
        stranger = self.stranger
        batches = mcbn.minibatches(
            stranger.examples(40, TRAINING), batch_size=stranger.batch_size, draws=DRAWS,
            collate=stranger.collate, select=lambda batch: batch,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                bank = mcbn.collect(self.fresh(), batches, progress=False)
            except Exception:  # it is asked in a question of its own
                return self._bank_by_hand()
        return bank if len(bank) == DRAWS else self._bank_by_hand()

    def _bank_by_hand(self) -> mcbn.Bank:
        network = unwrapped(self.fresh())
        generator = torch.Generator().manual_seed(5)
        trained, statistics = {}, {}
        for mean, variance in statistics_names(batch_norm_layers(network)).values():
            trained[mean], trained[variance] = map(network.get_buffer, (mean, variance))
            shape = (DRAWS, *trained[mean].shape)
            noise = [0.3 * torch.randn(shape, generator=generator) for _ in range(2)]
            statistics[mean] = trained[mean] + noise[0] * trained[variance].sqrt()
            statistics[variance] = trained[variance] * noise[1].exp()
        return mcbn.Bank(statistics, trained, float(self.stranger.batch_size))

    def right(self, layers: str = "all") -> Tensor:
        """The right answers for `inputs()`, of draws of all layers, of the last, or of none."""
        return _right(self.stranger, layers)

    def right_in_batches(self, *sizes: int) -> Tensor:
        """The right answers for the same examples, each batch by itself where that matters."""
        if self.stranger.whole:
            return _right_in_batches(self.stranger, sizes)
        return self.right()[:, : sum(sizes)]

    def answers(
        self, inputs: Any, states: list[dict[str, Tensor]], *, switched: bool = False
    ) -> Tensor:
        """The right answer under each draw: PyTorch's functional_call on copies of everything."""
        rows = []
        for state in states:
            network = unwrapped(self.fresh())
            if switched:
                self.stranger.switch(network)
            types = dict(network.named_buffers())
            copies = {name: value.clone().to(types[name].dtype) for name, value in state.items()}
            arguments = pristine(inputs)
            named = arguments if isinstance(arguments, dict) else {}
            placed = arguments if is_several(arguments) else (arguments,)
            with torch.no_grad(), random_streams(0, "zoo"):
                raw = torch.func.functional_call(network, copies, () if named else placed, named)
            rows.append(self.picked(raw))
        return torch.stack(rows)

    def picked(self, raw: Any) -> Tensor:
        if self.stranger.output is not None:
            raw = self.stranger.output(raw)
        # Where it is not said, the entries are to refuse what holds several; `collect` needs none.
        return (next(iter(raw.values())) if isinstance(raw, dict) else raw).clone()

    def in_training(self, inputs: Any) -> Tensor:
        """What the network answers in train mode, by its own mini-batch's statistics."""
        network = self.fresh()
        self.stranger.training(network)
        with torch.no_grad(), random_streams(0, "zoo"):
            return self.picked(called(network, pristine(inputs)))

    def near(self, actual: Tensor, expected: Tensor, what: str) -> None:
        """Check that an answer is the right one but for rounding."""
        if actual.shape != expected.shape:
            raise WrongError(f"{what}: shape {tuple(actual.shape)} for {tuple(expected.shape)}")
        found, right = (self._numbers(tensor) for tensor in (actual, expected))
        # Where both are infinite they are equal.
        gap = float((found - right).abs().where(found != right, 0.0).max())
        scale = float(right.abs().where(right.isfinite(), 0.0).max())
        limit = self.stranger.tolerance * max(1.0, scale)
        if not gap <= limit:
            raise WrongError(f"{what}: off by {gap:.2g}, limit {limit:.2g}")

    @staticmethod
    def _numbers(tensor: Tensor) -> Tensor:
        return torch.view_as_real(tensor).double() if tensor.is_complex() else tensor.double()
