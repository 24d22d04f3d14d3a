"""Prediction: a sampler run over data, and its draws summarised under a likelihood."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count as counting
from itertools import repeat, takewhile
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mcbn import validation
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Inputs, Select, count, select_inputs
from mcbn.network.isolation import StreamStates, random_streams
from mcbn.network.known_conducts import Conduct, seen
from mcbn.network.loaders import Data, batch_lengths, order_sampler, ordered_loader, rebatched
from mcbn.predictive.bernoulli import BernoulliPredictive, probabilities_met
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.joining import joined
from mcbn.predictive.likelihood import Likelihood, LikelihoodName, P, as_likelihood
from mcbn.samplers.sampler import Sampler

S = TypeVar("S")
END = object()


@overload
def predict(
    sampler: Sampler,
    data: Data,
    likelihood: Literal["categorical"] = ...,
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> CategoricalPredictive: ...
@overload
def predict(
    sampler: Sampler,
    data: Data,
    likelihood: Literal["bernoulli"],
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> BernoulliPredictive: ...
@overload
def predict(
    sampler: Sampler,
    data: Data,
    likelihood: Likelihood[P],
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> P: ...
def predict(
    sampler: Sampler,
    data: Data,
    likelihood: LikelihoodName | Likelihood[Any] = "categorical",
    *,
    batch_size: int | None = None,
    select: Select | None = None,
    keep_draws: bool = False,
    progress: bool = True,
) -> Any:
    """Return the predictive distribution of every example, in the order of the data.

    Data and, for classes, draws are streamed: besides the result, memory holds one batch. Where
    the result itself is too large, take it batch by batch from `predict_batches`.

    Args:
        sampler: what makes the draws, such as `MCBatchNorm`.
        data: inputs as a tensor, a data set, or a loader in fixed order; targets are ignored.
        likelihood: "categorical" for logits of classes, "bernoulli" for logits of several labels an
            example, `Gaussian(...)` for real targets.
        batch_size: examples per pass; by default the loader's own, else 256. Where it is given,
            the numbers are the same bits however a loader batches the data.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        keep_draws: for classes and labels, keep the logits of every draw as well.
        progress: show a progress bar, on a terminal only.

    Raises:
        TypeError: not a sampler, or data of another kind.
        ValueError: no data, values that are not finite, a loader that shuffles.
    """
    loader = ordered_loader(data, batch_size)
    parts = _predictives(sampler, data, likelihood, select, keep_draws, batch_size)
    bar = progress_bar(parts, label="predict", unit="batch", total=length(loader), shown=progress)
    examples = length(order_sampler(loader)) or 0
    return require_some(joined(as_likelihood(likelihood), bar, examples))


@overload
def predict_batches(
    sampler: Sampler,
    data: Data,
    likelihood: Literal["categorical"] = ...,
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
) -> Iterator[CategoricalPredictive]: ...
@overload
def predict_batches(
    sampler: Sampler,
    data: Data,
    likelihood: Literal["bernoulli"],
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
) -> Iterator[BernoulliPredictive]: ...
@overload
def predict_batches(
    sampler: Sampler,
    data: Data,
    likelihood: Likelihood[P],
    *,
    batch_size: int | None = ...,
    select: Select | None = ...,
    keep_draws: bool = ...,
) -> Iterator[P]: ...
def predict_batches(
    sampler: Sampler,
    data: Data,
    likelihood: LikelihoodName | Likelihood[Any] = "categorical",
    *,
    batch_size: int | None = None,
    select: Select | None = None,
    keep_draws: bool = False,
) -> Iterator[Any]:
    """Yield the predictive distribution of one batch after another.

    Memory holds one batch, however many examples there are and, for classes, however many draws.
    An endless stream of data is allowed; no data give no batches.

    The arguments are those of `predict`.

    Raises:
        TypeError: not a sampler, or data of another kind.
        ValueError: values that are not finite, a loader that shuffles.
    """
    return _predictives(sampler, data, likelihood, select, keep_draws, batch_size)


def _predictives(
    sampler: Sampler,
    data: Data,
    likelihood: Any,
    select: Select | None,
    keep_draws: bool,
    batch_size: int | None,
) -> Iterator[Any]:
    require_sampler(sampler)
    loader = ordered_loader(data, batch_size)
    regroup = batch_size if loader is data else None
    parts = summarize_batches(
        sampler,
        loader,
        partial(as_likelihood(likelihood).summarize, keep_draws=keep_draws),
        select=select,
        batch_size=regroup,
    )
    if regroup is not None:
        parts = _put_together(parts)
    # The user's own batches are passed as they are; only those made here have to be free of choice.
    cut = loader is not data or regroup is not None
    return _accepted(
        sampler, as_likelihood(likelihood), parts, cut=cut, regrouped=regroup is not None
    )


def _put_together(parts: Iterator[S]) -> Iterator[S]:
    """The parts of batches that were put together here.

    Raises:
        ValueError: PyTorch does not run the network on them.
    """
    try:
        yield from parts
    except RuntimeError as error:
        raise ValueError(
            f"expected a network that takes batches of any number of rows, got an error of "
            f"PyTorch: {str(error).splitlines()[0]}; leave batch_size out, and each batch of the "
            "loader is passed as it is"
        ) from error


def _accepted(
    sampler: Sampler, likelihood: Any, parts: Iterator[Any], *, cut: bool, regrouped: bool
) -> Iterator[Any]:
    """The parts, where the network is one that they are right for.

    Raises:
        ValueError: it mixes the examples of a batch, and these were cut here; it takes a path by
            the values in a batch, and the user's batches were put together anew; or it ends in a
            sigmoid, and the likelihood is that of classes.
    """
    unknown = getattr(likelihood, "outputs", "known") is None
    for index, part in enumerate(parts):
        conducts = _conducts(sampler)
        if unknown and any(conduct.ends_in_sigmoid for conduct in conducts):
            raise probabilities_met("the outputs of a sigmoid")
        mixes = any(c.mixes or (regrouped and c.decides) for c in conducts)
        if cut and index > 0 and mixes:
            raise mixing_met(
                "give a DataLoader with the batches that belong together, and leave batch_size out"
            )
        yield part


def require_separate(sampler: Sampler) -> None:
    """Check that no network of a sampler was seen to mix the examples of a batch.

    Raises:
        ValueError: one was.
    """
    if any(conduct.mixes for conduct in _conducts(sampler)):
        raise mixing_met("pass batches that belong together by mcbn.predict with a DataLoader")


def mixing_met(advice: str) -> ValueError:
    """The error of data that are cut for a network that mixes examples."""
    return ValueError(
        "expected a network whose output for an example is its own, to cut the data into batches, "
        f"got one whose output depends on the others in its batch; {advice}"
    )


def _conducts(sampler: Sampler) -> list[Conduct]:
    """How the networks of a sampler were seen to treat their inputs."""
    return [conduct for model in networks(sampler) for conduct in seen(model)]


def networks(sampler: Any) -> tuple[Any, ...]:
    """The networks that a sampler of this package calls."""
    return (*getattr(sampler, "models", ()), *filter(None, [getattr(sampler, "model", None)]))


def summarize_batches(
    sampler: Sampler,
    loader: DataLoader[Any],
    summarize: Callable[[Iterator[Tensor]], S],
    *,
    select: Select | None = None,
    batch_size: int | None = None,
    first: int = 0,
) -> Iterator[S]:
    """Yield the summary of the draws of one batch after another; empty batches are left out.

    Args:
        sampler: what makes the draws.
        loader: batches in a fixed order.
        summarize: takes the draws of a batch, one at a time.
        select: picks the network's inputs out of a batch.
        batch_size: examples per pass; those of the loader if not given.
        first: index of the loader's first batch in the whole data. It seeds the transforms that
            draw at random, so that they do not depend on which process loads a batch.
    """
    loaded = takewhile(lambda inputs: inputs is not END, _loaded(loader, select, first))
    batches = loaded if batch_size is None else rebatched(loaded, batch_size)
    lengths = batch_lengths(loader) if batch_size is None else repeat(None)
    # Random streams belong to the process: they are seeded only where the network draws from them.
    seeded = False
    for index in counting(first):
        inputs = next(batches, None)
        if inputs is None:
            return
        # Batches that were put together here have as many examples as rows.
        examples = next(lengths) if batch_size is None else count(inputs)
        step = partial(_summary, sampler, inputs, summarize, examples)
        if not seeded:
            summary, seeded = _watched(step)
        if seeded:
            summary = _seeded(step, "pass", index)
        del inputs, step  # not held while the caller works
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        if summary is not None:
            yield summary


def _loaded(loader: DataLoader[Any], select: Select | None, first: int) -> Iterator[Any]:
    """Yield the network's inputs of one batch after another, then END forever."""
    # The loader takes its base seed from the global stream.
    batches = _seeded(partial(iter, loader))

    def load(index: int) -> Any:
        batch = _seeded(partial(next, batches, END), index)
        return END if batch is END else select_inputs(batch, select)

    return map(load, counting(first))


