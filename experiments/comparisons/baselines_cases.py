"""Networks for images, and what they are asked about: clean, shifted, and of no class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import mcbn
from experiments.data import cifar10, cifar10_networks
from experiments.data.camvid import CLASSES, camvid
from experiments.data.corruptions import corrupted
from mcbn.tasks.cifar10 import CROP_AND_FLIP, CropAndFlip, normalize_cifar10
from mcbn.tasks.datasets import LabeledData, cifar10_labels, data_root, digits, mnist
from mcbn.tasks.datasets import cifar10 as cifar10_task
from mcbn.tasks.networks import convnet
from mcbn.tasks.training import build, train

SEED = 0
TEST, REAL, OUTSIDE, KNOWN = 1_000, 500, 500, 4_000
NEAR = "CamVid"
MOVING = [CLASSES.index(name) for name in ("car", "pedestrian", "cyclist")]
MNIST_TRAINED, MNIST_EPOCHS, MEMBERS = 10_000, 2, 5


@dataclass(frozen=True)
class Case:
    """A network, its training examples and the pictures that it is asked about.

    Attributes:
        network: in eval mode.
        training: its training examples as it saw them, for mini-batches.
        transform: an augmentation that keeps the class.
        known: training examples as they are, for features.
        dropout: rate of the dropout that is put in; None where the network has its own.
        clean: test examples; temperatures are fitted on those at even places.
        shifted: examples under a shift: corrupted ones at odd places, or others altogether.
        outside: inputs of no class of the network, nearest first.
        votes: shares of people who named each class of the clean examples.
        members: networks of the same shape with other seeds, for an ensemble.
    """

    network: nn.Module
    training: Dataset
    transform: mcbn.Compose
    known: LabeledData
    dropout: float | None
    clean: LabeledData
    shifted: Mapping[str, LabeledData]
    outside: Mapping[str, Tensor]
    votes: Float[Tensor, "batch classes"] | None = None
    members: tuple[nn.Module, ...] = ()

    def pictures(self) -> Iterator[tuple[str, Tensor]]:
        """Names and inputs of all pictures."""
        yield "clean", self.clean.inputs
        yield from ((name, part.inputs) for name, part in self.shifted.items())
        yield from self.outside.items()


def cifar10_case(name: str) -> Case:
    """One of the CIFAR-10 networks.

    Under shift: corruptions of lossless test images, and JPEG files of others. Of no class: patches
    of street scenes without anything that moves, letters, and clothes.
    """
    images, test = cifar10.images()
    held = 0 if name in cifar10_networks.PUBLISHED else cifar10_networks.HELD_OUT
    seen = images.rows(torch.arange(len(images) - held))
    odd = torch.arange(1, TEST, 2)
    real = slice(TEST, TEST + REAL)
    shifted = {"JPEG files": LabeledData(
        normalize_cifar10(cifar10.jpeg_images(real.stop)[real]), cifar10_labels()[1][real]
    )}  # fmt: skip
    for kind, pictures in corrupted(test.inputs[odd], seed=SEED).items():
        shifted[kind] = LabeledData(normalize_cifar10(pictures), test.targets[odd])
    far = cifar10_task().outside
    votes = torch.from_numpy(np.load(data_root() / "cifar10" / "cifar10h_counts.npy"))[:TEST]
    return Case(
        # Convolutions are some 1.4 times faster so on a CPU.
        cifar10_networks.network(name).to(memory_format=torch.channels_last),
        CropAndFlip(seen),
        CROP_AND_FLIP,
        LabeledData(normalize_cifar10(seen.inputs[:KNOWN]), seen.targets[:KNOWN]),
        0.3,
        LabeledData(normalize_cifar10(test.inputs), test.targets),
        shifted,
        {NEAR: street_patches(OUTSIDE), "notMNIST": far["notmnist"][:OUTSIDE],
         "Fashion-MNIST": far["fashion_mnist"][:OUTSIDE]},
        votes.double() / votes.sum(1, keepdim=True),
    )  # fmt: skip


def street_patches(count: int) -> Float[Tensor, "batch 3 32 32"]:
    """Patches of CamVid for a CIFAR-10 network, without a pixel of a class that moves."""
    generator = np.random.default_rng(SEED)
    patches: list[Tensor] = []
    while len(patches) < count:
        scenes = camvid("test") if not patches else camvid("val")
        for image, labels in zip(scenes.inputs, scenes.targets, strict=True):
            for _ in range(2):
                top, left = (int(generator.integers(side - 31)) for side in labels.shape)
                window = (slice(top, top + 32), slice(left, left + 32))
                if not torch.isin(labels[window], torch.tensor([*MOVING, -100])).any():
                    patches.append(image[:, *window])
    bytes_ = (torch.stack(patches[:count]) * 255).round().to(torch.uint8)
    return normalize_cifar10(bytes_)


def mnist_case(seed: int) -> Case:
    """A small network of digits, trained here without augmentation, and others for an ensemble."""
    task = mnist(seed=0, train_size=MNIST_TRAINED)
    networks = [mnist_network(task, MEMBERS * seed + member) for member in range(MEMBERS)]
    test = task.test.rows(torch.arange(TEST))
    odd = torch.arange(1, TEST, 2)
    black, white = (float(end) for end in task.train.inputs.aminmax())
    shifted = {
        kind: LabeledData(inputs, test.targets[odd])
        for kind, inputs in corrupted_inputs(test.inputs[odd], black, white).items()
        if kind != "pixelation, weak"  # as many pixels as there are
    }
    usps = task.outside["usps"]
    return Case(
        networks[0],
        TensorDataset(task.train.inputs, task.train.targets),
        mcbn.Compose(mcbn.RandomShift(2, fill=black)),
        task.train.rows(torch.arange(KNOWN)),
        None,
        test,
        shifted,
        {"USPS": usps[:OUTSIDE], "notMNIST": task.outside["notmnist"][:OUTSIDE],
         "Fashion-MNIST": task.outside["fashion_mnist"][:OUTSIDE]},
        None,
        tuple(networks),
    )  # fmt: skip


def corrupted_inputs(
    inputs: Float[Tensor, "batch 1 height width"], black: float, white: float
) -> dict[str, Tensor]:
    """Corrupted pictures from and to standardised inputs, of which two values are known."""
    pictures = ((inputs - black) / (white - black) * 255).round().to(torch.uint8)
    return {
        kind: made.float() / 255 * (white - black) + black
        for kind, made in corrupted(pictures, seed=SEED).items()
    }


def mnist_network(task: mcbn.Task, seed: int) -> nn.Module:
    """One network of digits."""
    model = build(lambda: convnet(1, 10, width=16), seed=seed)
    return train(model, task.train, epochs=MNIST_EPOCHS, batch_size=64, seed=seed)


def digits_case(seed: int) -> Case:
    """A tiny network of digits of 8x8 pixels, for a run in seconds."""
    task = digits()
    networks = []
    for member in range(2):
        model = build(lambda: convnet(1, 10, width=4), seed=2 * seed + member)
        networks.append(train(model, task.train, epochs=4, batch_size=32, seed=member))
    test = task.test.rows(torch.arange(120))
    noise = torch.randn(test.inputs.shape, generator=torch.Generator().manual_seed(SEED))
    shifted = {
        "noise": LabeledData((test.inputs + noise / 2)[1::2], test.targets[1::2]),
        "other digits": task.test.rows(torch.arange(120, 150)),
    }
    return Case(
        networks[0],
        TensorDataset(task.train.inputs, task.train.targets),
        mcbn.Compose(mcbn.RandomShift(1, fill=float(task.train.inputs.min()))),
        task.train.rows(torch.arange(200)),
        None,
        test,
        shifted,
        {name: inputs[:40] for name, inputs in task.outside.items()},
        None,
        tuple(networks),
    )
