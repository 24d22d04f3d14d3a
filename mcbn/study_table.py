"""The results of a study as a table: a row a cell, units in the names of the columns."""

import csv
import importlib
import io
import math
from typing import Any

from mcbn.study import Study

# Units of scores; the rest are shares, or have none. Outside sets follow their score.
NATS = ("nll", "pll", "mutual_information")
TARGET_UNITS = ("rmse", "crps", "crps_moment_matched", "width_90")


def rows(study: Study, *, cost: bool = False) -> list[dict[str, Any]]:
    """One dictionary a cell, all with the same keys in the same order; None where undefined."""
    names = sorted({name for result in study.results for name in result.scores})
    parts = sorted({name for result in study.results for name in result.seconds})
    found = []
    for result in study.results:
        network, cell = result.cell.network, result.cell
        row: dict[str, Any] = {
            "data": network.data,
            "split": network.split,
            "train_size": network.train_size,
            "network": network.architecture,
            "training_batch_size": network.batch_size,
            "dropout": network.dropout,
            "method": cell.method,
            "batch_size": cell.batch_size,
            "draws": cell.draws,
            "seed": network.seed,
        }
        row |= {column(name, study): _known(result.scores.get(name)) for name in names}
        if cost:
            row |= {f"{name}_seconds": result.seconds.get(name) for name in parts}
        found.append(row)
    return found


def column(score: str, study: Study) -> str:
    """The name of a score's column, with its unit."""
    if score.startswith(NATS):
        return f"{score}_nats"
    if score in TARGET_UNITS or (study.regression and score == "epistemic_sd"):
        return f"{score}_target_units"
    return score


def to_csv(study: Study, *, cost: bool = False) -> str:
    """Every score in full, so that reading gives the same numbers back."""
    found = rows(study, cost=cost)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return buffer.getvalue()


def to_markdown(study: Study, *, cost: bool = False) -> str:
    """The shown scores, rounded, and of the other columns those that vary or tell the cell."""
    found = rows(study, cost=cost)
    scores = [column(name, study) for name in study.plan.shown]
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
    arrow = _optional("pyarrow", "parquet")
    parquet = _optional("pyarrow.parquet", "parquet")
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows(study, cost=cost)), buffer)
    return buffer.getvalue()


def to_dataframe(study: Study, *, cost: bool = False) -> Any:
    """A pandas frame, a row a cell.

    Raises:
        ImportError: pandas is not installed.
    """
    return _optional("pandas", "pandas").DataFrame.from_records(rows(study, cost=cost))


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _written(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _optional(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"expected the package {package} for this format, got {error}; install it with "
            f"pip install 'mcbn[{extra}]', or take csv"
        ) from error
