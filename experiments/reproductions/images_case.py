"""The published CIFAR-10 network and its images, with stored banks and passes."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset, default_collate

import mcbn
from experiments.data import cifar10
from experiments.record import Record
from experiments.reproductions.images_scores import scored
from mcbn import CategoricalPredictive as Predictive
from mcbn.io.tensors import read_tensors, write_tensors
from mcbn.tasks.datasets import (
    CropAndFlip,
    LabeledData,
    data_root,
    normalize_cifar10,
    read_idx,
)
from mcbn.tasks.networks import load_resnet20

SEED = 0  # of mini-batches, posteriors and resamples
BORDER = 4  # padding of the crops in training, in pixels
RIGHT = "black border"  # random crop and flip as in training
WRONG = ("unaugmented", "flipped", "mean border", "mirrored border")


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        images: number of lossless test images.
        draws: T of the bank at each inference batch size M.
        few: T of the other mini-batches and of OOD images.
        shifted: number of test images that are also used as JPEG.
        outside: images of each OOD set.
        resamples: bootstrap resamples of the images.
    """

    images: int
    draws: dict[int, int]
    few: int
    shifted: int
    outside: int
    resamples: int


@dataclass(frozen=True)
class Case:
    """The network and the images; banks and passes are stored, so that a run can be resumed.

    Attributes:
        record: the record, next to which they are stored.
        scale: size of the experiment.
        network: the published ResNet20.
        train: training images as bytes.
        inputs: test images, normalised.
        targets: classes of the test images.
    """

    record: Record
    scale: Scale
    network: nn.Module
    train: LabeledData
    inputs: Tensor
    targets: Tensor

    def bank(self, size: int, source: str = RIGHT) -> mcbn.Bank:
        """The bank at M = `size` with images prepared by `source`, see `prepared`."""
        path = self._path(f"{source} {size}")
        if not path.is_file():
            right = source == RIGHT
            batches = mcbn.minibatches(
                CropAndFlip(self.train) if right else TensorDataset(self.train.inputs),
                batch_size=size,
                draws=self.scale.draws[size] if right else 2 * self.scale.few,
                seed=SEED,
                collate=default_collate if right else partial(prepared, source=source),
            )
            with warnings.catch_warnings():
                # Some mini-batches disagree on purpose; the excess is in the result.
                warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
                mcbn.collect(self.network, batches).save(path)
        return mcbn.Bank.load(path)

    def passes(self, name: str, bank: mcbn.Bank, inputs: Tensor | None = None) -> Tensor:
        """Logits of every draw of the bank, by default for the test images."""
        path = self._path(f"passes {name}")
        if not path.is_file():
            sampler = mcbn.MCBatchNorm(self.network, bank)
            chosen = self.inputs if inputs is None else inputs
            predictive = mcbn.predict(sampler, chosen, keep_draws=True)
            write_tensors(path, {"draws": predictive.draws}, kind="passes", header={})
        return read_tensors(path, kind="passes")[0]["draws"]

    def scored(self, predictive: Predictive) -> mcbn.Evaluation:
        """Scores with intervals of the first `len(predictive)` test images."""
        targets, resamples = self.targets[: len(predictive)], self.scale.resamples
        return scored(predictive, targets, resamples=resamples, seed=SEED)

    def forget(self) -> None:
        """Delete the stored banks and passes."""
        for path in self._path("").parent.glob(f"{self.record.name}-*.safetensors"):
            path.unlink()

    def _path(self, name: str) -> Path:
        folder = self.record.folder / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.record.name}-{name.replace(' ', '-')}.safetensors"


def load(record: Record, scale: Scale) -> Case:
    """The published network and the first lossless test images."""
    train, test = cifar10.images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    test = test.rows(torch.arange(scale.images))
    return Case(record, scale, network, train, normalize_cifar10(test.inputs), test.targets)


def prepared(examples: list[tuple[Tensor]], *, source: str) -> Tensor:
    """A mini-batch of images prepared differently from training.

    They are "unaugmented", "flipped" at random, or flipped and cropped with a border of the
    mean colour ("mean border") or of the reflected image ("mirrored border").
    """
    images = normalize_cifar10(torch.stack([image for (image,) in examples]))
    if source == "unaugmented":
        return images
    flip, top, left = (
        torch.randint(n, (len(images),)) for n in (2, 2 * BORDER + 1, 2 * BORDER + 1)
    )
    images = torch.where(flip.bool()[:, None, None, None], images.flip(3), images)
    if source == "flipped":
        return images
    # Zero after the normalisation is the mean colour.
    mode = "constant" if source == "mean border" else "reflect"
    padded = functional.pad(images, (BORDER,) * 4, mode=mode)
    return torch.stack([image[:, y : y + 32, x : x + 32]
                        for image, y, x in zip(padded, top, left, strict=True)])  # fmt: skip


def elsewhere(case: Case) -> dict[str, Tensor]:
    """The first test images after JPEG compression, and grey letters and clothes at 32x32."""
    root, scale = data_root(), case.scale
    sets = {"JPEG": cifar10.jpeg_images(scale.shifted)}
    for name, folder in (("notMNIST", "notmnist"), ("Fashion-MNIST", "fashion_mnist")):
        grey = read_idx(root / folder / "t10k-images-idx3-ubyte.gz")[: scale.outside, None].float()
        larger = functional.interpolate(grey, (32, 32), mode="bilinear")
        sets[name] = larger.round().to(torch.uint8).expand(-1, 3, -1, -1)
    return {name: normalize_cifar10(images) for name, images in sets.items()}
