"""Predicting: a sampler streamed over data, its draws summarised under a likelihood."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count as counting
from itertools import takewhile
from typing import Any, Literal, Protocol, TypeVar, overload, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcbn import validation
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import (
    Inputs,
    Select,
    count,
    order_sampler,
    ordered_loader,
    rebatched,
    select_inputs,
)
from mcbn.network.isolation import StreamStates, random_streams
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.samplers.sampler import Sampler

Predictive = CategoricalPredictive | GaussianPredictive
P = TypeVar("P")
S = TypeVar("S")
END = object()
# The axis of examples in the tensors of a predictive, where it is not the first.
AXES = {"logits": 1, "means": 1, "variances": 1}


@runtime_checkable
class Likelihood(Protocol[P]):
    """How draws of outputs become a distribution of targets."""

    def summarize(self, passes: Iterable[Tensor], *, keep_draws: bool = False) -> P:
        """The predictive of one batch of inputs."""
        ...

    def join(self, parts: Sequence[P]) -> P:
        """The predictive of several batches together, in order."""
        ...


@overload
def predict(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Likelihood[CategoricalPredictive] = ...,
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> CategoricalPredictive: ...
@overload
def predict(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Likelihood[GaussianPredictive],
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> GaussianPredictive: ...
def predict(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Likelihood[Any] = "categorical",
    *,
    batch_size: int | None = None,
    select: Select | None = None,
    keep_draws: bool = False,
    progress: bool = True,
) -> Predictive:
    """The predictive distribution of every example, in the order of the data.

    Data and, for classes, draws are streamed: besides the answer, memory holds one batch. Where
    the answer itself is too large, take it batch by batch from `predict_batches`.

    Args:
        sampler: what makes the draws, such as `MCBatchNorm`.
        data: inputs as a tensor, a data set, or a loader in fixed order; targets are ignored.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        batch_size: examples in a pass; if not given, the loader's own, else 256. Where it is
            given, the numbers are the same bits however a loader cuts the data.
        select: picks the network's inputs out of a batch where the default rule does not.
        keep_draws: keep the raw outputs of every draw too, for classes.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: no sampler, or data of another kind.
        ValueError: no data, values that are not finite, a loader that shuffles.
    """
    family, loader = family_of(likelihood), ordered_loader(data, batch_size)
    stream = predict_batches(
        sampler, loader, family, batch_size=batch_size, select=select, keep_draws=keep_draws
    )
    bar = progress_bar(stream, label="predict", unit="batch", total=_length(loader), shown=progress)
    answer: Predictive | None = joined(bar, _length(order_sampler(loader)) or 0)
    if answer is None:
        raise ValueError("expected at least one example to predict, got none; check the data")
    return answer


@overload
def predict_batches(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Likelihood[CategoricalPredictive] = ...,
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
) -> Iterator[CategoricalPredictive]: ...
@overload
def predict_batches(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Likelihood[GaussianPredictive],
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
) -> Iterator[GaussianPredictive]: ...
def predict_batches(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Likelihood[Any] = "categorical",
    *,
    batch_size: int | None = None,
    select: Select | None = None,
    keep_draws: bool = False,
) -> Iterator[Predictive]:
    """The predictive of one batch after another: `predict` before its parts are joined.

    Memory holds one batch, however many examples there are; for classes, however many draws too.
    A stream without end will do, and no data give no batches.

    The arguments are those of `predict`.

    Raises:
        TypeError: no sampler, or data of another kind.
        ValueError: values that are not finite, a loader that shuffles.
    """
    advice = "wrap the network by mcbn.MCBatchNorm(model, bank) or mcbn.Deterministic(model)"
    validation.require_type(sampler, Sampler, "a sampler", advice)
    loader, family = ordered_loader(data, batch_size), family_of(likelihood)
    summary = partial(family.summarize, keep_draws=keep_draws)
    size = batch_size if loader is data else None
    return summaries(sampler, loader, summary, select=select, batch_size=size)


def summaries(
    sampler: Sampler,
    loader: DataLoader[Any],
    summary: Callable[[Iterator[Tensor]], S],
    *,
    select: Select | None = None,
    batch_size: int | None = None,
    first: int = 0,
) -> Iterator[S]:
    """What `summary` makes of the draws of one batch after another; empty batches are left out.

    Args:
        sampler: what makes the draws.
        loader: batches in fixed order.
        summary: takes the draws of a batch, one at a time.
        select: picks the network's inputs out of a batch.
        batch_size: examples in a pass; those of the loader if not given.
        first: place of the loader's first batch in the whole data: transforms that draw at random
            draw the same for a batch, whoever loads it.
    """
    loaded = takewhile(lambda found: found is not END, _loads(loader, select, first))
    groups = loaded if batch_size is None else rebatched(loaded, batch_size)
    # Streams belong to the process: they are seeded for a pass only where the network draws.
    seeded = False
    for index in counting(first):
        selected = next(groups, None)
        if selected is None:
            return
        step = partial(_summary, sampler, selected, summary)
        if not seeded:
            found, seeded = _watched(step)
        if seeded:
            found = _seeded(step, "pass", index)
        del selected, step  # not held while the caller works
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        if found is not None:
            yield found


def _loads(loader: DataLoader[Any], select: Select | None, first: int) -> Iterator[Any]:
    """The network's inputs in one batch after another, then END for ever."""
    # The loader takes its base seed from the global stream.
    batches = _seeded(partial(iter, loader))

    def load(index: int) -> Any:
        batch = _seeded(partial(next, batches, END), index)
        return END if batch is END else select_inputs(batch, select)

    return map(load, counting(first))


