"""What the name of a file says of its format, before anything is loaded that reads it."""

import os
from pathlib import Path

SEPARATORS = {".csv": ",", ".tsv": "\t"}  # of text, as it is written
SUFFIXES = (*SEPARATORS, *(f"{suffix}.gz" for suffix in SEPARATORS), ".parquet", ".npz")
# Of files that predictions are kept in, but not read from.
OTHER_SUFFIXES = frozenset({".npy", ".txt", ".dat", ".xls", ".xlsx", ".ods", ".json", ".jsonl",
                            ".pkl", ".pt", ".pth", ".zip", ".gz", ".bz2", ".xz",
                            ".feather", ".arrow", ".h5", ".hdf5", ".mat", ".rds"})  # fmt: skip


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of a path is that of a table."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def has_columns(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of a path is that of a table of columns, which arrays are not."""
    return is_table(path) and not os.fspath(path).lower().endswith(".npz")


def known_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a table, in lower case.

    Raises:
        ValueError: it is not the suffix of a known format.
    """
    if not is_table(path):
        bare = Path(path).suffix.lower() == ".npy"
        remedy = (
            "write the array and its targets by numpy.savez as the arrays probabilities and targets"
            if bare else "rename or convert it"
        )  # fmt: skip
        raise ValueError(
            f"expected a file that ends in {', '.join(SUFFIXES)}, got {path}; {remedy}"
        )
    return next(suffix for suffix in SUFFIXES if os.fspath(path).lower().endswith(suffix))


def stem(path: str | os.PathLike[str]) -> str:
    """The name of a table without its folder and suffix."""
    name = Path(path).name
    return name[: -len(known_suffix(path))] or name


def require_predictions(path: str | os.PathLike[str]) -> None:
    """Check that a file may hold predictions, which one of any name does as safetensors.

    Raises:
        ValueError: its suffix is that of another format, and so is its beginning.
    """
    if Path(path).suffix.lower() not in OTHER_SUFFIXES or is_table(path):
        return
    if not Path(path).is_file():  # of which whoever reads it says so
        return
    with open(path, "rb") as file:
        # Safetensors begin with the length of their header, which is a JSON object.
        is_tensors = file.read(9)[8:] == b"{"
    if not is_tensors:
        known_suffix(path)
