"""Many draws of dropout in one pass, where a network is small."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import Module

from mcbn.network.conduct import spread_examples
from mcbn.network.dropout import DrawnMasks, Masks, mask_shape
from mcbn.network.inputs import Inputs, count, tensors, wants_gradients
from mcbn.network.isolation import eval_mode, model_lock, own_warnings
from mcbn.network.known_conducts import Conduct, State
from mcbn.network.passes import forward
from mcbn.samplers.engines import TEST_EXAMPLES, kind_of, may_be_cut, require_same
from mcbn.samplers.outputs import Output, at_draw, tensor_output
from mcbn.samplers.vmap import CostProbe, PassCost, batched_answer, refuses_slow_rules

logger = logging.getLogger(__name__)

# Puts the network under dropout by some masks.
Dropping = Callable[[Masks], AbstractContextManager[None]]
# From inputs and the index of a draw to what the network returns, by a pass of its own.
OneDraw = Callable[[Inputs, int], Any]
TEST_DRAWS = 2
MAX_KNOWN = 2**24  # bytes


@dataclass(frozen=True)
class MaskedCall:
    """One of the calls of dropout in a pass.

    Attributes:
        name: of the layer, or of the place where dropout is put in.
        call: how often it was called in the pass, from 1.
        shape: of the mask.
        rate: the share that is dropped.
    """

    name: str
    call: int
    shape: tuple[int, ...]
    rate: float

    @property
    def key(self) -> str:
        """Its name among the masks of a draw."""
        return f"{self.name}/{self.call}"


@dataclass(frozen=True, eq=False)
class MaskedPasses:
    """How many draws of dropout go through a network in one pass.

    Attributes:
        cost: the size of one example in a pass.
        calls: of dropout, in the order of a pass.
        known: masks of some draws.
    """

    cost: PassCost
    calls: tuple[MaskedCall, ...]
    known: dict[tuple[int, range, torch.device], dict[str, Tensor]] = field(default_factory=dict)

    def fits(self, examples: int) -> bool:
        """Whether several draws of so many examples go into a pass."""
        return self.cost.budget >= TEST_DRAWS * self.cost.values * examples

    def outputs(
        self, model: Module, dropping: Dropping, inputs: Inputs, output: Output | None,
        *, seed: int, draws: int,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Yield the outputs under the masks of each draw."""
        together = self.cost.budget // (self.cost.values * count(inputs))
        for start in range(0, draws, together):
            chosen = range(start, min(start + together, draws))
            masks = self._masks(seed, chosen, next(tensors(inputs)).device)
            raw = self.answer(model, dropping, inputs, masks)
            for place in range(len(chosen)):
                yield tensor_output(at_draw(raw, place), output)

    def answer(
        self, model: Module, dropping: Dropping, inputs: Inputs, masks: Mapping[str, Tensor]
    ) -> Any:
        """What the network returns under all masks at once: tensors (draws, ...)."""
        given = _GivenMasks()

        def call(state: Mapping[str, Tensor]) -> Any:
            given.masks = state
            return forward(model, {}, inputs)

        with eval_mode(model), torch.no_grad(), dropping(given):
            return batched_answer(call, masks)

    def first_masks(self, seed: int, device: torch.device) -> dict[str, Tensor]:
        """The masks of the first draws, to test a pass by."""
        return self._masks(seed, range(TEST_DRAWS), device)

    def _masks(self, seed: int, draws: range, device: torch.device) -> dict[str, Tensor]:
        """The masks of some draws, which are drawn once for all batches where they are small."""
        request = (seed, draws, device)
        if request not in self.known:
            masks = self._drawn(seed, draws, device)
            kept = (*self.known.values(), masks)
            if sum(mask.nbytes for each in kept for mask in each.values()) > MAX_KNOWN:
                return masks
            self.known[request] = masks
        return self.known[request]

    def _drawn(self, seed: int, draws: range, device: torch.device) -> dict[str, Tensor]:
        every = [DrawnMasks(seed, draw) for draw in draws]
        return {
            each.key: torch.stack(
                [masks.drawn(each.name, each.call, each.shape, each.rate) for masks in every]
            ).to(device)
            for each in self.calls
        }


_plans: WeakKeyDictionary[State, dict[Any, MaskedPasses | None]] = WeakKeyDictionary()


def masked_passes(
    model: Module,
    inputs: Inputs,
    conduct: Conduct,
    dropping: Dropping,
    one: OneDraw,
    *,
    seed: int,
    key: Any,
) -> MaskedPasses | None:
    """How many draws go through a network at once; None where each has to go by itself.

    Args:
        model: the network.
        inputs: of the network, as checked.
        conduct: how it treats them.
        dropping: puts it under dropout by some masks.
        one: a draw by itself.
        seed: of the masks.
        key: what else a plan depends on: where dropout is put in.
    """
    if conduct.state is None or conduct.decides or wants_gradients(tensors(inputs)):
        return None
    if not may_be_cut(conduct, inputs):
        return None
    with own_warnings(), model_lock(model):
        plans = _plans.setdefault(conduct.state, {})
        request = (key, count(inputs).bit_length(), kind_of(inputs))
        if request not in plans:
            plans[request] = _tested(model, inputs, dropping, one, seed)
        return plans[request]


def _tested(
    model: Module, inputs: Inputs, dropping: Dropping, one: OneDraw, seed: int
) -> MaskedPasses | None:
    """The plan, compared with single draws of a few examples; None where it is not worth it."""
    few, probe = spread_examples(inputs, TEST_EXAMPLES), CostProbe()
    try:
        with probe:
            calls = _calls(model, dropping, few, seed)
        plan = MaskedPasses(probe.cost(model, count(few)), calls)
        # A forward may call its layers for one row after another.
        if not plan.fits(count(inputs)) or calls != _calls(model, dropping, inputs, seed):
            return None
        masks = plan.first_masks(seed, next(tensors(few)).device)
        with refuses_slow_rules():
            raw = plan.answer(model, dropping, few, masks)
        for draw in range(TEST_DRAWS):
            require_same(at_draw(raw, draw), one(few, draw))
        return plan
    except Exception as error:  # a network may refuse vmap in any way; the loop takes all of them
        logger.debug("%s does not run in masked passes: %r", type(model).__name__, error)
        return None


def _calls(model: Module, dropping: Dropping, inputs: Inputs, seed: int) -> tuple[MaskedCall, ...]:
    """The calls of dropout in a pass."""
    noted = _NotedMasks(DrawnMasks(seed, 0))
    with eval_mode(model), torch.no_grad(), dropping(noted):
        forward(model, {}, inputs)
    return tuple(noted.calls)


@dataclass
class _NotedMasks:
    """Masks of a draw, and what they were drawn for."""

    drawn: DrawnMasks
    calls: list[MaskedCall] = field(default_factory=list)

    def __call__(
        self, name: str, call: int, values: Tensor, rate: float, *, channelwise: bool
    ) -> Bool[Tensor, "1 ..."]:
        shape = mask_shape(values, channelwise=channelwise)
        self.calls.append(MaskedCall(name, call, shape, rate))
        return self.drawn(name, call, values, rate, channelwise=channelwise)


@dataclass
class _GivenMasks:
    """The masks of a pass that `vmap` runs for many draws, each as it is for one of them."""

    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, call: int, *_: Any, **__: Any) -> Bool[Tensor, "1 ..."]:
        return self.masks[f"{name}/{call}"]
