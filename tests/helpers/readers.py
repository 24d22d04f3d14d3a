"""All readers of files, each with a valid file that hostile ones are derived from."""

import functools
import gzip
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mcbn
from mcbn.cli.examples import Examples
from mcbn.io import tensors
from mcbn.io.tables import write_columns
from mcbn.io.tensors import draws_file, read_draws
from mcbn.network import checkpoints
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.tables import read_predictions, write_predictions
from mcbn.study import declaration
from mcbn.study.cell import Cell
from mcbn.study.plan import DataAxes, InferenceAxes, Plan, TrainingAxes
from mcbn.study.provenance import Provenance
from mcbn.study.records import make_record
from mcbn.study.results import Study
from mcbn.study.store import Store, as_json
from mcbn.tasks.readers import read_idx, read_numpy, read_table

FITTED = (
    mcbn.TemperatureScaling(1.5, 20),
    mcbn.TemperedCategorical(1.5),
    mcbn.VectorScaling((1.0, 2.0, 1.0), (0.0, 0.5, -0.5)),
    mcbn.Isotonic((0.1, 0.6), (0.2, 0.7), 5),
    mcbn.PlattScaling((1.0, 2.0), (0.0, -0.5)),
    mcbn.IsotonicByLabel(((0.1, 0.6), ()), ((0.2, 0.7), ()), (5, 0)),
    mcbn.ConformalLabels(0.9, 0.5, 12, 3),
    mcbn.ConformalSets(0.9, 0.5, 12, "adaptive", 3),
    mcbn.ConformalSetsByClass(0.9, (0.5, float("inf"), 1.5), (12, 3, 9), "adaptive", 3, (9, 3, 9)),
    mcbn.ConformalSetsBySubgroup(0.9, ("a", "b"), (0.5, float("inf")), (12, 3)),
    mcbn.ConformalIntervalsBySubgroup(0.9, ("a", "b"), (0.5, float("inf")), (12, 3), "quantile"),
    mcbn.VarianceScaling(2.0),
    mcbn.ConformalIntervals(0.9, float("inf"), 3),
)


REAL = (mcbn.VarianceScaling, mcbn.ConformalIntervals, mcbn.ConformalIntervalsBySubgroup)


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes:
        name: file name of a valid file.
        write: writes a valid file to a path.
        read: reads a file, and uses the result as the package does.
        is_text: whether the file is text.
        is_value: whether the reader takes values, so that its errors cannot name the path.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    is_text: bool = False
    is_value: bool = False

    def valid(self) -> bytes:
        """The bytes of a valid file."""
        return _valid(self.name)


