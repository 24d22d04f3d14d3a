"""MC dropout as a sampler: dropout stays on at inference, with masks that belong to a draw."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module

from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.conduct import Conduct, supervised
from mcbn.network.dropout import dropout_layers, dropout_masks
from mcbn.network.inputs import Inputs
from mcbn.samplers.loop import FirstDraw, answers, checked_inputs
from mcbn.samplers.outputs import Output, stacked, tensor_output, told_if_equal


@dataclass(frozen=True, eq=False, repr=False)
class MCDropout(Displayed):
    """Monte Carlo dropout: dropout stays on, batch norm keeps its running statistics.

    A draw is one set of masks, shared by all inputs as a draw of the weights is. A mask depends on
    (seed, draw, layer) alone, so an input's outputs do not depend on what it is batched with.

    Args:
        model: the trained network, with dropout as modules; each keeps its trained rate.
        draws: T, the number of passes.
        seed: chooses the masks.
        output: picks the output tensor where the network returns something else.

    Raises:
        TypeError: the model is not a module.
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

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(f"MCDropout of {class_name(self.model)}: T = {self.draws}, seed {self.seed}")

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        inputs = checked_inputs(self.model, inputs)

        def first(given: Inputs) -> Tensor:
            with dropout_masks(self.model, self.seed, 0):
                return FirstDraw(self.model, {}, self.output)(given)

        def outputs(conduct: Conduct) -> Iterator[Tensor]:
            # Nothing stays switched while the caller holds the iterator.
            return (self._masked(inputs, conduct, draw) for draw in range(self.draws))

        run = supervised(self.model, inputs, first, outputs)
        return told_if_equal(run, "no dropout layer of the network has an effect on its outputs")

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _masked(self, inputs: Inputs, conduct: Conduct, draw: int) -> Tensor:
        with dropout_masks(self.model, self.seed, draw):
            (raw,) = answers(self.model, [{}], inputs, conduct, first=draw)
            return tensor_output(raw, self.output)
