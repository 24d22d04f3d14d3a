"""The last dense layer of a network: what goes into it and what comes out, in one pass."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import linear

from mcbn.network.classifier import arguments_of, last_layer, only_argument
from mcbn.network.conduct import supervised
from mcbn.network.inputs import Inputs
from mcbn.network.isolation import model_lock
from mcbn.network.known_conducts import Conduct
from mcbn.network.rounding import near
from mcbn.samplers.loop import FirstDraw, answers, checked_inputs
from mcbn.samplers.outputs import Output, tensor_output

REMEDY = "give layer=, the name of the dense layer whose outputs the network returns"


@dataclass(frozen=True, eq=False)
class LastLayer:
    """A dense layer whose outputs are those of its network.

    Attributes:
        model: the network.
        name: of the layer in `named_modules`.
        output: picks the output tensor where the network returns something else.
    """

    model: Module
    name: str
    output: Output | None = field(default=None, kw_only=True)

    @classmethod
    def of(
        cls, model: Module, name: str | None = None, output: Output | None = None
    ) -> "LastLayer":
        """The layer of that name; by default the last dense or convolutional one.

        Raises:
            ValueError: there is no such layer, or it is not dense.
        """
        found = last_layer(model)
        default = None if found is None else found[0]
        chosen = default if name is None else name
        layer = None if chosen is None else dict(model.named_modules()).get(chosen)
        if not isinstance(layer, Linear):
            kind = "none" if layer is None else type(layer).__name__
            raise ValueError(
                f"expected a network that ends in a dense layer, torch.nn.Linear, got {kind} at "
                f"{chosen!r}; {REMEDY}"
            )
        return cls(model, str(chosen), output=output)

    @property
    def layer(self) -> Linear:
        """The layer itself."""
        layer = self.model.get_submodule(self.name)
        if not isinstance(layer, Linear):
            raise ValueError(
                f"expected a dense layer at {self.name!r}, got {type(layer).__name__}, so the "
                f"network was changed; {REMEDY}"
            )
        return layer

    def weights(self) -> Float64[Tensor, "outputs inputs"]:
        """The weights, and the bias as the last column where there is one."""
        layer = self.layer
        with model_lock(self.model):  # else another thread's draw may be in the network
            columns = [layer.weight, *([] if layer.bias is None else [layer.bias[:, None]])]
            return torch.cat([column.detach().double().cpu() for column in columns], 1)

    def __call__(
        self, inputs: Inputs
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch outputs"]]:
        """The features of all inputs, which the layer gets, and the network's outputs.

        Raises:
            ValueError: an input is not finite; the layer is called not once in a pass; there are
                several positions per example; or the outputs are not those of the layer.
            TypeError: the layer is not given a tensor, or the network's output is none.
        """
        inputs = checked_inputs(self.model, inputs)
        kept: list[Tensor] = []

        def passed(conduct: Conduct) -> Iterator[Tensor]:
            with arguments_of(self.layer, self.model) as arguments:
                (raw,) = answers(self.model, [{}], inputs, conduct)
            outputs = tensor_output(raw, self.output)
            kept[:] = [self._features(arguments, outputs)]
            yield outputs

        first = FirstDraw(self.model, {}, self.output)
        (outputs,) = supervised(self.model, inputs, first, passed)
        return kept[0], outputs

    def _features(self, given: list[Any], outputs: Tensor) -> Tensor:
        """What the layer was given, once it is known to make the outputs of it."""
        features = only_argument(given, self.name)
        if features.ndim != 2 or outputs.ndim != 2:
            raise ValueError(
                "expected one vector of outputs per example, of the axes (batch, outputs), got "
                f"{tuple(outputs.shape)} from a layer {self.name!r} that is given "
                f"{tuple(features.shape)}; give output= where an axis was dropped, such as "
                "output=lambda y: y[:, None]; dense predictions need mcbn.MCBatchNorm or MCDropout"
            )
        layer = self.layer
        with torch.no_grad(), model_lock(self.model):
            # In the precision of the features, which autocast inside the network may have chosen.
            bias = None if layer.bias is None else layer.bias.to(features.dtype)
            expected = linear(features, layer.weight.to(features.dtype), bias).to(outputs.dtype)
        if expected.shape != outputs.shape or not near(self.model, expected, outputs.detach()):
            raise ValueError(
                f"expected a network that returns what its layer {self.name!r} makes of its "
                "inputs, got other outputs, so something comes after it; let the network return "
                f"the outputs of that layer, such as logits before a softmax, or {REMEDY}"
            )
        return features
