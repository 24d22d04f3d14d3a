"""The slope of each example's output in every batch-norm statistic, by one backward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import VARIANCE, batch_norm_layers, statistics_names
from mcbn.network.inputs import Inputs, count, forward
from mcbn.samplers.loop import Output, tensor_output


@dataclass(frozen=True, eq=False)
class _Layer:
    """A batch-norm layer at the centre of the bank, and the activations it was fed.

    A gradient in the statistics would sum over the examples that share them; that in the
    activations a is each example's own. The layer's output depends on `(a - m) / sqrt(v + eps)`
    alone, so `df/dm = -sum df/da` and `df/dlog v = -v / (v + eps) / 2 sum (a - m) df/da`.
    """

    module: Module
    names: tuple[str, str]
    mean: Tensor
    factor: Tensor
    fed: list[Tensor]

    def feed(
        self, _: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep the activations; hand on a copy, whose gradient no other branch adds to."""
        key = None if args else next(iter(kwargs))
        copy = (args[0] if key is None else kwargs[key]).clone()
        if not copy.requires_grad:
            copy.requires_grad_()
        self.fed.append(copy)
        return ((copy, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: copy})

    def gradients(self, found: Tensor, activations: Tensor) -> Tensor:
        """In the mean and the log-variance, from that in the activations."""
        shape = (*activations.shape[:2], -1)
        kind = self.mean.dtype
        found, activations = (x.detach().reshape(shape).to(kind) for x in (found, activations))
        shift = found.sum(2)
        scale = torch.linalg.vecdot(found, activations) - self.mean * shift
        return torch.cat([-shift, self.factor * scale], dim=1)


def _layers(model: Module, centre: Mapping[str, Tensor]) -> list[_Layer]:
    """Those that the bank has draws of."""
    modules, buffers = batch_norm_layers(model), dict(model.named_buffers())
    found = []
    for name, (mean, variance) in statistics_names(modules).items():
        if mean in centre:
            epsilon = getattr(modules[name], "eps", None)
            if not isinstance(epsilon, (int, float)):
                raise ValueError(
                    f"expected a batch-norm layer with a known epsilon, got {name!r} "
                    f"({type(modules[name]).__name__}) without the attribute eps; use MCBatchNorm"
                )
            factor = -0.5 / (1 + epsilon / centre[variance].exp())
            # Sums over positions are taken in float32 or better.
            kind = torch.promote_types(buffers[mean].dtype, torch.float32)
            like = torch.empty(0, dtype=kind, device=buffers[mean].device)
            numbers = (centre[mean].to(like), factor.to(like))
            found.append(_Layer(modules[name], (mean, variance), *numbers, fed=[]))
    return found


@dataclass(frozen=True, eq=False)
class Record:
    """A pass at one value of the statistics, with the graph behind it.

    Attributes:
        outputs: the answer, (batch, outputs).
        layers: those whose statistics count, each with the activations it was fed.
    """

    outputs: Tensor
    layers: Sequence[_Layer]

    @property
    def names(self) -> list[str]:
        """The statistics in the order of `gradients`."""
        return [name for layer in self.layers for name in layer.names]

    def gradients(self, column: Float[Tensor, " batch"]) -> Float[Tensor, "batch statistics"]:
        """Of one output of every example, in all means and log-variances."""
        fed = [activations for layer in self.layers for activations in layer.fed]
        # Examples do not mix in eval mode, so the gradient of the sum holds each one's own.
        found = iter(
            torch.autograd.grad(column.sum(), fed, retain_graph=True, materialize_grads=True)
        )
        parts = []
        for layer in self.layers:
            zero = layer.mean.new_zeros(len(column), 2 * len(layer.mean))
            each = (layer.gradients(next(found), activations) for activations in layer.fed)
            parts.append(sum(each, start=zero))
        return torch.cat(parts, dim=1)


def recorded(
    model: Module, centre: Mapping[str, Tensor], inputs: Inputs, output: Output | None
) -> Record:
    """Pass `inputs` through `model` with the statistics `centre`, gradients on.

    Args:
        model: the network, in eval mode.
        centre: means and log-variances, under the names of their buffers.
        inputs: of the network.
        output: picks the output tensor.

    Raises:
        ValueError: the answer is no (batch, outputs), records no gradients, or mixes examples.
        TypeError: the network's output is no tensor.
    """
    layers = _layers(model, centre)
    # Detached, so that nothing is left on the weights.
    state = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())
    for name, values in centre.items():
        variance = name.endswith(VARIANCE)
        state[name] = (values.exp() if variance else values).to(buffers[name])
    handles = [x.module.register_forward_pre_hook(x.feed, with_kwargs=True) for x in layers]
    try:
        raw = forward(model, state, inputs)
    finally:
        for handle in handles:
            handle.remove()
    outputs = tensor_output(raw, output)
    _require_separable(outputs, layers, count(inputs))
    return Record(outputs, layers)


def _require_separable(outputs: Tensor, layers: Sequence[_Layer], examples: int) -> None:
    """Check that a gradient of each output of each example can be had, and cheaply."""
    if outputs.ndim != 2 or len(outputs) != examples:
        raise ValueError(
            f"expected outputs of the axes (batch, outputs) for {examples} inputs, got "
            f"{tuple(outputs.shape)}; give output=function that makes them so, or use MCBatchNorm"
        )
    if not outputs.requires_grad:
        raise ValueError(
            "expected differentiable outputs, got a network that records no gradients (no_grad, "
            "argmax or detach inside); use MCBatchNorm"
        )
    for name, fed in ((layer.names[0], fed) for layer in layers for fed in layer.fed):
        if len(fed) != examples:
            raise ValueError(
                f"expected activations of {examples} examples at {name!r}, got the shape "
                f"{tuple(fed.shape)}, in which they cannot be told apart; use MCBatchNorm"
            )
