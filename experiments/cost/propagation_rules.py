"""Perturbations of a network's activations, passed on from layer to layer to first order.

A network is walked once, operation by operation. Each value comes with a change: either tangents,
the derivatives along some directions of the batch-norm statistics, or one variance per element.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

import mcbn
from mcbn.network.batchnorm import MEAN, VARIANCE


@dataclass(frozen=True, eq=False)
class Spread:
    """Statistics of one batch-norm layer: m and the log of v + epsilon, centre and deviations."""

    mean: Float[Tensor, " channels"]
    log: Float[Tensor, " channels"]
    mean_deviations: Float[Tensor, "draws channels"]
    log_deviations: Float[Tensor, "draws channels"]

    def mixed(self, weights: Float[Tensor, "directions draws"]) -> "Spread":
        """The same centre, with combinations of the deviations."""
        rows = (self.mean_deviations, self.log_deviations)
        return Spread(self.mean, self.log, *(weights @ each for each in rows))


def spreads(bank: mcbn.Bank) -> dict[str, Spread]:
    """Of every layer; deviations are divided by the root of T, so they sum to the covariance."""
    found = {}
    coordinates = bank.coordinates()
    for name in coordinates:
        if name.endswith(MEAN):
            rows = coordinates[name], coordinates[name.removesuffix(MEAN) + VARIANCE]
            centers = [each.mean(0) for each in rows]
            deviations = [(x - c) / len(bank) ** 0.5 for x, c in zip(rows, centers, strict=True)]
            numbers = [each.float() for each in (*centers, *deviations)]
            found[name.removesuffix(MEAN).removesuffix(".")] = Spread(*numbers)
    return found


@dataclass(frozen=True, eq=False)
class Moving:
    """A value at the centre of the bank, and how it changes; None as long as nothing does."""

    value: Tensor
    change: Tensor | None = None


class Rules(Protocol):
    """How a change passes through the operations that treat it in a special way."""

    def mix(self, layer: nn.Module, x: Moving) -> Moving:
        """Convolution or linear layer."""

    def normalize(self, name: str, layer: nn.Module, x: Moving) -> Moving:
        """Batch norm, which adds the change of its own statistics."""

    def rectify(self, x: Moving) -> Moving:
        """ReLU."""

    def average(self, operation: Callable[[Tensor], Tensor], x: Moving) -> Moving:
        """Mean over all positions."""


def walk(graph: fx.GraphModule, inputs: Tensor, rules: Rules) -> Moving:
    """Pass the inputs through the network; return what its last layer, a linear one, receives."""
    known: dict[fx.Node, Moving] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            known[node] = Moving(inputs)
        elif node.op == "output":
            return known[node.args[0].args[0]]
        else:
            known[node] = _applied(graph, node, known, rules)
    raise ValueError("expected a graph with an output")


def _applied(graph: fx.GraphModule, node: fx.Node, known: dict, rules: Rules) -> Moving:
    x = known[node.args[0]]
    if node.target is operator.add:
        return _sum(x, known[node.args[1]])
    operation: Callable = node.target
    if node.op == "call_module":
        operation = graph.get_submodule(node.target)
    match operation:
        case nn.Conv2d() | nn.Linear():
            return rules.mix(operation, x)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return rules.normalize(node.target, operation, x)
        case nn.MaxPool2d():
            return _largest(operation, x)
        case nn.AdaptiveAvgPool2d():
            return rules.average(operation, x)
        case "mean":
            return rules.average(lambda t: t.mean(**node.kwargs), x)
    if operation is functional.relu or isinstance(operation, nn.ReLU):
        return rules.rectify(x)

    def plain(tensor: Tensor) -> Tensor:  # reshapes, selects or pads
        return operation(tensor, *node.args[1:], **node.kwargs)

    return Moving(plain(x.value), None if x.change is None else plain(x.change))


def _sum(x: Moving, y: Moving) -> Moving:
    changes = [each.change for each in (x, y) if each.change is not None]
    return Moving(x.value + y.value, sum(changes) if changes else None)


def _largest(layer: nn.MaxPool2d, x: Moving) -> Moving:
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    value, index = functional.max_pool2d(x.value, *sizes, return_indices=True)
    if x.change is None:
        return Moving(value)
    copies = x.change.unflatten(0, (-1, len(index))).flatten(3)
    index = index.flatten(2).expand(len(copies), -1, -1, -1)
    chosen = copies.gather(3, index).unflatten(3, value.shape[2:])
    return Moving(value, chosen.flatten(0, 1))


def _columns(values: Tensor, like: Tensor) -> Tensor:
    """Values of channels, shaped to multiply activations."""
    return values.reshape(*values.shape[:-1], 1, -1, *[1] * (like.ndim - 2))


def _normalized(layer: nn.Module, spread: Spread, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, the deviation from the mean, and the factor that multiplies it."""
    factor = _columns(layer.weight * (-spread.log / 2).exp(), value)
    centered = value - _columns(spread.mean, value)
    return centered * factor + _columns(layer.bias, value), centered, factor


