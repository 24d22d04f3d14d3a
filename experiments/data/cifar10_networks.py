"""CIFAR-10 networks for the experiments: two that were published, and three that were trained here.

Run: python -m experiments.data.cifar10_networks [NAME ...]
(trains those whose weights are not there, about 20 minutes each on 2 cores; data root in MCBN_DATA)

Those that were trained here never saw the last 5,000 training images, so that there are lossless
images on which no choice was made. Their weights are beside the results, in half precision: every
experiment can be repeated on the same networks. The ResNet32 is not part of the data root that the
tests use; take resnet32-d509ac18.th from github.com/akamaster/pytorch_resnet_cifar10.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from experiments.data import cifar10
from experiments.record import RESULTS
from mcbn.io.atomic import write_whole
from mcbn.tasks.cifar10 import CropAndFlip
from mcbn.tasks.datasets import LabeledData, data_root, normalize_cifar10
from mcbn.tasks.networks import load_resnet20, resnet20
from mcbn.tasks.training import build, train

EPOCHS, BATCH_SIZE = 12, 128
HELD_OUT = 5_000
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 5e-2
PUBLISHED = {
    "ResNet20, published": "resnet20-12fca82f.th",
    "ResNet32, published": "resnet32-d509ac18.th",
}
WEIGHTS = RESULTS / "networks"


def layers(inside: int, outside: int, *, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


def head(channels: int) -> nn.Sequential:
    """The average over positions, and a dense layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def vgg() -> nn.Module:
    """Return six convolutions of 32 to 128 channels, with two poolings."""
    stages: list[nn.Module] = []
    inside = 3
    for width in (32, 64, 128):
        stages += [layers(inside, width), layers(width, width), nn.MaxPool2d(2)]
        inside = width
    return nn.Sequential(*stages[:-1], head(inside))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        self.first = layers(inside, outside, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        )
        self.shortcut: nn.Module = nn.Identity()
        if (inside, stride) != (outside, 1):
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Add the two."""
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet14() -> nn.Module:
    """Return a ResNet of three stages of two blocks, of 16 to 64 channels."""
    blocks = [layers(3, 16)]
    inside = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        blocks += [Residual(inside, width, stride=stride), Residual(width, width, stride=1)]
        inside = width
    return nn.Sequential(*blocks, head(inside))


def wide_resnet8() -> nn.Module:
    """Return a ResNet of three stages of one block, of 32 to 128 channels."""
    return nn.Sequential(
        layers(3, 32), Residual(32, 32, stride=1), Residual(32, 64, stride=2),
        Residual(64, 128, stride=2), head(128),
    )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A network that is trained here: its shape and the seed of weights, order and crops."""

    builder: Callable[[], nn.Module]
    seed: int


TRAINED = {
    "VGG, seed 1": Trained(vgg, 1),
    "ResNet14, seed 2": Trained(resnet14, 2),
    "wide ResNet8, seed 4": Trained(wide_resnet8, 4),
}
NAMES = (*PUBLISHED, *TRAINED)


@dataclass(frozen=True)
class Crops:
    """The training images, cropped and flipped anew in each batch."""

    data: CropAndFlip

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images at some places, channels last, and their labels."""
        images, labels = zip(*self.data.__getitems__(indices.tolist()), strict=True)
        return torch.stack(images).contiguous(memory_format=torch.channels_last), torch.stack(
            labels
        )


def training_parts() -> tuple[LabeledData, LabeledData]:
    """The training images, and those that are held out."""
    images = cifar10.images()[0]
    kept = len(images) - HELD_OUT
    return images.rows(torch.arange(kept)), images.rows(torch.arange(kept, len(images)))


def published(name: str) -> nn.Module:
    """A published network; ResNet32 is ResNet20 with two more blocks in each stage."""
    path = data_root() / "cifar10_resnet_weights" / PUBLISHED[name]
    if name == "ResNet20, published":
        return load_resnet20(path)
    model = resnet20()
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.extend(copy.deepcopy(stage[-1]) for _ in range(2))
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model


def weights(name: str) -> Path:
    """The file of the weights of a network that is trained here."""
    return WEIGHTS / f"{name.replace(',', '').replace(' ', '-')}.safetensors"


def network(name: str) -> nn.Module:
    """The network of that name in eval mode, trained if it was not yet."""
    if name in PUBLISHED:
        return published(name).eval()
    how = TRAINED[name]
    model = build(how.builder, seed=how.seed)
    if not weights(name).is_file():
        train(
            model, Crops(CropAndFlip(training_parts()[0])), epochs=EPOCHS, batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, seed=how.seed, progress=True,
        )  # fmt: skip
        WEIGHTS.mkdir(parents=True, exist_ok=True)
        write_whole(weights(name), save(model.half().state_dict()))
    model.float().load_state_dict(load_file(weights(name)))
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Share of the 1,000 lossless test images whose class is the most probable one."""
    test = cifar10.images()[1]
    classes = [model(batch).argmax(1) for batch in normalize_cifar10(test.inputs).split(250)]
    return float((torch.cat(classes) == test.targets).float().mean())


def main() -> None:
    """Train the named networks, all by default, and print their accuracies."""
    for name in sys.argv[1:] or NAMES:
        print(f"{name}: {accuracy(network(name)):.3f}", flush=True)


if __name__ == "__main__":
    main()
