"""A pass at one value of the batch-norm statistics, and its gradients in them, by example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.network.batchnorm import (
    MEAN,
    VARIANCE,
    batch_norm_layers,
    epsilon_of,
    statistics_names,
)
from mcbn.network.inputs import Inputs, count, tensors
from mcbn.network.isolation import intercepted
from mcbn.network.known_conducts import Conduct, State
from mcbn.network.passes import forward
from mcbn.network.train_mode import require_second_axis
from mcbn.samplers.outputs import Output, tensor_output

# Rounding of gradients of rows, relative to the largest of them.
ROW_ROUNDING = 1e-3
# Examples are weighted by powers of two up to that of this.
WEIGHT_POWERS = 4

# Kinds of inputs whose rows were seen to stay their own, while a network stays as it was.
_own_rows: WeakKeyDictionary[State, set[Any]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class _Layer:
    """A batch-norm layer at the centre of the bank, and the activations that it receives.

    A gradient in the statistics would sum over the examples that share them; that in the
    activations a is each example's own. The layer's output depends on `(a - m) / sqrt(v + eps)`
    alone, so `df/dm = -sum df/da` and `df/dlog(v + eps) = -1/2 sum (a - m) df/da`.
    """

    module: Module
    names: tuple[str, str]
    mean: Tensor
    factor: Tensor
    received: list[Tensor]

    def receive(
        self, layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep a copy of the activations and pass it on: no other branch adds to its gradient."""
        require_second_axis(
            layer, (args, kwargs), (layer.get_buffer(MEAN), layer.get_buffer(VARIANCE))
        )
        key = None if args else next(iter(kwargs))
        copy = (args[0] if key is None else kwargs[key]).clone()
        if not copy.requires_grad:
            copy.requires_grad_()
        self.received.append(copy)
        return ((copy, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: copy})

    def gradients(self, gradient: Tensor, activations: Tensor) -> Tensor:
        """Gradients in the coordinates of a bank, from that in the activations."""
        shape = (*activations.shape[:2], -1)
        kind = self.mean.dtype
        both = (gradient, activations)
        gradient, activations = (x.detach().reshape(shape).to(kind) for x in both)
        shift = gradient.sum(2)
        scale = torch.linalg.vecdot(gradient, activations) - self.mean * shift
        return torch.cat([-shift, self.factor * scale], dim=1)


def _layers(
    model: Module, center: Mapping[str, Tensor], epsilon: Mapping[str, float]
) -> list[_Layer]:
    """The layers that the bank has draws of."""
    modules, buffers = batch_norm_layers(model), dict(model.named_buffers())
    layers = []
    for name, (mean, variance) in statistics_names(modules).items():
        if mean in center:
            values = center[variance].double()
            both = values + epsilon.get(variance, 0.0), values + epsilon_of(name, modules[name])
            # A channel that never varies has no gradient, whatever its coordinate.
            factor = -0.5 * torch.where(both[1] > 0, both[0] / both[1], 0.0)
            # Sums over positions are taken in float32 or better.
            kind = torch.promote_types(buffers[mean].dtype, torch.float32)
            like = torch.empty(0, dtype=kind, device=buffers[mean].device)
            numbers = (center[mean].to(like), factor.to(like))
            layers.append(_Layer(modules[name], (mean, variance), *numbers, received=[]))
    return layers


@dataclass(frozen=True, eq=False)
class Linearization:
    """A pass at one value of the statistics, with the autograd graph that its gradients need.

    Attributes:
        outputs: the network's outputs, (batch, outputs).
        layers: the stochastic layers, each with the activations that it received.
    """

    outputs: Tensor
    layers: Sequence[_Layer]

    @property
    def names(self) -> list[str]:
        """The statistics in the order of `gradients`."""
        return [name for layer in self.layers for name in layer.names]

    def gradients(self, column: Float[Tensor, " batch"]) -> Float[Tensor, "batch statistics"]:
        """Gradients of one output of every example, in the coordinates of a bank."""
        received = [activations for layer in self.layers for activations in layer.received]
        # Examples do not mix in eval mode, so the gradient of the sum holds each one's own.
        gradients = iter(_gradients(column, received))
        parts = []
        for layer in self.layers:
            zero = layer.mean.new_zeros(len(column), 2 * len(layer.mean))
            each = (layer.gradients(next(gradients), values) for values in layer.received)
            parts.append(sum(each, start=zero))
        return torch.cat(parts, dim=1)


