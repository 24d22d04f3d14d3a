"""Samplers: inputs in, draws of outputs out. Each one is a network made stochastic in its way.

All share one form: `sampler(inputs)` has the axes (draws, batch, ...), `sampler.passes(inputs)`
yields the same rows one at a time, and `len(sampler)` is the number of draws. None of them keeps
randomness for later: the same inputs give the same rows in any order and cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module, ModuleList

from mcbn import validation
from mcbn.bank.bank import Bank, require_bank
from mcbn.network.batchnorm import (
    batch_norm_layers,
    chosen_layers,
    require_finite_weights,
    statistics_names,
    unwrapped,
)
from mcbn.network.dropout import dropout_layers, masked
from mcbn.network.inputs import Inputs
from mcbn.network.isolation import as_found
from mcbn.samplers.chunks import Engine
from mcbn.samplers.engines import draws, require_engine
from mcbn.samplers.loop import Output, passes


@dataclass(frozen=True, eq=False)
class MCBatchNorm:
    """Monte Carlo batch normalisation: one pass for each draw of a bank.

    Args:
        model: the trained network.
        bank: draws of its batch-norm statistics, from `collect`.
        output: picks the output tensor where the network answers with something else.
        engine: how the draws run, "loop", "folded", "batched" or "compiled"; "auto" picks the
            fastest by the network and the number of inputs. The numbers are the same.
        layers: which layers are stochastic: all, the last so many in the order of the network, or
            those named. The others keep their running statistics, and what is before the first
            stochastic layer runs once for all draws. Fewer layers hold less epistemic uncertainty.

    Raises:
        TypeError: the model is no module, or the bank none.
        ValueError: the bank belongs to another model, a weight is not finite, or there is no such
            engine or layer.

    Reference:
        Teye, Azizpour and Smith 2018, "Bayesian Uncertainty Estimation for Batch Normalized Deep
        Networks", section 3.4.
    """

    model: Module
    bank: Bank
    output: Output | None = field(default=None, kw_only=True)
    engine: Engine = field(default="auto", kw_only=True)
    layers: int | Sequence[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require_engine(self.engine)
        require_bank(self.bank)
        # What holds a network (torch.compile, data parallelism) is taken off: a bank fits either.
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)
        self.bank.require_model(self.model)
        self._statistics()

    def __len__(self) -> int:
        return len(self.bank)

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the output for all inputs under one draw after another."""
        return draws(self.model, self._statistics(), inputs, output=self.output, engine=self.engine)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return torch.stack(list(self.passes(inputs)))

    def _statistics(self) -> dict[str, Tensor]:
        """The draws of the stochastic layers."""
        owned = self.bank.statistics
        pairs = statistics_names(batch_norm_layers(self.model))
        drawn = [name for name, pair in pairs.items() if pair[0] in owned]
        return {
            name: owned[name]
            for layer in chosen_layers(drawn, self.layers)
            for name in pairs[layer]
        }


@dataclass(frozen=True, eq=False)
class MCDropout:
    """Monte Carlo dropout: dropout stays on, batch norm keeps its running statistics.

    A draw is one set of masks, shared by all inputs as a draw of the weights is; each depends on
    (seed, draw, layer) alone, so an input's rows do not depend on what it is batched with.

    Args:
        model: the trained network, with dropout as modules; each keeps its trained rate.
        draws: T, the number of passes.
        seed: chooses the masks.
        output: picks the output tensor where the network answers with something else.

    Raises:
        TypeError: the model is no module.
        ValueError: no dropout layer with a positive rate, or a weight is not finite.

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation", equation 6.
    """

    model: Module
    draws: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    output: Output | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"expected at least 1 draw, got {self.draws}; give draws=64 or so")
        object.__setattr__(self, "model", unwrapped(self.model))
        dropout_layers(self.model)
        require_finite_weights(self.model)

    def __len__(self) -> int:
        return self.draws

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the output for all inputs under one draw after another."""
        for draw in range(self.draws):
            yield self._masked(inputs, draw)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return torch.stack(list(self.passes(inputs)))

    @as_found
    def _masked(self, inputs: Inputs, draw: int) -> Tensor:
        with masked(self.model, self.seed, draw):
            return next(passes(self.model, [{}], inputs, output=self.output))


@dataclass(frozen=True, eq=False)
class DeepEnsemble:
    """A deep ensemble: one pass through each of several networks, running statistics throughout.

    Args:
        models: networks trained from different seeds.
        output: picks the output tensor where the networks answer with something else.

    Raises:
        TypeError: these are no networks.
        ValueError: there is no network, or a weight is not finite.

    Reference:
        Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty
        Estimation using Deep Ensembles", section 2.4.
    """

    models: Sequence[Module]
    output: Output | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # A network of layers in a row has a length, too.
        several = (list, tuple, ModuleList)
        validation.kind(self.models, several, "a list of networks", "put them in one")
        if len(self.models) == 0:
            raise ValueError("expected at least one network, got none; train a few and list them")
        object.__setattr__(self, "models", tuple(unwrapped(model) for model in self.models))
        for model in self.models:
            require_finite_weights(model)

    def __len__(self) -> int:
        return len(self.models)

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the output for all inputs under one draw after another."""
        for model in self.models:
            yield from passes(model, [{}], inputs, output=self.output)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return torch.stack(list(self.passes(inputs)))


@dataclass(frozen=True, eq=False)
class Deterministic:
    """The plain network in eval mode, as a single draw: what the others are compared with.

    Args:
        model: the trained network.
        output: picks the output tensor where the network answers with something else.

    Raises:
        TypeError: the model is no module.
        ValueError: a weight is not finite.
    """

    model: Module
    output: Output | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)

    def __len__(self) -> int:
        return 1

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the output for all inputs under one draw after another."""
        return passes(self.model, [{}], inputs, output=self.output)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return torch.stack(list(self.passes(inputs)))
