"""Files of columns, one row an example: CSV, Parquet and NPZ, read without running anything."""

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

from mcbn.io.archives import damaged, read_arrays, require_modest
from mcbn.io.atomic import replacing
from mcbn.io.extras import optional
from mcbn.validation import EXCESS, SUM_TOLERANCE

SUFFIXES = (".csv", ".parquet", ".npz")
# Bytes in memory of a value of Parquet, at most: of text beside the text itself.
NUMBER, TEXT = 8, 100
COPIES = 3  # of the pages: as they are, as Arrow's and as ours


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as the file that the suffix of `path` names, whole or not at all.

    A CSV holds numbers with as many digits as give the same float64 back.

    Args:
        path: ends in .csv, .parquet or .npz.
        columns: arrays of one row an example; CSV and Parquet take one axis only.

    Raises:
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: another suffix, or an array of more axes than the format takes.
    """
    suffix = known_suffix(path)
    flat = all(values.ndim == 1 for values in columns.values())
    if suffix != ".npz" and not flat:
        raise ValueError(
            f"expected columns of one value an example for {suffix}, got shapes "
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
        # numpy.savez takes names as keywords, and trips over a column called "file".
        with open(handle, "w+b", closefd=False) as file, zipfile.ZipFile(file, "w") as archive:
            for name, values in columns.items():
                # Without a date of its own a member has that of 1980: equal bytes each time.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def read_columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a file of columns: text from CSV, typed values from Parquet and NPZ.

    Nested columns of Parquet are left out, and its missing values are NaN or empty text. A byte
    order mark and empty lines of a CSV are skipped, and a first column without a name is "index".

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: another suffix, a truncated, corrupted, ragged or empty file, two columns of
            one name, text that is not UTF-8.
    """
    suffix = known_suffix(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a {suffix} file at {path}, got none; check the path")
    columns = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": read_arrays}[suffix](path)
    if not columns or any(len(values) == 0 for values in columns.values() if values.ndim > 0):
        raise ValueError(
            f"expected at least one row in {path}, got columns {_some(columns)} without any; "
            "write one row an example"
        )
    return columns


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of a path is that of a file of columns."""
    return Path(path).suffix.lower() in SUFFIXES


def known_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file of columns, in lower case.

    Raises:
        ValueError: it is none that is known.
    """
    if not is_table(path):
        raise ValueError(
            f"expected a file that ends in {', '.join(SUFFIXES)}, got {path}; rename or convert it"
        )
    return Path(path).suffix.lower()


def column(columns: Mapping[str, np.ndarray], name: str, path: object) -> np.ndarray:
    """The column of that name.

    Raises:
        ValueError: there is none; says which is nearest.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {_some(columns)}"
        raise ValueError(f"expected a column {name!r} in {path}, got none; {hint}")
    return columns[name]


def numbers(values: np.ndarray, name: str, path: object) -> np.ndarray:
    """A column as finite float64.

    Raises:
        ValueError: a value is no number, NaN, infinite or missing; says in which row.
    """
    if values.dtype.kind in "biuf":
        found = values.astype(np.float64)
    else:
        found = np.array([_number(text) for text in values.ravel()]).reshape(values.shape)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        place = tuple(bad[0])
        raise ValueError(
            f"expected finite numbers in column {name!r} of {path}, got "
            f"{str(values[place])[:80]!r} in row {place[0] + 1} ({len(bad)} such values); "
            "remove or repair them"
        )
    return found


def texts(values: np.ndarray) -> tuple[str, ...]:
    """A column as text; whole floating numbers lose their point, as labels with gaps have one."""
    if values.dtype.kind == "f":
        return tuple(f"{value:.0f}" if value.is_integer() else repr(value) for value in
                     values.tolist())  # fmt: skip
    return tuple(str(value) for value in values.tolist())


def require_distributions(matrix: np.ndarray, names: Sequence[str], path: object) -> None:
    """Check that every row is a distribution over its second axis, the classes.

    Raises:
        ValueError: a value is no probability or a row does not sum to one; says in which row.
    """
    bad = np.argwhere((matrix < 0) | (matrix > 1 + EXCESS))
    if len(bad):
        place = tuple(bad[0])
        name = names[place[1]] if len(names) > 1 else names[0]
        raise ValueError(
            f"expected probabilities from 0 to 1 in {path}, got {matrix[place]:g} in row "
            f"{place[0] + 1} of {name!r}; logits have to go through a softmax first"
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
            f"expected the probabilities {list(names)[:12]} to sum to 1 in {path}, got "
            f"{sums[tuple(off[0])]:g} in row {off[0][0] + 1} ({len(off)} such rows); name the "
            "columns by --probabilities if others were taken for them"
        )


def require_spreads(values: np.ndarray, name: str, path: object) -> None:
    """Check that standard deviations or variances are above 0.

    Raises:
        ValueError: one is not, or is too large or small to compute with; says in which row.
    """
    # The square of a wider one is no number, and that of a narrower one is zero.
    bad = np.argwhere((values < 1e-150) | (values > 1e150))
    if len(bad):
        place = tuple(bad[0])
        raise ValueError(
            f"expected {name!r} above 0, from 1e-150 to 1e150, in {path}, got {values[place]:g} "
            f"in row {place[0] + 1}; a forecast without spread has no density"
        )


def _number(text: object) -> float:
    """The number that a text is; NaN for none, as Python alone reads underscores."""
    try:
        return float("nan") if "_" in str(text) else float(str(text))
    except ValueError:
        return float("nan")


def _some(names: Iterable[str]) -> str:
    shown = [f"{name!r:.80}" for name in names]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _require_names(names: Sequence[str], path: object) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        got = f"{_some(twice)} more than once" if twice else "one without a name"
        raise ValueError(f"expected columns of different names in {path}, got {got}; rename them")


def _read_csv(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next((row for row in reader if row), [])
            names = ["index" if not name and place == 0 else name.strip()
                     for place, name in enumerate(header)]  # fmt: skip
            _require_names(names, path)
            rows = []
            for row in reader:
                if row and len(row) != len(names):
                    raise ValueError(
                        f"expected {len(names)} values a line in {path}, got {len(row)} in line "
                        f"{reader.line_num}; separate them by commas, and quote text that has one"
                    )
                if row:
                    rows.append(row)
    except UnicodeDecodeError as error:
        raise damaged(path, "a .csv file in UTF-8", error) from error
    except csv.Error as error:
        raise damaged(path, f"a .csv file (line {reader.line_num})", error) from error
    if len(names) == 1 and ";" in names[0]:
        raise ValueError(f"expected values parted by commas in {path}, got semicolons; convert it")
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
    except Exception as error:  # of many kinds in a foreign file
        raise damaged(path, "a .parquet file", error) from error
    _require_names([field.name for field in fields], path)
    flat = [field for field in fields if not arrow.types.is_nested(field.type)]
    rows = sum(group.num_rows for group in groups)
    widths = sum(NUMBER if _is_number(arrow, field.type) else TEXT for field in flat)
    pages = sum(group.total_byte_size for group in groups)
    require_modest(rows * widths + COPIES * pages, path)
    try:
        # One long text in many rows is kept once.
        texts = [field.name for field in flat if not _is_number(arrow, field.type)]
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read(columns=[field.name for field in flat])
        return {
            field.name: values.to_numpy() if _is_number(arrow, field.type) else _worded(values)
            for field, values in zip(flat, table.columns, strict=True)
        }
    except Exception as error:  # as above
        raise damaged(path, "a .parquet file", error) from error


def _is_number(arrow: Any, kind: Any) -> bool:
    return bool(arrow.types.is_floating(kind) or arrow.types.is_integer(kind))


def _worded(values: Any) -> np.ndarray:
    """Texts of a column of Parquet, each different one made once; of a missing value none."""
    parts = [np.empty(0, dtype=object)]
    for chunk in values.dictionary_encode().chunks:
        words = ["" if word is None else str(word) for word in chunk.dictionary.to_pylist()]
        parts.append(_objects([*words, ""])[chunk.indices.fill_null(-1).to_numpy()])
    return np.concatenate(parts)


def _objects(values: Sequence[str]) -> np.ndarray:
    """Text each as long as it is: fixed width would let one long cell fill the memory."""
    return np.array(values, dtype=object)
