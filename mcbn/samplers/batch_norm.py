"""MCBN as a sampler: one pass of the network per draw of a bank."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank, require_bank
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import (
    batch_norm_layers,
    require_finite_weights,
    statistics_names,
    unwrapped,
)
from mcbn.network.inputs import Inputs
from mcbn.network.layer_names import Layers, chosen_layers, layers_text
from mcbn.samplers.chunks import Engine
from mcbn.samplers.engines import draws, require_engine
from mcbn.samplers.outputs import Output, stacked, told_if_equal
from mcbn.samplers.precision import ChosenPrecision, Precision, PrecisionChoice
from mcbn.samplers.sampler import require_draw


@dataclass(frozen=True, eq=False, repr=False)
class MCBatchNorm(Displayed):
    """Monte Carlo batch normalisation: one pass of the network per draw of a bank.

    Args:
        model: the trained network.
        bank: draws of its batch-norm statistics, from `collect`.
        output: picks the output tensor where the network returns something else.
        engine: how the draws run, "loop", "folded" or "batched"; "auto" picks the fastest by
            the network and the number of inputs. The numbers are the same.
        layers: which layers are stochastic: all; the last k in the order of the network, by a
            number; `"first 5"`; or those named, by their own names or by those of the modules that
            they are in, such as `"layer1"`. The others keep their running statistics, and what is
            before the first stochastic layer runs once for all draws. Fewer layers give less
            epistemic uncertainty. `choose_layers` compares them on held-out data.
        precision: of the passes. "float32" is that of the network; "bfloat16" is autocast, at about
            half of the time on processors with units for it; "auto" measures at the first call, on
            some of its inputs, what rounding does, and takes bfloat16 where that is at most a
            quarter of the Monte Carlo error and it takes less time. `precision_choice` says why.

    Raises:
        TypeError: the model is not a module, or the bank is not a bank.
        ValueError: the bank belongs to another model, a weight is not finite, or there is no such
            engine, layer or precision.

    Reference:
        Teye, Azizpour and Smith 2018, "Bayesian Uncertainty Estimation for Batch Normalized Deep
        Networks", section 3.4.
    """

    model: Module
    bank: Bank
    output: Output | None = field(default=None, kw_only=True)
    engine: Engine = field(default="auto", kw_only=True)
    layers: Layers = field(default=None, kw_only=True)
    precision: Precision = field(default="float32", kw_only=True)
    _precision: ChosenPrecision = field(init=False)

    def __post_init__(self) -> None:
        require_engine(self.engine)
        require_bank(self.bank)
        # Wrappers (torch.compile, data parallelism) are taken off: a bank fits either form.
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)
        self.bank.require_model(self.model)
        self._statistics()
        chosen = ChosenPrecision(self.precision, (self.model,), len(self))
        object.__setattr__(self, "_precision", chosen)

    def __len__(self) -> int:
        return len(self.bank)

    @property
    def precision_choice(self) -> PrecisionChoice | None:
        """The precision of the passes, and why; None before the first call with "auto"."""
        return self._precision.choice

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(
            f"MCBatchNorm of {class_name(self.model)}: T = {len(self)}, M = {self.bank.size:g}, "
            f"{layers_text(self.layers)}, engine {self.engine!r}{self._precision}"
        )

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        run = self._precision.run(self._passes, inputs)
        if all(bool((rows == rows[:1]).all()) for rows in self._statistics().values()):
            return run  # all mini-batches were the whole data set
        return told_if_equal(
            run,
            "the network does not use the layers of the bank in eval mode, or what it makes of "
            "them does not reach its outputs",
        )

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs for all inputs under draw `index` of the bank, by the engine."""
        require_draw(index, len(self))
        alone = partial(self._passes, only=index)
        return next(self._precision.run(alone, inputs, by=self._passes))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _passes(self, inputs: Inputs, *, only: int | None = None) -> Iterator[Tensor]:
        return draws(
            self.model, self._statistics(), inputs,
            output=self.output, engine=self.engine, only=only,
        )  # fmt: skip

    def _statistics(self) -> dict[str, Tensor]:
        """The draws of the stochastic layers."""
        return drawn_statistics(self.model, self.bank, self.layers)


def drawn_statistics(model: Module, bank: Bank, layers: Layers) -> dict[str, Tensor]:
    """The draws of some of the layers of a bank, in the order of the network."""
    pairs = statistics_names(batch_norm_layers(model))
    return {
        name: bank.statistics[name]
        for layer in chosen_layers(drawn_layers(model, bank), layers)
        for name in pairs[layer]
    }


def drawn_layers(model: Module, bank: Bank) -> list[str]:
    """Names of the layers of a network that a bank has draws of, in the order of the network."""
    pairs = statistics_names(batch_norm_layers(model))
    return [name for name, pair in pairs.items() if pair[0] in bank.statistics]
