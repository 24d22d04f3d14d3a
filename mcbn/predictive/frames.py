"""Columns of one value per example, as data frames hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mcbn.io.extras import optional


def frame_of(columns: Mapping[str, Tensor | None], names: Sequence[str]) -> Any:
    """A pandas DataFrame with a row per example, without the columns that are not known.

    Args:
        columns: by name, axes (examples) or (examples, names); the latter become a column each.
        names: of the second axis; by default its numbers.

    Raises:
        ImportError: pandas is not installed.
        ValueError: there are positions, as of a segmentation.
    """
    flat = {}
    for name, values in columns.items():
        if values is None:
            continue
        if values.ndim > 2:
            raise ValueError(
                f"expected one prediction per example for a data frame, got {name!r} of shape "
                f"{tuple(values.shape)}; choose a position first"
            )
        rows = values.detach().cpu()
        if rows.ndim == 1 or rows.shape[1] == 1:
            flat[name] = rows.flatten().numpy()
            continue
        each = names or range(rows.shape[1])
        flat |= {f"{name}_{key}": rows[:, k].numpy() for k, key in enumerate(each)}
    return optional("pandas", extra="pandas").DataFrame(flat)


def spread_row(name: str, values: Tensor) -> tuple[str, ...]:
    """The mean, the least and the largest of some values, as a row that is shown."""
    ends = (values.mean(), *values.aminmax())
    return name, *(f"{float(end):.4g}" for end in ends)
