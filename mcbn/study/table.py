"""The table of a study as text or bytes: CSV, Markdown, Parquet."""

import csv
import io
from typing import Any

from mcbn.io.extras import optional
from mcbn.study.results import Study


def to_csv(study: Study, *, cost: bool = False) -> str:
    """Every score in full, so that reading gives the same numbers back."""
    found = study.rows(cost=cost)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return buffer.getvalue()


def to_markdown(study: Study, *, cost: bool = False) -> str:
    """The shown scores, rounded, and of the other columns those that vary or tell the cell."""
    found = study.rows(cost=cost)
    scores = [study.column(name) for name in study.plan.shown]
    seconds = [name for name in (found[0] if found else ()) if name.endswith("_seconds")]
    always = ("training_batch_size", "method", "batch_size", "seed")
    axes = [
        name
        for name in list(found[0] if found else ())[:10]
        if name in always or len({row[name] for row in found}) > 1
    ]
    names = [*axes, *(name for name in scores if found and name in found[0]), *seconds]
    lines = [names, ["---"] * len(names), *([_written(row[n]) for n in names] for row in found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_parquet(study: Study, *, cost: bool = False) -> bytes:
    """Every score in full, as a Parquet file.

    Raises:
        ImportError: pyarrow is not installed.
    """
    arrow = optional("pyarrow", extra="parquet")
    parquet = optional("pyarrow.parquet", extra="parquet")
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(study.rows(cost=cost)), buffer)
    return buffer.getvalue()


def _written(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.4g}" if isinstance(value, float) else str(value)
