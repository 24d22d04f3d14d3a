"""CIFAR-10 for the experiments: read once per process, and the first test images as JPEG."""

import tarfile
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mcbn.tasks.datasets import LabeledData, cifar10_images, data_root


@cache
def images() -> tuple[LabeledData, LabeledData]:
    """The training images and the lossless test images, as bytes."""
    return cifar10_images()


@cache
def jpeg_images(count: int) -> UInt8[Tensor, "batch 3 32 32"]:
    """The first test images after JPEG compression."""
    names = [f"{index:05d}.jpg" for index in range(count)]
    pixels = []
    # The archive is sorted by name; reading its first members only saves scanning all of it.
    with tarfile.open(data_root() / "cifar10" / "test_jpeg.tar.xz") as archive:
        for name, member in zip(names, archive, strict=False):
            if member.name != name:
                raise ValueError(f"expected {name} in test_jpeg.tar.xz, got {member.name}")
            pixels.append(np.array(Image.open(archive.extractfile(member)).convert("RGB")))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
