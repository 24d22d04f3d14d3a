"""Tables with one row per example: CSV, Parquet and NPZ, read without running any code."""

import csv
import difflib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcbn.io.archives import damaged, read_arrays, require_unpacked_size
from mcbn.io.atomic import replacing
from mcbn.io.extras import optional
from mcbn.validation import PROBABILITY_TOLERANCE, SUM_TOLERANCE

SUFFIXES = (".csv", ".parquet", ".npz")
# Bytes in memory per value of Parquet, at most; those of a text are beside the text itself.
NUMBER_BYTES, TEXT_BYTES = 8, 100
PAGE_COPIES = 3  # of Parquet's pages in memory: the raw bytes, Arrow's and numpy's
MAX_SHOWN_NAMES, MAX_NAME_CHARACTERS = 12, 80  # of columns, in an error
# Beyond these the square of a standard deviation, or its inverse, leaves the range of float64.
MIN_SPREAD, MAX_SPREAD = 1e-150, 1e150


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
    flat = all(values.ndim == 1 for values in columns.values())
    if suffix != ".npz" and not flat:
        raise ValueError(
            f"expected columns with one value per example for {suffix}, got shapes "
            f"{ {name: values.shape for name, values in columns.items()} }; write .npz instead"
        )
    if suffix == ".parquet":
        _write_parquet(path, columns)
        return
    with replacing(path) as handle:
        if suffix == ".csv":
            with open(handle, "w", encoding="utf-8", newline="", closefd=False) as text:
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(zip(*(each.tolist() for each in columns.values()), strict=True))
            return
        # numpy.savez takes names as keywords, and fails on a column called "file".
        with open(handle, "w+b", closefd=False) as file, zipfile.ZipFile(file, "w") as archive:
            for name, values in columns.items():
                # A ZipInfo without a date has that of 1980, so equal data give equal bytes.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def read_columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a table: text from CSV, typed values from Parquet and NPZ.

    Nested columns of Parquet are left out, and its missing values are NaN or empty text. A byte
    order mark and empty lines of a CSV are skipped; a first column without a name is "index".

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: another suffix, a truncated, corrupted or empty file, rows of different
            lengths, two columns of one name, or text that is not UTF-8.
    """
    suffix = known_suffix(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a {suffix} file at {path}, got none; check the path")
    columns = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": read_arrays}[suffix](path)
    if not columns or any(len(values) == 0 for values in columns.values() if values.ndim > 0):
        raise ValueError(
            f"expected at least one row in {path}, got columns {_shortened(columns)} without any; "
            "write one row per example"
        )
    return columns


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of a path is that of a table."""
    return Path(path).suffix.lower() in SUFFIXES


def known_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a table, in lower case.

    Raises:
        ValueError: it is not the suffix of a known format.
    """
    if not is_table(path):
        raise ValueError(
            f"expected a file that ends in {', '.join(SUFFIXES)}, got {path}; rename or convert it"
        )
    return Path(path).suffix.lower()


def column(columns: Mapping[str, np.ndarray], name: str, path: object) -> np.ndarray:
    """The column of that name.

    Raises:
        ValueError: there is none; suggests the nearest name.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {_shortened(columns)}"
        raise ValueError(f"expected a column {name!r} in {path}, got none; {hint}")
    return columns[name]


def numbers(values: np.ndarray, name: str, path: object) -> np.ndarray:
    """Convert a column to finite float64.

    Raises:
        ValueError: a value is not a number, NaN, infinite or missing; says in which row.
    """
    if values.dtype.kind in "biuf":
        converted = values.astype(np.float64)
    else:
        converted = np.array([_number(text) for text in values.ravel()]).reshape(values.shape)
    bad = np.argwhere(~np.isfinite(converted))
    if len(bad):
        first = tuple(bad[0])
        raise ValueError(
            f"expected finite numbers in column {name!r} of {path}, got "
            f"{str(values[first])[:80]!r} in row {first[0] + 1} ({len(bad)} such values); "
            "remove or repair them"
        )
    return converted


def texts(values: np.ndarray) -> tuple[str, ...]:
    """Convert a column to text; 2.0 becomes "2", since integers with gaps are read as floats."""
    if values.dtype.kind == "f":
        return tuple(f"{value:.0f}" if value.is_integer() else repr(value) for value in
                     values.tolist())  # fmt: skip
    return tuple(str(value) for value in values.tolist())


