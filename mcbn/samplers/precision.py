"""The precision of passes: bfloat16 where its rounding is far below the Monte Carlo error."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.conduct import spread_examples
from mcbn.network.inputs import Inputs, device_of, tensors, wants_gradients
from mcbn.network.isolation import model_lock
from mcbn.network.rounding import autocasts
from mcbn.samplers.rounding_error import RoundingError, rounding_error

Precision = Literal["float32", "bfloat16", "auto"]
Passes = Callable[[Inputs], Iterator[Tensor]]

# Errors of a quarter of the Monte Carlo error and independent of it add 3% to it.
BUDGET = 0.25
# Examples and draws that rounding is measured on.
EXAMPLES, DRAWS = 16, 64
# Passes in bfloat16 that take more than this of the time are not worth their rounding.
WORTH = 0.9
ROUNDS, TIMED_DRAWS = 3, 2


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision that passes run in, and why.

    Attributes:
        precision: "float32", which stands for the network's own, or "bfloat16".
        reason: in words.
        rounding: what bfloat16 does, by the Monte Carlo error; None where it was not measured.
        time: of bfloat16 by that of float32; None where it was not measured.
    """

    precision: Precision
    reason: str = ""
    rounding: RoundingError | None = None
    time: float | None = None

    def __str__(self) -> str:
        return f"{self.precision} ({self.reason})" if self.reason else self.precision


@dataclass(eq=False)
class ChosenPrecision:
    """The precision that a sampler was asked for, and the one that it took.

    Args:
        asked: for.
        models: the networks that are passed.
        draws: T.
        choice: what was taken, once that is known.
    """

    asked: Precision
    models: tuple[Module, ...]
    draws: int
    choice: PrecisionChoice | None = field(default=None)

    def __post_init__(self) -> None:
        if self.asked not in get_args(Precision):
            raise ValueError(
                f"expected a precision among {get_args(Precision)}, got {self.asked!r}; leave it "
                'out for the precision of the network, or give "auto"'
            )
        if self.asked != "float32" and not self.models:
            raise ValueError(
                "expected a sampler whose networks are known, as its model or models, to run it "
                "in another precision, got none; leave precision out"
            )
        other = other_type(self.models)
        if self.asked == "bfloat16" and other is not None:
            raise ValueError(
                f"expected a network of torch.float32 for passes in bfloat16, got {other}; leave "
                "precision out"
            )
        if self.asked != "auto":
            self.choice = PrecisionChoice(self.asked)
        elif (reason := self._reason_against()) is not None:
            self.choice = PrecisionChoice("float32", reason)

    def __str__(self) -> str:
        if self.choice is None:
            return ", precision to be chosen"
        return "" if self.asked == "float32" else f", precision {self.choice}"

    def run(self, passes: Passes, inputs: Inputs, *, by: Passes | None = None) -> Iterator[Tensor]:
        """The outputs of passes, in the precision that is chosen by the first of them.

        Args:
            passes: yields the outputs for inputs, in the precision of the surrounding autocast.
            inputs: of the network.
            by: passes of all draws, which the choice is made by; `passes` if not given.
        """
        if self.asked == "float32":
            return passes(inputs)
        return self._run(passes, inputs, by or passes)

    def _run(self, passes: Passes, inputs: Inputs, by: Passes) -> Iterator[Tensor]:
        if self.choice is None and wants_gradients(tensors(inputs)):
            yield from passes(inputs)
            return
        with model_lock(self.models[0]):
            if self.choice is None:
                self.choice = chosen(by, inputs, device_of(self.models[0]), self.draws)
        if self.choice.precision == "float32":
            yield from passes(inputs)
        else:
            yield from in_bfloat16(passes(inputs), device_of(self.models[0]))

    def _reason_against(self) -> str | None:
        """Why bfloat16 is out of the question, if it is."""
        other = other_type(self.models)
        if other is not None:
            return f"the network is of {other}"
        if self.draws < 2:
            return "a single draw has no Monte Carlo error"
        if not all(has_bfloat16_units(device_of(model)) for model in self.models):
            return "there are no units for bfloat16 here"
        return None