def _summary(
    sampler: Sampler,
    inputs: Inputs,
    summarize: Callable[[Iterator[Tensor]], S],
    examples: int | None,
) -> S | None:
    if count(inputs) == 0:
        return None
    return summarize(_one_each(sampler.passes(inputs), inputs, examples))


def _one_each(draws: Iterator[Tensor], inputs: Inputs, examples: int | None) -> Iterator[Tensor]:
    """The draws, once they are known to have one output per example.

    The examples are the rows of the inputs, or as many as the loader puts in a batch: where it
    does not say how many, rows and outputs that differ are left to the targets to count.
    """
    rows = count(inputs)
    for outputs in draws:
        found = len(outputs) if outputs.ndim > 0 else 1
        if examples is not None and found not in (rows, examples):
            raise ValueError(
                f"expected one output per example, got {found} outputs for a batch of {examples} "
                "examples; give output=, a function that makes one of an example's outputs, or "
                "selects one per example"
            )
        yield outputs


def _watched(call: Callable[[], Any]) -> tuple[Any, bool]:
    """The result, and whether the call moved a random stream, which is then restored."""
    before = StreamStates.now()
    moved = True
    try:
        with torch.no_grad():
            result = call()
        moved = not before.unmoved()
        return result, moved
    finally:
        if moved:
            before.restore()


def _seeded(call: Callable[[], Any], *key: int | str) -> Any:
    """The result under random streams seeded from `key`."""
    with random_streams(0, "predict", *key), torch.no_grad():
        return call()


def require_sampler(sampler: Sampler) -> None:
    """Check that there is a sampler.

    Raises:
        TypeError: it is something else, such as the network itself.
    """
    advice = "wrap the network by mcbn.MCBatchNorm(model, bank) or mcbn.Deterministic(model)"
    validation.require_type(sampler, Sampler, "a sampler", advice)


def require_some(predictive: Any) -> Any:
    """Check that there was an example to predict.

    Raises:
        ValueError: there was none.
    """
    if predictive is None:
        raise ValueError("expected at least one example to predict, got none; check the data")
    return predictive


def length(counted: Any) -> int | None:
    """How many there are, if that is known before they are read."""
    try:
        return len(counted)
    except TypeError:  # a stream
        return None
