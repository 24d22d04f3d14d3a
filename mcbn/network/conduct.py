"""How a network treats its inputs, found by a pass of a few examples when it is first seen.

Whatever is checked here holds for any network, since it is asked of the network itself: its answer
for a few examples alone is compared with what they get among others.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.network.batch_statistics import NormalizesByBatchError, refuses_batch_statistics
from mcbn.network.inputs import (
    Inputs,
    can_be_cut,
    channels_last,
    count,
    map_inputs,
    take_examples,
    tensors,
)
from mcbn.network.isolation import StreamStates, eval_mode, restored
from mcbn.network.known_conducts import Conduct, State, conducts_of, remember
from mcbn.network.output_kind import PassWatch
from mcbn.network.passes import call, written
from mcbn.network.rounding import autocasts, equal, near

logger = logging.getLogger(__name__)

# Examples in the first pass, from all over the batch.
FEW = 4
# Further passes that have to move a random stream as well for the network to be what moves it.
ASKED_AGAIN = 2


First = Callable[[Inputs], Tensor]
Outputs = Callable[[Conduct], Iterator[Tensor]]


def supervised(model: Module, inputs: Inputs, first: First, outputs: Outputs) -> Iterator[Tensor]:
    """Yield the outputs of all draws, once the network is known to treat such inputs as it should.

    Where the network is in a new state, or the inputs are of a new kind, a few of them are passed
    alone before, and compared with the first draw for all.

    Args:
        model: the network.
        inputs: of the network.
        first: the output of the first draw, by one plain call of the network.
        outputs: the outputs for `inputs` under every draw, given the conduct as far as it is known.

    Raises:
        ValueError: the network normalises by the batch at hand in eval mode.

    Warns:
        UserWarning: the outputs are random, or depend on the other examples of a batch.
    """
    (state, conducts), kind = conducts_of(model), _kind(inputs, "outputs")
    conduct = conducts.get(kind)
    if conduct is not None:
        stream = outputs(conduct)
    else:
        trial = _tried(model, inputs, first, state)
        conduct, stream = trial.compared(outputs)
        if trial.conclusive:
            remember(conducts, kind, conduct)
    for code, note in conduct.notes():
        validation.warn(note, code=code)
    yield from stream


def conduct_of(model: Module, inputs: Inputs, first: First, *, of: str = "outputs") -> Conduct:
    """How the network treats such inputs, from a pass of a few and one of all of them.

    Args:
        model: the network.
        inputs: of the network.
        first: the output of the first draw.
        of: what `first` returns, since the conduct is remembered for that.

    Raises:
        ValueError: the network normalises by the batch at hand in eval mode.
    """
    (state, conducts), kind = conducts_of(model), _kind(inputs, of)
    conduct = conducts.get(kind)
    if conduct is None:
        trial = _tried(model, inputs, first, state)
        conduct, _ = trial.compared(lambda _: iter([trial.alone(inputs)]))
        if trial.conclusive:
            remember(conducts, kind, conduct)
    return conduct


def network_conduct(model: Module, inputs: Inputs) -> Conduct:
    """How a network itself treats such inputs, whatever it returns, from a pass of a few of them.

    Raises:
        ValueError: the network normalises by the batch at hand in eval mode.
    """
    ask = partial(conduct_of, model, first=partial(first_tensor, model), of="network")
    if can_be_cut(inputs) and count(inputs) > 2 * FEW:
        try:
            return ask(spread_examples(inputs, 2 * FEW))
        except (NormalizesByBatchError, MemoryError):
            raise
        except Exception as error:  # rows that are no examples, or whatever a network takes not
            logger.debug("%s does not take a few rows: %r", type(model).__name__, error)
    return ask(inputs)


def first_tensor(model: Module, inputs: Inputs) -> Tensor:
    """The first tensor of what the network returns in eval mode, for inputs it may write into."""
    with eval_mode(model), torch.no_grad():
        raw = call(model, {}, inputs)
    return next(tensors(raw), torch.zeros(()))


def _kind(inputs: Inputs, of: str) -> Any:
    """The kind of inputs."""
    kind = tuple((tensor.ndim, tensor.dtype, tensor.device) for tensor in tensors(inputs))
    return of, type(inputs), can_be_cut(inputs), count(inputs) > 1, kind


def _tried(model: Module, inputs: Inputs, first: First, state: State) -> "_Trial":
    """Pass a few examples alone, or all where a few are not taken."""
    examples = count(inputs)
    if examples > 1 and can_be_cut(inputs):
        spread = spread_rows(examples, min(2 * FEW, examples))
        rows, others = spread[::2], spread[1::2]
        try:
            trial = _watched(model, take_examples(inputs, rows), first, rows, examples)
            trial = trial.in_state(state)
            return replace(trial, others=((take_examples(inputs, others), others),))
        except (NormalizesByBatchError, MemoryError):
            raise
        except Exception as error:  # whatever a network raises that does not take so few
            logger.debug("%s does not take %d examples: %r", type(model).__name__, len(rows), error)
    trial = _watched(model, map_inputs(torch.clone, inputs), first, None, examples)
    return trial.in_state(state)


def spread_examples(inputs: Inputs, most: int) -> Inputs:
    """A few examples from all over the batch; all where it cannot be cut."""
    if not can_be_cut(inputs) or count(inputs) <= most:
        return inputs
    few: Inputs = take_examples(inputs, spread_rows(count(inputs), most))
    return few


def spread_rows(examples: int, few: int) -> list[int]:
    """The places of a few examples from all over a batch."""
    return [int(row) for row in torch.linspace(0, examples - 1, few).long()]


def _watched(
    model: Module, few: Inputs, first: First, rows: list[int] | None, examples: int
) -> "_Trial":
    """Pass `few` while the network, its inputs and the random streams are watched."""
    with torch.inference_mode(False):  # where tensors count no writes
        given = map_inputs(torch.clone, few)
    # Held here: a network may take an entry out of a dict that it is given.
    copies, versions = list(tensors(given)), written(given)
    streams = StreamStates.now()
    try:
        with (
            restored(model, parameters=True) as changes,
            eval_mode(model),
            refuses_batch_statistics(model),
            PassWatch() as watch,
        ):
            output = first(given).detach()
    finally:
        moved = not streams.unmoved()
        if moved:
            streams.restore()
    hidden = any(
        version == before and not equal(tensor, other)
        for tensor, other, version, before in zip(
            copies, tensors(few), written(copies), versions, strict=True
        )
    )
    one_each = rows is not None and output.ndim > 0 and len(output) == len(rows)
    conduct = Conduct(
        one_each,
        random=moved and all(_moves_streams(model, few, first) for _ in range(ASKED_AGAIN)),
        hides_writes=hidden,
        ends_in_sigmoid=watch.ends_in_sigmoid(output),
        decides=watch.decides,
        # A draw stands in place of the network's own buffers, and may have been written to.
        changes=(*changes, *getattr(first, "written", ())),
    )
    return _Trial(model, first, few, rows, examples, output, conduct)


def _moves_streams(model: Module, few: Inputs, first: First) -> bool:
    """Whether another pass moves a random stream; they are given back.

    The streams are those of the process: the event loop of a server or a cluster, in a thread of
    its own, may have drawn from one during a single pass.
    """
    streams = StreamStates.now()
    moved = True
    try:
        with restored(model, parameters=True), eval_mode(model):
            first(map_inputs(torch.clone, few))
        moved = not streams.unmoved()
    finally:
        if moved:
            streams.restore()
    return moved


@dataclass(frozen=True, eq=False)
class _Trial:
    """A pass of a few examples alone.

    Attributes:
        model: the network.
        first: the output of the first draw.
        few: the examples.
        rows: their places among all; None where all were passed.
        examples: the number of all.
        output: what the few got.
        conduct: what was seen of it so far.
        others: some other examples, and their places.
    """

    model: Module
    first: First
    few: Inputs
    rows: list[int] | None
    examples: int
    output: Tensor
    conduct: Conduct
    others: tuple[tuple[Inputs, list[int]], ...] = ()

    @property
    def conclusive(self) -> bool:
        """Whether a network that confuses examples would have been noticed.

        Not where all examples have the same outputs, as in a first call on zeros.
        """
        output = self.output
        if self.examples == 1 or output.ndim == 0:
            return True
        if len(output) == 1 and self.others:  # of two examples one alone was passed
            return not equal(output, self.alone(self.others[0][0]))
        return not bool((output == output[:1]).all())

    def in_state(self, state: State) -> "_Trial":
        """With what stands for the network's state, and the layouts that it takes there."""
        last = autocasts(self.output) and not self.conduct.random and self._takes_channels_last()
        return replace(self, conduct=replace(self.conduct, channels_last=last, state=state))

    def _takes_channels_last(self) -> bool:
        if not any(tensor.ndim == 4 for tensor in tensors(self.few)):
            return False
        try:
            # Asked where rounding is small: in half precision the kernels of two layouts differ by
            # more than some mistakes would.
            with torch.autocast(self.output.device.type, enabled=False):
                usual, last = self.alone(self.few), self.alone(channels_last(self.few))
                return near(self.model, last, usual)
        except Exception as error:  # a view of them, or whatever else takes one layout alone
            logger.debug("%s takes no channels last: %r", type(self.model).__name__, error)
            return False

    def alone(self, inputs: Inputs) -> Tensor:
        """The output for inputs in another pass."""
        streams = StreamStates.now()
        try:
            with restored(self.model, parameters=bool(self.conduct.changes)):
                return self.first(map_inputs(torch.clone, inputs)).detach()
        finally:
            streams.restore()

    def compared(self, outputs: Outputs) -> tuple[Conduct, Iterator[Tensor]]:
        """The conduct, by what the first draw gives for all examples, and all of its outputs."""
        conduct = self.conduct
        by_row = self.rows is None or conduct.separable
        if conduct.random or (not by_row and not self._repeats()):
            conduct = replace(conduct, separable=False, random=True)
            return conduct, outputs(conduct)
        together, stream = _peeked(outputs(conduct))
        if not by_row:
            # Rows are no examples; as many outputs as rows, by chance, must not be taken for them.
            mixes = together is not None and together.shape[:1] == (self.examples,)
            return replace(conduct, mixes=mixes), stream
        if together is None or self._agrees(together):
            return conduct, stream
        if self.rows is not None and len(together) != self.examples:
            conduct = replace(conduct, separable=False)
            return conduct, outputs(conduct)
        if not self._repeats():
            unwatched = self.alone(self.few)
            if near(self.model, unwatched, self.alone(self.few)):
                # PyTorch's fused layers are not used while its functions are watched.
                return replace(self, output=unwatched).compared(outputs)
            conduct = replace(conduct, separable=False, random=True)
            return conduct, outputs(conduct)
        return self._by_loop(replace(conduct, engines=False), outputs)

    def _repeats(self) -> bool:
        """Whether the few get the same once more."""
        return near(self.model, self.alone(self.few), self.output)

    def _by_loop(self, conduct: Conduct, outputs: Outputs) -> tuple[Conduct, Iterator[Tensor]]:
        """The conduct where the numbers disagree: it is the engine that errs, or the network."""
        together, stream = _peeked(outputs(conduct))
        if together is None or self._agrees(together):
            return conduct, stream
        stream = outputs(conduct)
        again, stream = _peeked(stream)
        conduct = replace(conduct, separable=False)
        if again is None or not near(self.model, again, together):
            conduct = replace(conduct, random=True)
        return replace(conduct, mixes=self.rows is not None and not conduct.random), stream

    def _agrees(self, together: Tensor) -> bool:
        """Whether the few got among all what they got alone."""
        if self.rows is None:
            return near(self.model, together, self.output)
        if len(together) != self.examples:
            return False
        if not near(self.model, together[self.rows], self.output):
            return False
        # What is shared by a batch, as its largest value, may have been that of the first few.
        return all(near(self.model, together[rows], self.alone(few)) for few, rows in self.others)


def _peeked(stream: Iterator[Tensor]) -> tuple[Tensor | None, Iterator[Tensor]]:
    """The first value without gradients, and the stream with it."""
    first = next(stream, None)
    return (None, stream) if first is None else (first.detach(), chain([first], stream))
