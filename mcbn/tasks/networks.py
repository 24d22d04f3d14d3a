"""Small networks with batch norm and dropout: what the demo and the studies train."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from mcbn.network.isolation import random_streams


def mlp(
    inputs: int, outputs: int, *, width: int = 64, depth: int = 2, dropout: float = 0.1
) -> nn.Module:
    """Return a dense network of blocks linear, batch norm, ReLU, dropout, with a linear head.

    Args:
        inputs: number of features.
        outputs: number of classes or of regression targets.
        width: units of each hidden layer.
        depth: number of hidden layers.
        dropout: probability that a hidden unit is dropped.

    Raises:
        ValueError: a size is not positive, or `dropout` is outside [0, 1).
    """
    _check_sizes(dropout, inputs=inputs, outputs=outputs, width=width, depth=depth)
    layers: list[nn.Module] = []
    for wide in [inputs] + [width] * (depth - 1):
        # Batch norm subtracts any bias of the layer before it, so there is none.
        layers += [nn.Linear(wide, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        layers += [nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convnet(channels: int, outputs: int, *, width: int = 32, dropout: float = 0.1) -> nn.Module:
    """Return three convolution blocks, a global average and a linear head, for 8x8 images and up.

    Args:
        channels: colour channels of the input.
        outputs: number of classes or of regression targets.
        width: channels of the first block; the others have twice as many.
        dropout: probability that a channel is dropped after the second and the third block.

    Raises:
        ValueError: a size is not positive, or `dropout` is outside [0, 1).
    """
    _check_sizes(dropout, channels=channels, outputs=outputs, width=width)
    return nn.Sequential(
        _block(channels, width),
        nn.MaxPool2d(2),
        _block(width, 2 * width),
        nn.MaxPool2d(2),
        nn.Dropout2d(dropout),
        _block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * width, outputs),
    )


def unet(channels: int, classes: int, *, width: int = 16, dropout: float = 0.1) -> nn.Module:
    """Return a small U-Net: one score per class at every position of the image.

    Args:
        channels: colour channels of the input, whose height and width are multiples of 4.
        classes: number of classes.
        width: channels at full resolution; doubled at a half and again at a quarter.
        dropout: probability that a channel is dropped at a quarter and at a half of the resolution.

    Raises:
        ValueError: a size is not positive, or `dropout` is outside [0, 1).
    """
    _check_sizes(dropout, channels=channels, classes=classes, width=width)
    return _UNet(channels, classes, width, dropout)


def resnet20(classes: int = 10) -> nn.Module:
    """Return the 20-layer residual network for 32x32 colour images, with parameter-free shortcuts.

    Reference:
        He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition, section 4.2.

    Raises:
        ValueError: `classes` is not positive.
    """
    _check_sizes(0.0, classes=classes)
    return _ResNet20(classes)


def load_resnet20(path: str | Path) -> nn.Module:
    """Return a trained ResNet20, in evaluation mode, from a checkpoint file.

    Args:
        path: a file of `torch.save` whose entry `state_dict` has names that begin with `module.`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds another network.

    Reference:
        Idelbayev (2018), Proper ResNet implementation for CIFAR10/CIFAR100 in PyTorch.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected ResNet20 weights at {path.absolute()}, got no such file; take "
            "resnet20-12fca82f.th from github.com/akamaster/pytorch_resnet_cifar10"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = {name.removeprefix("module."): v for name, v in checkpoint["state_dict"].items()}
        # The random weights are overwritten at once; they must not use the caller's stream.
        with random_streams(0):
            model = resnet20(classes=len(state["linear.bias"]))
        model.load_state_dict(state)
    # A damaged file fails in many ways, and the unpickler's own error may not be imported here.
    except Exception as error:
        raise ValueError(
            f"expected the weights of a CIFAR ResNet20 in {path}, got {type(error).__name__}: "
            f"{error}; download the file again"
        ) from error
    return model.eval()


def _check_sizes(dropout: float, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"expected {name} of at least 1, got {size}; give a positive number")
    if not 0 <= dropout < 1:
        raise ValueError(
            f"expected dropout in [0, 1), got {dropout}; give the probability of dropping a unit"
        )


@fx.wrap
def _require_quarters(images: Tensor) -> None:
    """Check the size, as one step when the network is traced, which cannot branch on a shape."""
    height, width = images.shape[-2:]
    if height % 4 or width % 4:
        raise ValueError(
            f"expected a height and width divisible by 4, got {height}x{width}; "
            "pad or crop the images"
        )


def _block(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


class _UNet(nn.Module):
    def __init__(self, channels: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.at_full = nn.Sequential(_block(channels, width), _block(width, width))
        self.to_half = nn.Sequential(nn.MaxPool2d(2), _block(width, 2 * width))
        self.to_quarter_and_back = nn.Sequential(
            nn.MaxPool2d(2),
            _block(2 * width, 4 * width),
            nn.Dropout2d(dropout),
            _block(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
        )
        self.to_full = nn.Sequential(
            _block(4 * width, width), nn.Dropout2d(dropout), nn.Upsample(scale_factor=2)
        )
        self.head = nn.Sequential(_block(2 * width, width), nn.Conv2d(width, classes, 1))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes height width"]:
        _require_quarters(images)
        full = self.at_full(images)
        half = self.to_half(full)
        half = torch.cat([half, self.to_quarter_and_back(half)], dim=1)
        scores: Tensor = self.head(torch.cat([full, self.to_full(half)], dim=1))
        return scores


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.extra = width - channels

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch wider lower narrower"]:
        outputs = functional.relu(self.bn1(self.conv1(images)))
        outputs = self.bn2(self.conv2(outputs))
        before = self.extra // 2
        shortcut = functional.pad(
            images[:, :, :: self.stride, :: self.stride],
            (0, 0, 0, 0, before, self.extra - before),
        )
        return functional.relu(outputs + shortcut)


class _ResNet20(nn.Module):
    # The names of the parts are those of the published checkpoints.
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        hidden = functional.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        scores: Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return scores


def _stage(channels: int, width: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _ResidualBlock(channels, width, stride),
        _ResidualBlock(width, width, 1),
        _ResidualBlock(width, width, 1),
    )
