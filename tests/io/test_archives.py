"""Packed files: what is not as it says is refused, with what is wrong with it."""

import io
import struct
import zipfile

import numpy as np
import pytest
import torch

from mcbn.io.archives import read_array, read_arrays
from mcbn.io.tables import read_columns, texts
from mcbn.io.tensors import read_draws, write_tensors
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions
from mcbn.tasks.readers import read_numpy

VALUES = np.arange(6.0).reshape(2, 3)


def packed(values=VALUES, version=(1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, version)
    return stream.getvalue()


def archive(path, names, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name in names:
            file.writestr(name, packed())


def test_arrays_in_either_order_come_back_in_every_version_that_is_plain(tmp_path):
    for version in ((1, 0), (2, 0)):
        for values in (VALUES, np.asfortranarray(VALUES), VALUES[:, :0], np.float64(3.0)):
            (tmp_path / "a.npy").write_bytes(packed(np.asarray(values), version))
            np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(version=(3, 0)), r"version \(3, 0\) of the \.npy format"),
        (packed() + b"x", r"49 bytes for an array of float64 and shape \(2, 3\)"),
        (packed()[:-1], r"47 bytes for an array of float64 and shape \(2, 3\)"),
        (packed(np.zeros(3, [("a", "f8")])), r"24 bytes for an array of \[\('a', '<f8'\)\]"),
    ],
)
def test_an_array_that_is_not_as_it_says_is_refused(content, reason, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.npy, got a truncated, .*{reason}.*write it again"):
        read_array(tmp_path / "a.npy")


def test_what_another_library_says_of_a_file_is_told_in_short(tmp_path):
    (tmp_path / "a.npy").write_bytes(packed(np.zeros(3, [("a" * 999, "f8")])))
    with pytest.raises(ValueError, match=r"aaa.*write it again") as told:
        read_array(tmp_path / "a.npy")
    assert len(str(told.value)) < 450 + len(str(tmp_path))


def test_an_archive_that_promises_more_than_it_holds_is_refused(tmp_path):
    """Its directory and the header of the array agree on a size that is not there."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", packed(np.arange(9.0).reshape(3, 3))[:-24])
        file.filelist[0].file_size += 24
    reason = r"48 bytes for an array of float64 and shape \(3, 3\)"
    with pytest.raises(ValueError, match=rf"a\.npz, .*{reason}.*write it again"):
        read_arrays(tmp_path / "a.npz")


def test_an_array_that_ends_as_an_archive_in_several_parts_is_refused(tmp_path):
    path = tmp_path / "labels.npy"
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    path.write_bytes(packed() + locator + b"PK\x05\x06" + bytes(18))
    with pytest.raises(ValueError, match=r"npz or npy file.*labels\.npy.*multiple disks"):
        read_numpy(path)


def test_two_arrays_of_one_name_and_slow_compressions_are_refused(tmp_path):
    archive(tmp_path / "twice.npz", ["a", "a.npy"])
    with pytest.raises(ValueError, match="two arrays named 'a'"):
        read_arrays(tmp_path / "twice.npz")
    archive(tmp_path / "slow.npz", ["a.npy"], compression=zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="compression 12 of 'a'"):
        read_arrays(tmp_path / "slow.npz")


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.csv, .*, got .*a\.txt; rename or convert"):
        read_columns(tmp_path / "a.txt")


def test_draws_of_another_shape_are_refused(tmp_path):
    for tensors in ({"draws": torch.ones(3)}, {"other": torch.ones(3, 2)}):
        write_tensors(tmp_path / "draws.st", tensors, kind="draws", header={})
        with pytest.raises(ValueError, match="expected one tensor 'draws' of at least two axes"):
            read_draws(tmp_path / "draws.st")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"probabilities": np.ones(4)}, r"axes \(examples, classes\) in .*shape \(4,\)"),
        ({"probabilities": np.full((4, 2), 0.5), "classes": np.array(["a"])}, "for 1 classes"),
        (
            {"mean": VALUES, "sd": np.ones((2, 3)), "target": np.ones((2, 2))},
            r"as many columns .* as of the mean in .*shapes \(2, 2\) and \(2, 3\)",
        ),
        (
            {"probabilities": np.full((4, 2), 0.5), "expected_entropy": np.ones(3)},
            r"'expected_entropy' of shape \(4,\) in .*got \(3,\)",
        ),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path / "a.npz")


def test_whole_labels_lose_their_point():
    assert texts(np.array([1.0, 2.5])) == ("1", "2.5")


def test_targets_that_are_not_there_are_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.full((4, 2), 0.5))
    found = read_predictions(tmp_path / "a.npz")
    assert isinstance(found, Predictions)
    with pytest.raises(ValueError, match="expected targets with the predictions of 'a', got none"):
        _ = found.known_targets