@dataclass(frozen=True, eq=False)
class Tangents:
    """Derivatives along K directions, stacked along the batch axis: exact to first order."""

    spreads: Mapping[str, Spread]

    def mix(self, layer: nn.Module, x: Moving) -> Moving:
        """Without the bias."""
        if x.change is None:
            return Moving(layer(x.value))
        copies = x.change.unflatten(0, (-1, len(x.value)))
        change = layer(x.change)
        if layer.bias is not None:
            change = change - _columns(layer.bias, change)
        return Moving(layer(x.value), change.view(len(copies) * len(x.value), *change.shape[1:]))

    def normalize(self, name: str, layer: nn.Module, x: Moving) -> Moving:
        """`dy = g ((dx - dm) - (x - m) dlog / 2)`."""
        spread = self.spreads[name]
        value, centered, factor = _normalized(layer, spread, x.value)
        moved = -_columns(spread.mean_deviations, value) - centered * _columns(
            spread.log_deviations / 2, value
        )
        if x.change is not None:
            moved = moved + x.change.unflatten(0, (-1, len(value)))
        return Moving(value, (moved * factor).flatten(0, 1))

    def rectify(self, x: Moving) -> Moving:
        """A gate that is open or shut at the centre."""
        if x.change is None:
            return Moving(x.value.relu())
        copies = x.change.unflatten(0, (-1, len(x.value)))
        return Moving(x.value.relu(), (copies * (x.value > 0)).flatten(0, 1))

    def average(self, operation: Callable[[Tensor], Tensor], x: Moving) -> Moving:
        """Linear in each tangent."""
        return Moving(operation(x.value), None if x.change is None else operation(x.change))


@dataclass(frozen=True, eq=False)
class Variances:
    """One variance per element; layers, channels and statistics count as independent.

    Attributes:
        spreads: the statistics of each layer.
        together: whether all positions of a channel move together, as far as they move; else they
            are independent as well.
        matched: whether ReLU matches the moments of a normal; else it is a gate.
        truth: true variances after each layer, by channel: the propagated ones are scaled to
            them, and the factors are stored in `factors`.
        factors: of the variance after each layer, by channel.
    """

    spreads: Mapping[str, Spread]
    together: bool = False
    matched: bool = False
    truth: Mapping[str, Tensor] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)

    def mix(self, layer: nn.Module, x: Moving) -> Moving:
        """By squared weights, or, where positions move together, by weights within a channel."""
        if x.change is None:
            return Moving(layer(x.value))
        if isinstance(layer, nn.Linear):
            return Moving(layer(x.value), functional.linear(x.change, layer.weight.square()))
        steps = (layer.stride, layer.padding, layer.dilation)
        if not self.together:
            change = functional.conv2d(x.change, layer.weight.square(), None, *steps)
            return Moving(layer(x.value), change)
        # One group per input channel, with all output channels each.
        weight = layer.weight.transpose(0, 1).flatten(0, 1)[:, None]
        groups = layer.in_channels
        each = functional.conv2d(x.change.sqrt(), weight, None, *steps, groups)
        change = each.unflatten(1, (groups, -1)).square().sum(1)
        return Moving(layer(x.value), change)

    def normalize(self, name: str, layer: nn.Module, x: Moving) -> Moving:
        """The variance of `g ((dx - dm) - (x - m) dlog / 2)`, with dx independent of the others."""
        spread = self.spreads[name]
        value, centered, factor = _normalized(layer, spread, x.value)
        mean, log = spread.mean_deviations, spread.log_deviations
        parts = (mean.square().sum(0), (mean * log).sum(0), log.square().sum(0) / 4)
        constant, linear, square = (_columns(each, value) for each in parts)
        # As a product of sums, so that rounding cannot make it negative.
        change = (constant + centered * (linear + centered * square)).clamp_min(0.0)
        if x.change is not None:
            change = change + x.change
        change = change * factor.square()
        if name in self.truth:
            positions = [axis for axis in range(change.ndim) if axis != 1]
            self.factors[name] = self.truth[name] / change.mean(positions).clamp_min(1e-12)
        if name in self.factors:
            change = change * _columns(self.factors[name], value)
        return Moving(value, change)

    def rectify(self, x: Moving) -> Moving:
        """A gate that is open or shut at the centre, or the moments of a rectified normal."""
        if x.change is None:
            return Moving(x.value.relu())
        if not self.matched:
            return Moving(x.value.relu(), x.change * (x.value > 0))
        sd = x.change.clamp_min(1e-12).sqrt()
        z = x.value / sd
        below, density = torch.special.ndtr(z), (-z.square() / 2).exp() / (2 * torch.pi) ** 0.5
        mean = x.value * below + sd * density
        square = (x.value.square() + x.change) * below + x.value * sd * density
        return Moving(mean, (square - mean.square()).clamp_min(0.0))

    def average(self, operation: Callable[[Tensor], Tensor], x: Moving) -> Moving:
        """Of standard deviations where positions move together, else of independent variances."""
        value = operation(x.value)
        if x.change is None:
            return Moving(value)
        if self.together:
            return Moving(value, operation(x.change.sqrt()).square())
        return Moving(value, operation(x.change) * (value.numel() / x.value.numel()))


