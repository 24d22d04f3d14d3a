"""Benchmark cases: networks, sizes and targets for their time."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

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
    """Return a ResNet-18 with ten classes."""
    return resnet18(num_classes=10)


IMAGE = (3, 32, 32)
CASES = (
    Case("MLP 13-50-50-1", dense, (13,), 100, 500, 128, bar=0.2),
    Case("MLP 13-50-50-1", dense, (13,), 10_000, 500, 128, bar=0.6),
    Case("VGG-like, 28x28", vgg, (1, 28, 28), 64, 16, 32, bar=0.52),
    Case("ResNet-18, 32x32", small_resnet, IMAGE, 1, 32, 32, bar=0.42),
    Case("ResNet-18, 32x32", small_resnet, IMAGE, 8, 32, 32, bar=0.65),
    Case("ResNet-18, 32x32", small_resnet, IMAGE, 64, 16, 32, bar=0.80),
    Case("ResNet-50, 224x224", resnet50, (3, 224, 224), 4, 8, 8),
    Case("U-Net, 180x240", lambda: networks.unet(3, 11), (3, 180, 240), 2, 8, 4),
)
BANKS = (
    Case("bank of MLP 13-50-50-1", dense, (13,), 10_000, 500, 128, bar=0.3),
    Case("bank of ResNet-18, 32x32", small_resnet, IMAGE, 1_000, 64, 32, bar=1.05),
)


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
