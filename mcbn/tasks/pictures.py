"""Pictures in files, read when they are needed."""

import importlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mcbn.network.isolation import random_streams

Transform = Callable[[Any], Any]
RESIZE = (
    "give a transform, such as torchvision.transforms.Compose([Resize((64, 64)), ToTensor()]) of "
    "torchvision.transforms"
)


class UnlabeledPictures(Dataset[Tensor]):
    """The pictures in a folder whose classes are not known, read when they are needed.

    Args:
        root: the folder; pictures in folders inside it are left out.
        transform: makes a tensor of a picture; see `labeled_pictures`.

    Raises:
        ValueError: there are no pictures, or the transform makes no tensors.
    """

    def __init__(self, root: str | os.PathLike[str], transform: Transform | None = None) -> None:
        self.files = picture_files(root)
        if not self.files:
            raise ValueError(f"expected pictures in {root}, got none; check the path")
        self.load, self.transform = reading(self.files[0], transform)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        tensor: Tensor = self.transform(self.load(self.files[index]))
        return tensor


def picture_files(path: str | os.PathLike[str]) -> list[str]:
    """The pictures that lie in a folder itself, in the order of their names."""
    extensions = importlib.import_module("torchvision.datasets.folder").IMG_EXTENSIONS
    return sorted(
        entry.path
        for entry in os.scandir(path)
        if entry.is_file() and entry.name.lower().endswith(extensions)
    )


def read_picture(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Any:
    """Read a picture in RGB.

    Args:
        path: its file.
        size: width and height that it must have; None for any.

    Raises:
        ValueError: it is damaged, no picture at all, or of another size.
    """
    images = importlib.import_module("PIL.Image")
    try:
        with open(path, "rb") as stream:
            picture = images.open(stream).convert("RGB")
    except Exception as error:  # a damaged file fails in many ways
        reason = " ".join(str(error).split())[:120] if os.path.getsize(path) else "an empty file"
        raise ValueError(
            f"expected a picture in {path}, got a damaged or different file ({reason}); remove or "
            "replace it"
        ) from error
    if size not in (None, picture.size):
        raise ValueError(
            f"expected pictures of one size without a transform, got {_size(picture.size)} in "
            f"{path} and {_size(size)} before; {RESIZE}"
        )
    return picture


def scaled(picture: Any) -> Tensor:
    """The channels of a picture as float32 from 0 to 1."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return values.contiguous().to(torch.float32).div(255)


def reading(path: str, transform: Transform | None) -> tuple[Callable[[str], Any], Transform]:
    """What reads a picture and makes a tensor of it, tried on the first picture.

    Raises:
        TypeError: the transform makes no tensor.
        ValueError: the picture is damaged, or no picture at all.
    """
    first = read_picture(path)
    if transform is None:
        return partial(read_picture, size=first.size), scaled
    with random_streams(0, "picture"):
        made = transform(first)
    if not isinstance(made, Tensor):
        raise TypeError(
            f"expected a transform that makes a tensor of a picture, got {type(made).__name__}; "
            "let it end with torchvision.transforms.ToTensor()"
        )
    return read_picture, transform


def _size(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[0]} x {size[1]}"
