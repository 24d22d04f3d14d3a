"""Where the files of each data set are, and digests of their contents."""

import hashlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from mcbn.tasks.names import Regression, is_regression

PUBLISHED_WEIGHTS = "cifar10_resnet_weights/resnet20-12fca82f.th"
MNIST_FILES = tuple(
    f"{part}-{content}-ubyte.gz"
    for part in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
)
# Folders of 28x28 images of other data sets: as they are shared, and as torchvision has them.
GREY_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "notmnist": ("notmnist",),
    "fashion_mnist": ("fashion_mnist", "FashionMNIST/raw"),
}
CIFAR10_FILES = (
    *(f"train_{part:02d}.webp" for part in range(50)),
    "train_labels.npy", "test_labels.npy", "test_first1000.npz",
)  # fmt: skip
CIFAR10_BATCHES = (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch", "batches.meta")
UCI_FILES = ("data.txt", "index_features.txt", "index_target.txt")


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder of the data: `root`, else the environment's MCBN_DATA, else ./data."""
    return Path(root if root is not None else os.environ.get("MCBN_DATA") or "data")


def mnist_folder(root: Path) -> Path:
    """Return the folder of MNIST's files; where torchvision downloads them if there are none."""
    shared = root / "mnist"
    return shared if (shared / MNIST_FILES[0]).is_file() else root / "MNIST" / "raw"


def grey_images(root: Path, name: str) -> Path:
    """Return the file of the images of Fashion-MNIST or notMNIST, which need not exist."""
    paths = [root / folder / "t10k-images-idx3-ubyte.gz" for folder in GREY_FOLDERS[name]]
    return next((path for path in paths if path.is_file()), paths[0])


def usps_images(root: Path) -> Path:
    """Return the file of the images of USPS, which need not exist."""
    return root / "usps" / "zip.test.gz"


def uci_folder(root: Path, name: Regression | str) -> Path:
    """Return the folder of a regression set, which need not exist."""
    return root / "uci" / name


def digest(name: str, root: str | Path | None = None) -> str | None:
    """Return a digest of the contents of the files that a data set is read from.

    It does not depend on where the files are, nor on their dates.

    Args:
        name: of a data set, of an out-of-distribution set, or "resnet20" for its weights.
        root: see `data_root`.

    Returns:
        None where a file is missing or not readable, so that nothing is known.
    """
    total = hashlib.sha256()
    try:
        for path in files(name, data_root(root)):
            content = path.read_bytes()
            total.update(f"{path.name} {len(content)}\n".encode())
            total.update(content)
    except OSError:  # whoever needs the file says so, or downloads it
        return None
    return total.hexdigest()[:32]


def files(name: str, root: Path) -> list[Path]:
    """Return the files that a data set, an out-of-distribution set or "resnet20" is read from."""
    if is_regression(name):
        return [uci_folder(root, name) / file for file in UCI_FILES]
    if name in GREY_FOLDERS:
        return [grey_images(root, name)]
    if name == "mnist":
        return [mnist_folder(root) / file for file in MNIST_FILES]
    if name == "cifar10":
        shared, downloaded = root / "cifar10", root / "cifar-10-batches-py"
        names = (shared, CIFAR10_FILES) if shared.is_dir() else (downloaded, CIFAR10_BATCHES)
        return [names[0] / file for file in names[1]]
    if name == "photographs":
        return sorted((_scikit_learn() / "images").glob("*.jpg"))
    return {
        "digits": [_scikit_learn() / "data" / "digits.csv.gz"],
        "rotated": [_scikit_learn() / "data" / "digits.csv.gz"],
        "usps": [usps_images(root)],
        "resnet20": [root / PUBLISHED_WEIGHTS],
    }[name]


def _scikit_learn() -> Path:
    """The folder of scikit-learn's data sets, found without importing it."""
    spec = find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places or ["sklearn"]))) / "datasets"
