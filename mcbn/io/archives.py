"""Files of packed numbers: what they say they hold is checked before any of it is read."""

import gzip
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

# A file may hold so many times its own size: pictures and tables rarely pass 20, while a file that
# was made to fill the memory reaches a thousand.
RATIO = 100
LEAST = 2**26  # bytes that any file may hold
PIECE = 2**20  # bytes read at once
REASON = 250  # characters of another library's error that are told
# Numbers, text and dates. Arrays of objects are pickles.
KINDS = "biufcSUMm"
HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def require_modest(size: int, path: str | os.PathLike[str]) -> None:
    """Check that a file of a few bytes does not hold so much that it fills the memory.

    Raises:
        ValueError: it holds more than 64 MiB, and than 100 times its own size.
    """
    most = max(LEAST, RATIO * os.path.getsize(path))
    if size > most:
        raise ValueError(
            f"expected at most {most:,} bytes in {path}, {RATIO} times its size, got {size:,} "
            "unpacked; if the file is your own, write it without compression"
        )


def require_modest_members(path: str | os.PathLike[str]) -> None:
    """Check the same of what the members of a zip archive say they hold together.

    Raises:
        ValueError: it is too much.
        zipfile.BadZipFile: it is no archive, or a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        require_modest(sum(member.file_size for member in archive.infolist()), path)


def gunzipped(path: str | os.PathLike[str]) -> bytearray:
    """The content of a gzipped file.

    Raises:
        EOFError: it was cut short.
        OSError: it is no gzipped file.
        ValueError: it holds too much for its size.
        zlib.error: it is damaged.
    """
    found = bytearray()
    with gzip.open(path) as file:
        while piece := file.read(PIECE):
            found += piece
            require_modest(len(found), path)
    return found


def read_arrays(
    path: str | os.PathLike[str], *, kind: str = "an .npz file"
) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file, of any shapes; arrays of objects are refused.

    Args:
        path: of the file.
        kind: what is expected, in words, for the error.

    Raises:
        ValueError: the file is truncated, corrupted or foreign, holds objects, two arrays of one
            name, or too much for its size.
    """
    try:
        require_modest_members(path)
        with zipfile.ZipFile(path) as archive:
            found = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"two arrays named {name!r}")
                # Others may ask for gigabytes to unpack a byte.
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"compression {member.compress_type} of {name!r}")
                with archive.open(member) as stream:
                    found[name] = _array(stream, member.file_size)
            return found
    # A damaged file fails in many ways: numpy reads headers as Python.
    except Exception as error:
        raise damaged(path, f"{kind} of plain arrays", error) from error


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the array of an NPY file; one of objects is refused.

    Raises:
        ValueError: the file is truncated, corrupted or foreign, or holds objects.
    """
    try:
        with open(path, "rb") as stream:
            return _array(stream, Path(path).stat().st_size)
    except Exception as error:  # as above
        raise damaged(path, "an .npy file of plain numbers", error) from error


def damaged(path: object, kind: str, error: Exception) -> ValueError:
    """The error of a file that cannot be read, in which another one is told in short."""
    reason = str(error) or type(error).__name__
    return ValueError(
        f"expected {kind}, got {path}, which is truncated, corrupted or foreign "
        f"({reason[:REASON]}); write it again"
    )


def _array(stream: Any, size: int) -> np.ndarray:
    """The array in a stream of `size` bytes, allocated once its header is known to be true."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    shape, by_columns, kind = HEADERS[version](stream)
    rest = size - stream.tell()
    whole = kind.itemsize > 0 and all(length >= 0 for length in shape)
    if kind.kind not in KINDS or not whole or kind.itemsize * math.prod(shape) != rest:
        raise ValueError(f"{rest} bytes for an array of {kind} and shape {shape}")
    values = np.empty(math.prod(shape), kind)
    room: Any = memoryview(values.view(np.uint8).data)
    while room:
        count = stream.readinto(room[:PIECE])
        if not count:
            raise EOFError("no more bytes")
        room = room[count:]
    return values.reshape(shape, order="F" if by_columns else "C")
