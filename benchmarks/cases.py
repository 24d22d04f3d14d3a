"""Benchmark cases: networks, sizes and targets for their time."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torchcrepe
from torch import Tensor, nn
from torchvision.models import efficientnet_b0, resnet18, resnet50

import mcbn
from mcbn.tasks import networks


@dataclass(frozen=True)
class Case:
    """T draws for N examples by one network, with a bank of mini-batches of M."""

    network: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    examples: int
    draws: int
    size: int
    bar: float | None = None
    rounded_bar: float | None = None  # of passes in bfloat16

    @property
    def name(self) -> str:
        """Key of the case in the results."""
        return f"{self.network}, N = {self.examples:,}, T = {self.draws}, M = {self.size}"


def vgg() -> nn.Module:
    """Return three pairs of 3x3 convolutions with batch norm, a global average and a head."""
    layers: list[nn.Module] = []
    channels = 1
    for index, width in enumerate((32, 32, 64, 64, 128, 128)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if index in (1, 3) else [])]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(channels, 10)
    )


def dense() -> nn.Module:
    """Return the dense network 13-50-50-1."""
    return networks.mlp(13, 1, width=50, depth=2)


def small_resnet() -> nn.Module:
    """Return a ResNet-18 with ten classes and the stem of ImageNet, which shrinks to a quarter."""
    return resnet18(num_classes=10)


def cifar_resnet18() -> nn.Module:
    """Return a ResNet-18 for small images: a stem of 3x3 without pooling, ten classes."""
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


class WideBlock(nn.Module):
    """Batch norm, ReLU and a convolution twice, beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(inside), nn.BatchNorm2d(outside)])
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        equal = inside == outside and stride == 1
        self.shortcut = None if equal else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block to its input, or to that in its new shape."""
        active = self.norms[0](x).relu()
        inner = self.second(self.norms[1](self.first(active)).relu())
        return inner + (x if self.shortcut is None else self.shortcut(active))


def wide_resnet() -> nn.Module:
    """Return a WideResNet-16-4 with ten classes (Zagoruyko and Komodakis 2016)."""
    blocks: list[nn.Module] = []
    channels = 16
    for width, stride in ((64, 1), (128, 2), (256, 2)):
        blocks += [WideBlock(channels, width, stride), WideBlock(width, width, 1)]
        channels = width
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), *blocks, nn.BatchNorm2d(channels), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10),
    )  # fmt: skip


def pitch() -> nn.Module:
    """Return torchcrepe's tiny network: sound as convolutions of 512x1 and 64x1."""
    return torchcrepe.Crepe("tiny")


IMAGE, PHOTO = (3, 32, 32), (3, 224, 224)
CIFAR_STEM, IMAGENET_STEM = "ResNet-18 (3x3 stem), 32x32", "ResNet-18 (ImageNet stem), 32x32"
CASES = (
    Case("MLP 13-50-50-1", dense, (13,), 100, 500, 128, bar=0.15),
    Case("MLP 13-50-50-1", dense, (13,), 10_000, 500, 128, bar=0.6),
    Case("VGG-like, 28x28", vgg, (1, 28, 28), 64, 16, 32, bar=0.52, rounded_bar=0.45),
    Case(CIFAR_STEM, cifar_resnet18, IMAGE, 1, 32, 32, bar=0.42),
    Case(CIFAR_STEM, cifar_resnet18, IMAGE, 8, 16, 32, bar=0.65),
    Case(CIFAR_STEM, cifar_resnet18, IMAGE, 64, 4, 32, bar=0.82, rounded_bar=0.50),
    Case(IMAGENET_STEM, small_resnet, IMAGE, 64, 16, 32),
    Case("ResNet20, 32x32", networks.resnet20, IMAGE, 64, 16, 32, rounded_bar=0.55),
    Case("WideResNet-16-4, 32x32", wide_resnet, IMAGE, 16, 4, 8),
    Case("ResNet-50, 224x224", resnet50, PHOTO, 4, 8, 8, bar=0.90, rounded_bar=0.52),
    Case("EfficientNet-B0, 224x224", efficientnet_b0, PHOTO, 4, 8, 8),
    Case("U-Net, 180x240", lambda: networks.unet(3, 11), (3, 180, 240), 2, 8, 4, rounded_bar=0.50),
    Case("torchcrepe tiny, 1024 samples", pitch, (1024,), 64, 8, 8),
)
BANKS = (
    Case("bank of MLP 13-50-50-1", dense, (13,), 10_000, 500, 128, bar=0.3),
    Case(f"bank of {CIFAR_STEM}", cifar_resnet18, IMAGE, 1_000, 16, 32, bar=1.05),
    Case("bank of ResNet20, 32x32", networks.resnet20, IMAGE, 1_000, 64, 32, bar=1.05),
)
# Whose other samplers are measured.
SAMPLERS = Case(f"samplers, {CIFAR_STEM}", cifar_resnet18, IMAGE, 64, 4, 32)


def made(case: Case, device: torch.device) -> nn.Module:
    """The network with random weights of a fixed seed and running statistics of random examples."""
    torch.manual_seed(0)
    model = case.build().to(device).train()
    with torch.no_grad():
        for seed in range(8):
            model(random(case, max(4, min(case.size, 8)), device, seed))
    return model.eval()


def random(case: Case, count: int, device: torch.device, seed: int = 0) -> Tensor:
    """Random inputs for the network."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *case.shape, generator=generator).to(device)


def quick_bank(model: nn.Module, case: Case, device: torch.device) -> mcbn.Bank:
    """A bank of T draws: two collected draws, repeated with a little noise."""
    batches = [random(case, case.size, device, seed) for seed in (1, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        bank = mcbn.collect(model, batches, progress=False)
    generator = torch.Generator().manual_seed(0)
    rows = {}
    for name, drawn in bank.statistics.items():
        tiled = drawn[torch.arange(case.draws, device=device) % 2]
        noise = 1 + 0.01 * torch.randn(tiled.shape, generator=generator).to(device)
        rows[name] = tiled * noise
    return replace(bank, statistics=rows)
