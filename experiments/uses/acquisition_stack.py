"""Networks of one architecture trained together, each on examples of its own, as one network."""

from collections.abc import Sequence
from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcbn.tasks.datasets import LabeledData
from mcbn.tasks.training import Loss, build, train


class ByNetwork(nn.Module):
    """Outputs of all networks as positions, on which `train` takes the mean of the losses."""

    def __init__(self, networks: int) -> None:
        super().__init__()
        self.networks = networks

    def forward(
        self, outputs: Float[Tensor, "batch channels 1 1"]
    ) -> Float[Tensor, "batch outputs networks"]:
        """Put the axis of the networks last."""
        return outputs.view(len(outputs), self.networks, -1).transpose(1, 2)


def train_together(
    nets: Sequence[nn.Sequential],
    parts: Sequence[LabeledData],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    loss: Loss,
) -> None:
    """Train each network on its part, in place, all in the same order.

    AdamW steps of a network hang on its own gradients alone, whatever their common scale, so the
    mean loss over networks trains each as its own loss does. Dropout masks differ between them.
    """
    inputs = torch.cat([_as_maps(part.inputs) for part in parts], 1)
    targets = torch.stack([part.targets for part in parts], -1)
    channels = _as_maps(parts[0].inputs).shape[1]
    # Its layers have initial weights, which are overwritten, and may not move the global stream.
    stack = build(lambda: stacked(nets, channels), seed=0)
    train(stack, LabeledData(inputs, targets), epochs=epochs, batch_size=batch_size, seed=seed,
          loss=loss)  # fmt: skip
    unstack(stack, nets)


def _as_maps(inputs: Tensor) -> Float[Tensor, "batch channels height width"]:
    return inputs if inputs.ndim == 4 else inputs[:, :, None, None]


def stacked(nets: Sequence[nn.Sequential], channels: int) -> nn.Sequential:
    """Networks side by side: convolutions in groups, and dense layers as such of full size.

    Args:
        nets: of convolutions that keep the size of their maps, batch norm, dense layers and what
            has no weights.
        channels: of the inputs of one network; features count as channels.
    """
    layers: list[nn.Module] = []
    for layer in nets[0]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layers.append(_grouped(layer, channels, len(nets)))
            channels = len(layer.weight)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layers.append(nn.BatchNorm2d(channels * len(nets)))
        elif isinstance(layer, nn.Dropout):
            layers.append(nn.Dropout(layer.p))
        elif not isinstance(layer, nn.Flatten):  # a dense layer takes the maps as they are
            layers.append(layer)
    stack = nn.Sequential(*layers, ByNetwork(len(nets))).to(_state(nets[0])[0].dtype)
    with torch.no_grad():
        for whole, own in zip(_state(stack), zip(*map(_state, nets), strict=True), strict=True):
            whole.copy_(torch.cat([each.reshape(-1, *whole.shape[1:]) for each in own]))
    return stack


def unstack(stack: nn.Module, nets: Sequence[nn.Sequential]) -> None:
    """Write the weights and statistics of a stack back into the networks."""
    with torch.no_grad():
        for whole, own in zip(_state(stack), zip(*map(_state, nets), strict=True), strict=True):
            for part, each in zip(whole.chunk(len(nets)), own, strict=True):
                each.copy_(part.reshape(each.shape))
    for net in nets:
        net.eval()


def _grouped(layer: nn.Conv2d | nn.Linear, channels: int, groups: int) -> nn.Conv2d:
    outputs, biased = len(layer.weight), layer.bias is not None
    if isinstance(layer, nn.Conv2d):
        side = layer.kernel_size[0]
        padding = side // 2  # as in all networks here
    else:
        side, padding = isqrt(layer.in_features // channels), 0
    return nn.Conv2d(channels * groups, outputs * groups, side, padding=padding, groups=groups,
                     bias=biased)  # fmt: skip


def _state(net: nn.Module) -> list[Tensor]:
    """Weights and statistics, in order; counters of batches are left out."""
    return [value for value in net.state_dict().values() if value.ndim]