def precision_text(sampler: object) -> str:
    """The precision of a sampler's passes, and why; empty where it is that of the network."""
    inner = getattr(sampler, "sampler", None)  # an augmented one passes by another
    chosen = [getattr(each, "_precision", None) for each in (sampler, inner)]
    texts = [str(each).removeprefix(", precision ") for each in chosen if each is not None]
    return next(filter(None, texts), "")


def require_shared(sampler: object) -> None:
    """Check that several processes would pass in the same precision.

    Raises:
        ValueError: each would choose it by its own measurements.
    """
    for each in (sampler, getattr(sampler, "sampler", None)):
        if getattr(each, "precision", None) == "auto":
            raise ValueError(
                'expected one precision for all processes, got precision="auto", which each would '
                'choose by its own measurements; give "bfloat16" or "float32"'
            )


def other_type(models: tuple[Module, ...]) -> torch.dtype | None:
    """The type of a weight that is not float32, if there is one."""
    types = (p.dtype for model in models for p in model.parameters() if p.is_floating_point())
    return next((dtype for dtype in types if dtype != torch.float32), None)


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by itself, faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    able: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def in_bfloat16(passes: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield the outputs of passes under autocast to bfloat16, in float32.

    Statistics, sums of products and normalisation are in float32, as autocast has them.
    """
    while True:
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        with torch.autocast(device.type, dtype=torch.bfloat16):
            outputs = next(passes, None)
        if outputs is None:
            return
        yield outputs.float() if outputs.dtype == torch.bfloat16 else outputs


@contextmanager
def in_own_precision(inputs: Inputs) -> Iterator[None]:
    """Without the autocast around, for what is no pass of a network."""
    with ExitStack() as stack:
        for kind in {tensor.device.type for tensor in tensors(inputs) if autocasts(tensor)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def chosen(passes: Passes, inputs: Inputs, device: torch.device, draws: int) -> PrecisionChoice:
    """Measure what bfloat16 does to the answer for some of the inputs, and its time for all.

    Args:
        passes: yields the outputs under every draw.
        inputs: of the network.
        device: of the network.
        draws: T.
    """
    some, number = spread_examples(inputs, EXAMPLES), min(draws, DRAWS)
    rounding = rounding_error(
        islice(passes(some), number),
        islice(in_bfloat16(passes(some), device), number),
        draws,
    )
    if rounding is None:
        return PrecisionChoice("float32", "in bfloat16 its outputs are not finite, or other ones")
    share = f"{rounding.largest:.2f} of the Monte Carlo error"
    if not rounding.largest <= BUDGET:
        reason = f"rounding to bfloat16 is {share}"
        return PrecisionChoice("float32", reason, rounding)
    ratio = _time_ratio(passes, inputs, device)
    if ratio > WORTH:
        return PrecisionChoice(
            "float32", f"bfloat16 takes {ratio:.2f} of its time", rounding, ratio
        )
    reason = f"rounding is {share}, {ratio:.2f} of the time"
    return PrecisionChoice("bfloat16", reason, rounding, ratio)


def _time_ratio(passes: Passes, inputs: Inputs, device: torch.device) -> float:
    """Time of a few draws in bfloat16 by that in float32: the least of several rounds of each."""
    least = [float("inf"), float("inf")]
    for number in range(1 + ROUNDS):
        for place in range(2):
            start = time.perf_counter()
            run = in_bfloat16(passes(inputs), device) if place else passes(inputs)
            for _ in islice(run, TIMED_DRAWS):
                pass
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number > 0:  # the first sets up what is kept
                least[place] = min(least[place], time.perf_counter() - start)
    return least[1] / least[0]
