"""Files of arrays and tables: invalid ones are refused, and the error says what is wrong."""

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


def test_arrays_in_either_order_and_version_are_read_back(tmp_path):
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
def test_an_array_that_differs_from_its_header_is_refused(content, reason, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.npy, got a truncated, .*{reason}.*write it again"):
        read_array(tmp_path / "a.npy")


def test_a_long_error_of_another_library_is_cut(tmp_path):
    (tmp_path / "a.npy").write_bytes(packed(np.zeros(3, [("a" * 999, "f8")])))
    with pytest.raises(ValueError, match=r"aaa.*write it again") as caught:
        read_array(tmp_path / "a.npy")
    assert len(str(caught.value)) < 450 + len(str(tmp_path))


def test_an_archive_that_declares_more_than_it_holds_is_refused(tmp_path):
    """Its directory and the header of the array agree on a size that the content lacks."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", packed(np.arange(9.0).reshape(3, 3))[:-24])
        file.filelist[0].file_size += 24
    reason = r"48 bytes for an array of float64 and shape \(3, 3\)"
    with pytest.raises(ValueError, match=rf"a\.npz, .*{reason}.*write it again"):
        read_arrays(tmp_path / "a.npz")


def test_an_array_that_ends_like_a_multi_disk_archive_is_refused(tmp_path):
    path = tmp_path / "labels.npy"
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    path.write_bytes(packed() + locator + b"PK\x05\x06" + bytes(18))
    with pytest.raises(ValueError, match=r"npz or npy file.*labels\.npy.*multiple disks"):
        read_numpy(path)


def test_two_arrays_of_one_name_and_other_compressions_are_refused(tmp_path):
    archive(tmp_path / "twice.npz", ["a", "a.npy"])
    with pytest.raises(ValueError, match="two arrays named 'a'"):
        read_arrays(tmp_path / "twice.npz")
    archive(tmp_path / "slow.npz", ["a.npy"], compression=zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="compression 12 of 'a'"):
        read_arrays(tmp_path / "slow.npz")


def test_a_file_with_an_unknown_suffix_is_refused(tmp_path):
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
        (
            {"probabilities": np.full((4, 2), 0.5), "target": np.zeros(3, int)},
            r"one target per prediction, shape \(4,\), in .*got \(3,\)",
        ),
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
def test_arrays_of_inconsistent_shapes_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path / "a.npz")


def test_integral_floats_become_integers_as_text():
    assert texts(np.array([1.0, 2.5])) == ("1", "2.5")


def test_missing_targets_are_refused_where_they_are_needed(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.full((4, 2), 0.5))
    predictions = read_predictions(tmp_path / "a.npz")
    assert isinstance(predictions, Predictions)
    with pytest.raises(ValueError, match="expected targets with the predictions of 'a', got none"):
        _ = predictions.known_targets
