"""Read NumPy and gzip files of unknown origin: sizes are checked before any memory is taken."""

import gzip
import io
import math
import os
import zipfile
from typing import Any

import numpy as np

# A file may expand to this many times its own size: pictures and tables rarely pass 20, while a
# file made to fill the memory reaches a thousand.
MAX_EXPANSION = 100
ALWAYS_ALLOWED_BYTES = 2**26  # that any file may expand to
CHUNK_BYTES = 2**20  # read at once
MAX_REASON_CHARACTERS = 250  # quoted from another library's error
# Numbers, text and dates. Arrays of objects are pickles.
PLAIN_KINDS = "biufcSUMm"
HEADER_READERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
MAX_HEADER_BYTES = 2**17  # numpy itself refuses a header of more than 10,000 characters


def require_unpacked_size(size: int, path: str | os.PathLike[str]) -> None:
    """Check that a small file does not expand to so much that it fills the memory.

    Raises:
        ValueError: it expands to more than 64 MiB, and to more than 100 times its own size.
    """
    limit = max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * os.path.getsize(path))
    if size > limit:
        raise ValueError(
            f"expected at most {limit:,} bytes in {path}, {MAX_EXPANSION} times its size, got "
            f"{size:,} unpacked; if the file is your own, write it without compression"
        )


def require_archive_size(path: str | os.PathLike[str]) -> None:
    """Check the sizes that the members of a zip archive declare, all together.

    Raises:
        ValueError: they are too large for the archive.
        zipfile.BadZipFile: it is not an archive, or a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        require_unpacked_size(sum(member.file_size for member in archive.infolist()), path)


def read_gzip(path: str | os.PathLike[str]) -> bytearray:
    """Read the content of a gzipped file.

    Raises:
        EOFError: the file was cut short.
        OSError: it is not a gzipped file.
        ValueError: it expands to too much for its size.
        zlib.error: it is damaged.
    """
    with gzip.open(path) as stream:
        return _read_to_end(stream, path)


def read_arrays(
    path: str | os.PathLike[str], *, expected: str = "an .npz archive of plain arrays"
) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, of any shapes; arrays of objects are refused.

    Args:
        path: of the file.
        expected: what the file should hold, for the error.

    Raises:
        ValueError: the file is truncated, corrupted or of another format, holds objects or two
            arrays of one name, or expands to too much for its size.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        require_archive_size(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"two arrays named {name!r}")
                # Other compressions may ask for gigabytes to unpack a byte.
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"compression {member.compress_type} of {name!r}")
                with archive.open(member) as stream:
                    arrays[name] = _as_array(_read_to_end(stream, path))
    # A damaged file fails in many ways: numpy reads headers as Python.
    except Exception as error:
        raise damaged(path, expected, error) from error
    return arrays


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the array of an .npy file; one of objects is refused.

    Raises:
        ValueError: the file is truncated, corrupted or of another format, or holds objects.
    """
    try:
        with open(path, "rb") as stream:
            return _as_array(_read_to_end(stream, path))
    except Exception as error:  # as above
        raise damaged(path, "an .npy file of a plain array", error) from error


def damaged(
    path: object, expected: str, got: str | Exception, *, remedy: str = "write it again"
) -> ValueError:
    """The error for a file that does not hold what it should.

    Args:
        path: of the file.
        expected: what it should hold.
        got: what it holds instead, or the error that a library raised when reading it.
        remedy: what to do.
    """
    if isinstance(got, str):
        return ValueError(f"expected {expected} in {path}, got {got}; {remedy}")
    reason = next(iter(str(got).splitlines()), type(got).__name__)[:MAX_REASON_CHARACTERS]
    return ValueError(
        f"expected {expected} in {path}, got a truncated, corrupted or different file ({reason}); "
        f"{remedy}"
    )


def _read_to_end(stream: Any, path: str | os.PathLike[str]) -> bytearray:
    """Read in chunks, so that too large a content ends at the first chunk beyond the limit."""
    content = bytearray()
    while chunk := stream.read(CHUNK_BYTES):
        content += chunk
        require_unpacked_size(len(content), path)
    return content


def _as_array(content: bytearray) -> np.ndarray:
    """The array of an .npy file, on its own memory; the header must agree with the size."""
    header = io.BytesIO(content[:MAX_HEADER_BYTES])
    version = np.lib.format.read_magic(header)
    if version not in HEADER_READERS:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran_order, dtype = HEADER_READERS[version](header)
    size = len(content) - header.tell()
    if dtype.kind not in PLAIN_KINDS or dtype.itemsize * math.prod(shape) != size:
        raise ValueError(f"{size} bytes for an array of {dtype} and shape {shape}")
    values = np.frombuffer(content, dtype, offset=header.tell())
    # A header of an odd length would leave the numbers at addresses that torch may not take.
    return np.require(values, requirements="A").reshape(shape, order="F" if fortran_order else "C")