def _gradients(column: Tensor, received: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the sum of a column of outputs in all activations.

    Raises:
        ValueError: PyTorch cannot differentiate the network.
    """
    try:
        return torch.autograd.grad(
            column.sum(), received, retain_graph=True, materialize_grads=True
        )
    except RuntimeError as error:
        raise ValueError(
            f"expected a network that can be differentiated, got an error of PyTorch: "
            f"{str(error).splitlines()[0]}; write nothing in place after batch norm, or use "
            "MCBatchNorm"
        ) from error


def linearize(
    model: Module,
    center: Mapping[str, Tensor],
    epsilon: Mapping[str, float],
    inputs: Inputs,
    output: Output | None,
    conduct: Conduct,
) -> Linearization:
    """Pass `inputs` through `model` with the statistics `center`, with gradients enabled.

    The pass and its gradients are in the precision of the surrounding autocast.

    Args:
        model: the network, in eval mode.
        center: means and variances, under the names of their buffers.
        epsilon: in the coordinates of the bank, by the name of the variance.
        inputs: of the network, from `checked_inputs`.
        output: picks the output tensor.
        conduct: how the network treats the inputs.

    Raises:
        ValueError: the outputs have other axes than (batch, outputs), have no gradients, or mix
            examples.
        TypeError: the network's output is not a tensor.
    """
    layers = _layers(model, center, epsilon)
    # Detached, so that nothing is left on the weights.
    state = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())
    for name, values in center.items():
        state[name] = values.to(buffers[name])
    with intercepted(model, {}, {layer.module: layer.receive for layer in layers}):
        raw = forward(model, state, inputs)
    outputs = validation.finite(tensor_output(raw, output), "the network's outputs")
    _require_separable(outputs, layers, count(inputs))
    at_center = Linearization(outputs, layers)
    _check_rows_once(at_center, conduct, (output, *(x.shape[1:] for x in tensors(inputs))))
    return at_center


def _check_rows_once(at_center: Linearization, conduct: Conduct, kind: Any) -> None:
    """Check the rows of activations, unless those of such inputs were seen to be their own."""
    examples, state = len(at_center.outputs), conduct.state
    known = set() if state is None else _own_rows.setdefault(state, set())
    if examples == 1 or kind in known:
        return
    _require_own_rows(at_center)
    if not conduct.decides:  # whoever takes another path for other values is asked every time
        known.add(kind)


def _require_own_rows(at_center: Linearization) -> None:
    """Check that an example's output depends on its own row of the activations alone.

    A network may sort its examples, or gather them, and put them back: with the outputs weighted by
    example, the gradient in each row has to be that example's times its weight. Weights are powers
    of two, which are not rounded in any precision.

    Raises:
        ValueError: rows of activations are not those of the examples.
    """
    column = at_center.outputs[:, 0]
    weights = torch.linspace(0, WEIGHT_POWERS, len(column)).round().exp2().to(column)
    alone, weighted = at_center.gradients(column), at_center.gradients(column * weights)
    gap = (weighted / weights[:, None].to(weighted) - alone).abs().max()
    if float(gap) > ROW_ROUNDING * float(alone.abs().max()):
        raise ValueError(
            "expected activations whose rows are the examples, in their order, got a network that "
            "sorts or mixes them on the way; use MCBatchNorm"
        )


def _require_separable(outputs: Tensor, layers: Sequence[_Layer], examples: int) -> None:
    """Check that each output of each example has a gradient of its own."""
    if outputs.ndim != 2 or len(outputs) != examples:
        raise ValueError(
            f"expected outputs with the axes (batch, outputs) for {examples} inputs, got "
            f"{tuple(outputs.shape)}; give output=function that reshapes them, or use MCBatchNorm"
        )
    if outputs.is_complex():
        raise ValueError(
            f"expected real outputs, got {outputs.dtype}; give output=function that makes real "
            "numbers of them, or use MCBatchNorm"
        )
    if not outputs.requires_grad:
        raise ValueError(
            "expected differentiable outputs, got a network without gradients (no_grad, argmax or "
            "detach inside); use MCBatchNorm"
        )
    for layer in layers:
        for activations in layer.received:
            if len(activations) != examples:
                raise ValueError(
                    f"expected activations of {examples} examples at {layer.names[0]!r}, got the "
                    f"shape {tuple(activations.shape)}, whose rows are not examples; use "
                    "MCBatchNorm"
                )