def gradients(
    network: nn.Module,
    spread: Mapping[str, Spread],
    weighted: Callable[[Tensor], Tensor],
    inputs: Tensor,
) -> tuple[Tensor, Tensor]:
    """One pass at the centre and one backward pass, of one weighted output per example.

    Args:
        network: in eval mode.
        spread: of its layers.
        weighted: the scalar of each example, from the outputs.
        inputs: examples.

    Returns:
        The outputs, and the variance of the scalars over the draws, to first order.
    """  # fmt: skip
    received: dict[str, Tensor] = {}
    hooks = []
    for name in spread:

        def keep(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            received[name] = args[0] if args[0].requires_grad else args[0].requires_grad_()

        hooks.append(network.get_submodule(name).register_forward_pre_hook(keep))
    with torch.enable_grad():
        outputs = torch.func.functional_call(network, state_at(network, spread), (inputs,))
        grads = torch.autograd.grad(weighted(outputs).sum(), list(received.values()))
    for hook in hooks:
        hook.remove()
    steps = torch.zeros(len(inputs), len(next(iter(spread.values())).mean_deviations))
    for (name, activations), gradient in zip(received.items(), grads, strict=True):
        of, shape = spread[name], (*activations.shape[:2], -1)
        gradient, values = gradient.reshape(shape), activations.detach().reshape(shape)
        shift = gradient.sum(2)
        scale = torch.linalg.vecdot(gradient, values) - of.mean * shift
        steps -= (
            torch.cat([shift, scale / 2], 1)
            @ torch.cat([of.mean_deviations, of.log_deviations], 1).T
        )
    return outputs.detach(), steps


def state_at(network: nn.Module, spread: Mapping[str, Spread]) -> dict[str, Tensor]:
    """Weights without gradients, and the statistics at the centre."""
    state = {name: weight.detach() for name, weight in network.named_parameters()}
    for name, of in spread.items():
        epsilon = network.get_submodule(name).eps
        state[f"{name}.{MEAN}"] = of.mean
        state[f"{name}.{VARIANCE}"] = of.log.exp() - epsilon
    return state


def channel_variances(
    network: nn.Module, rows: Iterable[Mapping[str, Tensor]], names: Iterable[str], inputs: Tensor
) -> dict[str, Tensor]:
    """Variance over draws after each layer, passed exactly; mean over examples and positions."""
    sums: dict[str, list[Tensor]] = {}
    hooks = []
    for name in names:

        def add(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            first = sums.setdefault(name, [output, torch.zeros_like(output), output * 0])
            gap = output - first[0]  # from the first draw, against cancellation
            first[1] += gap
            first[2] += gap.square()

        hooks.append(network.get_submodule(name).register_forward_hook(add))
    count = 0
    for row in rows:
        torch.func.functional_call(network, dict(row), (inputs,))
        count += 1
    for hook in hooks:
        hook.remove()
    variances = {n: square / count - (gap / count).square() for n, (_, gap, square) in sums.items()}
    return {n: v.transpose(0, 1).flatten(1).mean(1) for n, v in variances.items()}