def require_distributions(matrix: np.ndarray, names: Sequence[str], path: object) -> None:
    """Check that every row holds the probabilities of all classes.

    Raises:
        ValueError: a value is not a probability or a row does not sum to one; says in which row.
    """
    bad = np.argwhere((matrix < 0) | (matrix > 1 + PROBABILITY_TOLERANCE))
    if len(bad):
        first = tuple(bad[0])
        name = names[first[1]] if len(names) > 1 else names[0]
        raise ValueError(
            f"expected probabilities from 0 to 1 in {path}, got {matrix[first]:g} in row "
            f"{first[0] + 1} of {name!r}; pass logits through a softmax first"
        )
    if matrix.shape[1] < 2:
        raise ValueError(
            f"expected probabilities of at least 2 classes in {path}, got only {list(names)}; for "
            "a binary problem give p_0 and p_1"
        )
    sums = matrix.sum(1)
    off = np.argwhere(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(off):
        raise ValueError(
            f"expected the probabilities {list(names)[:MAX_SHOWN_NAMES]} to sum to 1 in {path}, "
            f"got {sums[tuple(off[0])]:g} in row {off[0][0] + 1} ({len(off)} such rows); name the "
            "columns by --probabilities if others were taken for them"
        )


def require_spreads(values: np.ndarray, name: str, path: object) -> None:
    """Check that standard deviations or variances are positive.

    Raises:
        ValueError: one is not, or is too large or small to compute with; says in which row.
    """
    bad = np.argwhere((values < MIN_SPREAD) | (values > MAX_SPREAD))
    if len(bad):
        first = tuple(bad[0])
        raise ValueError(
            f"expected {name!r} above 0, from {MIN_SPREAD:g} to {MAX_SPREAD:g}, in {path}, got "
            f"{values[first]:g} in row {first[0] + 1}; a forecast without spread has no density, "
            "so leave such rows out or give them a positive spread"
        )


def _number(text: object) -> float:
    """The number in a text; NaN if there is none."""
    try:
        # Only Python reads underscores between digits.
        return float("nan") if "_" in str(text) else float(str(text))
    except ValueError:
        return float("nan")


def _shortened(names: Iterable[str]) -> str:
    """The first few names, each cut where it is long, for an error."""
    all_names = [f"{name!r:.{MAX_NAME_CHARACTERS}}" for name in names]
    hidden = len(all_names) - MAX_SHOWN_NAMES
    more = f" and {hidden} more" if hidden > 0 else ""
    return ", ".join(all_names[:MAX_SHOWN_NAMES]) + more


def _require_names(names: Sequence[str], path: object) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        got = f"{_shortened(twice)} more than once" if twice else "one without a name"
        raise ValueError(f"expected columns of different names in {path}, got {got}; rename them")


def _read_csv(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next((row for row in reader if row), [])
            names = ["index" if not name and position == 0 else name.strip()
                     for position, name in enumerate(header)]  # fmt: skip
            _require_names(names, path)
            rows = []
            for row in reader:
                if row and len(row) != len(names):
                    raise ValueError(
                        f"expected {len(names)} values per line in {path}, got {len(row)} in line "
                        f"{reader.line_num}; separate them by commas, and quote text that has one"
                    )
                if row:
                    rows.append(row)
    except UnicodeDecodeError as error:
        raise damaged(path, "CSV text in UTF-8", error) from error
    except csv.Error as error:
        raise damaged(path, f"CSV text at line {reader.line_num}", error) from error
    if len(names) == 1 and ";" in names[0]:
        raise ValueError(
            f"expected values separated by commas in {path}, got semicolons; convert it"
        )
    cells = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: _objects(values) for name, values in zip(names, cells, strict=True)}


def _write_parquet(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    arrow = optional("pyarrow", extra="parquet")
    parquet = optional("pyarrow.parquet", extra="parquet")
    buffer = io.BytesIO()
    values = {name: each.tolist() if each.dtype.kind == "U" else each
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
    _require_names([field.name for field in fields], path)
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
            field.name: values.to_numpy() if _is_number(arrow, field.type) else _text_column(values)
            for field, values in zip(flat, table.columns, strict=True)
        }
    except Exception as error:  # as above
        raise damaged(path, "a Parquet table", error) from error


def _is_number(arrow: Any, kind: Any) -> bool:
    return bool(arrow.types.is_floating(kind) or arrow.types.is_integer(kind))


def _text_column(values: Any) -> np.ndarray:
    """A Parquet column as text, with equal texts held once; a missing value becomes ""."""
    parts = [np.empty(0, dtype=object)]
    for chunk in values.dictionary_encode().chunks:
        words = ["" if word is None else str(word) for word in chunk.dictionary.to_pylist()]
        parts.append(_objects([*words, ""])[chunk.indices.fill_null(-1).to_numpy()])
    return np.concatenate(parts)


def _objects(values: Sequence[str]) -> np.ndarray:
    """An array of text as objects: with numpy's fixed width one long cell would fill the memory."""
    return np.array(values, dtype=object)
