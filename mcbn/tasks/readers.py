"""Readers of the files of data sets, with checks: every error names the file."""

import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mcbn.io import archives
from mcbn.io.archives import read_array, read_arrays, read_gzip
from mcbn.validation import finite, labels


def read_idx(path: str | Path) -> UInt8[Tensor, "..."]:
    """Return the array of bytes in a gzipped idx file, the format of MNIST.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise missing(path, "no such file")
    try:
        content = read_gzip(path)
        zero, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise damaged(path, "a whole gzipped idx file", error) from error
    if (zero, kind) != (0, 8):
        raise damaged(path, "the idx magic of bytes, 00 00 08", content[:3].hex(" "))
    start = 4 + 4 * axes
    if len(content) - start != math.prod(shape) or len(content) == start:
        count = len(content) - start
        raise damaged(path, f"{math.prod(shape)} bytes for shape {shape}", str(count))
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)


def read_table(path: Path, columns: int | None = None) -> Float[Tensor, "rows columns"]:
    """Return the numbers in a text file, plain or gzipped, one row per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or has not as many columns as `columns` says.
    """
    if not path.is_file():
        raise missing(path, "no such file")
    try:
        content = read_gzip(path) if path.suffix == ".gz" else path.read_bytes()
        if not content.strip():
            raise ValueError("an empty file")
        lines = io.TextIOWrapper(io.BytesIO(content), encoding="ascii")
        values = np.loadtxt(lines, comments=None, ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged(path, "a table of numbers", error) from error
    if columns is not None and values.shape[1] != columns:
        raise damaged(path, f"{columns} columns", f"shape {values.shape}")
    return finite(torch.from_numpy(values), str(path))


def read_numpy(path: Path) -> dict[str, Any]:
    """Return the arrays in an npz file by name, or the array of an npy file under the name "".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise missing(path, "no such file")
    try:
        packed = zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:  # its end is that of an archive in several parts
        raise damaged(path, "an npz or npy file", error) from error
    return read_arrays(path) if packed else {"": read_array(path)}


def class_labels(path: Path, values: Tensor, count: int) -> Int[Tensor, " batch"]:
    """Return `values` of the file `path` if they are `count` class indices from 0 to 9.

    Raises:
        ValueError: there is another number of them, or one is out of range.
    """
    try:
        return labels(values.long(), 10, (count,))
    except ValueError as error:
        raise ValueError(f"{error} (in {path})") from error


def torchvision_datasets() -> Any:
    """Return `torchvision.datasets`, imported only when something is to be downloaded.

    Raises:
        ImportError: torchvision does not fit the installed torch.
    """
    try:
        # Slow to import, and raises on a torch it was not built for.
        from torchvision import datasets  # noqa: PLC0415
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            f"expected a torchvision built for torch {torch.__version__}, got {error}; torch and "
            "torchvision builds do not match, so install both from one index"
        ) from error
    return datasets


def missing(path: Path, reason: str, source: str = "the data") -> FileNotFoundError:
    """Return the error for a file that is not there; `source` says what to put in its place."""
    return FileNotFoundError(
        f"expected a file at {path.absolute()}, got {reason}; put {source} there, or give "
        "another data root as root= or in the environment variable MCBN_DATA"
    )


def damaged(path: Path, expected: str, got: str | Exception) -> ValueError:
    """Return the error for a file that does not hold what it should, or that cannot be read."""
    return archives.damaged(path, expected, got, remedy="fetch the file again")
