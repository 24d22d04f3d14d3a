"""The results of a study: its plan, the scores of every finished cell, and tables of them."""

import csv
import io
import math
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from scipy.special import stdtrit

from mcbn.evaluation.glossary import limits
from mcbn.io.display import Display, Displayed
from mcbn.io.extras import optional
from mcbn.io.plain import matches_type
from mcbn.study import declaration
from mcbn.study.cell import Cell
from mcbn.study.plan import Plan
from mcbn.study.records import Item, shared_provenance
from mcbn.study.store import COST, ERROR, RESULT, Store

# Units of scores; the name of an out-of-distribution set may follow.
NATS = ("nll", "pll", "mutual_information")
TARGET_UNITS = ("rmse", "crps", "crps_moment_matched", "width_90")


@dataclass(frozen=True, repr=False)
class Result(Displayed):
    """A finished cell.

    Attributes:
        cell: its configuration.
        scores: scores by name: those of `evaluate`; the mean `mutual_information` and
            `epistemic_sd`, of the test examples and, as `..._NAME`, of each out-of-distribution
            set; and `auroc_NAME_by_mutual_information` and `auroc_NAME_by_entropy` of detecting it.
        seconds: wall time of `collect` (the bank), `predict` (the test examples), and the `total`
            with reading, out-of-distribution sets and scores.
    """

    cell: Cell
    scores: Mapping[str, float]
    seconds: Mapping[str, float]

    def display(self) -> Display:
        """Its cell and its scores."""
        rows = [(name, f"{value:.4g}") for name, value in self.scores.items()]
        return Display(str(self.cell), ("score", "value"), rows)


