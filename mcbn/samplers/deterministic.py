"""The plain network as a sampler of one draw: what the others are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module

from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.inputs import Inputs
from mcbn.samplers.loop import passes
from mcbn.samplers.outputs import Output, stacked
from mcbn.samplers.sampler import require_draw


@dataclass(frozen=True, eq=False, repr=False)
class Deterministic(Displayed):
    """The plain network in eval mode, as a single draw: what the others are compared with.

    Args:
        model: the trained network.
        output: picks the output tensor where the network returns something else.

    Raises:
        TypeError: the model is not a module.
        ValueError: a weight is not finite.
    """

    model: Module
    output: Output | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)

    def __len__(self) -> int:
        return 1

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(f"Deterministic: {class_name(self.model)}, T = 1")

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        return passes(self.model, [{}], inputs, output=self.output)

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs for all inputs under draw `index`, which is 0."""
        require_draw(index, len(self))
        return next(self.passes(inputs))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)
