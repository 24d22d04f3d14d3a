"""Posteriors fitted by laplace-torch as samplers: draws of any subset of the weights."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module, RNNBase

from mcbn import validation
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import require_finite_weights
from mcbn.network.conduct import supervised
from mcbn.network.inputs import Inputs
from mcbn.network.isolation import model_lock, random_streams
from mcbn.network.known_conducts import Conduct
from mcbn.samplers.loop import FirstDraw, answers, checked_inputs
from mcbn.samplers.outputs import Output, stacked, tensor_output
from mcbn.samplers.sampler import require_draw


@runtime_checkable
class FittedLaplace(Protocol):
    """What is asked of a posterior of laplace-torch."""

    @property
    def model(self) -> Module:
        """The network, or what extracts its features."""
        ...

    def sample(self, n_samples: int = 100) -> Tensor:
        """Draws of the weights, in rows."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class LaplaceSampler(Displayed):
    """Draws from a posterior that laplace-torch has fitted, one pass of its network per draw.

    The posterior may be of all weights, of the last layer or of a subnetwork, of any structure that
    has a method `sample`. Draw t is of its method `sample`, with the random streams seeded by
    (seed, t), and stands in place of the network's weights in a pass; the network and the posterior
    are left as they were. Of the last layer alone `LastLayerLaplace` is faster.

    Args:
        la: a posterior, after its method `fit`.
        draws: T, the number of passes.
        seed: of the draws.
        output: picks the output tensor where the network returns something else.

    Raises:
        TypeError: `la` is not such a posterior.
        ValueError: it is not fitted, is of weights inside a recurrent layer, or a weight is not
            finite.

    Reference:
        Daxberger et al. 2021, "Laplace redux: effortless Bayesian deep learning".
    """

    la: FittedLaplace
    draws: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    output: Output | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        validation.require_type(
            self.la, FittedLaplace, "a posterior of laplace-torch",
            "give what laplace.Laplace(model, ...) returns, after its method fit",
        )  # fmt: skip
        if validation.integer(self.draws, "draws") < 1:
            raise ValueError(f"expected at least 1 draw, got {self.draws}; give draws=64 or so")
        require_finite_weights(self.model)
        self._drawn()

    def __len__(self) -> int:
        return self.draws

    @property
    def model(self) -> Module:
        """The network that is called."""
        return self.la.model

    def display(self) -> Display:
        """What it is made of, in one line."""
        network = getattr(self.model, "model", self.model)
        return Display(
            f"LaplaceSampler of {type(self.la).__name__} of {class_name(network)}: T = "
            f"{self.draws}, seed {self.seed}"
        )

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        return self._passes(inputs, range(self.draws))

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs for all inputs under draw `index` of the weights."""
        require_draw(index, self.draws)
        return next(self._passes(inputs, range(index, index + 1)))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _passes(self, inputs: Inputs, chosen: range) -> Iterator[Tensor]:
        inputs = checked_inputs(self.model, inputs)
        first = FirstDraw(self.model, self._state(chosen[0]), self.output)

        def outputs(conduct: Conduct) -> Iterator[Tensor]:
            raws = answers(
                self.model, map(self._state, chosen), inputs, conduct, first=chosen.start
            )
            return map(partial(tensor_output, output=self.output), raws)

        return supervised(self.model, inputs, first, outputs)

    def _state(self, index: int) -> dict[str, Tensor]:
        """The weights of a draw, by their names in the network."""
        with random_streams(self.seed, "laplace", index):
            row = self.la.sample(1).detach()[0]
        drawn = self._drawn()
        sizes = [parameter.numel() for parameter, _ in drawn]
        if row.shape != (sum(sizes),):
            raise ValueError(
                f"expected draws of {sum(sizes)} weights, got {tuple(row.shape)} from "
                f"{type(self.la).__name__}.sample(1); fit the posterior anew"
            )
        pieces = torch.split(row, sizes)
        return {
            name: piece.view_as(parameter).to(parameter)
            for (parameter, names), piece in zip(drawn, pieces, strict=True)
            for name in names
        }

    def _drawn(self) -> list[tuple[Tensor, list[str]]]:
        """Each weight that is drawn, with its names; several where modules share it."""
        with model_lock(self.model):  # else another thread's draw may be in the network
            every = list(self.model.named_parameters(remove_duplicate=False))
            drawn = [
                (weight, [name for name, parameter in every if parameter is weight])
                for weight in _drawn_parameters(self.la)
            ]
        if not drawn or not all(names for _, names in drawn):
            raise ValueError(
                "expected a posterior of the weights of its network, got one of others; call its "
                "method fit first, and again after a change of the network"
            )
        recurrent = {name for name, each in self.model.named_modules() if isinstance(each, RNNBase)}
        for name in (name for _, names in drawn for name in names):
            if name.rpartition(".")[0] in recurrent:
                raise ValueError(
                    f"expected weights outside recurrent layers, which keep lists of theirs, got "
                    f"{name!r}; fit the posterior with subset_of_weights='last_layer'"
                )
        return drawn


def _drawn_parameters(la: Any) -> list[Tensor]:
    """The parameters that a row of `la.sample` is made of, in its order."""
    if hasattr(la.model, "last_layer"):
        return [] if la.model.last_layer is None else list(la.model.last_layer.parameters())
    return list(getattr(la, "params", ()))