@dataclass(frozen=True)
class Point:
    """A mean over seeds and splits with its Student-t interval, which is NaN for a single value."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, repr=False)
class Study(Displayed):
    """The finished cells of a study, in the order of its plan.

    Attributes:
        plan: the plan of the study.
        results: the finished cells.
        failures: the errors of failed cells, by cell.
        missing: how many cells are neither finished nor failed.
        recommendation: the choice of batch size that a sweep made, as `BatchSizeChoice.to_dict`
            gives it; None without a sweep.
    """

    plan: Plan
    results: tuple[Result, ...]
    failures: Mapping[Cell, str]
    missing: int
    recommendation: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Study":
        """Read the finished cells of the study in `folder`, also while it runs.

        Raises:
            FileNotFoundError: there is no study in the folder.
            ValueError: a file is damaged, or cells were made from several networks or data sets.
        """
        store = Store.open(folder)
        plan = declaration.read_stored(store.declaration, store.given())
        return cls.from_store(store, plan)

    @classmethod
    def from_store(cls, store: Store, plan: Plan) -> "Study":
        """The cells of `plan` that are finished in a store.

        Raises:
            ValueError: a file is damaged, or networks or data sets of one name are several.
        """
        done, failed = store.keys("cells"), store.keys("failures")
        items: list[Item] = []
        results, failures, missing = [], {}, 0
        for cell in plan.cells():
            key = cell.key
            if key in done:
                items.append(("cells", key, cell))
                scores, seconds = (_numbers(store, key, name) for name in (RESULT, COST))
                results.append(Result(cell, scores, seconds))
            elif key in failed:
                failures[cell] = str(store.read_json("failures", key, ERROR).get("error"))
            else:
                missing += 1
        shared_provenance(store, items)
        return cls(plan, tuple(results), failures, missing, store.read_recommendation())

    def display(self) -> Display:
        """How far it is, what failed, and the mean score of every method."""
        done, failed = len(self.results), len(self.failures)
        heading = (
            f"Study {self.plan.title!r}: {done} of {done + failed + self.missing} cells done"
            f"{f', {failed} failed' if failed else ''}"
        )
        if best := (self.recommendation or {}).get("best"):
            heading += f", recommended M = {best:.4g}"
        rows = [("failed", str(cell), error) for cell, error in self.failures.items()]
        if rows:
            return Display(heading, ("", "cell", "error"), rows, words=3)
        score = "crps" if self.regression else "nll"
        by_method: dict[str, list[float]] = {}
        for result in self.results:
            by_method.setdefault(result.cell.label, []).append(result.scores.get(score, math.nan))
        return Display(heading, ("method", "cells", f"mean {score}"), [
            (method, str(len(values)), f"{statistics.fmean(values):.4g}")
            for method, values in by_method.items()
        ])  # fmt: skip

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of the methods with results, in the order of the plan."""
        return tuple(dict.fromkeys(result.cell.label for result in self.results))

    @property
    def training_batch_sizes(self) -> tuple[int, ...]:
        """Training batch sizes, ascending."""
        return tuple(sorted({result.cell.network.batch_size for result in self.results}))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Inference batch sizes M, ascending."""
        sizes = {result.cell.batch_size for result in self.results}
        return tuple(sorted(size for size in sizes if size is not None))

    @property
    def outside(self) -> tuple[str, ...]:
        """Names of the out-of-distribution sets."""
        return self.plan.data.outside

    @property
    def regression(self) -> bool:
        """Whether the targets of all data sets are real numbers."""
        return all(map(self.plan.has_real_targets, self.plan.data.names))

    def parts(self) -> dict[str, "Study"]:
        """Split the study by data set, network, N and T, so that parts vary in the other axes only.

        A part of one T also has the methods without a T. Keys name the values that vary; the only
        part of a study without any is "".
        """
        parts: dict[str, list[Result]] = {}
        varied = self._varied()
        for result in self.results:
            for draws in self.plan.inference.draws:
                if result.cell.chosen_draws in (None, draws):
                    values = _values_of_axes(result.cell, draws)
                    name = ", ".join(words for axis, words in values.items() if axis in varied)
                    parts.setdefault(name, []).append(result)
        return {
            name: replace(self, results=tuple(results), failures={}, missing=0)
            for name, results in parts.items()
        }

    def _varied(self) -> set[str]:
        """The axes that split a study and have more than one value."""
        plan = self.plan
        axes = {
            "data": plan.data.names,
            "network": plan.network.names,
            "N": plan.data.train_sizes,
            "T": plan.inference.draws,
        }
        return {axis for axis, values in axes.items() if len(set(values)) > 1}

    def select(self, label: str, training_batch_size: int, batch_size: int | None = None
               ) -> tuple[Result, ...]:  # fmt: skip
        """Results of one method at one pair of batch sizes, one per seed and split."""
        key = (label, training_batch_size, batch_size)
        return tuple(
            result
            for result in self.results
            if (result.cell.label, result.cell.network.batch_size, result.cell.batch_size) == key
        )

    def values(
        self, score: str, label: str, *, training_batch_size: int, batch_size: int | None = None
    ) -> dict[tuple[int, int], float]:
        """A score by split and seed, in a study of one part; NaN where it is not defined."""
        return {
            (result.cell.network.split, result.cell.network.seed): result.scores.get(
                score, math.nan
            )
            for result in self.select(label, training_batch_size, batch_size)
        }

    def point(
        self,
        score: str,
        label: str,
        *,
        training_batch_size: int,
        batch_size: int | None = None,
        level: float = 0.95,
    ) -> Point:
        """Mean of a score over seeds and splits, with the interval of that mean.

        Raises:
            KeyError: the study has no such cell.
        """
        chosen = self.select(label, training_batch_size, batch_size)
        if not chosen:
            raise KeyError(
                f"expected a cell of the study, got {(label, training_batch_size, batch_size)}; "
                f"methods are {self.methods}"
            )
        return bounded(point([result.scores[score] for result in chosen], level=level), score)

    def rows(self, *, cost: bool = False) -> list[dict[str, Any]]:
        """The table of the study: one dictionary per cell, all with the same keys in one order.

        Units are part of the names of columns; a score that is not defined is None.

        Args:
            cost: add wall times, which differ between runs.
        """
        names = sorted({name for result in self.results for name in result.scores})
        parts = sorted({name for result in self.results for name in result.seconds})
        rows = []
        for result in self.results:
            row = _axes(result.cell)
            row |= {self.column(name): _defined(result.scores.get(name)) for name in names}
            if cost:
                row |= {f"{name}_seconds": result.seconds.get(name) for name in parts}
            rows.append(row)
        return rows

    def column(self, score: str) -> str:
        """The name of a score's column: with its unit, unless it has none."""
        if score.startswith(NATS):
            return f"{score}_nats"
        if score in TARGET_UNITS or (self.regression and score == "epistemic_sd"):
            return f"{score}_target_units"
        return score

    def to_dataframe(self, *, cost: bool = False) -> Any:
        """The rows as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        return optional("pandas", extra="pandas").DataFrame.from_records(self.rows(cost=cost))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "plan": asdict(self.plan),
            "results": [asdict(result) for result in self.results],
            "failures": {str(cell): error for cell, error in self.failures.items()},
            "missing": self.missing,
        }


def _axes(cell: Cell) -> dict[str, Any]:
    """The columns of a row that identify its cell."""
    network = cell.network
    return {
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


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _values_of_axes(cell: Cell, draws: int) -> dict[str, str]:
    """The values of a cell on the axes that split a study, as text."""
    size = cell.network.train_size
    return {
        "data": cell.network.data,
        "network": cell.network.architecture,
        "N": "all N" if size is None else f"N = {size}",
        "T": f"T = {draws}",
    }


def point(values: list[float], *, level: float = 0.95) -> Point:
    """The mean of values with the Student-t interval of that mean; NaN if a value is NaN."""
    mean = statistics.fmean(values)
    if len(values) == 1 or not math.isfinite(mean):
        return Point(mean, float("nan"), float("nan"))
    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    half = quantile * statistics.stdev(values) / len(values) ** 0.5
    return Point(mean, mean - half, mean + half)


def bounded(estimate: Point, score: str) -> Point:
    """A mean of a score, whose interval ends where the score does.

    Student's interval of few seeds may reach beyond: an accuracy above 1. The true mean does not
    lie there, so what is cut off takes nothing from the chance that the interval holds it.
    """
    return _within(estimate, *limits(score))


def bounded_difference(estimate: Point, score: str) -> Point:
    """The same of a difference of two means: of two accuracies at most 1."""
    low, high = limits(score)
    return _within(estimate, low - high, high - low)


def _within(estimate: Point, low: float, high: float) -> Point:
    # A score of one's own may have a known name and another range: never an end beyond its mean.
    ends = min(low, estimate.mean), max(high, estimate.mean)
    return replace(estimate, low=max(estimate.low, ends[0]), high=min(estimate.high, ends[1]))


def _numbers(store: Store, key: str, name: str) -> dict[str, float]:
    """The numbers of a finished cell; null stands for a score that is not defined."""
    numbers = {}
    for label, value in store.read_json("cells", key, name).items():
        if not (value is None or matches_type(value, float)):
            path = store.path("cells", key, name)
            raise ValueError(
                f"expected a number for {label!r:.80} in {path}, got {value!r:.80}; remove the "
                f"folder {path.parent} and run the study again"
            )
        numbers[label] = math.nan if value is None else float(value)
    return numbers


def to_csv(study: Study, *, cost: bool = False) -> str:
    """All scores as CSV, in enough digits to read the same numbers back."""
    rows = study.rows(cost=cost)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def to_markdown(study: Study, *, cost: bool = False) -> str:
    """The scores of `plan.shown`, rounded, as a Markdown table with the axes that vary."""
    rows = study.rows(cost=cost)
    columns = list(rows[0]) if rows else []
    scores = [study.column(name) for name in study.plan.shown]
    seconds = [name for name in columns if name.endswith("_seconds")]
    always = ("training_batch_size", "method", "batch_size", "seed")
    axes = [name for name in columns[:10] if name in always or len({row[name] for row in rows}) > 1]
    names = [*axes, *(name for name in scores if name in columns), *seconds]
    lines = [names, ["---"] * len(names), *([_text(row[n]) for n in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_parquet(study: Study, *, cost: bool = False) -> bytes:
    """All scores as a Parquet file.

    Raises:
        ImportError: pyarrow is not installed.
    """
    arrow = optional("pyarrow", extra="parquet")
    parquet = optional("pyarrow.parquet", extra="parquet")
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(study.rows(cost=cost)), buffer)
    return buffer.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.4g}" if isinstance(value, float) else str(value)
