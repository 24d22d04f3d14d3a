"""CamVid street scenes at 240x180 pixels as tensors, from the folder `camvid` of the data root."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from mcbn.tasks.datasets import LabeledData, data_root

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "cyclist",
)  # fmt: skip
UNLABELED = 11  # label in the files
IGNORED = -100  # label that the loss ignores


def camvid(part: str, *, every: int = 1) -> LabeledData:
    """Return the images, from 0 to 1, and the class of every pixel, -100 if it has no label.

    Args:
        part: "train", "val" or "test".
        every: step between images; 2 takes every second image, starting with the first.

    Raises:
        FileNotFoundError: CamVid is not in the data root.
    """
    folder = data_root() / "camvid"
    images = sorted((folder / part).glob("*.jpg"))[::every]
    if not images:
        raise FileNotFoundError(
            f"expected images in {(folder / part).absolute()}, got none; put CamVid at 240x180 "
            "there or name another data root in MCBN_DATA"
        )
    pixels = torch.stack([read_pixels(path) for path in images])
    annotated = [folder / f"{part}annot" / f"{path.stem}.png" for path in images]
    labels = torch.stack([read_pixels(path) for path in annotated]).to(torch.int8)
    labels[labels == UNLABELED] = IGNORED
    return LabeledData(pixels.permute(0, 3, 1, 2).contiguous().float() / 255, labels)


def with_mirror_images(data: LabeledData) -> LabeledData:
    """Return the examples followed by their mirror images."""
    return LabeledData(
        torch.cat([data.inputs, data.inputs.flip(-1)]),
        torch.cat([data.targets, data.targets.flip(-1)]),
    )


def standardised(
    images: Float[Tensor, "batch 3 height width"], by: Float[Tensor, "train 3 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """Return images standardised by the mean and standard deviation of each colour of `by`."""
    scale, mean = torch.std_mean(by, dim=(0, 2, 3), keepdim=True, correction=0)
    return (images - mean) / scale


def boundary_distance(labels: Tensor) -> Tensor:
    """Distance in pixels to the nearest pixel next to one with another label or none."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    for axis in (0, 1):
        one, other = labels.narrow(axis, 0, labels.shape[axis] - 1), labels.roll(-1, axis)
        differs = one != other.narrow(axis, 0, labels.shape[axis] - 1)
        for start in (0, 1):
            edge.narrow(axis, start, labels.shape[axis] - 1).logical_or_(differs)
    return torch.from_numpy(distance_transform_edt(~edge.numpy()))


def read_pixels(path: Path) -> UInt8[Tensor, "height width ..."]:
    """Return the pixels of one image file."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture))
