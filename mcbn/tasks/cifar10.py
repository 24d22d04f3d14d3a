"""CIFAR-10 as bytes, and as the published ResNets see it: normalised, cropped and flipped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from mcbn.tasks.examples import LabeledData
from mcbn.tasks.files import data_root
from mcbn.tasks.readers import (
    class_labels,
    damaged,
    missing,
    read_numpy,
    torchvision_datasets,
)
from mcbn.tasks.transforms import Compose, RandomFlip, RandomShift
from mcbn.validation import tensor

MEAN = (0.485, 0.456, 0.406)
SCALE = (0.229, 0.224, 0.225)
PADDING = 4


def cifar10_labels(root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the class indices of CIFAR-10: 50,000 of training and 10,000 of test.

    Raises:
        FileNotFoundError: the files are neither under the data root nor to be downloaded.
        ImportError: torchvision is needed and does not fit torch.
        ValueError: a file is damaged.
    """
    folder = data_root(root) / "cifar10"
    if not folder.is_dir():
        return _downloaded(folder.parent, True).targets, _downloaded(folder.parent, False).targets
    targets = []
    for part, count in (("train", 50_000), ("test", 10_000)):
        path = folder / f"{part}_labels.npy"
        targets.append(class_labels(path, torch.from_numpy(read_numpy(path)[""]), count))
    return targets[0], targets[1]


def cifar10_images(root: str | Path | None = None) -> tuple[LabeledData, LabeledData]:
    """Return CIFAR-10 as bytes: all training images, and the first 1,000 test images.

    They are lossless and in the original order. `normalize_cifar10` makes them inputs.

    Raises:
        FileNotFoundError: the files are neither under the data root nor to be downloaded.
        ImportError: torchvision is needed and does not fit torch.
        ValueError: a file is damaged.
    """
    folder = data_root(root) / "cifar10"
    if not folder.is_dir():
        first = torch.arange(1_000)
        return _downloaded(folder.parent, True), _downloaded(folder.parent, False).rows(first)
    targets, _ = cifar10_labels(root)
    images = torch.cat([_mosaic(folder / f"train_{i:02d}.webp") for i in range(50)])
    path = folder / "test_first1000.npz"
    arrays = read_numpy(path)
    shapes = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    if shapes.get("x") != ((1_000, 32, 32, 3), "uint8") or "y" not in shapes:
        raise damaged(path, "1,000 images x of 32x32x3 bytes and labels y", str(shapes))
    test = torch.from_numpy(arrays["x"]).permute(0, 3, 1, 2).contiguous()
    test_targets = class_labels(path, torch.from_numpy(arrays["y"]), 1_000)
    return LabeledData(images, targets), LabeledData(test, test_targets)


def _downloaded(root: Path, train: bool) -> LabeledData:
    datasets = torchvision_datasets()
    try:
        part = datasets.CIFAR10(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise missing(root / "cifar10", f"a failed download: {error}") from error
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return LabeledData(images, torch.tensor(part.targets))


def _mosaic(path: Path) -> UInt8[Tensor, "tiles 3 32 32"]:
    if not path.is_file():
        raise missing(path, "no such file")
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except OSError as error:
        raise damaged(path, "a webp image", error) from error
    if pixels.shape != (800, 1280, 3):
        raise damaged(path, "an image of 25x40 tiles of 32x32", f"shape {pixels.shape}")
    tiles = torch.from_numpy(pixels).view(25, 32, 40, 32, 3)
    return tiles.permute(0, 2, 4, 1, 3).reshape(1_000, 3, 32, 32)


def normalize_cifar10(
    images: UInt8[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Return bytes as network inputs: scaled to 0..1, then by the channel means and deviations.

    Raises:
        TypeError: the images are not bytes, so their range would be a guess.
    """
    if tensor(images, "images").dtype != torch.uint8:
        raise TypeError(
            f"expected images of type torch.uint8, got {images.dtype}; "
            "give the pixel values 0..255 as they are stored"
        )
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    scale = torch.tensor(SCALE, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / scale


# The same for inputs of a network, whose black border is not 0 after the normalisation.
CROP_AND_FLIP = Compose(
    RandomShift(PADDING, fill=[-mean / scale for mean, scale in zip(MEAN, SCALE, strict=True)]),
    RandomFlip(),
)


class CropAndFlip(Dataset[tuple[Tensor, Tensor]]):
    """CIFAR-10 as networks see it in training: black border, random crop, random flip, normalised.

    The border is black *before* the normalisation. Every access draws from torch's global random
    stream, one number per example, so that whoever seeds that stream gets the same images.

    Args:
        data: images as bytes, and their labels.
    """

    def __init__(self, data: LabeledData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the examples at `indices`; loaders fetch a whole batch by this."""
        rows = self.data.rows(torch.as_tensor(indices))
        return list(zip(normalize_cifar10(_crop_and_flip(rows.inputs)), rows.targets, strict=True))


def _crop_and_flip(
    images: UInt8[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch channels height width"]:
    padded = functional.pad(images, (PADDING,) * 4)
    shifts = 2 * PADDING + 1
    # One number holds all three choices, so single examples and batches use the stream alike.
    draw = torch.randint(2 * shifts * shifts, (len(images),))
    flip, top, left = draw // shifts**2, draw // shifts % shifts, draw % shifts
    rows, columns = torch.arange(images.shape[2]), torch.arange(images.shape[3])
    columns = torch.where(flip[:, None] == 1, columns.flip(0), columns) + left[:, None]
    rows = rows + top[:, None]
    batch = torch.arange(len(images))[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
