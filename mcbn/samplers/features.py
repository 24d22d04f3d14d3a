"""A network's features, the inputs of one of its layers, by a sampler of one draw."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module

from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.classifier import arguments_of, last_layer, only_argument
from mcbn.network.inputs import Inputs
from mcbn.samplers.loop import passes
from mcbn.samplers.outputs import stacked
from mcbn.samplers.sampler import require_draw


@dataclass(frozen=True, eq=False, repr=False)
class Features(Displayed):
    """What goes into a layer of the plain network in eval mode, as a single draw.

    Args:
        model: the trained network.
        layer: name of the layer; by default the last dense or convolutional one in the order of
            `named_modules`, which is the classifier of most networks.

    Raises:
        TypeError: the model is not a module.
        ValueError: there is no such layer, or a weight is not finite.
    """

    model: Module
    layer: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)
        if self.layer is None:
            found = last_layer(self.model)
            object.__setattr__(self, "layer", "" if found is None else found[0])
        modules = dict(self.model.named_modules())
        if not self.layer or self.layer not in modules:
            known = [name for name in modules if name]
            raise ValueError(
                f"expected the name of a layer among {known[:20]}, got {self.layer!r}; give "
                "layer=, a name in model.named_modules()"
            )

    def __len__(self) -> int:
        return 1

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(f"Features of {class_name(self.model)}: inputs of {self.layer}")

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the features of all inputs, once.

        Raises:
            TypeError: the layer is not given a tensor.
            ValueError: the layer is called not once in a pass, or an input is not finite.
        """
        with arguments_of(self.model.get_submodule(str(self.layer)), self.model) as arguments:
            (features,) = passes(
                self.model, [{}], inputs, output=lambda _: only_argument(arguments, str(self.layer))
            )
        yield features

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The features of all inputs under draw `index`, which is 0."""
        require_draw(index, len(self))
        return next(self.passes(inputs))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """The features with an axis of one draw."""
        return stacked(self.passes(inputs), inputs)
