"""Targets in a file of columns: which columns they are."""

from collections.abc import Mapping, Sequence

import numpy as np

from mcbn.io.tables import column
from mcbn.predictive.labels import by_number, is_whole, loose_key

Columns = Mapping[str, np.ndarray]
TARGETS = ("target", "targets", "label", "labels", "y", "y_true", "truth", "ground_truth",
           "actual", "observed")  # fmt: skip


def target_columns(
    columns: Columns, name: str | None, path: object, suffixes: Sequence[str] = ()
) -> dict[str, str]:
    """The columns of targets by what tells them apart: "" of one column; none if there are none.

    Args:
        columns: by name.
        name: of the column, or of what the columns of several outputs or votes begin with; None
            to look for one of `TARGETS`.
        path: of the file.
        suffixes: what may follow such a beginning and "_"; numbers may in any case.

    Raises:
        ValueError: there is no column of the given name, or several could be meant.
    """
    if name is not None:
        if not (found := _beginning_with(name, columns)):
            column(columns, name, path)
        return found
    either = {each: _beginning_with(each, columns, suffixes) for each in TARGETS}
    present = [each for each in TARGETS if each in columns] or [k for k in either if either[k]]
    if len(present) > 1:
        raise ValueError(
            f"expected one column of targets in {path}, got {present}; choose one by target= or "
            "--target"
        )
    return either[present[0]] if present else {}


def _beginning_with(
    name: str, columns: Columns, suffixes: Sequence[str] | None = None
) -> dict[str, str]:
    """The column of a name, or those that it and "_" begin, sorted by number."""
    if name in columns:
        return {"": name}
    after = [each.removeprefix(f"{name}_") for each in columns if each.startswith(f"{name}_")]
    keys = None if suffixes is None else set(map(loose_key, suffixes))
    allowed = [each for each in after if keys is None or is_whole(each) or loose_key(each) in keys]
    return {each: f"{name}_{each}" for each in sorted(allowed, key=by_number)}
