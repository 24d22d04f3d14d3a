"""The protocol of likelihoods: draws of the network's outputs to a distribution of the target."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical

P = TypeVar("P")
# Likelihoods that need no arguments.
LikelihoodName = Literal["categorical", "bernoulli"]
NAMED = {"categorical": Categorical(), "bernoulli": Bernoulli()}


@runtime_checkable
class Likelihood(Protocol[P]):
    """How draws of the network's outputs become a predictive distribution of the target.

    `Categorical`, `Bernoulli` and `Gaussian` are likelihoods, and so is any object with these two
    methods.
    """

    def summarize(self, passes: Iterable[Tensor], *, keep_draws: bool = False) -> P:
        """The predictive of one batch of inputs, from its outputs under one draw at a time."""
        ...

    def join(self, parts: Sequence[P]) -> P:
        """The predictive of several batches together, in order."""
        ...


def as_likelihood(likelihood: Any) -> Any:
    """Return the likelihood itself, whether it is given by name or as an object.

    Raises:
        ValueError: it is not a likelihood.
    """
    if isinstance(likelihood, str) and likelihood in NAMED:
        return NAMED[likelihood]
    # A class has the methods as well, but was meant to be called.
    if isinstance(likelihood, Likelihood) and not isinstance(likelihood, type):
        return likelihood
    raise ValueError(
        "expected the likelihood 'categorical', 'bernoulli', mcbn.Gaussian(...), or an object with "
        f"the methods summarize and join, got {likelihood!r:.80}; use Gaussian(precision=tau) for "
        "regression"
    )
