"""Delimited text: CSV with commas, semicolons or tabs, plain or gzipped, in UTF-8 or UTF-16."""

import codecs
import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

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
PIECE = 2**13  # lines that are held as cells of text at once
MAX_SHARED = 2**16  # different texts of a column, of which equal ones are held once
REMEDY = "save it as UTF-8 text with commas, one line per example"


# Opens a file, or what it was unpacked to, at its beginning.
Source = Callable[[], BinaryIO]


def read_delimited(
    path: str | os.PathLike[str], is_numeric: Callable[[str], bool] = lambda _: False
) -> tuple[list[str], list[np.ndarray]]:
    """Read the names of the columns and their cells: text as objects, or float64.

    Lines are read in pieces, so that numbers take the memory of numbers, not of their text.

    The separator is the one by which the header and the first line have equally many cells. Byte
    order marks, lines without any value and separators at the end of lines are skipped. A first
    column without a name is "index", as pandas writes it.

    Args:
        path: of the file.
        is_numeric: of which columns, by name, the text does not matter where every cell is a finite
            number; other columns, and those of which a cell is not, are text.

    Raises:
        ValueError: the text is damaged, of another encoding, without a header, or has lines of
            different numbers of cells.
    """
    try:
        source = _source(path)
        encoding = _encoding(source)
        separator = _separator(source, encoding)
        header, cells = _columns(source, encoding, separator, path, is_numeric)
    except UnicodeDecodeError as error:
        raise damaged(path, "text in UTF-8 or UTF-16", error, remedy=REMEDY) from error
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(path, "gzipped text", error) from error
    names = _names(header)
    first = str(cells[0][0]) if cells and len(cells[0]) else ""
    if len(names) == 1 and len(names[0].split()) > 1 and len(first.split()) > 1:
        raise ValueError(
            f"expected columns separated by commas, semicolons or tabs in {path}, got spaces in "
            f"{names[0]!r:.80}; separate them by commas"
        )
    if names and all(_is_number(name) for name in names) and not all(map(str.isdigit, names)):
        raise ValueError(
            f"expected the names of the columns in the first line of {path}, got the number "
            f"{names[0]!r:.80}; add a line of names, such as p_0,p_1,label"
        )
    return names, cells


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


def _source(path: str | os.PathLike[str]) -> Source:
    with open(path, "rb") as file:
        begin = file.read(len(ZIP_MAGIC))
    if begin == ZIP_MAGIC:
        raise damaged(path, "text", "a zip archive, such as a workbook", remedy=REMEDY)
    if not begin.startswith(GZIP_MAGIC):
        return lambda: open(path, "rb")
    content = bytes(read_gzip(path))
    return lambda: io.BytesIO(content)


def _encoding(source: Source) -> str:
    with source() as file:
        content = file.read(max(map(len, ENCODINGS)))
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            return encoding
    # Latin text in UTF-16 without a mark: every other byte is zero.
    if content[1:2] == content[3:4] == b"\0" and content[:1] != b"\0":
        return "utf-16-le"
    if content[:1] == content[2:3] == b"\0" and content[1:2] not in (b"", b"\0"):
        return "utf-16-be"
    return "utf-8-sig"


def _text(source: Source, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(source(), encoding=encoding, newline="")


def _separator(source: Source, encoding: str) -> str:
    """The separator that gives the header most cells, and the first line as many if one does."""
    widths: dict[str, tuple[bool, int]] = {}
    for separator in SEPARATORS:
        width = length = 0
        # What follows text that ends within quotes is not known.
        with _text(source, encoding) as text, suppress(csv.Error):
            reader = csv.reader(text, strict=True, delimiter=separator)
            lines = _with_values(islice(reader, SAMPLED_LINES))
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


@dataclass
class _Column:
    """The cells of a column as they are read.

    Attributes:
        numeric: whether they are numbers so far, whose text does not matter.
        parts: of it, as text or as numbers.
        shared: texts that occurred before.
    """

    numeric: bool
    parts: list[np.ndarray] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)

    def add(self, cells: Sequence[str]) -> None:
        """Add some lines."""
        if self.numeric:
            numbers = _finite(cells)
            if numbers is not None:
                self.parts.append(numbers)
                return
            self.numeric = False
        if len(self.shared) < MAX_SHARED:
            cells = [self.shared.setdefault(cell, cell) for cell in cells]
        self.parts.append(np.array(cells, dtype=object))

    def array(self) -> np.ndarray:
        """All cells; numbers as text, with every digit, if others are text."""
        parts, self.parts = self.parts, []
        if not self.numeric:
            parts = [
                each if each.dtype == object else np.array(list(map(repr, each.tolist())), object)
                for each in parts
            ]
        return np.concatenate([np.empty(0, np.float64 if self.numeric else object), *parts])


def _finite(cells: Sequence[str]) -> np.ndarray | None:
    """Cells as numbers; None if one is not finite, or only Python would read it."""
    with suppress(ValueError):
        numbers = np.fromiter(map(float, cells), np.float64, len(cells))
        if np.isfinite(numbers).all() and "_" not in "".join(cells):
            return numbers
    return None


def _columns(
    source: Source, encoding: str, separator: str, path: object, is_numeric: Callable[[str], bool]
) -> tuple[list[str], list[np.ndarray]]:
    """The header and the columns, without those of separators at the end of lines."""
    with _text(source, encoding) as text:
        reader = csv.reader(text, strict=True, delimiter=separator)
        try:
            header = next(_with_values(reader), [])
            columns = [_Column(is_numeric(name.strip())) for name in header]
            lines = _lines(reader, len(header), separator, path)
            while piece := list(islice(lines, PIECE)):
                for column, cells in zip(columns, zip(*piece, strict=True), strict=True):
                    column.add(cells)
        except csv.Error as error:
            raise damaged(path, f"CSV text at line {reader.line_num}", error) from error
    while columns and not header[-1].strip() and not any(map(np.any, columns[-1].parts)):
        header, columns = header[:-1], columns[:-1]
    return header, [column.array() for column in columns]


def _lines(reader: Any, width: int, separator: str, path: object) -> Iterator[list[str]]:
    """The cells of each line, as many as the header has."""
    for row in _with_values(reader):
        if len(row) != width:
            if len(_without_end(row, width)) != width:
                raise ValueError(
                    f"expected {width} values per line in {path}, got {len(row)} in line "
                    f"{reader.line_num}; separate them by {separator!r}, quote text that has one, "
                    "and write numbers with a decimal point"
                )
            row = row[:width]
        yield row


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
