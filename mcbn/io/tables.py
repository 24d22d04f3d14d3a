"""Tables with one row per example: CSV, Parquet and NPZ, read without running any code."""

import difflib
import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mcbn.io.archives import damaged, read_arrays, require_unpacked_size
from mcbn.io.atomic import replacing
from mcbn.io.delimited import read_delimited, write_delimited
from mcbn.io.extras import optional
from mcbn.io.suffixes import SEPARATORS, known_suffix

# Bytes in memory per value of Parquet, at most; those of a text are beside the text itself.
NUMBER_BYTES, TEXT_BYTES = 8, 100
PAGE_COPIES = 3  # of Parquet's pages in memory: the raw bytes, Arrow's and numpy's
PANDAS_INDEX = {"__index_level_0__": "index"}  # how pandas names an index without a name
MAX_SHOWN_NAMES, MAX_NAME_CHARACTERS = 12, 80  # of columns, in an error
MAX_PADDED_BYTES = 2**30  # of text in NPZ, whose cells are all as wide as the longest
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d*(e[+-]?\d+)?", re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    """Write columns atomically, in the format that the suffix of `path` names.

    A CSV holds numbers with as many digits as restore the same float64.

    Args:
        path: ends in .csv, .parquet or .npz.
        columns: arrays with one row per example; CSV and Parquet take one axis only.

    Raises:
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: another suffix, or an array of more axes than the format takes.
    """
    suffix = known_suffix(path)
    deep = [name for name, values in columns.items() if values.ndim != 1]
    if suffix != ".npz" and deep:
        raise ValueError(
            f"expected columns with one value per example for {suffix}, got {shortened(deep)} of "
            f"shapes such as {columns[deep[0]].shape}; write .npz instead"
        )
    if suffix == ".parquet":
        _write_parquet(path, columns)
        return
    if suffix == ".npz":
        _write_npz(path, columns)
        return
    separator, zipped = SEPARATORS[suffix.removesuffix(".gz")], suffix.endswith(".gz")
    with replacing(path) as handle:
        write_delimited(handle, columns, separator=separator, zipped=zipped)


def read_columns(
    path: str | os.PathLike[str], *, is_numeric: Callable[[str], bool] = lambda _: False
) -> dict[str, np.ndarray]:
    """Read a table: text from CSV, typed values from Parquet and NPZ.

    Text is read as `read_delimited` says. Nested columns of Parquet are left out, and its missing
    values are NaN or empty text.

    Args:
        path: of the file.
        is_numeric: which columns of text, by name, are numbers if all their cells are.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: another suffix, a truncated, corrupted or empty file, rows of different
            lengths, two columns of one name, or text of another encoding.
    """
    suffix = known_suffix(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a {suffix} file at {path}, got none; check the path")
    typed = {".parquet": _read_parquet, ".npz": read_arrays}.get(suffix)
    columns = typed(path) if typed else _read_text(path, is_numeric)
    if not columns or any(len(values) == 0 for values in columns.values() if values.ndim > 0):
        raise ValueError(
            f"expected at least one row in {path}, got columns {shortened(columns)} without any; "
            "write one row per example"
        )
    return columns


def column(columns: Mapping[str, np.ndarray], name: str, path: object) -> np.ndarray:
    """The column of that name.

    Raises:
        ValueError: there is none; suggests the nearest name.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {shortened(columns)}"
        raise ValueError(f"expected a column {name!r} in {path}, got none; {hint}")
    return columns[name]


def numbers(values: np.ndarray, name: str, path: object) -> np.ndarray:
    """Convert a column to finite float64; text may have decimal commas.

    Raises:
        ValueError: a value is not a number, NaN, infinite or missing; says in which row.
    """
    converted = parsed(values)
    bad = np.argwhere(~np.isfinite(np.atleast_1d(converted)))
    if len(bad):
        first = tuple(bad[0])
        word = str(np.atleast_1d(values)[first])[:MAX_NAME_CHARACTERS]
        remedy = (
            "write a decimal point and no separators of thousands"
            if "," in word else "remove or repair them"
        )  # fmt: skip
        raise ValueError(
            f"expected finite numbers in column {name!r:.{MAX_NAME_CHARACTERS}} of {path}, got "
            f"{word!r} in row {first[0] + 1} ({len(bad)} such values); {remedy}"
        )
    return converted


def parsed(values: np.ndarray) -> np.ndarray:
    """A column as float64, with NaN where a value is no number."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    words = texts(values.ravel())
    # Only Python reads underscores between digits.
    if values.dtype.kind == "O" and "_" not in "".join(words):
        with suppress(ValueError, TypeError):
            return values.astype(np.float64)
    if _has_decimal_commas(words):
        words = tuple(word.replace(",", ".") for word in words)
    return np.array([_number(word) for word in words]).reshape(values.shape)


def texts(values: np.ndarray) -> tuple[str, ...]:
    """Convert a column to text; 2.0 becomes "2", since integers with gaps are read as floats."""
    if values.dtype.kind == "f":
        return tuple(f"{value:.0f}" if value.is_integer() else repr(value) for value in
                     values.tolist())  # fmt: skip
    if values.dtype.kind == "S":
        return tuple(value.decode(errors="replace") for value in values.tolist())
    return tuple(str(value) for value in values.tolist())


def objects(values: Sequence[str]) -> np.ndarray:
    """An array of text as objects: with numpy's fixed width one long cell would fill the memory."""
    return np.array(values, dtype=object)


