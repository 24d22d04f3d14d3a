"""Predicting: a sampler streamed over data, its draws summarised under a likelihood."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar, overload, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from tqdm import tqdm

from mcbn.categorical import Categorical, CategoricalPredictive
from mcbn.gaussian import Gaussian, GaussianPredictive
from mcbn.inputs import Inputs, Select, count, of_batch
from mcbn.isolation import random_streams

Predictive = CategoricalPredictive | GaussianPredictive
P = TypeVar("P")
SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@runtime_checkable
class Sampler(Protocol):
    """Inputs in, draws of outputs out: all that predicting asks of an uncertainty method.

    The same inputs give the same rows, whatever they are batched with.
    """

    def __len__(self) -> int:
        """T, the number of draws."""
        ...

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """The network's outputs for all inputs, one draw at a time."""
        ...

    def __call__(self, inputs: Inputs) -> Tensor:
        """All draws stacked: axes (draws, batch, ...)."""
        ...


@runtime_checkable
class Likelihood(Protocol[P]):
    """How draws of outputs become a distribution of targets."""

    def summarise(self, passes: Iterable[Tensor], *, keep_draws: bool = False) -> P:
        """The predictive of one batch of inputs."""
        ...

    def join(self, parts: Sequence[P]) -> P:
        """The predictive of several batches together, in order."""
        ...


@overload
def predict(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Categorical = ...,
    *,
    batch_size: int = ...,
    inputs: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> CategoricalPredictive: ...
@overload
def predict(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Gaussian,
    *,
    batch_size: int = ...,
    inputs: Select | None = ...,
    keep_draws: bool = ...,
    progress: bool = ...,
) -> GaussianPredictive: ...
def predict(
    sampler: Sampler,
    data: Tensor | Dataset[Any] | DataLoader[Any],
    likelihood: Literal["categorical"] | Categorical | Gaussian = "categorical",
    *,
    batch_size: int = 256,
    inputs: Select | None = None,
    keep_draws: bool = False,
    progress: bool = True,
) -> Predictive:
    """The predictive distribution of every example, in the order of the data.

    Data and, for classes, draws are streamed: besides the answer, memory holds one batch.

    Args:
        sampler: what makes the draws, such as `MCBatchNorm`.
        data: inputs as a tensor, a data set, or a loader in fixed order; targets are ignored.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        batch_size: examples in a pass, unless a loader is given.
        inputs: picks the network's inputs out of a batch where the default rule does not.
        keep_draws: keep the raw outputs of every draw too, for classes.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: data of another kind.
        ValueError: no data, values that are not finite, a loader that shuffles.
    """
    family = _family(likelihood)
    loader = _loader(data, batch_size)
    hidden = None if progress else True  # None: hidden unless on a terminal
    parts = []
    # The loader takes its base seed from the global stream, and transforms may draw from it.
    with random_streams(0, "predict"), torch.no_grad():
        for batch in tqdm(
            loader, desc="predict", unit="batch", delay=0.5, leave=False, disable=hidden
        ):
            selected = of_batch(batch, inputs)
            if count(selected) > 0:
                parts.append(family.summarise(sampler.passes(selected), keep_draws=keep_draws))
    if not parts:
        raise ValueError("expected at least one example to predict, got none; check the data")
    joined: Predictive = family.join(parts)
    return joined


def _family(likelihood: Any) -> Any:
    if likelihood == "categorical":
        return Categorical()
    if isinstance(likelihood, (Categorical, Gaussian)):
        return likelihood
    raise ValueError(
        f"expected the likelihood 'categorical' or mcbn.Gaussian(...), got {likelihood!r}; "
        "use Gaussian(precision=tau) for regression"
    )


def _loader(data: Any, batch_size: int) -> DataLoader[Any]:
    if isinstance(data, DataLoader):
        # A batch sampler holds the order itself; the loader's own is then a mere default.
        order = getattr(data.batch_sampler, "sampler", data.sampler)
        if isinstance(order, SHUFFLING):
            raise ValueError(
                "expected a loader in a fixed order, got one that shuffles, whose predictions "
                "could not be matched with targets; give it shuffle=False"
            )
        return data
    if isinstance(data, Tensor):
        data = TensorDataset(data)
    if not isinstance(data, Dataset):
        raise TypeError(
            f"expected a tensor, a Dataset or a DataLoader, got {type(data).__name__}; "
            "wrap several tensors in a TensorDataset"
        )
    return DataLoader(data, batch_size=batch_size)
