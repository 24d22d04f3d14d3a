"""Weights of a small dense network as one vector, with a standard normal prior on each of them.

The weights of a layer are entries of the vector times their prior standard deviation: of a layer
with n inputs sqrt(2 / n), of a batch-norm scale sqrt(2), of a shift or a bias 1. Batch norm divides
by the statistics of given examples, so that with the whole training set as these examples the
network is a function of its weights alone. Of a single input, the weight before a batch norm is
only a sign, which that of the scale makes superfluous; it is 1.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build

EPSILON = 1e-5  # of batch norm, as in PyTorch


@dataclass(frozen=True)
class Part:
    """A slice of the vector.

    Attributes:
        start: its first entry.
        shape: of the weights.
        scale: their prior standard deviation.
    """

    start: int
    shape: tuple[int, ...]
    scale: float

    @property
    def end(self) -> int:
        """The entry after its last one."""
        return self.start + math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """A dense network with one output.

    Attributes:
        inputs: number of features.
        hidden: units of each hidden layer; none for a linear model.
        batch_norm: whether each hidden layer has batch norm, in place of a bias.
    """

    inputs: int
    hidden: tuple[int, ...]
    batch_norm: bool

    def layers(self) -> list[dict[str, Part]]:
        """The parts of each layer, in the order of the vector."""
        found, start = [], 0
        for index, (fan, units) in enumerate(
            zip((self.inputs, *self.hidden), (*self.hidden, 1), strict=True)
        ):
            normed = self.batch_norm and index < len(self.hidden)
            parts = {}
            if not (normed and fan == 1):
                parts["weight"] = Part(start, (fan, units), math.sqrt(2 / fan))
                start = parts["weight"].end
            if normed:
                parts["gamma"] = Part(start, (units,), math.sqrt(2))
                start = parts["gamma"].end
            parts["bias"] = Part(start, (units,), 1.0)
            start = parts["bias"].end
            found.append(parts)
        return found

    def __len__(self) -> int:
        """Number of weights."""
        return self.layers()[-1]["bias"].end


def taken(
    vectors: Float[Tensor, "networks weights"], part: Part
) -> Float[Tensor, "networks *shape"]:
    """The weights of a part."""
    return part.scale * vectors[:, part.start : part.end].reshape(-1, *part.shape)


def outputs(
    layout: Layout,
    vectors: Float[Tensor, "networks weights"],
    examples: Float[Tensor, "*networks examples features"],
    points: Float[Tensor, "points features"] | None = None,
    masks: list[Tensor] | None = None,
) -> Float[Tensor, "networks rows"]:
    """Outputs of many networks at the points, or at the examples that give the statistics.

    Args:
        layout: of all networks.
        vectors: weights of each network.
        examples: what batch norm takes its statistics of, the same for all networks or not.
        points: inputs; by default the examples.
        masks: factors of the hidden units for dropout, for each hidden layer.
    """
    count = examples.shape[-2]
    rows = examples if points is None else torch.cat([examples, points])
    values = rows.expand(len(vectors), *rows.shape[-2:])
    for index, parts in enumerate(layout.layers()):
        if "weight" in parts:
            values = values @ taken(vectors, parts["weight"])
        if "gamma" in parts:
            seen = values[:, :count]
            variance = seen.var(1, correction=0, keepdim=True)
            values = (values - seen.mean(1, keepdim=True)) / (variance + EPSILON).sqrt()
            values = values * taken(vectors, parts["gamma"])[:, None]
        values = values + taken(vectors, parts["bias"])[:, None]
        if index < len(layout.hidden):
            values = values.relu()
            values = values if masks is None else values * masks[index]
    return values[:, 0 if points is None else count :, 0]


def module(
    layout: Layout,
    vector: Float[Tensor, " weights"],
    examples: Float[Tensor, "examples features"],
    dropout: float = 0.0,
) -> nn.Module:
    """The network as a module, whose running statistics are those of the examples."""
    network = build(partial(untrained, layout, dropout), seed=0)
    parts = layout.layers()
    values = examples
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm1d)]  # type: ignore[attr-defined]
    with torch.no_grad():
        for index, (layer, part) in enumerate(zip(linear, parts, strict=True)):
            if "weight" in part:
                layer.weight.copy_(taken(vector[None], part["weight"])[0].T)
            else:
                layer.weight.fill_(1.0)
            bias = taken(vector[None], part["bias"])[0]
            values = values @ layer.weight.T
            if "gamma" in part:
                norm = norms[index]
                norm.weight.copy_(taken(vector[None], part["gamma"])[0])
                norm.bias.copy_(bias)
                norm.running_mean.copy_(values.mean(0))  # type: ignore[union-attr]
                norm.running_var.copy_(values.var(0, correction=0))  # type: ignore[union-attr]
                values = norm.eval()(values).relu()
            else:
                layer.bias.copy_(bias)
                values = (values + bias).relu()
    return network.eval()


def untrained(layout: Layout, dropout: float) -> nn.Module:
    """The layers of the network, with dropout in place of batch norm where there is none."""
    width, depth = layout.hidden[0], len(layout.hidden)
    if layout.batch_norm:
        return mlp(layout.inputs, 1, width=width, depth=depth, dropout=0.0)
    layers: list[nn.Module] = []
    for fan in [layout.inputs] + [width] * (depth - 1):
        layers += [nn.Linear(fan, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, 1))