def shortened(names: Iterable[str]) -> str:
    """The first few names, each cut where it is long, for an error."""
    all_names = [f"{name!r:.{MAX_NAME_CHARACTERS}}" for name in names]
    hidden = len(all_names) - MAX_SHOWN_NAMES
    more = f" and {hidden} more" if hidden > 0 else ""
    return ", ".join(all_names[:MAX_SHOWN_NAMES]) + more


def _has_decimal_commas(words: Sequence[str]) -> bool:
    """Whether commas in numbers are decimal ones: "1,234" alone might be a thousand."""
    with_comma = [word.strip() for word in words if "," in word]
    return (
        bool(with_comma)
        and not any("." in word for word in words)
        and all(map(DECIMAL_COMMA.fullmatch, with_comma))
        and not all(map(THOUSANDS.fullmatch, with_comma))
    )


def _number(text: str) -> float:
    """The number in a text; NaN if there is none."""
    try:
        return float("nan") if "_" in text else float(text)
    except ValueError:
        return float("nan")


def _require_names(names: Sequence[str], path: object) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        got = f"{shortened(twice)} more than once" if twice else "one without a name"
        raise ValueError(f"expected columns of different names in {path}, got {got}; rename them")


def _read_text(
    path: str | os.PathLike[str], is_numeric: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    names, cells = read_delimited(path, is_numeric)
    _require_names(names, path)
    return dict(zip(names, cells, strict=True))


def _write_npz(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    arrays = {name: _padded(values, path) for name, values in columns.items()}
    # numpy.savez takes names as keywords, and fails on a column called "file".
    with (
        replacing(path) as handle,
        open(handle, "w+b", closefd=False) as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        for name, values in arrays.items():
            # A ZipInfo without a date has that of 1980, so equal data give equal bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def _padded(values: np.ndarray, path: object) -> np.ndarray:
    """Text of the fixed width that NPZ needs; other values as they are."""
    if values.dtype.kind != "O":
        return values
    size = 4 * len(values) * max(map(len, values), default=0)
    if size > MAX_PADDED_BYTES:
        raise ValueError(
            f"expected text of at most {MAX_PADDED_BYTES:,} bytes per column for {path}, got "
            f"{size:,} with every cell as wide as the longest; write .csv or .parquet instead"
        )
    return values.astype(str)


def _write_parquet(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    arrow = optional("pyarrow", extra="parquet")
    parquet = optional("pyarrow.parquet", extra="parquet")
    buffer = io.BytesIO()
    values = {name: each.tolist() if each.dtype.kind in "UO" else each
              for name, each in columns.items()}  # fmt: skip
    parquet.write_table(arrow.table(values), buffer)
    with replacing(path) as handle, open(handle, "wb", closefd=False) as file:
        file.write(buffer.getbuffer())


def _read_parquet(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    arrow = optional("pyarrow", extra="parquet")
    parquet = optional("pyarrow.parquet", extra="parquet")
    try:
        with parquet.ParquetFile(path) as file:
            fields, about = list(file.schema_arrow), file.metadata
            groups = [about.row_group(index) for index in range(about.num_row_groups)]
    except Exception as error:  # pyarrow raises many kinds of errors on a damaged file
        raise damaged(path, "a Parquet table", error) from error
    names = [PANDAS_INDEX.get(field.name, field.name) for field in fields]
    _require_names(names, path)
    flat = [field for field in fields if not arrow.types.is_nested(field.type)]
    rows = sum(group.num_rows for group in groups)
    row_bytes = sum(NUMBER_BYTES if _is_number(arrow, field.type) else TEXT_BYTES for field in flat)
    page_bytes = sum(group.total_byte_size for group in groups)
    require_unpacked_size(rows * row_bytes + PAGE_COPIES * page_bytes, path)
    try:
        # A long text that many rows share is held once.
        text_names = [field.name for field in flat if not _is_number(arrow, field.type)]
        with parquet.ParquetFile(path, read_dictionary=text_names) as file:
            table = file.read(columns=[field.name for field in flat])
        return {
            PANDAS_INDEX.get(field.name, field.name): _parquet_column(arrow, field.type, values)
            for field, values in zip(flat, table.columns, strict=True)
        }
    except Exception as error:  # as above
        raise damaged(path, "a Parquet table", error) from error


def _is_number(arrow: Any, kind: Any) -> bool:
    return bool(arrow.types.is_floating(kind) or arrow.types.is_integer(kind))


def _parquet_column(arrow: Any, kind: Any, values: Any) -> np.ndarray:
    return np.asarray(values.to_numpy() if _is_number(arrow, kind) else _text_column(values))


def _text_column(values: Any) -> np.ndarray:
    """A Parquet column as text, with equal texts held once; a missing value becomes ""."""
    parts = [np.empty(0, dtype=object)]
    for chunk in values.dictionary_encode().chunks:
        words = ["" if word is None else str(word) for word in chunk.dictionary.to_pylist()]
        parts.append(objects([*words, ""])[chunk.indices.fill_null(-1).to_numpy()])
    return np.concatenate(parts)
