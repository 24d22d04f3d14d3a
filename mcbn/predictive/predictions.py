"""Predictions of one method for some examples, with their targets, as a file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcbn.io.display import Display, Displayed
from mcbn.io.extras import optional
from mcbn.io.plain import matches_type
from mcbn.io.tables import texts
from mcbn.io.tensors import read_tensors, write_tensors
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.frames import frame_of
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.positions import pieces
from mcbn.predictive.stored import (
    CATEGORICAL_TENSORS,
    StoredPredictive,
    from_tensors,
    is_complete,
    kind_of,
    require_classes,
    require_labels,
    require_names_of_outputs,
    require_real,
)

KIND = "predictions"


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Displayed):
    """Predictions of one method for some examples, with their targets where they are known.

    Attributes:
        method: name of the method.
        predictive: its predictive distribution; for regression, its moments if the draws were not
            kept.
        targets: class indices, 0 and 1 of each label, or real values; None for examples without
            targets, such as out-of-distribution inputs.
        data: description of the examples.
        classes: names of the classes or labels; empty where they are numbers from 0.
        columns: other values of each example, by name, such as groups to score separately.
        index: what identifies each example, by which several files are joined; None where it is
            not known.
        outputs: names of the real targets where there are several; empty where they are numbers
            from 0.
        units: of the real targets, one for all or one for each; empty where they are not known.
        ignore_index: the target of positions or labels of which the truth is not known, which are
            never scored; None if all are.
    """

    method: str
    predictive: StoredPredictive
    targets: Tensor | None
    data: str
    classes: tuple[str, ...] = ()
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    index: np.ndarray | None = None
    outputs: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    ignore_index: int | None = None

    def display(self) -> Display:
        """Whose predictions they are, and how certain."""
        inner = self.predictive.display()
        known = "without targets" if self.targets is None else "with targets"
        return replace(inner, heading=f"{self.method} on {self.data}, {known}: {inner.heading}")

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row per example: target, predictions, columns of the data.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there are positions, as of a segmentation.
        """
        frame = self.predictive.to_dataframe(self.classes or self.outputs)
        if self.targets is not None:
            several = isinstance(self.predictive, BernoulliPredictive)
            names = self.classes if several else self.outputs
            targets = frame_of({"target": self.targets}, names)
            if self.classes and not several:
                targets["target"] = [self.classes[k] for k in targets["target"]]
            frame = targets.join(frame)
        for name, values in self.columns.items():
            frame[name] = values
        if self.index is not None:
            frame.index = self.index
        return frame

    @property
    def scored(self) -> CategoricalPredictive | BernoulliPredictive | GaussianPredictive:
        """The distribution to score: of moments, the Gaussian that has them."""
        stored = self.predictive
        return stored.gaussian() if isinstance(stored, Moments) else stored

    @property
    def known_targets(self) -> Tensor:
        """The targets.

        Raises:
            ValueError: there are none.
        """
        if self.targets is None:
            raise ValueError(
                f"expected targets with the predictions of {self.method!r}, got none; predict data "
                "that has targets"
            )
        return self.targets

    @property
    def unit(self) -> str:
        """The unit of all real targets; empty where it is not known, or not the same for all."""
        return self.units[0] if len(set(self.units)) == 1 else ""

    def in_units(self, names: Sequence[str]) -> "Predictions":
        """The same predictions with the names of their units, if there are any.

        Raises:
            ValueError: they are of classes, or have another number of outputs.
        """
        given = self.predictive
        if not names:
            return self
        if isinstance(given, (CategoricalPredictive, BernoulliPredictive)):
            raise ValueError(
                f"expected units of real targets only, got {list(names)} with predictions of "
                "classes or labels; leave them out"
            )
        require_names_of_outputs(self.outputs, names, tuple(given.mean.shape))
        return replace(self, units=tuple(names))

    @property
    def by_output(self) -> dict[str, "Predictions"]:
        """Predictions of each output by its name, where there are several real ones; else empty."""
        given = self.predictive
        if isinstance(given, (CategoricalPredictive, BernoulliPredictive)):
            return {}
        shape = given.mean.shape
        # Other axes than the second are of positions, and so is that without names before them.
        count = shape[1] if len(shape) == 2 or (self.outputs and len(shape) > 2) else 1
        names = self.outputs or tuple(map(str, range(count)))
        if count < 2:
            return {}
        units = self.units if len(self.units) == count else self.units * count
        return {
            name: replace(
                self, predictive=given.output(k), outputs=(), units=units[k : k + 1],
                targets=None if self.targets is None else self.targets[:, k],
            )
            for k, name in enumerate(names)
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all, with the draws if they were kept."""
        header, tensors = self.contents()
        write_tensors(path, tensors, kind=KIND, header=header)

    def contents(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The header and the tensors of a file."""
        likelihood, names = kind_of(self.predictive)
        tensors = {
            name: value
            for name in (*names, "draws")
            if (value := getattr(self.predictive, name, None)) is not None
        }
        if self.targets is not None:
            tensors["targets"] = self.targets
        header: dict[str, Any] = {
            "method": self.method,
            "data": self.data,
            "draws": self.predictive.draw_count,
            "likelihood": likelihood,
            "classes": self.classes,
            "columns": {},
            "outputs": self.outputs,
            "units": self.units,
            "ignore_index": self.ignore_index,
        }
        for name, values in self.columns.items():
            header["columns"][name], tensors[f"columns.{name}"] = _coded(values)
        if self.index is not None:
            header["index"], tensors["index"] = _coded(self.index)
        return header, tensors

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, corrupted, of another version or not of predictions.
        """
        tensors, header = read_tensors(path, kind=KIND)
        # The first files had no such entry: they were all of classes.
        likelihood = header.get("likelihood", "categorical")
        if not (_is_header(header) and is_complete(tensors, likelihood)):
            raise ValueError(
                f"expected the tensors {CATEGORICAL_TENSORS} of classes, or those of labels or of "
                f"regression, in predictions, got {path} with "
                f"{ {name: tuple(value.shape) for name, value in tensors.items()} }; predict again"
            )
        predictive = from_tensors(tensors, likelihood, header["draws"])
        columns = _columns(tensors, header, path)
        # Data may have a column of that name.
        index = _decoded(tensors, "index", header.get("index"), path)
        index = columns.get("index") if index is None else index
        predictions = cls(
            header["method"], predictive, tensors.get("targets"), header["data"],
            tuple(header.get("classes", ())), columns, index,
            tuple(header.get("outputs", ())), tuple(header.get("units", ())),
            header.get("ignore_index"),
        )  # fmt: skip
        try:
            _require_valid(predictions)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error} (in {path})") from error
        return predictions

    def to_xarray(self) -> Any:
        """The predictions as an `xarray.Dataset`, with the dimensions that ArviZ expects.

        Summaries have the dimensions `case` and `class` (for regression `case` and `output`). Kept
        draws, `logits` for classes and `means` for regression, have `chain` (of length 1) and
        `draw` before those. Positions are `position_0` and so on.

        Raises:
            ImportError: xarray is not installed.
        """
        xarray = optional("xarray", extra="xarray")
        variables: dict[str, tuple[tuple[str, ...], Any]] = {}
        axes = {CategoricalPredictive: "class", BernoulliPredictive: "label"}
        axis = axes.get(type(self.predictive), "output")
        for name, value, over in _variables(self.predictive):
            lead: tuple[str, ...] = ("chain", "draw", "case") if over == "draws" else ("case",)
            lead = lead if over == "cases" else (*lead, axis)
            whole = value[None] if over == "draws" else value
            # A regression of one output may have no axis for it, and positions come last.
            lead = lead[: whole.ndim]
            extra = tuple(f"position_{place}" for place in range(whole.ndim - len(lead)))
            variables[name] = ((*lead, *extra), whole.cpu().numpy())
        if self.targets is not None:
            ends = () if axis == "class" else (axis,)
            names = ("case", *ends, *(f"position_{place}" for place in range(self.targets.ndim)))
            variables["target"] = (names[: self.targets.ndim], self.targets.cpu().numpy())
        coordinates: dict[str, Any] = {
            name: ("case", np.array(texts(values)))
            for name, values in self.columns.items()
            if name not in variables
        }
        coordinates["case"] = np.arange(len(self.predictive))
        for names in filter(None, (self.classes, self.outputs)):
            coordinates[axis] = np.array(names)
        about = {"method": self.method, "data": self.data, "draws": self.predictive.draw_count}
        return xarray.Dataset(variables, coords=coordinates, attrs=about)


def _variables(predictive: StoredPredictive) -> list[tuple[str, Tensor, str]]:
    """Name, values and dimensions of every quantity that is known."""
    variables: list[tuple[str, Tensor | None, str]]
    if isinstance(predictive, (CategoricalPredictive, BernoulliPredictive)):
        # Each label has uncertainties of its own, all classes have them together.
        together = isinstance(predictive, CategoricalPredictive)
        uncertainties = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")
        variables = [
            ("probability", predictive.probabilities, "classes"),
            ("variance", predictive.variance, "classes"),
            ("confidence", getattr(predictive, "confidence", None), "cases"),
            *((name, getattr(predictive, name), "cases" if together else "classes")
              for name in uncertainties),
            ("logits", predictive.draws, "draws"),
        ]  # fmt: skip
    else:
        variables = [(name, values, "classes") for name, values in predictive.spreads().items()]
        variables.append(("means", getattr(predictive, "means", None), "draws"))
    return [(name, value, over) for name, value, over in variables if value is not None]


def _is_header(header: Mapping[str, Any]) -> bool:
    """Whether a header has what every file has, of the right types."""
    return (
        matches_type(header.get("draws"), int)
        and matches_type(header.get("ignore_index"), int | None)
        and all(isinstance(header.get(name), str) for name in ("method", "data"))
        and all(
            matches_type(header.get(name, ()), tuple[str, ...])
            for name in ("classes", "outputs", "units")
        )
    )


def _require_valid(predictions: Predictions) -> None:
    """Check that the numbers are a distribution, and that targets and names fit it."""
    given, targets = predictions.predictive, predictions.targets
    values = {**predictions.columns, "index": predictions.index}
    for name, column in values.items():
        if column is not None and len(column) != len(given):
            raise ValueError(
                f"expected {len(given)} values of {name!r:.80}, got {len(column)}; predict again"
            )
    fits = targets is None or len(targets) == len(given)
    for part, of_part in pieces(given, targets) if fits else [(given, targets)]:
        _require_distribution(part, of_part, predictions)


def _require_distribution(
    given: StoredPredictive, targets: Tensor | None, predictions: Predictions
) -> None:
    if isinstance(given, CategoricalPredictive):
        if targets is not None and predictions.ignore_index is not None:
            targets = targets.masked_fill(targets == predictions.ignore_index, 0)
        require_classes(given, targets, predictions.classes)
        return
    if isinstance(given, BernoulliPredictive):
        require_labels(given, targets, predictions.classes, predictions.ignore_index)
        return
    require_names_of_outputs(predictions.outputs, predictions.units, tuple(given.mean.shape))
    require_real(given, targets)


def _columns(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: object
) -> dict[str, np.ndarray]:
    """The columns, which `save` writes as codes."""
    names = header.get("columns", {})
    names = names if isinstance(names, dict) else {"": names}
    decoded = {name: _decoded(tensors, f"columns.{name}", names[name], path) for name in names}
    return {name: values for name, values in decoded.items() if values is not None}


def _coded(values: np.ndarray) -> tuple[list[str], Tensor]:
    """The different texts of a column, sorted, and the place of each value among them."""
    words = texts(values)
    codes = {word: code for code, word in enumerate(sorted(set(words)))}
    return list(codes), torch.tensor([codes[word] for word in words])


def _decoded(
    tensors: Mapping[str, Tensor], name: str, distinct: Any, path: object
) -> np.ndarray | None:
    """The values of a column from its codes; None without any."""
    if distinct is None:
        return None
    try:
        return np.asarray(np.array(distinct, dtype=object)[tensors[name].numpy()])
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(
            f"expected columns of codes and their names in predictions, got {path}, which is "
            f"corrupted ({error}); predict again"
        ) from error