@functools.cache
def _valid(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        next(each for each in READERS if each.name == name).write(path)
        return path.read_bytes()


def bank() -> mcbn.Bank:
    mean, variance = torch.tensor([[0.5, 1.0], [1.5, 2.0]]), torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    statistics = {"1.running_mean": mean, "1.running_var": variance}
    trained = {name: rows[0] for name, rows in statistics.items()}
    return mcbn.Bank(statistics, trained, 4, population=9, model="Net", weights="ab", source="hand")


def classes(*, columns=True, draws=False) -> mcbn.Predictions:
    logits = torch.randn((3, 6, 3), generator=torch.Generator().manual_seed(0))
    predictive = mcbn.Categorical().summarize(logits, keep_draws=draws)
    extra = {"site": np.array(list("abcabc"))} if columns else {}
    return mcbn.Predictions(
        "M", predictive, torch.arange(6) % 3, "six", ("cat", "dog", "eel"), extra
    )


def reals(*, keep_draws: bool) -> mcbn.Predictions:
    means = torch.randn((3, 6), generator=torch.Generator().manual_seed(0)).double()
    mixture = mcbn.Gaussian(precision=4.0).summarize(means)
    predictive = mixture if keep_draws else Moments.from_predictive(mixture)
    return mcbn.Predictions("M", predictive, means[0], "six")


def _use_bank(path: Path) -> None:
    loaded = mcbn.Bank.load(path)
    repr(loaded.rescale(2.0).first(1)), loaded.thin(1).pooled(), loaded.state(0)


def _write_draws(path: Path) -> None:
    header = {"method": "M", "data": "six"}
    with draws_file(path, examples=4, header=header) as add:
        add(torch.arange(12.0).view(2, 2, 3))
        add(torch.arange(12.0).view(2, 2, 3))


def _use_predictions(path: Path) -> None:
    predictions = read_predictions(path)
    if predictions.targets is not None:
        mcbn.evaluate(predictions.scored, predictions.targets, resamples=0)
    with tempfile.TemporaryDirectory() as folder:
        predictions.save(Path(folder) / "again")
        mcbn.Predictions.load(Path(folder) / "again")


def _table(predictions: mcbn.Predictions) -> Callable[[Path], object]:
    return lambda path: write_predictions(path, predictions)


def plan() -> Plan:
    return Plan(
        "hostile", DataAxes(train_sizes=(300,)), training=TrainingAxes((32,), 1),
        inference=InferenceAxes((8,), (2,)), methods=("Deterministic", "MCBN"), seeds=(0,),
    )  # fmt: skip


def _study(part: str) -> tuple[Callable[[Path], object], Callable[[Path], object]]:
    """A writer of the scores of a cell, and a reader of `part` of a study."""
    cell = plan().cells()[0]
    key = cell.key
    scores = as_json({"nll": 0.5, "accuracy": None})

    def read(path: Path) -> None:
        store = Store.create(path.parent / "study")
        store.discard("cells", key)
        files = {"scores.json": scores, "cost.json": as_json({"total": 1.0}),
                 "config.json": make_record(cell, Provenance())}  # fmt: skip
        store.commit("cells", key, {**files, part: path.read_bytes()})
        Study.from_store(store, plan()).rows(cost=True)

    return lambda path: path.write_bytes(scores), read


def _read_declaration(path: Path) -> None:
    read = declaration.read(path)
    read.cells()
    declaration.read_stored(path)


def _write_json(values: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(values))


def _fitted(given: Any) -> Reader:
    """A reader of a fitted recalibration, which is then applied."""

    def read(path: Path) -> None:
        loaded = type(given).from_dict(_values(path))
        by = {"by": list("aabbcc")} if hasattr(given, "names") else {}
        loaded(_taken_by(given), **by)
        type(given).from_dict(json.loads(json.dumps(loaded.to_dict())))

    name = f"{type(given).__name__.lower()}.json"
    return Reader(name, _write_json(given.to_dict()), read, is_text=True, is_value=True)


def _taken_by(given: Any) -> Any:
    """Predictions of the kind that a recalibration takes."""
    if isinstance(given, REAL):
        return reals(keep_draws=True).predictive
    if isinstance(given, (mcbn.PlattScaling, mcbn.IsotonicByLabel, mcbn.ConformalLabels)):
        logits = torch.randn((3, 6, 2), generator=torch.Generator().manual_seed(0))
        return mcbn.Bernoulli().summarize(logits)
    return classes(draws=True).predictive


def _values(path: Path) -> Any:
    """The values in a JSON file, read as a caller of the package would."""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError("expected JSON") from error
    if not isinstance(values, dict):  # else the type checks of the test run would refuse it
        raise ValueError("expected a JSON object")
    return values


def _read_cell(path: Path) -> None:
    str(Cell.from_dict(_values(path)).key)


def _write_idx(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x08\x02" + b"\0\0\0\3\0\0\0\2" + b"abcdef", mtime=0))


def _write_weights(path: Path) -> None:
    state = {k: torch.ones_like(v) for k, v in nn.BatchNorm1d(3).state_dict().items()}
    if path.suffix == ".safetensors":
        tensors.write_tensors(path, state, kind="weights", header={})
    else:
        torch.save(state, path)


def _read_weights(path: Path) -> None:
    checkpoints.load_network("readers:batch_norm", str(path))


def batch_norm() -> nn.Module:
    return nn.BatchNorm1d(3)


def _npz(path: Path) -> None:
    write_columns(path, {"inputs": np.ones((6, 2)), "targets": np.arange(6), "site": np.arange(6)})


def _write_examples(path: Path) -> None:
    arrays = {"inputs": torch.ones(6, 2), "targets": torch.arange(6), "site": torch.arange(6)}
    tensors.write_tensors(path, arrays, kind="examples", header={})


SCORES, COSTS = _study("scores.json"), _study("cost.json")
READERS = (
    Reader("bank.st", lambda path: bank().save(path), _use_bank),
    Reader("draws.st", _write_draws, read_draws),
    Reader("classes.st", lambda path: classes(draws=True).save(path), _use_predictions),
    Reader("gaussian.st", lambda path: reals(keep_draws=True).save(path), _use_predictions),
    Reader("moments.st", lambda path: reals(keep_draws=False).save(path), _use_predictions),
    Reader("classes.csv", _table(classes()), _use_predictions, is_text=True),
    Reader("classes.tsv", _table(classes()), _use_predictions, is_text=True),
    Reader("classes.csv.gz", _table(classes()), _use_predictions),
    Reader("reals.csv", _table(reals(keep_draws=False)), _use_predictions, is_text=True),
    Reader("classes.npz", _table(classes()), _use_predictions),
    Reader("classes.parquet", _table(classes(columns=False)), _use_predictions),
    Reader("examples.npz", _npz, Examples.from_file),
    Reader("examples.safetensors", _write_examples, Examples.from_file),
    Reader("study.yaml", lambda path: path.write_text(declaration.to_yaml(plan())),
           _read_declaration, is_text=True),
    Reader("scores.json", *SCORES, is_text=True),
    Reader("cost.json", *COSTS, is_text=True),
    Reader("cell.json", _write_json(asdict(plan().cells()[1])), _read_cell, is_text=True,
           is_value=True),
    *map(_fitted, FITTED),
    Reader("images.idx.gz", _write_idx, read_idx),
    Reader("table.txt", lambda path: path.write_text("1 2\n3 4\n"), read_table, is_text=True),
    Reader("table.gz", lambda path: path.write_bytes(gzip.compress(b"1 2\n3 4\n", mtime=0)),
           read_table),
    Reader("labels.npy", lambda path: np.save(path, np.arange(5)), read_numpy),
    Reader("test.npz", _npz, read_numpy),
    Reader("weights.pt", _write_weights, _read_weights),
    Reader("weights.safetensors", _write_weights, _read_weights),
)  # fmt: skip