def _summary(
    sampler: Sampler, inputs: Inputs, summary: Callable[[Iterator[Tensor]], S]
) -> S | None:
    return summary(sampler.passes(inputs)) if count(inputs) > 0 else None


def _watched(call: Callable[[], Any]) -> tuple[Any, bool]:
    """The answer, and whether a random stream was moved, which is put back."""
    before = StreamStates.now()
    moved = True
    try:
        with torch.no_grad():
            found = call()
        moved = not before.unmoved()
        return found, moved
    finally:
        if moved:
            before.restore()


def _seeded(call: Callable[[], Any], *key: int | str) -> Any:
    """The answer under streams seeded from `key`."""
    with random_streams(0, "predict", *key), torch.no_grad():
        return call()


def joined(parts: Iterable[S], examples: int) -> S | None:
    """The predictives of several batches as one, None of none: each is written to its place.

    A list of all parts would hold the answer twice while it is joined.

    Args:
        parts: predictives of one likelihood, in order.
        examples: how many to expect in all; a wrong number costs memory and nothing else.
    """
    kind, whole, done = None, {}, 0
    for part in parts:
        kind, stop = type(part), done + len(part)  # type: ignore[arg-type]
        for name, value in vars(part).items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                whole[name] = value
                continue
            axis = AXES.get(name, 0)
            room = whole[name].shape[axis] if name in whole else 0
            if room < stop:
                wider = max(stop, 2 * room or examples)
                grown = value.new_empty((*value.shape[:axis], wider, *value.shape[axis + 1 :]))
                if room > 0:
                    grown.narrow(axis, 0, done).copy_(whole[name].narrow(axis, 0, done))
                whole[name] = grown
            whole[name].narrow(axis, done, stop - done).copy_(value)
        done = stop
    for name, value in whole.items():
        axis = AXES.get(name, 0)
        if isinstance(value, Tensor) and value.ndim > 0 and value.shape[axis] > done:
            whole[name] = value.narrow(axis, 0, done).clone(memory_format=torch.contiguous_format)
    return None if kind is None else kind(**whole)


def _length(counted: Any) -> int | None:
    try:
        return len(counted)
    except TypeError:  # a stream
        return None


def family_of(likelihood: Any) -> Any:
    """The likelihood itself, for its name or itself.

    Raises:
        ValueError: it is none.
    """
    if likelihood == "categorical":
        return Categorical()
    # A class has the methods too, but is no likelihood: it was meant to be called.
    if isinstance(likelihood, Likelihood) and not isinstance(likelihood, type):
        return likelihood
    raise ValueError(
        f"expected the likelihood 'categorical' or mcbn.Gaussian(...), got {likelihood!r}; "
        "use Gaussian(precision=tau) for regression"
    )
