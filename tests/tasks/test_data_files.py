"""Digests of the files of data sets: of all that is read, by content alone."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from mcbn.tasks import datasets, files
from mcbn.tasks.networks import load_resnet20

real = pytest.mark.skipif("MCBN_DATA" not in os.environ, reason="no data root is named")
opened: list[str] | None = None


def watch(event, arguments):
    if opened is not None and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        opened.append(os.fspath(arguments[0]))


sys.addaudithook(watch)  # it cannot be taken back, so it looks at a list


@real
@pytest.mark.parametrize(
    ("name", "outside", "load"),
    [
        ("digits", ("photographs", "rotated"), lambda _: datasets.digits()),
        ("yacht", (), lambda root: datasets.uci("yacht", root)),
        ("mnist", ("notmnist", "fashion_mnist", "usps"), datasets.mnist),
        pytest.param("cifar10", ("fashion_mnist", "notmnist"), datasets.cifar10,
                     marks=pytest.mark.slow),
        ("resnet20", (), lambda root: load_resnet20(root / files.PUBLISHED_WEIGHTS)),
    ],
)  # fmt: skip
def test_every_file_that_is_read_is_in_the_digest(name, outside, load):
    global opened
    root, opened = files.data_root(), []
    try:
        load(root)
    finally:
        read, opened = opened, None
    listed = {path for each in (name, *outside) for path in files.files(each, root)}
    places = {path.parent for path in listed}
    found = {Path(path) for path in read if Path(path).parent in places}
    assert {path for path in found if path.suffix not in (".py", ".pyc", ".txt")} <= listed
    assert listed <= found | {root / "cifar10" / "test_labels.npy"}


def yacht(root, text="1 2 3\n4 5 6\n"):
    folder = root / "uci" / "yacht"
    folder.mkdir(parents=True)
    for name in files.UCI_FILES:
        (folder / name).write_text(text)
    return folder


def test_the_content_counts_and_neither_the_place_nor_the_date(tmp_path):
    folder = yacht(tmp_path / "one")
    before = files.digest("yacht", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.utime(folder / "data.txt", (0, 0))
    assert files.digest("yacht", tmp_path / "one") == files.digest("yacht", tmp_path / "two")
    for name in files.UCI_FILES:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-2] + b"7\n")
        assert files.digest("yacht", tmp_path / "one") != before
        (folder / name).write_bytes(whole)
    assert files.digest("yacht", tmp_path / "one") == before


def test_of_files_that_are_not_there_nothing_is_known(tmp_path):
    folder = yacht(tmp_path)
    (folder / "index_target.txt").unlink()
    for name in ("yacht", "mnist", "notmnist", "usps", "cifar10", "resnet20"):
        assert files.digest(name, tmp_path) is None


def test_the_same_files_in_the_place_of_a_download_are_the_same_data(tmp_path):
    for root in ("mnist", "MNIST/raw"):
        place = tmp_path / root.partition("/")[0]
        (place / root).mkdir(parents=True)
        for name in files.MNIST_FILES:
            (place / root / name).write_bytes(name.encode())
    assert files.digest("mnist", tmp_path / "mnist") == files.digest("mnist", tmp_path / "MNIST")
