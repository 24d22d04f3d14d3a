"""Delimited text: CSV with commas, semicolons or tabs, plain or gzipped, in UTF-8 or UTF-16."""

import codecs
import csv
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np

from mcbn.io.archives import damaged, read_gzip

SEPARATORS = (",", ";", "\t", "|")
GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
# By byte order mark; the longer one first, which the shorter begins.
ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
SAMPLED_LINES = 20  # that the separator is chosen by
REMEDY = "save it as UTF-8 text with commas, one line per example"


def read_delimited(path: str | os.PathLike[str]) -> tuple[list[str], list[Sequence[str]]]:
    """Read the names of the columns and their cells, as text.

    The separator is the one by which the header and the first line have equally many cells. Byte
    order marks, lines without any value and separators at the end of lines are skipped. A first
    column without a name is "index", as pandas writes it.

    Raises:
        ValueError: the text is damaged, of another encoding, without a header, or has lines of
            different numbers of cells.
    """
    try:
        content = _unpacked(path)
        encoding = _encoding(content)
        separator = _separator(content, encoding)
        header, rows = _lines(content, encoding, separator, path)
    except UnicodeDecodeError as error:
        raise damaged(path, "text in UTF-8 or UTF-16", error, remedy=REMEDY) from error
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(path, "gzipped text", error) from error
    names = _names(header)
    if len(names) == 1 and len(names[0].split()) > 1 and rows and len(rows[0][0].split()) > 1:
        raise ValueError(
            f"expected columns separated by commas, semicolons or tabs in {path}, got spaces in "
            f"{names[0]!r:.80}; separate them by commas"
        )
    if names and all(_is_number(name) for name in names) and not all(map(str.isdigit, names)):
        raise ValueError(
            f"expected the names of the columns in the first line of {path}, got the number "
            f"{names[0]!r:.80}; add a line of names, such as p_0,p_1,label"
        )
    # All at once: zip would make a tuple of every column beside the rows.
    return names, [[row[k] for row in rows] for k in range(len(names))]


def write_delimited(
    handle: int, columns: Mapping[str, np.ndarray], *, separator: str, zipped: bool
) -> None:
    """Write columns to an open file descriptor; equal columns give equal bytes."""
    with open(handle, "wb", closefd=False) as file:
        # Without a name and a time in its header, equal data give equal bytes.
        binary: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if zipped else file
        with io.TextIOWrapper(binary, encoding="utf-8", newline="") as text:
            # With "\r" in the end of lines, text that has one is quoted.
            writer = csv.writer(_UnixEnds(text), delimiter=separator)
            writer.writerow(columns)
            writer.writerows(zip(*(each.tolist() for each in columns.values()), strict=True))


class _UnixEnds:
    """A text file whose lines, which csv ends by CR and LF, end by LF."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def write(self, line: str) -> int:
        return self._text.write(line.removesuffix("\r\n") + "\n")


def _unpacked(path: str | os.PathLike[str]) -> bytes | bytearray:
    with open(path, "rb") as file:
        content = file.read(len(ZIP_MAGIC))
        if content == ZIP_MAGIC:
            raise damaged(path, "text", "a zip archive, such as a workbook", remedy=REMEDY)
        if not content.startswith(GZIP_MAGIC):
            return content + file.read()
    return read_gzip(path)


def _encoding(content: bytes | bytearray) -> str:
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            return encoding
    # Latin text in UTF-16 without a mark: every other byte is zero.
    if content[1:2] == content[3:4] == b"\0" and content[:1] != b"\0":
        return "utf-16-le"
    if content[:1] == content[2:3] == b"\0" and content[1:2] not in (b"", b"\0"):
        return "utf-16-be"
    return "utf-8-sig"


def _reader(content: bytes | bytearray, encoding: str, separator: str) -> Any:
    text = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
    return csv.reader(text, strict=True, delimiter=separator)


def _separator(content: bytes | bytearray, encoding: str) -> str:
    """The separator that gives the header most cells, and the first line as many if one does."""
    widths: dict[str, tuple[bool, int]] = {}
    for separator in SEPARATORS:
        lines = _with_values(islice(_reader(content, encoding, separator), SAMPLED_LINES))
        width = length = 0
        # What follows text that ends within quotes is not known.
        with suppress(csv.Error):
            width = len(next(lines, []))
            length = len(_without_end(next(lines, []), width))
        widths[separator] = (1 < width == length, width)
    return max(widths, key=widths.__getitem__)


def _without_end(row: list[str], width: int) -> list[str]:
    """A line without the empty cells that separators at its end make."""
    return row if any(row[width:]) else row[:width]


def _with_values(lines: Any) -> Iterator[list[str]]:
    """The lines that hold something, from the header on."""
    begun = False
    for row in lines:
        if not any(map(str.strip, row)):
            continue
        # Excel begins with its separator, and some programs with remarks.
        remark = len(row) == 1 and row[0].startswith("#")
        begun = begun or not (remark or row[0].casefold().startswith("sep="))
        if begun:
            yield row


def _lines(
    content: bytes | bytearray, encoding: str, separator: str, path: object
) -> tuple[list[str], list[list[str]]]:
    """The cells of the header and of each line, without those of separators at the end."""
    reader = _reader(content, encoding, separator)
    try:
        header = next(_with_values(reader), [])
        width = len(header)
        rows = []
        for row in _with_values(reader):
            if len(_without_end(row, width)) != width:
                raise ValueError(
                    f"expected {width} values per line in {path}, got {len(row)} in line "
                    f"{reader.line_num}; separate them by {separator!r}, quote text that has one, "
                    "and write numbers with a decimal point"
                )
            rows.append(row[:width])
    except csv.Error as error:
        raise damaged(path, f"CSV text at line {reader.line_num}", error) from error
    while width and not header[width - 1].strip() and not any(row[width - 1] for row in rows):
        width -= 1
    return header[:width], [row[:width] for row in rows] if width < len(header) else rows


def _names(header: Sequence[str]) -> list[str]:
    """Names without the spaces around separators; the first of numpy.savetxt begins with "#"."""
    names = list(header)
    spaced = [name for name in names if name != name.strip()]
    # A single one with a space at its end may be meant: a class may be named so.
    if any(name[:1].isspace() for name in spaced) or 2 * len(spaced) > len(names):
        names = [name.strip() for name in names]
    if names:
        names[0] = names[0].removeprefix("#").strip() or "index"
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
